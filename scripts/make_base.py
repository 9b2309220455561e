"""Makes the base that Chorus ships: vocabulary, weights, adaptation, mixture, prompts, baselines, cards.

    python scripts/make_base.py WORK --corpus books.txt.gz --data DATASETS --minutes 600
    python scripts/make_base.py WORK --stages pretrain,adapt,mix,store --gpu --minutes 8 --parts OUT

Every stage finds what an earlier call made and continues from there; a finished stage costs nothing. With
--minutes, the steps of the training stages are chosen to fit, from a speed that is measured once. The last
stage writes WORK/base. The stages are: collect (datasets to tasks), pretrain, adapt, mix (supervised, with
some tasks left out), store (int8 or bf16 weights, for shipping and for the figures), tune (prompts with
several seeds), baselines, figure (3(c) and 3(d) of Lester et al. 2021), package.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from base_stages.plan import STAGES, Plan, read_plan, write_document
from base_stages.tasks import collect, read_tasks
from chorus_server.signals import ending_signals

LICENCE = "public-domain books (Project Gutenberg)"


def main() -> int:
    arguments = _arguments()
    stopping = threading.Event()
    for number in ending_signals():
        signal.signal(number, lambda *_: stopping.set())
    makers = Makers(arguments, stopping.is_set)
    for stage in arguments.stages.split(","):
        if stopping.is_set():
            break
        makers.say(f"stage {stage}")
        if not getattr(makers, stage)():
            makers.say("stopped; the same command continues")
            break
    if arguments.parts:
        from base_stages.parts import write_parts

        found = [makers.work / name for name in arguments.parts_of.split(",")]
        write_parts([path for path in found if path.exists()], arguments.parts, arguments.part_bytes)
    return 0


class Makers:
    """One method for each stage. Each returns whether the stage is finished."""

    def __init__(self, arguments: argparse.Namespace, stop: Callable[[], bool]) -> None:
        self.work: Path = arguments.work
        self._given, self._stop = arguments, stop
        self._started = time.monotonic()
        self._plan: Plan | None = None

    def say(self, line: str) -> None:
        sys.stderr.write(f"base [{time.monotonic() - self._started:8.1f} s] {line}\n")
        sys.stderr.flush()

    @property
    def plan(self) -> Plan:
        if self._plan is None:
            self._plan = read_plan(self._given.plan)
            if self._given.minutes:
                from base_stages.speed import tokens_per_second
                from base_stages.training import fitted

                self._plan = fitted(
                    self._plan,
                    self.work,
                    self._given.minutes,
                    lambda plan: tokens_per_second(plan, self._how()),
                )
        return self._plan

    def collect(self) -> bool:
        if not (self.work / "tasks").exists():
            if self._given.data is None:
                sys.exit("the stage `collect` needs --data, the folder of the datasets")
            collect(self._given.data, self.work / "tasks", self.plan.tasks)
        return True

    def pretrain(self) -> bool:
        return self._training().pretrain(tuple(self._given.corpus), self._given.held_out_share)

    def adapt(self) -> bool:
        return self._training().adapt()

    def mix(self) -> bool:
        return self._training().mix() if self.plan.mix else True

    def store(self) -> bool:
        """Write the weights that ship, with their card, and those for the figures, so that they can be
        carried elsewhere."""
        from chorus_server.model.checkpoints.convert import convert_checkpoint

        last = self.work / ("mixed" if self.plan.mix else "adapted")
        places = [(last / "model", self.work / "shipped" / "model")]
        if self.plan.figure:
            places += [(model, self.work / "kept" / name) for _, name, model, _ in self._figure_places()]
        for source, target in places:
            if not target.exists():
                convert_checkpoint(source, target, dtype=self.plan.dtype)
        shutil.copyfile(last / "card.json", self.work / "shipped" / "card.json")
        return True

    def tune(self) -> bool:
        """Tune prompts on the weights that ship, so that what is measured is what is served."""
        import numpy as np

        from base_stages.tuning import Tuner
        from chorus_server.tuning.document.recipe import Recipe

        tuner = None
        for task in (task for task in read_tasks(self.work / "tasks") if task.shipped):
            folder = self.work / "prompts" / task.name
            if (folder / "results.json").exists():
                continue
            tuner = tuner or Tuner(self.work / "shipped" / "model", self._dtype(), self.say, self._stop)
            recipe = Recipe.from_json({**self.plan.recipe, **self.plan.recipes.get(task.name, {})})
            tuned = tuner.tune(
                task,
                recipe,
                folder / "state",
                seeds=self.plan.seeds,
                selection_share=self.plan.selection_share,
            )
            if tuned is None:
                return False
            np.save(folder / "values.npy", tuned.values)
            facts = {"selection": tuned.selection, "report": tuned.report, "steps": tuned.steps}
            write_document(folder / "results.json", {"task": task.name, **facts, "recipe": recipe.to_json()})
        return True

    def baselines(self) -> bool:
        from base_stages.baselines import measure_baselines

        path = self.work / "baselines.json"
        if not path.exists():
            tasks = [task for task in read_tasks(self.work / "tasks") if task.shipped]
            write_document(path, {task.name: measure_baselines(task) for task in tasks})
            self.say(path.read_text())
        return True

    def figure(self) -> bool:
        """Figures 3(c) and 3(d): prompts on the span-corruption checkpoint, without and with a sentinel
        before the target, and on checkpoints along the adaptation. None of these saw supervised data."""
        if not self.plan.figure:
            return True
        from base_stages.tuning import Tuner
        from chorus_server.tuning.document.recipe import Recipe

        tasks = {task.name: task for task in read_tasks(self.work / "tasks")}
        for label, name, _, sentinel in self._figure_places():
            for task in self.plan.figure_tasks:
                folder = self.work / "figure" / f"{label}-{task}".replace(" ", "-")
                if (folder / "results.json").exists():
                    continue
                fields = {**self.plan.figure, **self.plan.figure_recipes.get(task, {})}
                recipe = Recipe.from_json({**fields, "sentinel_before_target": sentinel})
                tuned = Tuner(self.work / "kept" / name, self._dtype(), self.say, self._stop).tune(
                    tasks[task], recipe, folder / "state", seeds=self.plan.seeds,
                    selection_share=self.plan.selection_share,
                )  # fmt: skip
                if tuned is None:
                    return False
                found = {"label": label, "task": task, "report": tuned.report}
                write_document(folder / "results.json", found)
        paths = sorted((self.work / "figure").glob("*/results.json"))
        write_document(self.work / "figure.json", [json.loads(path.read_text()) for path in paths])
        return True

    def _figure_places(self) -> list[tuple[str, str, Path, bool]]:
        """Label, name below `kept`, checkpoint, and whether targets begin with a sentinel. `span corruption`
        is also 0 percent of the adaptation."""
        spans = ("span", self.work / "pretrained" / "model")
        places = [("span corruption", *spans, False), ("span corruption with sentinel", *spans, True)]
        for percent in (*self.plan.fractions, 100.0):
            name = "model" if percent == 100 else f"model-{percent:03g}"
            places.append((f"adapted {percent:g} percent", name, self.work / "adapted" / name, False))
        return places

    def package(self) -> bool:
        from base_stages.packaging import package

        if not (self.work / "base").exists():
            package(self.work, self.plan, read_tasks(self.work / "tasks"), self.work / "base")
            self.say(f"wrote {self.work / 'base'}")
        return True

    def _training(self) -> Any:
        from base_stages.training import Training
        from chorus_server.pretraining.trainer import Cadence

        cadence = Cadence(
            report_every_steps=self._given.report_every_steps, max_minutes=self._given.max_minutes,
            checkpoint_every_minutes=self._given.checkpoint_every_minutes,
        )  # fmt: skip
        return Training(
            self.work,
            self.plan,
            self._how(),
            cadence,
            LICENCE,
            self.say,
            self._stop,
            self._given.checkpoint_dir,
        )

    def _how(self) -> dict[str, Any]:
        from chorus_server.pretraining.options import ATTENTIONS

        attention = self._given.attention
        return {
            "compute_dtype": self._dtype(), "attention": ATTENTIONS.get(attention, attention),
            "micro_batch_size": self._given.micro_batch_size or (64 if self._given.gpu else 8),
        }  # fmt: skip

    def _dtype(self) -> str:
        return "bfloat16" if self._given.gpu else "float32"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder for everything that is made")
    parser.add_argument("--stages", default=",".join(STAGES), help="default: all, in this order: %(default)s")
    parser.add_argument("--plan", type=Path, help="JSON with fields of base_stages.plan.Plan to change")
    parser.add_argument("--corpus", type=Path, action="append", default=[], help="text; may be repeated")
    parser.add_argument("--held-out-share", type=float, default=0.005)
    parser.add_argument("--data", type=Path, help="folder with the datasets of the plan's tasks")
    parser.add_argument(
        "--minutes", type=float, help="choose the steps so that the training stages take this long"
    )
    parser.add_argument("--max-minutes", type=float, help="save and stop each stage after this time")
    parser.add_argument("--gpu", action="store_true", help="bfloat16 and more rows in a dispatch")
    parser.add_argument("--attention", default="xla", help="xla, fused or cudnn")
    parser.add_argument("--micro-batch-size", type=int, help="rows in a dispatch; default 8, with --gpu 64")
    parser.add_argument(
        "--checkpoint-dir",
        type=Path,
        help="folder of the checkpoints of the training stages; default: in WORK",
    )
    parser.add_argument("--checkpoint-every-minutes", type=float, default=5.0)
    parser.add_argument("--report-every-steps", type=int, default=20)
    parser.add_argument("--parts", type=Path, help="at the end, write what ships to this folder, in parts")
    parser.add_argument("--parts-of", default="shipped,steps.json", help="below WORK; default: %(default)s")
    parser.add_argument("--part-bytes", type=int, default=15 * 1024 * 1024)
    arguments = parser.parse_args()
    if unknown := [stage for stage in arguments.stages.split(",") if stage not in STAGES]:
        parser.error(f"there is no stage {unknown[0]}; choose from {', '.join(STAGES)}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
