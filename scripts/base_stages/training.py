"""Vocabulary, weights and their adaptation, stage by stage, with `chorus_server.pretraining`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from base_stages.plan import Plan, write_document
from base_stages.tasks import read_tasks
from chorus_server.model.config import T5Config
from chorus_server.pretraining.materials import TextOptions
from chorus_server.pretraining.runs import RunOptions, run_adaptation, run_pretraining
from chorus_server.pretraining.settings import PretrainingSettings
from chorus_server.pretraining.trainer import Cadence

Say = Callable[[str], None]
ADAPTING = {"objective": "prefix_lm", "schedule": "constant", "warmup_steps": 0}


class Training:
    """The training stages of one working folder.

    Args:
        how: fields of `PretrainingSettings` that decide the speed, for every stage: compute_dtype, attention,
            layout, rows.
        cadence: among other things, the time after which a stage saves and stops.
        checkpoint_dir: the checkpoints of a stage are in the folder of its name there; None means in the
            working folder.
        stop: returns true once somebody asked for an end.
    """

    def __init__(
        self, work: Path, plan: Plan, how: dict[str, Any], cadence: Cadence, licence: str, say: Say,
        stop: Callable[[], bool] = lambda: False, checkpoint_dir: Path | None = None,
    ) -> None:  # fmt: skip
        self._work, self._plan, self._how = work, plan, how
        self._cadence, self._licence, self._say, self._stop = cadence, licence, say, stop
        self._checkpoint_dir = checkpoint_dir

    def pretrain(self, corpus: tuple[Path, ...], held_out_share: float) -> bool:
        """Returns whether it is finished."""
        text = TextOptions(corpus=corpus, held_out_share=held_out_share, pieces=self._plan.pieces)
        config = T5Config(name=self._plan.name, vocab_size=1, padded_vocab_size=1, **self._plan.architecture)  # type: ignore[arg-type]
        options = self._options("pretrained", text)
        return run_pretraining(config, options, self._settings(self._plan.pretrain), self._say) == "finished"

    def adapt(self) -> bool:
        """Returns whether it is finished."""
        text = TextOptions(tokens=self._work / "pretrained" / "tokens")
        options = self._options("adapted", text, fractions=self._plan.fractions)
        settings = self._settings({**ADAPTING, **self._plan.adapt})
        return (
            run_adaptation(str(self._work / "pretrained" / "model"), options, settings, self._say)
            == "finished"
        )

    def mix(self) -> bool:
        """Returns whether it is finished."""
        path = self._work / "examples.jsonl"
        tasks = read_tasks(self._work / "tasks")
        if not path.exists():
            lines = (
                {"task": task.name, "input": f"{task.name}: {text}", "target": label}
                for task in tasks
                for text, (_, label) in zip(task.texts(task.train), task.train, strict=True)
            )
            temporary = path.with_suffix(".partial")
            temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
            temporary.replace(path)
        left_out = tuple(name for name in self._plan.leave_out if name in {task.name for task in tasks})
        seen = [task for task in tasks if task.name not in left_out]
        licence = "; ".join(f"{task.name}: {task.source}, {task.licence}" for task in seen)
        options = self._options(
            "mixed", TextOptions(), examples=path, leave_out=left_out, data_licence=licence
        )
        settings = self._settings({**ADAPTING, "objective": "examples", **self._plan.mix})
        return (
            run_adaptation(str(self._work / "adapted" / "model"), options, settings, self._say) == "finished"
        )

    def _settings(self, fields: dict[str, Any]) -> PretrainingSettings:
        chosen = {**self._how, **fields}
        chosen["micro_batch_size"] = min(chosen.get("micro_batch_size", 16), chosen.get("batch_size", 128))
        return PretrainingSettings(**chosen)

    def _options(self, folder: str, text: TextOptions, **more: Any) -> RunOptions:
        return RunOptions(**{
            "folder": self._work / folder, "text": text, "cadence": self._cadence, "name": self._plan.name,
            "data_licence": self._licence, "stop": self._stop,
            "checkpoint_dir": self._checkpoint_dir and self._checkpoint_dir / folder, **more,
        })  # fmt: skip


def fitted(plan: Plan, work: Path, minutes: float, measure: Callable[[Plan], float]) -> Plan:
    """The plan with as many steps as fit into `minutes`, divided among the stages in the plan's proportions.
    It is computed once from the measured speed and kept in `WORK/steps.json`, so that a continued run has the
    same steps.

    Args:
        measure: returns tokens a second of pretraining.
    """
    path = work / "steps.json"
    if not path.exists():
        wanted = sum(_tokens(getattr(plan, stage)) for stage in ("pretrain", "adapt", "mix"))
        started = time.monotonic()
        speed = measure(plan)
        seconds = 60 * minutes - (time.monotonic() - started)
        factor = speed * seconds / wanted
        steps = {
            stage: max(1, int(getattr(plan, stage)["steps"] * factor))
            for stage in ("pretrain", "adapt", "mix")
            if getattr(plan, stage)
        }
        write_document(path, {"tokens_per_second": speed, "minutes": minutes, "steps": steps})
    steps = json.loads(path.read_text())["steps"]
    changed = {}
    for stage, count in steps.items():
        fields = dict(getattr(plan, stage))
        # A share of the steps at the end stays the same share.
        share = fields.get("cooldown_steps", 0) / fields["steps"]
        changed[stage] = {**fields, "steps": count, "cooldown_steps": int(share * count)}
    return Plan(**{**vars(plan), **changed})


def _tokens(fields: dict[str, Any]) -> float:
    """Tokens of a stage, roughly: the inputs of its rows and half as much again."""
    return (
        1.5 * fields["steps"] * fields.get("batch_size", 128) * fields.get("input_length", 512)
        if fields
        else 0
    )
