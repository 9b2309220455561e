"""How a followed job looks: its plot, its screen, its lines."""

from __future__ import annotations

import io
import itertools
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from chorus.cli.job_lines import JobLines
from chorus.cli.job_live import JobScreen
from chorus.cli.job_view import JobView, duration
from chorus.cli.plot import plot
from chorus.types import JobEvent

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def event(kind: str, after: float = 0, **data: Any) -> JobEvent:
    return JobEvent(seq=1, at=NOON + timedelta(seconds=after), kind=kind, data=data)


def step(number: int, *losses: float | None, after: float = 0, **data: Any) -> JobEvent:
    told = {
        "step": number,
        "steps": 100,
        "losses": list(losses),
        "steps_per_second": 2.0,
        "seconds_left": 40.0,
    }
    return event("step", after, **told | data)


def evaluated(number: int, value: float, *, prompt: int = 0, best: bool = True, **data: Any) -> JobEvent:
    metrics = {"accuracy": value, "mean": value}
    told = {"prompt": prompt, "task": "sst2", "step": number, "split": "validation", "metrics": metrics}
    return event("evaluated", best=best, **told | data)


def view_of(*events: JobEvent) -> JobView:
    view = JobView()
    for one in events:
        view.apply(one)
    return view


def drawn(
    view: JobView, *, width: int = 80, encoding: str = "utf-8", passed: float = 0, tasks: int = 1
) -> str:
    """The screen as text."""

    class File(io.StringIO):
        @property
        def encoding(self) -> str:  # type: ignore[override]
            return encoding

    file = File()
    console = Console(file=file, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    names = [f"default/sst{n + 2}" for n in range(tasks)]
    console.print(JobScreen(view, "job-1", names, lambda: NOON + timedelta(seconds=passed)))
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    return "\n".join(lines)


# The plot.


def test_a_falling_curve_falls() -> None:
    drawn = plot([(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.0)], 12, 4, unicode=False)
    assert drawn.lines == ["      4 *", "         *", "          *", "      1    *"]
    assert plot([(0, 0.0), (1, 1.0)], 10, 1).lines == ["      0 ⡠⠊"]


def test_a_flat_curve_names_its_value_once() -> None:
    lines = plot([(0, 0.5), (5, 0.5)], 14, 3, unicode=False).lines
    assert lines == ["", "    0.5 ******", ""]


def test_points_that_share_a_column_are_drawn_as_their_mean() -> None:
    points = [(x, float(x % 2)) for x in range(1000)]
    lines = plot(points, 18, 3, unicode=False).lines
    assert 0.4 < float(lines[-1].split()[0]) < float(lines[0].split()[0]) < 0.6


def test_the_axis_leaves_room_for_what_is_to_come() -> None:
    points = [(0, 0.0), (50, 1.0)]
    half = plot(points, 48, 5, axis=(0, 100), unicode=False)
    whole = plot(points, 48, 5, unicode=False)
    assert max(map(len, half.lines)) == 29 and max(map(len, whole.lines)) == 48


def test_a_long_fall_is_drawn_by_its_logarithm() -> None:
    points = [(x, 10 * math.exp(-x / 20)) for x in range(100)]
    drawn = plot(points, 48, 9, unicode=False)
    assert drawn.logarithmic and not plot(points[:20], 48, 9).logarithmic
    rows = [line[8:].find("*") for line in drawn.lines]
    gaps = [after - before for before, after in itertools.pairwise(rows)]
    assert max(gaps) - min(gaps) <= 2, "a straight line"


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60),
    st.integers(9, 60),
    st.integers(1, 12),
    st.booleans(),
    st.one_of(st.none(), st.tuples(st.floats(0, 100), st.floats(0, 100))),
)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_any_values_fit_the_frame(
    values: list[float], width: int, height: int, unicode: bool, axis: tuple[float, float] | None
) -> None:
    lines = plot(list(enumerate(values)), width, height, axis=axis, unicode=unicode).lines
    assert len(lines) == height
    assert max(map(len, lines)) <= width


# The screen.


def test_a_running_job_shows_where_it_is() -> None:
    view = view_of(
        event("status", status="queued"),
        event("status", status="running"),
        *(step(n, 4.0 / n) for n in range(1, 41)),
        evaluated(20, 0.7),
        evaluated(40, 0.65, best=False),
        event("warning", message="3 rows are copies of others"),
    )
    text = drawn(view, passed=10)
    assert "default/sst2  running  job-1" in text
    assert "step 40 of 100  2 steps/s  30s left" in text, "ten of the forty seconds have passed"
    assert "loss 0.1" in text and "(log scale)" in text
    assert "accuracy 0.65  best 0.7 at 20" in text
    assert "! 3 rows are copies of others" in text
    assert any("\u2800" < character <= "\u28ff" for character in text)


def test_a_terminal_without_unicode_gets_stars() -> None:
    text = drawn(view_of(step(1, 2.0), step(2, 1.0), evaluated(2, 0.5)), encoding="ascii")
    assert "*" in text
    assert not any("\u2800" <= character <= "\u28ff" for character in text)


def test_a_long_job_fills_half_of_the_axis_from_the_start() -> None:
    view = view_of(*(step(n, float(n), steps=100_000) for n in range(1, 21)))
    curves = [line for line in drawn(view, width=80, encoding="ascii").splitlines() if "*" in line]
    assert 35 <= max(map(len, curves)) <= 45


def test_a_narrow_terminal_puts_one_curve_below_the_other() -> None:
    view = view_of(step(1, 2.0), step(2, 1.0), evaluated(2, 0.5))
    lines = drawn(view, width=50).splitlines()
    assert next(i for i, line in enumerate(lines) if "accuracy" in line) > next(
        i for i, line in enumerate(lines) if line.startswith("loss")
    )
    wide = next(line for line in drawn(view, width=100).splitlines() if line.startswith("loss"))
    assert "accuracy" in wide


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([event("status", status="queued")], "waiting for its turn for 1m05s"),
        ([event("status", status="preparing")], "checking the data and compiling for 1m05s"),
        ([event("status", status="preparing"), event("program", name="p", seconds=1)], "1 programs so far"),
        ([event("status", status="running")], "at its first steps"),
        ([event("status", status="failed")], "the job ended before its first step"),
        ([event("status", status="running", cancel_requested=True)], "cancelling"),
    ],
)
def test_before_the_first_step_it_says_what_it_waits_for(events: list[JobEvent], text: str) -> None:
    assert text in drawn(view_of(*events), passed=65)


def test_several_prompts_have_a_row_each() -> None:
    events = [step(10, *(0.1 * n for n in range(10)))]
    events += [evaluated(10, 0.5 + n / 100, prompt=n) for n in range(10)]
    events += [event("prompt_stopped", prompt=1, task="sst2", step=10, status="stopped_early", message="m")]
    events += [
        event("prompt_stopped", prompt=2, task="sst2", step=10, status="diverged", message="not finite")
    ]
    text = drawn(view_of(*events), tasks=2)
    assert "mean loss 0.45" in text and "mean accuracy 0.545" in text
    assert "stopped early" in text and "and 2 more" in text
    assert "1 sst2" in text, "with several tasks each row names its own"
    assert "! prompt 2: not finite" in text


def test_a_finished_job_says_how_long_it_took() -> None:
    view = view_of(
        event("status", status="running"), step(100, 0.5, after=60), event("status", 75, status="succeeded")
    )
    assert "step 100 of 100  took 1m15s" in drawn(view)


def test_a_job_that_goes_on_from_a_checkpoint_forgets_what_came_after_it() -> None:
    view = view_of(
        *(step(n, float(n)) for n in range(1, 31)), evaluated(10, 0.5), evaluated(30, 0.9), step(21, 7.0)
    )
    assert [at for at, _ in view.losses] == list(range(1, 22))
    assert view.losses[-1] == (21, 7.0)
    assert view.curve == [(10, 0.5)]


def test_losses_that_are_no_numbers_are_left_out() -> None:
    view = view_of(step(1, None), step(2, None, 3.0))
    assert view.losses == [(2, 3.0)]
    assert "-" in drawn(view)


def test_many_warnings_are_counted() -> None:
    text = drawn(view_of(step(1, 1.0), *(event("warning", message=f"w{n}") for n in range(9))))
    assert "! w8" in text and "w4" not in text and "and 5 more warnings" in text


def test_kinds_that_are_not_known_do_no_harm() -> None:
    assert drawn(view_of(event("brand_new", x=1), event("step"), event("evaluated"), event("published")))


def test_a_hostile_server_cannot_drive_the_terminal() -> None:
    bad = "\x1b]0;owned\x07[red]x"
    view = view_of(
        step(1, 1.0), event("warning", message=bad), evaluated(1, 0.5, metrics={bad: 0.5, "mean": 0.5})
    )
    text = drawn(view)
    assert "\x1b" not in text and "\x07" not in text
    assert "[red]" in text, "nor is its text markup"


# The lines.


def test_each_thing_that_happened_is_a_line_and_steps_are_thinned() -> None:
    lines = JobLines(["prompt 0", "prompt 1", "prompt 2"])
    events = [
        event("status", status="running"),
        step(1, 2.0, after=1),
        step(2, 1.5, after=3),
        step(9, 1.0, None, after=11),
        evaluated(9, 0.75),
        evaluated(9, 0.7, prompt=2, best=False),
        evaluated(9, 0.8, split="test"),
        event("evaluated", step=9, split="validation", metrics={"f1": 0.5, "accuracy": 0.7, "mean": 0.6}),
        event("program", name="train[8,48]", seconds=1.25),
        event("warning", message="two\nlines"),
        event("prompt_stopped", prompt=1, step=9, status="stopped_early", message="no better"),
        event("checkpointed", step=9),
        event("published", prompt=0, reference="default/sst2@1"),
        event("published", ensemble={"reference": "default/e@1", "members": ["a", "b"]}),
        event("failed", message="Row 3 has no label."),
        event("status", status="running", cancel_requested=True),
        event("brand_new"),
    ]
    told = [line[10:] for line in map(lines.line, events) if line is not None]
    assert told == [
        "running",
        "step 1 of 100  loss prompt 0 2  2 steps/s  40s left",
        "step 9 of 100  loss prompt 0 1, prompt 1 -  2 steps/s  40s left",
        "step 9  prompt 0  accuracy 0.75 on validation  best so far",
        "step 9  prompt 2  accuracy 0.7 on validation",
        "step 9  prompt 0  accuracy 0.8 on test",
        "step 9  f1 0.5, accuracy 0.7, mean 0.6 on validation",
        "compiled train[8,48] in 1.25 s",
        "warning: two\nlines",
        "step 9  prompt 1  stopped early: no better",
        "prompt 0  published default/sst2@1",
        "published the ensemble default/e@1 of 2",
        "failed: Row 3 has no label.",
        "running (cancel requested)",
    ]


def test_durations_read_well() -> None:
    said = {0: "0s", 59.6: "1m00s", 61: "1m01s", 3599: "59m59s", 3600: "1h00m", 90061: "25h01m", -3: "0s"}
    assert {seconds: duration(seconds) for seconds in said} == said
