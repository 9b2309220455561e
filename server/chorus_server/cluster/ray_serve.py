"""The Ray Serve application.

    serve run chorus_server.cluster.ray_serve:application

Its settings are those of `chorus serve`, from CHORUS_* variables of the replicas' environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from chorus_server.errors import ChorusError, InvalidInputError, startup_message
from chorus_server.log import process_log
from chorus_server.settings import Settings, load_settings
from prompts_store.errors import StoreError

if TYPE_CHECKING:
    from chorus_server.cluster.replica import Replica

MAX_ONGOING_REQUESTS = 256
"""Requests that Ray sends to a replica at a time. Beyond that they go to the next one, and wait in the proxy
when all have as many."""

_GRACE_SECONDS = 10.0
"""After `drain_seconds` the replica has ended by itself; so much later Ray kills it."""

_LOOK_SECONDS = 0.2
_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


def application(args: dict[str, str]) -> Any:
    """What `serve run` starts: one deployment, `chorus`.

    Args:
        args: must be empty.

    Raises:
        InvalidInputError: there are arguments, or a setting is not acceptable.
    """
    if args:
        raise InvalidInputError(
            f"The application takes no arguments, got {', '.join(sorted(args))[:200]}: set CHORUS_* "
            "variables in the environment of the replicas (runtime_env.env_vars)."
        )
    return deployment(load_settings()).bind()


def deployment(settings: Settings) -> Any:
    """The deployment, with what Ray has to know of the settings. A Serve config may change its options."""
    from ray import serve

    # Requests with one x-session-id go to one replica, as long as it takes them. HAProxy has a way of its
    # own, and Ray refuses a router then.
    router = {} if _haproxy() else {"request_router_config": {"request_router_class": _ROUTER}}
    return serve.deployment(
        serve.ingress()(RayReplica),
        name="chorus",
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        **router,
        graceful_shutdown_timeout_s=_notice_seconds() + settings.drain_seconds + _GRACE_SECONDS,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=2,
        # A new replica is ready before an old one goes.
        max_surge_percent=1,
    )


class RayReplica:
    """What Ray Serve calls in a replica's process, on one event loop."""

    def __init__(self) -> None:
        self._replica: Replica | None = None
        self._stack = contextlib.ExitStack()

    async def __serve_build_asgi_app__(self) -> Any:
        """Start. Ray sends requests once this has returned."""
        from chorus_server.cluster.replica import Replica  # not in the process that reads a Serve config

        settings = load_settings()
        as_json = settings.log_format == "json"
        logging.getLogger().handlers.clear()  # Ray's, which would write each line once more
        log = self._stack.enter_context(process_log("chorus", settings.log_level, as_json))
        host = await asyncio.to_thread(_proxy_host)
        try:
            self._replica = Replica(settings, host, log.say, lambda: log.lost)
            await self._replica.start()
        except (ChorusError, StoreError, OSError) as error:
            raise RuntimeError(f"cannot start: {startup_message(error)}") from None
        self._watch = asyncio.create_task(self._watch_end(settings.drain_seconds))
        return self._replica.front

    async def check_health(self) -> None:
        """Ray replaces a replica whose engine died."""
        if self._replica is not None:
            self._replica.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Read by `scaling.QueuedWork`."""
        return {} if self._replica is None else self._replica.load()

    async def _watch_end(self, drain_seconds: float) -> None:
        """Drain from the moment when Ray begins to stop this replica. `__del__` comes only when nothing is
        under way any more, and whoever follows a job does not leave by himself."""
        while not _stopping():  # noqa: ASYNC110 - there is nothing to wait for
            await asyncio.sleep(_LOOK_SECONDS)
        assert self._replica is not None
        self._replica.begin_drain(_notice_seconds() + drain_seconds)

    async def __del__(self) -> None:
        if self._replica is not None:
            await self._replica.close()
            self._stack.close()


def _proxy_host() -> str:
    """The address that Ray's proxies listen on. Ray has no public name for it."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    return str(client.http_config.host or "127.0.0.1")


def _stopping() -> bool:
    """Whether Ray has begun to stop this replica. Ray tells it nobody: it is an attribute of its actor."""
    from ray._private.worker import global_worker

    actor = global_worker.actors.get(global_worker.actor_id)
    return bool(getattr(getattr(actor, "_replica_impl", None), "_shutting_down", False))


def _haproxy() -> bool:
    """Whether HAProxy is in front, in place of Ray's own proxy."""
    return os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"


def _notice_seconds() -> float:
    """How long HAProxy may still send requests to a replica that is being stopped."""
    if not _haproxy():
        return 0.0
    return float(os.environ.get("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "30"))
