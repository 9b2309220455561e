"""PEFT and Hugging Face on the same load and device: random weights of the same shape, made on the device.

    python peer_labels.py FOLDER CONFIG.json CONTENDER DEVICE BATCH REPEATS

Runs in an environment with torch, transformers and peft. CONTENDER is `peft` (requests grouped by task,
`set_adapter` for each, batched) or `hf_mixed` (hand-made `inputs_embeds` of mixed tasks, sorted by length).
Prints one JSON object.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from transformers import T5Config, T5ForConditionalGeneration

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from workload import PROMPT_LENGTH, Request, read


class Peer:
    """A model on a device, and the load's prompts on it."""

    def __init__(self, config: dict[str, Any], folder: Path, device: str, batch: int) -> None:
        self._requests, prompts = read(folder)
        self._device, self._batch = device, batch
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(device):
            self._model: Any = T5ForConditionalGeneration(T5Config(**config)).eval()
        self._prompts = torch.from_numpy(prompts).to(device, torch.bfloat16)
        self._peft: Any = None

    def hf_mixed(self) -> None:
        for batch in self._batches(sorted(self._requests, key=lambda request: len(request.ids))):
            ids, mask = self._padded(batch)
            text = self._model.get_input_embeddings()(ids)
            tasks = torch.tensor([request.task for request in batch], device=self._device)
            inputs = torch.cat([self._prompts[tasks], text], dim=1)
            ones = torch.ones(len(batch), PROMPT_LENGTH, dtype=mask.dtype, device=self._device)
            self._generate(
                self._model, batch, inputs_embeds=inputs, attention_mask=torch.cat([ones, mask], 1)
            )

    def peft(self) -> None:
        model = self._adapted()
        by_task = sorted(self._requests, key=lambda request: request.task)
        for task, group in itertools.groupby(by_task, key=lambda request: request.task):
            model.set_adapter(f"task{task}")
            for batch in self._batches(sorted(group, key=lambda request: len(request.ids))):
                ids, mask = self._padded(batch)
                self._generate(model, batch, input_ids=ids, attention_mask=mask)

    def _adapted(self) -> Any:
        """Registering adapters is set-up: the warm-up round pays for it."""
        if self._peft is not None:
            return self._peft
        config = PromptTuningConfig(
            task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=PROMPT_LENGTH, num_transformer_submodules=1
        )
        for task in sorted({request.task for request in self._requests}):
            if self._peft is None:
                self._peft = get_peft_model(self._model, config, adapter_name=f"task{task}")
            else:
                self._peft.add_adapter(f"task{task}", config)
            embedding = self._peft.prompt_encoder[f"task{task}"].to(self._device).embedding
            with torch.no_grad():
                embedding.weight.copy_(self._prompts[task])
        return self._peft.eval()

    def _batches(self, requests: list[Request]) -> list[list[Request]]:
        return [requests[n : n + self._batch] for n in range(0, len(requests), self._batch)]

    def _padded(self, batch: list[Request]) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(len(request.ids) for request in batch)
        ids = [request.ids + [0] * (longest - len(request.ids)) for request in batch]
        mask = [[1] * len(request.ids) + [0] * (longest - len(request.ids)) for request in batch]
        return torch.tensor(ids, device=self._device), torch.tensor(mask, device=self._device)

    def _generate(self, model: Any, batch: list[Request], **inputs: Any) -> None:
        count = max(request.new_tokens for request in batch)
        model.generate(**inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False, num_beams=1)


def main() -> None:
    folder, config, contender, device, batch, repeats = sys.argv[1:]
    peer = Peer(json.loads(Path(config).read_text()), Path(folder), device, int(batch))
    answer, taken = getattr(peer, contender), []
    with torch.inference_mode():
        for _ in range(int(repeats) + 1):
            started = time.perf_counter()
            answer()
            if device != "cpu":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
    count = len(read(Path(folder))[0])
    rate = count / statistics.median(taken[1:])
    print(json.dumps({"seconds": taken[1:], "requests_per_second": rate, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
