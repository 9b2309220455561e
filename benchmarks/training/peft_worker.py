"""PEFT prompt tuning in torch, one transformer submodule. Runs in the peers' environment.

python peft_worker.py MODEL_FOLDER

The optimiser is transformers' Adafactor with the settings that Chorus uses; it costs next to nothing.
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

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._made = lru_cache(self._make)

    def run(self, folder: Path) -> dict[str, Any]:
        """The steps of a turn: whole batches, every input padded to the same length."""
        work, model, optimiser = self._made(folder)
        generator, loss = np.random.default_rng(0), None
        for _ in range(work["steps"]):
            chosen = generator.choice(len(work["inputs"]), work["batch"], replace=False)
            loss = model(**_batch(work, chosen)).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        return {"loss": float(loss.detach()), "steps": work["steps"]}

    def _make(self, folder: Path) -> tuple[dict[str, Any], Any, Any]:
        work = json.loads((folder / "work.json").read_text())
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
        optimiser = Adafactor(
            trained, lr=0.3, relative_step=False, scale_parameter=False, weight_decay=1e-5 / 0.3
        )
        return work, model, optimiser


def _batch(work: dict[str, Any], chosen: Any) -> dict[str, torch.Tensor]:
    padded, length = work["padded"], work["target_length"]
    inputs = [work["inputs"][n] for n in chosen]
    targets = [work["targets"][n] for n in chosen]
    return {
        "input_ids": torch.tensor([ids + [0] * (padded - len(ids)) for ids in inputs]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (padded - len(ids)) for ids in inputs]),
        "labels": torch.tensor([ids + [-100] * (length - len(ids)) for ids in targets]),
    }


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    trainer = Trainer(sys.argv[1])
    serve({"peft": trainer.run})
