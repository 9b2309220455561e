"""What people want to know about a job, gathered from its events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chorus.types import JobEvent

MEAN = "mean"
"""Of all metrics, the one that chooses the checkpoint."""


@dataclass(slots=True)
class PromptView:
    """One prompt of the job.

    Attributes:
        curve: (step, value of the choosing metric) on the validation split.
        best: the best value, and its step.
        test: metrics on the test split.
        note: how it ended.
    """

    task: str = ""
    loss: float | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)
    best: tuple[float, int] | None = None
    test: dict[str, float] = field(default_factory=dict)
    note: str = ""
    reference: str = ""


@dataclass(slots=True)
class JobView:
    """A job as its events describe it. `apply` takes them in order.

    Attributes:
        trials: of a search, how each was told last.
    """

    status: str = "queued"
    cancelling: bool = False
    step: int = 0
    steps: int = 0
    rate: float | None = None
    seconds_left: float | None = None
    told_at: datetime | None = None
    began_at: datetime | None = None
    status_at: datetime | None = None
    programs: int = 0
    metric: str = "metric"
    losses: list[tuple[float, float]] = field(default_factory=list)
    prompts: dict[int, PromptView] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    ensemble: dict[str, Any] | None = None
    trials: dict[int, dict[str, Any]] = field(default_factory=dict)

    def apply(self, event: JobEvent) -> None:
        """Take an event. Kinds that only a newer server sends are ignored."""
        self.began_at = self.began_at or event.at
        self.told_at = event.at
        if event.kind == "status":
            self.status_at = event.at
        take = _KINDS.get(event.kind)
        if take is not None:
            take(self, event.data)

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self.status in ("succeeded", "failed", "cancelled")

    @property
    def curve(self) -> list[tuple[float, float]]:
        """(step, value of the choosing metric): the mean over the prompts that were measured at this step."""
        sums: dict[float, list[float]] = {}
        for prompt in list(self.prompts.values()):
            for step, value in list(prompt.curve):
                sums.setdefault(step, []).append(value)
        return [(step, sum(values) / len(values)) for step, values in sorted(sums.items())]

    def prompt(self, place: Any) -> PromptView:
        """The prompt at a position of the job."""
        return self.prompts.setdefault(place if isinstance(place, int) else 0, PromptView())


def _status(view: JobView, data: dict[str, Any]) -> None:
    view.status = str(data.get("status", view.status))
    view.cancelling = bool(data.get("cancel_requested"))
    if view.status in ("queued", "preparing"):
        view.error, view.programs = None, 0  # it was resumed, or another process starts it again


def _step(view: JobView, data: dict[str, Any]) -> None:
    step, losses = int(data.get("step", 0)), data.get("losses") or []
    _forget(view, step - 1)
    view.step, view.steps = step, int(data.get("steps") or view.steps)
    view.rate, view.seconds_left = data.get("steps_per_second"), data.get("seconds_left")
    known = [loss for loss in losses if loss is not None]
    for place, loss in zip(data.get("prompts") or range(len(losses)), losses, strict=False):
        view.prompt(place).loss = loss
    if known:
        view.losses.append((step, sum(known) / len(known)))


def _forget(view: JobView, after: int) -> None:
    """A job that was interrupted goes on from its checkpoint, and repeats the steps after it."""
    if view.losses and view.losses[-1][0] > after:
        view.losses[:] = [point for point in view.losses if point[0] <= after]
        for prompt in view.prompts.values():
            prompt.curve[:] = [point for point in prompt.curve if point[0] <= after]


def _evaluated(view: JobView, data: dict[str, Any]) -> None:
    prompt, metrics = view.prompt(data.get("prompt")), dict(data.get("metrics") or {})
    prompt.task = str(data.get("task") or prompt.task)
    if data.get("split") == "test":
        prompt.test = {name: value for name, value in metrics.items() if name != MEAN or len(metrics) == 1}
        return
    step, value = int(data.get("step", 0)), metrics.get(MEAN)
    names = [name for name in metrics if name != MEAN]
    view.metric = names[0] if len(names) == 1 else MEAN
    if value is None:
        return
    prompt.curve[:] = [*(point for point in prompt.curve if point[0] < step), (step, value)]
    if data.get("best"):
        prompt.best = (value, step)


def _prompt_stopped(view: JobView, data: dict[str, Any]) -> None:
    prompt = view.prompt(data.get("prompt"))
    prompt.task = str(data.get("task") or prompt.task)
    prompt.note = str(data.get("status", "")).replace("_", " ")
    if data.get("status") == "diverged":
        name = f"prompt {data.get('prompt')}: " if len(view.prompts) > 1 else ""
        view.warnings.append(f"{name}{data.get('message', '')}")


def _published(view: JobView, data: dict[str, Any]) -> None:
    if data.get("ensemble"):
        view.ensemble = dict(data["ensemble"])
        return
    prompt = view.prompt(data.get("prompt"))
    prompt.task = str(data.get("task") or prompt.task)
    prompt.reference = str(data.get("reference", ""))


def _warning(view: JobView, data: dict[str, Any]) -> None:
    view.warnings.append(str(data.get("message", "")))


def _trial(view: JobView, data: dict[str, Any]) -> None:
    view.trials[int(data.get("trial", 0))] = dict(data)


def _failed(view: JobView, data: dict[str, Any]) -> None:
    view.error = dict(data)


def _program(view: JobView, data: dict[str, Any]) -> None:
    view.programs += 1


_KINDS: dict[str, Callable[[JobView, dict[str, Any]], None]] = {
    "status": _status,
    "step": _step,
    "evaluated": _evaluated,
    "prompt_stopped": _prompt_stopped,
    "published": _published,
    "trial": _trial,
    "warning": _warning,
    "failed": _failed,
    "program": _program,
}


def duration(seconds: float) -> str:
    """Seconds the way people say them."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{whole % 60:02d}s" if minutes else f"{whole}s"
