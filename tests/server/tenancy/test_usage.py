"""Rows of usage come to the database whatever happens to it on the way, and are counted once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from chorus_server.engine.requests import Origin
from chorus_server.engine.work import Settled
from chorus_server.metrics import MetricsRegistry
from chorus_server.tenancy.metrics import UsageMetrics
from chorus_server.tenancy.usage import UsageRecorder
from chorus_server.tenancy.usage_spool import SpoolFile, line_of, row_of
from prompts_store.errors import StoreError
from prompts_store.store import PromptStore
from prompts_store.testing import FakeClock
from prompts_store.usage.records import UsageRow
from tests.prompts_store.usage.usage_rows import in_tables

AT = 1_767_225_600_123_456_789  # 1 January 2026


def settled(number: int) -> Settled:
    origin = Origin(
        f"r{number}", "acme", "acme/sst2", key="key-1", digest="d" * 64, call=f"req_{number}", item=2
    )
    return Settled(origin, "answered", 7, 3, 10)


class Outage:
    """The store's way in, which can be closed."""

    def __init__(self, store: PromptStore) -> None:
        self.store = store
        self.away = False
        self.after_commit = False

    def __call__(self, replica: str, rows: Sequence[UsageRow]) -> None:
        if self.away and not self.after_commit:
            raise StoreError("The database is away.")
        self.store.record_usage(replica, rows)
        if self.away:
            raise StoreError("The database did not say whether it took them.")


@pytest.fixture
def outage(tmp_path: Path) -> Iterator[Outage]:
    with closing(PromptStore.open(tmp_path / "data", clock=FakeClock())) as store:
        yield Outage(store)


@contextmanager
def recording(outage: Outage, folder: Path, limit_bytes: int = 1 << 20) -> Iterator[UsageRecorder]:
    """A recorder whose steps a test takes itself; closed afterwards."""
    metrics = UsageMetrics(MetricsRegistry())
    recorder = UsageRecorder(outage, folder, metrics, limit_bytes=limit_bytes, clock=lambda: AT)
    yield recorder
    recorder.close(300)


def items(outage: Outage) -> int:
    rows, hours = in_tables(outage.store)
    assert rows == hours
    return rows[0]


def test_a_row_has_what_it_should(outage: Outage, tmp_path: Path) -> None:
    with recording(outage, tmp_path / "usage") as recorder:
        recorder.record(settled(1))
        recorder.save()
        recorder.send()
    taken: list[UsageRow] = []
    line = line_of(5, AT // 1000, settled(1))
    row = row_of(line)
    assert row is not None
    taken.append(row)
    assert (row.sequence, row.tenant, row.key, row.task, row.digest) == (
        5, "acme", "key-1", "acme/sst2", "d" * 64,
    )  # fmt: skip
    assert (row.outcome, row.tokens_in, row.tokens_out, row.work_units) == ("answered", 7, 3, 10)
    assert (row.request_id, row.item, row.at.microsecond) == ("req_1", 2, 123456)
    assert items(outage) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\x00" * 40,
        b"[1,2",
        b"{}",
        b"[1,2,3]",
        line_of(1, 2, settled(1)).replace(b'"acme"', b"7"),
        line_of(1, 2, settled(1)).replace(b'"acme"', b'"' + b"a" * 65 + b'"'),
        line_of(1, 2, settled(1)).replace(b"answered", b"lost"),
        line_of(1, 2, settled(1)).replace(b"[1,", b"[true,"),
        line_of(1, 2, settled(1)).replace(b"[1,", b"[-1,"),
        line_of(1, 10**18, settled(1)),
    ],
)
def test_a_damaged_line_is_no_row(line: bytes) -> None:
    assert row_of(line) is None


def test_an_outage_delays_rows_and_loses_none(outage: Outage, tmp_path: Path) -> None:
    with recording(outage, tmp_path / "usage") as recorder:
        for outage.after_commit in (False, True):
            outage.away = True
            for _ in range(10):
                recorder.record(settled(1))
                recorder.save()
                with pytest.raises(StoreError):
                    recorder.send()
            assert recorder.waiting_bytes > 0
            outage.away = False
            recorder.send()
            assert recorder.waiting_bytes == 0
        assert items(outage) == 20


def test_the_threads_bring_rows_without_help(outage: Outage, tmp_path: Path) -> None:
    with recording(outage, tmp_path / "usage") as recorder:
        recorder.start()
        for number in range(100):
            recorder.record(settled(number))
    assert items(outage) == 100
    assert not list((tmp_path / "usage").glob("*"))


def test_an_end_without_the_database_leaves_rows_for_the_next_start(outage: Outage, tmp_path: Path) -> None:
    outage.away = True
    with recording(outage, tmp_path / "usage") as recorder:
        recorder.start()
        for number in range(100):
            recorder.record(settled(number))
    assert items(outage) == 0 and list((tmp_path / "usage").glob("*"))
    outage.away = False
    with recording(outage, tmp_path / "usage") as recorder:
        recorder.start()
    assert items(outage) == 100
    assert not list((tmp_path / "usage").glob("*"))


def test_an_end_does_not_wait_for_a_database_that_hangs(outage: Outage, tmp_path: Path) -> None:
    reached, gate = threading.Event(), threading.Event()

    def hang(replica: str, rows: Sequence[UsageRow]) -> None:
        reached.set()
        assert gate.wait(300)

    recorder = UsageRecorder(hang, tmp_path / "usage", UsageMetrics(MetricsRegistry()))
    recorder.start()
    recorder.record(settled(1))
    assert reached.wait(300)
    recorder.record(settled(2))
    recorder.close(0.01)
    (file,) = (tmp_path / "usage").glob("*.jsonl")
    assert file.read_bytes().count(b"\n") == 2, "a write that hangs does not keep rows from the disk"
    gate.set()


def test_a_living_processs_rows_are_left_to_it(outage: Outage, tmp_path: Path) -> None:
    with recording(outage, tmp_path / "usage") as living, recording(outage, tmp_path / "usage") as other:
        living.record(settled(1))
        living.save()
        other.start()
        other.record(settled(2))
        other.close(300)
        assert items(outage) == 1
        living.send()
        assert items(outage) == 2


def test_beyond_the_limit_the_oldest_are_kept_and_the_rest_is_counted(
    outage: Outage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = len(line_of(1, AT // 1000, settled(1)))
    outage.away = True
    with recording(outage, tmp_path / "usage", limit_bytes=5 * line) as recorder:
        for number in (1, 2, 3):
            for _ in range(3):
                recorder.record(settled(number))
            recorder.save()
        (file,) = (tmp_path / "usage").glob("*.jsonl")
        kept = [row_of(kept) for kept in file.read_bytes().splitlines()]
        assert [row and row.request_id for row in kept] == ["req_1"] * 3 + ["req_2"] * 2
        lost = recorder._metrics.rows_lost._made.labels("full")._value.get()
        assert lost == 4
        assert [record.getMessage().split(":")[0] for record in caplog.records] == ["usage is lost"], "once"
        outage.away = False
        recorder.send()
        recorder.record(settled(4))
        recorder.save()
        recorder.send()
    assert items(outage) == 6


def test_a_full_disk_loses_nothing_while_the_database_works(
    outage: Outage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: SpoolFile, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with recording(outage, tmp_path / "usage") as recorder:
        with monkeypatch.context() as patch:
            patch.setattr(SpoolFile, "append", full)
            for number in range(3):
                recorder.record(settled(number))
                recorder.save()
            outage.away = True
            with pytest.raises(StoreError):
                recorder.send()
            outage.away = False
            recorder.send()
            assert items(outage) == 3 and recorder.waiting_bytes == 0
            recorder.record(settled(4))
            recorder.save()
        recorder.save()
        recorder.send()
    assert items(outage) == 4


def test_an_append_that_fails_halfway_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SpoolFile.create(tmp_path, "0" * 16)
    file.append(b"[1]\n")

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="Input"):
            file.append(b"[2]\n")
    file.append(b"[3]\n")
    assert file.read()[0] == [b"[1]", b"[3]"]
    file.close()


def test_a_folder_that_cannot_be_read_stops_nobody(outage: Outage, tmp_path: Path) -> None:
    (tmp_path / "usage").write_text("a file where a folder must be")
    with recording(outage, tmp_path / "usage") as recorder:
        recorder.start()
        recorder.record(settled(1))
        recorder.save()
    assert items(outage) == 1
