"""A followed job on a terminal: its progress, its curves, and its warnings."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from chorus.cli.job_view import MEAN, JobView, PromptView, duration
from chorus.cli.output import clean
from chorus.cli.plot import Plot, plot, rate, short

PLOT_LINES = 7
NARROW = 70
MOST_PROMPTS = 8
MOST_WARNINGS = 4

_COLOURS = {
    "queued": "yellow",
    "preparing": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
}


class JobScreen:
    """Draws a job. It is drawn again and again while events come.

    Args:
        job: the job's id.
        tasks: the tasks that get versions.
        now: gives the current time, for the time that passes between two events.
    """

    def __init__(
        self,
        view: JobView,
        job: str,
        tasks: list[str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._view = view
        self._job = job
        self._tasks = tasks
        self._now = now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, unicode = options.max_width, options.encoding.startswith("utf")
        parts: list[RenderableType] = [self._head(), self._progress(width)]
        if self._view.losses:
            parts += [Text(), self._curves(width, unicode)]
        if len(self._view.prompts) > 1:
            parts += [Text(), self._prompts()]
        parts += self._warnings()
        yield Group(*parts)

    def _head(self) -> Text:
        view = self._view
        status = "cancelling" if view.cancelling and not view.over else view.status
        names = ", ".join(self._tasks[:3]) + (
            f" and {len(self._tasks) - 3} more" if len(self._tasks) > 3 else ""
        )
        return Text.assemble(
            (clean(names), "bold"), "  ", (status, f"bold {_COLOURS.get(view.status, 'white')}"), "  ",
            (self._job, "dim"),
        )  # fmt: skip

    def _progress(self, width: int) -> RenderableType:
        view = self._view
        if not view.steps:
            return Text(self._waiting(), style="dim")
        facts = [f"step {view.step} of {view.steps}"]
        if not view.over:
            facts += [f"{rate(view.rate)} steps/s"] if view.rate else []
            left = self._left()
            facts += [f"{duration(left)} left"] if left is not None else []
        elif view.began_at and view.told_at:
            facts.append(f"took {duration((view.told_at - view.began_at).total_seconds())}")
        text = "  ".join(facts)
        row = Table.grid(padding=(0, 2), expand=False)
        bar = max(10, min(40, width - len(text) - 3))
        row.add_row(ProgressBar(total=view.steps, completed=view.step, width=bar), Text(text))
        return row

    def _waiting(self) -> str:
        view = self._view
        since = f" for {duration(self._passed(view.status_at))}" if view.status_at else ""
        match view.status:
            case "queued":
                return f"waiting for its turn{since}"
            case "preparing":
                done = f"; {view.programs} programs so far" if view.programs else ""
                return f"checking the data and compiling{since}{done}"
            case "running":
                return f"at its first steps{since}"
            case _:
                return "the job ended before its first step"

    def _left(self) -> float | None:
        view = self._view
        if view.seconds_left is None or view.told_at is None:
            return None
        return max(0.0, view.seconds_left - self._passed(view.told_at))

    def _passed(self, since: datetime | None) -> float:
        return max(0.0, (self._now() - since).total_seconds()) if since is not None else 0.0

    def _curves(self, width: int, unicode: bool) -> RenderableType:
        view, curve = self._view, self._view.curve
        narrow = width < NARROW
        each = width - 1 if narrow or not curve else (width - 4) // 2
        # Both curves share one axis, and fill at least half of it, however long the job is.
        axis = (0.0, float(max(1, min(view.steps, 2 * view.step))))
        mean = "mean " if len(view.prompts) > 1 and view.metric != MEAN else ""
        fallen = plot(list(view.losses), each, PLOT_LINES, axis=axis, unicode=unicode)
        loss = _curve(
            f"{mean}loss", view.losses[-1][1], "(log scale)" if fallen.logarithmic else "", fallen, "cyan"
        )
        if not curve:
            return loss
        value, step = max((value, -step) for step, value in curve)
        risen = plot(curve, each, PLOT_LINES, axis=axis, unicode=unicode)
        best = f"best {short(value)} at {-step:.0f}"
        metric = _curve(f"{mean}{clean(view.metric)}", curve[-1][1], best, risen, "green")
        if narrow:
            return Group(loss, metric)
        row = Table.grid(padding=(0, 2))
        row.add_column(width=each)
        row.add_column(width=each)
        row.add_row(loss, metric)
        return row

    def _prompts(self) -> RenderableType:
        table = Table.grid(padding=(0, 3))
        table.add_row(*(Text(name, style="dim") for name in ("prompt", "loss", "best", "at step", "")))
        prompts = sorted(self._view.prompts.items())
        for place, prompt in prompts[:MOST_PROMPTS]:
            table.add_row(*(Text(cell) for cell in _cells(place, prompt, len(self._tasks) > 1)))
        if len(prompts) > MOST_PROMPTS:
            table.add_row(Text(f"and {len(prompts) - MOST_PROMPTS} more", style="dim"))
        return table

    def _warnings(self) -> list[RenderableType]:
        warnings = self._view.warnings
        shown: list[RenderableType] = [
            Text(f"! {clean(text)}", style="yellow") for text in warnings[-MOST_WARNINGS:]
        ]
        if len(warnings) > MOST_WARNINGS:
            shown.append(Text(f"! and {len(warnings) - MOST_WARNINGS} more warnings", style="yellow"))
        return [Text(), *shown] if shown else []


def _curve(name: str, value: float, note: str, drawn: Plot, colour: str) -> Group:
    head = Text.assemble(
        f"{name} ", (short(value), "bold"), (f"  {note}", "dim"), no_wrap=True, overflow="ellipsis"
    )
    return Group(head, *(Text(line, style=colour, no_wrap=True) for line in drawn.lines))


def _cells(place: int, prompt: PromptView, named: bool) -> tuple[str, ...]:
    best, at = prompt.best if prompt.best is not None else (None, None)
    return (
        f"{place} {clean(prompt.task)}" if named and prompt.task else str(place),
        "-" if prompt.loss is None else short(prompt.loss),
        "-" if best is None else short(best),
        "-" if at is None else str(at),
        clean(prompt.note),
    )
