"""A followed job as plain lines, for logs and pipes: one line for each event, and a step every so often."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from chorus.cli.job_view import MEAN, duration
from chorus.cli.output import clean
from chorus.cli.plot import rate, short
from chorus.cli.sweep_tables import knobs_text, spread_text
from chorus.types import Job, JobEvent

STEP_SECONDS = 10.0
"""Seconds between two lines about steps, by the events' own times."""
MOST_LOSSES = 8
"""How many prompts' losses a line about a step shows."""


class JobLines:
    """Turns events into lines.

    Args:
        names: names of the job's prompts, see `prompt_names`.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._names = names
        self._step_at: datetime | None = None

    def line(self, event: JobEvent) -> str | None:
        """The line for an event; None if there is nothing to say."""
        if event.kind == "step":
            if self._step_at is not None and (event.at - self._step_at).total_seconds() < STEP_SECONDS:
                return None
            self._step_at = event.at
        text = told(event, self._names)
        return None if text is None else f"{event.at.astimezone():%H:%M:%S}  {clean(text)}"


def prompt_names(job: Job) -> list[str]:
    """The name of each prompt of a job in lines, by its place: `prompt 0`, with its task if tasks differ.
    Empty if the job has one prompt, which needs no name."""
    entries = job.spec.get("prompts") or [job.spec]
    sweep, seeds = job.spec.get("sweep"), job.spec.get("seeds") or 1
    if sweep:
        trials = range(len(sweep["trials"]))
        several = seeds > 1
        return [
            f"trial {n} seed {seed}" if several else f"trial {n}" for n in trials for seed in range(seeds)
        ]
    if seeds > 1:
        return [f"seed {seed}" for seed in range(seeds)]
    tasks = [str(entry.get("task", "")) for entry in entries] * (job.spec.get("ensemble") or 1)
    if len(tasks) < 2:
        return []
    several = len(set(tasks)) > 1
    return [f"prompt {place} ({task})" if several else f"prompt {place}" for place, task in enumerate(tasks)]


def told(event: JobEvent, names: Sequence[str] = ()) -> str | None:
    """What happened, in a few words."""
    data = event.data
    match event.kind:
        case "status":
            asked = " (cancel requested)" if data.get("cancel_requested") else ""
            paused = " (paused)" if data.get("paused") else ""
            return f"{data.get('status', '')}{asked}{paused}"
        case "warning":
            return f"warning: {data.get('message', '')}"
        case "soft_limit":
            return f"beyond a soft limit: {data.get('used')} training steps of {data.get('most')} this month"
        case "program":
            return f"compiled {data.get('name', 'a program')} in {data.get('seconds', 0):g} s"
        case "step":
            return _step(data, names)
        case "trial":
            return _trial(data)
        case "evaluated":
            return _evaluated(data, names)
        case "prompt_stopped":
            return f"step {data.get('step')}  {_who(data, names)}{_words(data)}: {data.get('message', '')}"
        case "published":
            return _published(data, names)
        case "failed":
            return f"failed: {data.get('message', '')}"
        case _:
            return None


def _step(data: dict[str, Any], names: Sequence[str]) -> str:
    losses = [short(loss) if loss is not None else "-" for loss in data.get("losses") or []]
    if names:
        places = data.get("prompts") or range(len(losses))
        told = [names[place] if place < len(names) else f"prompt {place}" for place in places]
        of_each = [f"{name} {loss}" for name, loss in zip(told, losses, strict=False)]
        loss = ", ".join(of_each[:MOST_LOSSES])
        loss += f" and {len(of_each) - MOST_LOSSES} more" if len(of_each) > MOST_LOSSES else ""
    else:
        loss = " ".join(losses)
    parts = [f"step {data.get('step')} of {data.get('steps')}", f"loss {loss or '-'}"]
    if data.get("steps_per_second"):
        parts.append(f"{rate(data['steps_per_second'])} steps/s")
    if data.get("seconds_left") is not None:
        parts.append(f"{duration(data['seconds_left'])} left")
    return "  ".join(parts)


def _trial(data: dict[str, Any]) -> str:
    ended = {True: "  goes on", False: "  is left behind"}.get(data.get("kept"), "")  # type: ignore[arg-type]
    told = f"trial {data.get('trial')}  {knobs_text(data.get('recipe') or {})}".rstrip()
    return f"step {data.get('steps')}  {told}  {spread_text(data.get('metric')) or 'no metric'}{ended}"


def _evaluated(data: dict[str, Any], names: Sequence[str]) -> str:
    best = "  best so far" if data.get("best") and data.get("split") != "test" else ""
    measured = metrics_text(data.get("metrics") or {})
    return f"step {data.get('step')}  {_who(data, names)}{measured} on {data.get('split')}{best}"


def _published(data: dict[str, Any], names: Sequence[str]) -> str:
    if data.get("ensemble"):
        made = data["ensemble"]
        return f"published the ensemble {made.get('reference', '')} of {len(made.get('members') or [])}"
    return f"{_who(data, names)}published {data.get('reference', '')}"


def metrics_text(metrics: dict[str, Any]) -> str:
    """Metrics by name. Their mean is shown only if there are several."""
    names = [name for name in metrics if name != MEAN] or list(metrics)
    shown = names if len(names) < 2 or MEAN not in metrics else [*names, MEAN]
    return ", ".join(f"{name} {short(metrics[name])}" for name in shown)


def _who(data: dict[str, Any], names: Sequence[str]) -> str:
    """The prompt that a line is about, if the job has several."""
    place = data.get("prompt")
    return f"{names[place]}  " if isinstance(place, int) and 0 <= place < len(names) else ""


def _words(data: dict[str, Any]) -> str:
    return str(data.get("status", "")).replace("_", " ")
