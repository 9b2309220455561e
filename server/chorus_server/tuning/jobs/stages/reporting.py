"""Reports a running job: thinned events and progress, in the terms of the REST API."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from chorus_server.awake import awake
from chorus_server.jobs.leased import LeasedJob
from chorus_server.tuning.jobs.stages.stretches import Stretch
from chorus_server.tuning.training.events import Evaluated, PromptStopped, StepFinished, TrainingEvent
from prompts_store.jobs.steps import DONE

_STEP_SECONDS = 2.0
_RATE_SECONDS = 60.0


class Reporter:
    """Turns the events of a training loop into the job's. Used by the job's thread.

    Of the step events one is told every two seconds, and the last one before any other event.

    Args:
        tasks: name of the task of each prompt of the stretch.
        progress: the job's, changed in place.
    """

    def __init__(
        self,
        held: LeasedJob,
        stretch: Stretch,
        tasks: Sequence[str],
        progress: dict[str, Any],
        clock: Callable[[], float] = awake,
    ) -> None:
        self._held = held
        self._stretch = stretch
        self._tasks = tasks
        self._steps = stretch.steps_of_job
        self._clock = clock
        self._waiting: list[tuple[str, dict[str, Any]]] = []
        self._step: StepFinished | None = None
        self._told_at = clock()
        self._told_step = -1
        self._recent: deque[tuple[float, int]] = deque()
        self.progress = progress
        progress.setdefault("metrics", {})

    def begin(self, step: int) -> None:
        """Say that the job trains now, from this step on."""
        self.progress |= {"phase": "training", "steps": self._steps, **self._done(step)}
        self._recent.append((self._clock(), self._stretch.step_of_job(step)))
        self._held.update(status="running", progress=self.progress)

    def add(self, event: TrainingEvent) -> None:
        """Take an event of the training loop."""
        if isinstance(event, StepFinished):
            self._step = event
            self._note(event)
            return
        if isinstance(event, Evaluated):
            self._tell_step()
            self._waiting.append(("evaluated", self._evaluated(event)))
        elif isinstance(event, PromptStopped):
            self._tell_step()
            data = {"step": event.step, "status": event.status, "message": event.message}
            self._waiting.append(("prompt_stopped", self._who(event.prompt) | data))

    def checkpointed(self, step: int) -> None:
        """Say that the state after this step is on disk."""
        self._tell_step()
        step = self._stretch.step_of_job(step)
        self._waiting.append(("checkpointed", {"step": step}))
        self.progress["checkpoint_step"] = step

    def tick(self) -> None:
        """Send what is due. To be called about once a second."""
        due = self._clock() - self._told_at >= _STEP_SECONDS
        if due:
            self._tell_step()
        if self._waiting or due:
            self.flush()

    def flush(self) -> None:
        """Send everything."""
        self._tell_step()
        waiting, self._waiting = self._waiting, []
        self._held.tell(waiting)
        self._held.update(progress=self.progress)
        self._told_at = self._clock()

    def _tell_step(self) -> None:
        event = self._step
        if event is None or event.step == self._told_step:
            return
        self._told_step = event.step
        data = {
            "step": self._stretch.step_of_job(event.step),
            "steps": self._steps,
            **({"prompts": list(self._stretch.places)} if self._stretch.name else {}),
            "losses": _short(event.losses),
            "learning_rates": _short(event.learning_rates),
            "epochs": _short(event.epochs),
            "steps_per_second": self.progress.get("steps_per_second"),
            "seconds_left": self.progress.get("seconds_left"),
        }
        self._waiting.append(("step", data))

    def _note(self, event: StepFinished) -> None:
        """Note the step, and the speed over the last minute: serving may slow training down at any time."""
        now, steps = self._clock(), self._stretch.step_of_job(event.step)
        self._recent.append((now, steps))
        while len(self._recent) > 2 and now - self._recent[1][0] > _RATE_SECONDS:
            self._recent.popleft()
        since, first = self._recent[0]
        rate = (steps - first) / (now - since) if now > since and steps > first else None
        self.progress |= {
            **self._done(event.step),
            "losses": _short(event.losses),
            "steps_per_second": None if rate is None else round(rate, 4),
            "seconds_left": None if rate is None else round((self._steps - steps) / rate, 1),
        }

    def _done(self, step: int) -> dict[str, int]:
        """How far the job is, and what of its tenant's training steps it has used."""
        return {"step": self._stretch.step_of_job(step), DONE: self._stretch.training_steps_at(step)}

    def _evaluated(self, event: Evaluated) -> dict[str, Any]:
        who, metrics = self._who(event.prompt), dict(event.metrics)
        self.progress["metrics"] = {
            **self.progress["metrics"],
            str(who["prompt"]): {"split": event.split, "step": event.step, **metrics},
        }
        return who | {
            "step": event.step,
            "split": event.split,
            "metrics": metrics,
            "best": event.best,
            "seconds": event.seconds,
        }

    def _who(self, place: int) -> dict[str, Any]:
        """A prompt of the job: its place, and its task."""
        return {"prompt": self._stretch.places[place], "task": self._tasks[place]}


def _short(values: Sequence[float | None]) -> list[float | None]:
    """Values with six digits, which is about what f32 holds."""
    return [None if value is None else float(f"{value:.6g}") for value in values]
