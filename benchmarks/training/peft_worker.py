"""PEFT prompt tuning in torch, one transformer submodule. Runs in the peers' environment.

python peft_worker.py MODEL_FOLDER [f32 | bf16 | bf16_compiled]

bf16 is torch's autocast with the frozen weights in bf16 as well, which is faster than casting them at each
step; the prompt and its optimiser stay f32. The optimiser is transformers' Adafactor with the settings that
Chorus uses; it costs next to nothing.
"""

from __future__ import annotations

import json
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
import numpy as np
import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from serve_lines import serve
from transformers import AutoModelForSeq2SeqLM
from transformers.optimization import Adafactor

THREADS = int(os.environ.get("PEER_THREADS", str(os.cpu_count())))


class Trainer:
    """A model for each work folder, made in the warm-up round."""

    def __init__(self, folder: str, precision: str) -> None:
        self._folder = folder
        self._precision = precision
        self._made = lru_cache(self._make)

    def run(self, folder: Path) -> dict[str, Any]:
        """The steps of a turn."""
        work, model, optimiser = self._made(folder)
        batches = _batches(work)
        loss: Any = None
        for number in range(work["steps"]):
            loss = self._step(work, model, optimiser, batches[number % len(batches)])
        return {"loss": float(loss.detach()), "steps": work["steps"]}

    def tune(self, folder: Path) -> dict[str, Any]:
        """Train on the batches of `work.json` from the first values on, and write `peft.npy` [P, D]."""
        work, model, optimiser = self._make(folder)
        losses = [float(self._step(work, model, optimiser, chosen).detach()) for chosen in work["batches"]]
        prompt = model.prompt_encoder["default"].embedding.weight.detach().numpy()
        np.save(folder / "peft.npy", prompt)
        return {"losses": losses}

    def _step(self, work: dict[str, Any], model: Any, optimiser: Any, chosen: Any) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self._precision != "f32"):
            loss: torch.Tensor = model(**_batch(work, chosen)).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return loss

    def _make(self, folder: Path) -> tuple[dict[str, Any], Any, Any]:
        work = json.loads((folder / "work.json").read_text())
        torch.manual_seed(work.get("seed", 0))
        base = AutoModelForSeq2SeqLM.from_pretrained(
            self._folder, dtype=torch.float32, dropout_rate=work["dropout"]
        )
        config = PromptTuningConfig(
            task_type=TaskType.SEQ_2_SEQ_LM,
            num_virtual_tokens=work["prompt_length"],
            num_transformer_submodules=1,
            tokenizer_name_or_path=self._folder,
        )
        model = get_peft_model(base, config)
        with torch.no_grad():
            prompt = torch.from_numpy(np.load(folder / "prompt.npy"))
            model.prompt_encoder["default"].embedding.weight.copy_(prompt)
        model.train()
        trained = [each for each in model.parameters() if each.requires_grad]
        assert [tuple(each.shape) for each in trained] == [tuple(prompt.shape)], (
            "more than the prompt would train"
        )
        if self._precision != "f32":
            for each in model.parameters():
                if not each.requires_grad:
                    each.data = each.data.to(torch.bfloat16)
        rate = work.get("learning_rate", 0.3)
        optimiser = Adafactor(
            trained, lr=rate, relative_step=False, scale_parameter=False, weight_decay=1e-5 / rate
        )
        return work, torch.compile(model) if self._precision == "bf16_compiled" else model, optimiser


def _batches(work: dict[str, Any]) -> list[Any]:
    """Examples of each step: drawn at random where all are padded alike, else grouped by length as the
    Hugging Face trainer's `group_by_length` does, which saves torch all but a few positions of padding."""
    count, size, generator = len(work["inputs"]), work["batch"], np.random.default_rng(0)
    if work["padded"]:
        return [generator.choice(count, size, replace=False) for _ in range(work["steps"])]
    order = sorted(range(count), key=lambda n: -len(work["inputs"][n]))
    batches = [order[start : start + size] for start in range(0, count - size + 1, size)]
    # As many as a turn has steps, evenly from the longest to the shortest.
    return [batches[(2 * n + 1) * len(batches) // (2 * work["steps"])] for n in range(work["steps"])]


def _batch(work: dict[str, Any], chosen: Any) -> dict[str, torch.Tensor]:
    inputs = [work["inputs"][n] for n in chosen]
    targets = [work["targets"][n] for n in chosen]
    padded = work["padded"] or max(map(len, inputs))
    length = max(map(len, targets))
    return {
        "input_ids": torch.tensor([ids + [0] * (padded - len(ids)) for ids in inputs]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (padded - len(ids)) for ids in inputs]),
        "labels": torch.tensor([ids + [-100] * (length - len(ids)) for ids in targets]),
    }


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    folder, precision = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "f32"
    trainer = Trainer(folder, precision)
    serve({"run": trainer.run, "tune": trainer.tune})
