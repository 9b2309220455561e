"""Tuning jobs, their events and checkpoints in OpenAI's fields."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from chorus_server.api.openai.fine_tuning import N_EPOCHS, OWN_NOTES, PAPERS_RATE, param_of
from chorus_server.errors import InvalidInputError
from chorus_server.tuning.document.earlier_names import renamed_facts, renamed_result, renamed_spec
from prompts_store.jobs.records import Job, JobEvent

CHECKPOINT_KINDS = ("evaluated", "published")
"""Kinds of the events that `checkpoints_of` reads."""

_FILES = {"training_file": "invalid_training_file", "validation_file": "invalid_validation_file"}
_SAID = {
    "queued": "The job waits for its turn",
    "preparing": "Validating the files",
    "running": "Fine-tuning job started",
    "succeeded": "The job has successfully completed",
    "failed": "The job failed",
    "cancelled": "The job was cancelled",
}


def job_object(job: Job, base: str) -> dict[str, Any]:
    """A job.

    Args:
        base: the base model's name.
    """
    spec, result = renamed_spec(job.spec), renamed_result(job.result)
    prompt: Mapping[str, Any] = next(iter(spec.get("prompts", ())), {})
    data, recipe, notes = prompt.get("data", {}), prompt.get("recipe", {}), spec.get("metadata", {})
    epochs = notes.get(N_EPOCHS, "")
    knobs = {
        "n_epochs": int(epochs) if epochs.isdecimal() else None,
        "batch_size": recipe.get("batch_size", 1),
        "learning_rate_multiplier": round(recipe.get("learning_rate", 0.0) / PAPERS_RATE, 9),
    }
    made = [each["reference"] for each in result.get("prompts", ()) if "reference" in each]
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": int(job.created_at.timestamp()),
        "finished_at": None if job.finished_at is None else int(job.finished_at.timestamp()),
        "model": _model(job, prompt.get("initial_prompt") or base),
        "fine_tuned_model": _model(job, made[0]) if made else None,
        "organization_id": job.tenant,
        "status": _status(job),
        "training_file": _source(data.get("train")) or "",
        "validation_file": _source(data.get("validation")),
        "hyperparameters": knobs,
        "method": {"type": "supervised", "supervised": {"hyperparameters": knobs}},
        "trained_tokens": _trained_tokens(job, recipe),
        "result_files": [],
        "estimated_finish": _estimated_finish(job),
        "error": _error(job.error),
        "seed": spec.get("seed", 0),
        "metadata": {name: text for name, text in notes.items() if not name.startswith(OWN_NOTES)},
        "integrations": None,
    }


def event_object(job: Job, event: JobEvent) -> dict[str, Any]:
    """An event of a job."""
    data = renamed_facts(event.data)
    level = {"warning": "warn", "failed": "error"}.get(event.kind, "info")
    return {
        "id": event_id("ftevent", job, event.seq),
        "object": "fine_tuning.job.event",
        "created_at": int(event.at.timestamp()),
        "level": level,
        "message": _message(job, event.kind, data),
        "type": "metrics" if event.kind in ("step", "evaluated") else "message",
        "data": _facts(event.kind, data),
    }


def is_checkpoint(job: Job, event: JobEvent) -> bool:
    """Whether an event of `CHECKPOINT_KINDS` tells of a checkpoint: of the first prompt, and not of one that
    another event tells of."""
    data = renamed_facts(event.data)
    if data.get("prompt") != 0:
        return False
    if event.kind == "published":
        return True
    best: Mapping[str, Any] = next(iter(renamed_result(job.result).get("prompts", ())), {})
    return data.get("split") == "validation" and not (
        "reference" in best and data["step"] == best["best_step"]
    )


def checkpoint_object(job: Job, event: JobEvent) -> dict[str, Any]:
    """The checkpoint that an event tells of."""
    data = renamed_facts(event.data)
    if event.kind == "published":
        step, name = data["best_step"], _model(job, data["reference"])
        metrics = {name.removeprefix("validation_"): value for name, value in data["metrics"].items()}
    else:
        step, name, metrics = data["step"], "", data["metrics"]
    return {
        "id": event_id("ftckpt", job, event.seq),
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(event.at.timestamp()),
        "fine_tuning_job_id": job.id,
        "fine_tuned_model_checkpoint": name,
        "step_number": step,
        "metrics": {"step": step, "full_valid_mean_token_accuracy": metrics.get("mean"), **metrics}
        if "mean" in metrics
        else {"step": step, **metrics},
    }


def event_id(prefix: str, job: Job, seq: int) -> str:
    """The id of what a job's event tells."""
    return f"{prefix}-{job.id.removeprefix('job-')}-{seq}"


def seq_of(prefix: str, job: Job, after: str | None) -> int:
    """The number of the event that an id is of; 0 for none.

    Raises:
        InvalidInputError: the id is of another list, field `after`.
    """
    if after is None:
        return 0
    start, seq = event_id(prefix, job, 0)[:-1], after[-9:].rpartition("-")[2]
    if not after.startswith(start) or after != f"{start}{seq}" or not (seq.isascii() and seq.isdecimal()):
        raise InvalidInputError("It is the id of the last item that you have.", field="after")
    return int(seq)


def _model(job: Job, reference: str) -> str:
    """A reference, without the job's own tenant."""
    return reference.removeprefix(f"{job.tenant}/")


def _status(job: Job) -> str:
    if job.status == "preparing":
        return "validating_files" if job.progress.get("phase") in (None, "validating") else "running"
    if job.paused:  # OpenAI's jobs have no word for it
        return "queued"
    return job.status


def _source(source: Mapping[str, Any] | None) -> str | None:
    """The id of a split's file, or where else the split is."""
    return next(iter(source.values()), None) if source else None


def _trained_tokens(job: Job, recipe: Mapping[str, Any]) -> int | None:
    """Tokens of inputs and targets that were learned, by the mean of the train split."""
    known = job.progress
    if job.status != "succeeded" or not known.get("train_rows"):
        return None
    rows: int = known.get("step", 0) * recipe.get("batch_size", 1)
    return int(rows * known["train_tokens"] / known["train_rows"])


def _estimated_finish(job: Job) -> int | None:
    left = job.progress.get("seconds_left")
    return int(time.time() + left) if job.status == "running" and left is not None else None


def _error(error: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if error is None:
        return None
    param = param_of(error.get("field"))
    code = _FILES.get(param or "", error.get("code", "internal"))
    return {"code": code, "message": error.get("message", ""), "param": param}


def _message(job: Job, kind: str, data: Mapping[str, Any]) -> str:
    """What happened, in a sentence."""
    match kind:
        case "status":
            if data.get("cancel_requested"):
                return "The job will be cancelled"
            if "paused" in data:
                return "The job is paused" if data["paused"] else "The job goes on"
            return _SAID.get(data.get("status", ""), kind)
        case "step":
            loss = next((each for each in data.get("losses", ()) if each is not None), None)
            return f"Step {data.get('step')}/{data.get('steps')}: training loss={loss}"
        case "evaluated":
            measured = ", ".join(f"{n}={v:.4f}" for n, v in data["metrics"].items() if n != "mean")
            return f"Step {data.get('step')}: {data.get('split')} {measured}"
        case "published":
            return f"New fine-tuned model created: {_model(job, data.get('reference', ''))}"
        case "labels":
            return f"Labels: {', '.join(data['labels'])}" if data["labels"] else "Answers are free text"
        case "checkpointed":
            return f"Checkpoint written at step {data.get('step')}"
        case "program":
            return f"Compiled {data.get('name')}"
        case _:
            return str(data.get("message") or kind)


def _facts(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The event's data; of a step also by OpenAI's names."""
    if kind != "step":
        return dict(data)
    loss = next(iter(data.get("losses", ())), None)
    return {**data, "total_steps": data.get("steps"), "train_loss": loss}
