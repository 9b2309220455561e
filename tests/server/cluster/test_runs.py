"""One run at a time has a target, in a folder and in a bucket; a run whose process is gone is followed by the
next one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chorus_server.cluster import runs
from chorus_server.cluster.files import bucket_of
from chorus_server.cluster.runs import TargetRun, check_newest, only_run
from chorus_server.errors import ConflictError, InvalidInputError
from chorus_server.settings import Settings
from prompts_store.blobs.bucket import Bucket
from tests.s3_server import S3Server


@pytest.fixture(params=["folder", "bucket"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    if request.param == "folder":
        return bucket_of(Settings(), f"file://{tmp_path}/out", "target")
    server: S3Server = request.getfixturevalue("s3_server")
    return server.address().bucket()


class Watching:
    """How long somebody watched another run. Its time passes at once; a run that goes on is written again."""

    def __init__(self, run: TargetRun | None = None) -> None:
        self.seconds = 0.0
        self._run = run

    def __call__(self, seconds: float) -> None:
        self.seconds += seconds
        if self._run is not None:
            self._run.beat()


def begun(target: Bucket, pause: Callable[[float], object] = lambda seconds: None) -> TargetRun:
    """A run whose process is killed: it never ends."""
    return runs._take(target, pause)


def test_runs_follow_one_another(target: Bucket) -> None:
    for number in (1, 2, 3):
        watching = Watching()
        with only_run(target, watching) as run:
            run.check()
            check_newest(target, run.number)
            assert (run.number, watching.seconds) == (number, 0)
    assert [path for path, _ in target.entries("_runs")] == ["_runs/3.json"]


def test_a_second_run_is_refused_while_the_first_goes_on(target: Bucket) -> None:
    with only_run(target) as first:
        watching = Watching(first)
        who = f"process .*{first._told['began']}"
        with pytest.raises(ConflictError, match=who) as caught, ExitStack() as stack:
            stack.enter_context(only_run(target, watching))
        assert caught.value.field == "target" and watching.seconds < runs.SILENT_SECONDS
        first.check()
    with only_run(target, Watching()) as second:
        assert second.number > first.number


def test_control_a_run_that_is_silent_has_lost_the_target(target: Bucket) -> None:
    gone, watching = begun(target), Watching()
    with only_run(target, watching) as second:
        assert watching.seconds == runs.SILENT_SECONDS
        gone.beat()  # it only stood still
        with pytest.raises(ConflictError):
            gone.check()
        with pytest.raises(ConflictError):
            check_newest(target, gone.number)
        gone.start()
        gone.end()
        second.check()
        with pytest.raises(ConflictError), ExitStack() as stack:
            stack.enter_context(only_run(target, Watching(second)))


def test_of_many_that_begin_at_once_one_has_the_target(target: Bucket) -> None:
    first, together, taken = begun(target), threading.Barrier(4), threading.Event()
    first.start()
    first.end()
    found: list[TargetRun | Exception] = []

    def watch(_: float) -> None:
        taken.wait()
        for run in found:
            if isinstance(run, TargetRun):
                run.beat()

    def begin() -> None:
        together.wait()
        try:
            found.append(begun(target, watch))
            taken.set()
        except ConflictError as error:
            found.append(error)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    (run,) = (one for one in found if isinstance(one, TargetRun))
    assert len(found) == 4
    check_newest(target, run.number)


def test_a_bucket_that_makes_objects_over_others_is_refused(
    target: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overwriting(bucket: Bucket, key: str, content: bytes) -> Any:
        bucket.put(key, content)
        return True

    monkeypatch.setattr(Bucket, "create", overwriting)
    with pytest.raises(InvalidInputError, match="If-None-Match"), ExitStack() as stack:
        stack.enter_context(only_run(target))
    assert not list(target.entries("_runs"))
