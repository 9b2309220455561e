"""A fault at every step of what writes usage: hours add up to their rows, and what is done again counts
once."""

from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

from prompts_store import PromptStore
from prompts_store.testing import FakeClock, Fault
from prompts_store.usage import usage as usage_module
from tests.faults.store_faults import MAX_STEPS, attempt, faulty_store, sweep
from tests.prompts_store.usage.usage_rows import REPLICA, added, in_tables, random_rows

ROWS = random_rows(9, 60)


@pytest.mark.parametrize("fault", ["die", "EIO"])
def test_rows_and_their_hours_are_written_together_or_not_at_all(tmp_path: Path, fault: Fault) -> None:
    clock = FakeClock()
    with closing(PromptStore.open(tmp_path, clock=clock)) as observer:
        observer.record_usage(REPLICA, ROWS[:20])
        store, files = faulty_store(tmp_path, clock)
        with closing(store):
            steps = sweep(
                store,
                files,
                lambda store: store.record_usage(REPLICA, ROWS[10:]),
                fault,
                look=lambda: in_tables(observer),
                old=(added(ROWS[:20])[()],) * 2,
                new=(added(ROWS)[()],) * 2,
                again=lambda: None,
            )
        assert steps > 5
        assert observer.record_usage(REPLICA, ROWS) == 0, "again, after a commit that nobody heard of"
        assert in_tables(observer) == (added(ROWS)[()],) * 2


@pytest.mark.parametrize("fault", ["die", "EIO"])
def test_writing_again_after_a_fault_at_any_step_counts_once(tmp_path: Path, fault: Fault) -> None:
    clock = FakeClock()
    for step in range(1, MAX_STEPS):
        with closing(PromptStore.open(tmp_path / str(step), clock=clock)) as observer:
            store, files = faulty_store(tmp_path / str(step), clock)
            with closing(store):
                finished = attempt(store, files, fault, step, lambda store: store.record_usage(REPLICA, ROWS))
            observer.record_usage(REPLICA, ROWS)
            assert in_tables(observer) == (added(ROWS)[()],) * 2
            if finished:
                return
    pytest.fail(f"not finished after {MAX_STEPS} steps")


@pytest.mark.parametrize("fault", ["die", "EIO"])
def test_dropping_that_was_cut_off_at_any_step_is_gone_on_with(
    tmp_path: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_module, "_AT_ONCE", 20)
    clock = FakeClock()
    clock.advance(86_400 * 600)
    for step in range(1, MAX_STEPS):
        with closing(PromptStore.open(tmp_path / str(step), clock=clock)) as observer:
            observer.record_usage(REPLICA, ROWS)
            store, files = faulty_store(tmp_path / str(step), clock)
            with closing(store):
                finished = attempt(store, files, fault, step, lambda store: store.drop_usage())
            rows, hours = in_tables(observer)
            assert rows[0] <= hours[0], "rows go before their hours"
            observer.drop_usage()
            assert in_tables(observer) == ((0, 0, 0, 0),) * 2
            if finished:
                return
    pytest.fail(f"not finished after {MAX_STEPS} steps")


def test_control_rows_that_are_added_up_afterwards_come_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one transaction for both, a fault between them leaves hours that lack the rows."""
    clock = FakeClock()

    def committed_first(connection: Connection, rows: object) -> None:
        connection.commit()
        together(connection, rows)  # type: ignore[arg-type]

    together = usage_module._roll_up
    monkeypatch.setattr(usage_module, "_roll_up", committed_first)
    short = 0
    with closing(PromptStore.open(tmp_path, clock=clock)) as observer:
        store, files = faulty_store(tmp_path, clock)
        with closing(store):
            for step in range(1, 12):
                attempt(store, files, "EIO", step, lambda store: store.record_usage(REPLICA, ROWS))
                rows, hours = in_tables(observer)
                short += rows != hours
    assert short
