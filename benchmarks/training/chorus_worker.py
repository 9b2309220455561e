"""Chorus's own turn: `TuningLoop` on the resident weights, as a job runs it.

python chorus_worker.py MODEL_FOLDER [f32 | bf16]      the type of the matrices
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
import numpy as np
from serve_lines import serve

from chorus_server.kept_memory import keep_freed_memory
from chorus_server.model.checkpoints import load_model
from chorus_server.model.fused_attention import choose_attention
from chorus_server.model.matrix_types import FLOAT_DTYPES
from chorus_server.tuning.data.examples import Example
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.training.loop import TuningLoop
from chorus_server.tuning.training.programs import compile_programs
from chorus_server.tuning.training.run import PromptTask, TrainingRun
from chorus_server.tuning.training.shapes import TrainingShapes, shapes_for


class Trainer:
    """One model; a loop for each work folder, compiled and started in the warm-up round."""

    def __init__(self, folder: str, matrices: str) -> None:
        dtype = FLOAT_DTYPES[matrices]
        model = load_model(folder, layout="unrolled", dtype="float32", matrix_dtype=dtype).model
        self._model = model.with_attention(choose_attention("auto", "float32")[0])
        self._loop = lru_cache(self._make)

    def run(self, folder: Path) -> dict[str, Any]:
        """The steps of a turn."""
        work = json.loads((folder / "work.json").read_text())
        loop = self._loop(folder)
        last = loop.state.step + work["steps"]
        while loop.state.step < last:
            loop.run_slice(1)
        return {"loss": float(loop.state.losses[-1][0]), "steps": work["steps"]}

    def _make(self, folder: Path) -> TuningLoop:
        work = json.loads((folder / "work.json").read_text())
        recipe = Recipe(
            steps=10**8,
            batch_size=work["batch"],
            micro_batch_size=work["micro_batch"],
            prompt_length=work["prompt_length"],
            dropout_rate=work["dropout"],
            evaluate_every_steps=10**8,
            checkpoint_every_steps=10**8,
        )
        examples = [
            Example(n, tuple(ids), tuple(target), ("",))
            for n, (ids, target) in enumerate(zip(work["inputs"], work["targets"], strict=True))
        ]
        task = PromptTask(0, recipe, np.load(folder / "prompt.npy"), examples, ())
        run = TrainingRun(0, (task,))
        shapes = shapes_for(run, evaluation_rows=1)
        if work["padded"]:
            shapes = self._padded(work)
        programs = compile_programs(
            self._model.functions, self._model.params, shapes, dropping=work["dropout"] > 0
        )
        return TuningLoop(run, programs, lambda ids: "")

    def _padded(self, work: dict[str, Any]) -> TrainingShapes:
        return TrainingShapes(
            prompts=1,
            prompt_length=work["prompt_length"],
            width=self._model.config.d_model,
            rows_per_prompt=work["micro_batch"],
            input_lengths=(work["prompt_length"] + work["padded"],),
            target_length=work["target_length"],
            evaluation_rows=work["micro_batch"],
            labels=0,
            label_length=0,
            new_tokens=0,
        )


if __name__ == "__main__":
    keep_freed_memory(one_heap=True)
    trainer = Trainer(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "f32")
    serve({"run": trainer.run})
