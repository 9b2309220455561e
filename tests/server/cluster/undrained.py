"""The application without what it does when Ray stops a replica: the control of a test."""

from __future__ import annotations

from typing import Any

from chorus_server.cluster import ray_serve


class Undrained(ray_serve.RayReplica):
    async def _watch_end(self, drain_seconds: float) -> None: ...

    async def __del__(self) -> None: ...


def application(args: dict[str, str]) -> Any:
    ray_serve.RayReplica = Undrained  # type: ignore[misc]
    return ray_serve.application(args)
