"""The peers: PEFT, Hugging Face and CTranslate2. Runs in the peers' environment, never in Chorus's.

    python peer_worker.py MODEL_FOLDER CT2_FOLDER

What each does with a list of requests:

    peft            requests grouped by task, `set_adapter` for each task, its requests batched
    hf_mixed        hand-made `inputs_embeds` of mixed tasks, sorted by length, in batches
    one_at_a_time   the same, one request a call
    ctranslate2_*   plain T5 with 100 hard tokens in the prompt's place: it has no soft prompts

Every contender makes exactly the tokens that a request wants; a static batch runs until its longest request
is done.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import ctranslate2
import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from transformers import AutoModelForSeq2SeqLM

sys.path.insert(0, str(Path(__file__).parent))
from serve_lines import serve
from workload import PROMPT_LENGTH, Request, read

BATCH = int(os.environ.get("PEER_BATCH", "16"))
THREADS = int(os.environ.get("PEER_THREADS", str(os.cpu_count())))


class Peers:
    """Every peer on one model folder, loaded when first asked for."""

    def __init__(self, model: str, converted: str) -> None:
        self._folder, self._converted = model, converted
        self._model: Any = None
        self._peft: Any = None
        self._adapters: set[str] = set()
        self._translators: dict[str, ctranslate2.Translator] = {}

    def model(self) -> Any:
        if self._model is None:
            self._model = AutoModelForSeq2SeqLM.from_pretrained(self._folder, dtype=torch.float32).eval()
        return self._model

    def peft(self, folder: Path) -> dict[str, Any]:
        requests, prompts = read(folder)
        model = self._peft_model(prompts, {request.task for request in requests})
        for task, group in itertools.groupby(sorted(requests, key=lambda r: r.task), key=lambda r: r.task):
            model.set_adapter(f"task{task}")
            for batch in _batches(sorted(group, key=lambda r: len(r.ids))):
                ids, mask = _pad(batch)
                _generate(model, batch, input_ids=ids, attention_mask=mask)
        return {}

    def _peft_model(self, prompts: Any, tasks: set[int]) -> Any:
        """Registering adapters belongs to set-up: the warm-up round pays for it, not the measured ones."""
        config = PromptTuningConfig(
            task_type=TaskType.SEQ_2_SEQ_LM,
            num_virtual_tokens=PROMPT_LENGTH,
            num_transformer_submodules=1,
            tokenizer_name_or_path=self._folder,
        )
        for task in sorted(tasks):
            name = f"task{task}"
            if self._peft is None:
                base = AutoModelForSeq2SeqLM.from_pretrained(self._folder, dtype=torch.float32).eval()
                self._peft = get_peft_model(base, config, adapter_name=name).eval()
            elif name not in self._adapters:
                self._peft.add_adapter(name, config)
            self._adapters.add(name)
            with torch.no_grad():
                self._peft.prompt_encoder[name].embedding.weight.copy_(torch.from_numpy(prompts[task]))
        return self._peft

    def hf_mixed(self, folder: Path) -> dict[str, Any]:
        return self._embedded(folder, BATCH)

    def one_at_a_time(self, folder: Path) -> dict[str, Any]:
        return self._embedded(folder, 1)

    def _embedded(self, folder: Path, size: int) -> dict[str, Any]:
        requests, prompts = read(folder)
        table = torch.from_numpy(prompts)
        model = self.model()
        for batch in _batches(sorted(requests, key=lambda r: len(r.ids)), size):
            ids, mask = _pad(batch)
            with torch.inference_mode():
                text = model.get_input_embeddings()(ids)
                inputs = torch.cat([table[[request.task for request in batch]], text], dim=1)
            full = torch.cat([torch.ones(len(batch), PROMPT_LENGTH, dtype=mask.dtype), mask], dim=1)
            _generate(model, batch, inputs_embeds=inputs, attention_mask=full)
        return {}

    def ctranslate2(self, compute_type: str) -> Any:
        def run(folder: Path) -> dict[str, Any]:
            requests, _ = read(folder)
            translator = self._translator(compute_type)
            # Its static batches end with the longest request, so requests of one length go together.
            for count, group in itertools.groupby(
                sorted(requests, key=lambda r: r.new_tokens), lambda r: r.new_tokens
            ):
                lines = [self._pieces(request) for request in group]
                translator.translate_batch(
                    lines,
                    beam_size=1,
                    max_batch_size=BATCH * 256,
                    batch_type="tokens",
                    max_input_length=0,
                    max_decoding_length=count,
                    min_decoding_length=count,
                )
            return {}

        return run

    def _translator(self, compute_type: str) -> ctranslate2.Translator:
        if compute_type not in self._translators:
            self._translators[compute_type] = ctranslate2.Translator(
                self._converted,
                device="cpu",
                compute_type=compute_type,
                inter_threads=1,
                intra_threads=THREADS,
            )
        return self._translators[compute_type]

    def _pieces(self, request: Request) -> list[str]:
        hard = [self._vocabulary[1000 + (request.task * 37 + n) % 20000] for n in range(PROMPT_LENGTH)]
        return hard + [self._vocabulary[i] for i in request.ids]

    @property
    def _vocabulary(self) -> list[str]:
        if not hasattr(self, "_words"):
            import json

            self._words = json.loads((Path(self._converted) / "shared_vocabulary.json").read_text())
        words: list[str] = self._words
        return words


def _batches(requests: list[Request], size: int = BATCH) -> list[list[Request]]:
    return [requests[n : n + size] for n in range(0, len(requests), size)]


def _pad(batch: list[Request]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(request.ids) for request in batch)
    ids = torch.tensor([request.ids + [0] * (longest - len(request.ids)) for request in batch])
    mask = torch.tensor([[1] * len(request.ids) + [0] * (longest - len(request.ids)) for request in batch])
    return ids, mask


def _generate(model: Any, batch: list[Request], **inputs: Any) -> None:
    count = max(request.new_tokens for request in batch)
    with torch.inference_mode():
        model.generate(**inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False, num_beams=1)


def main() -> None:
    torch.set_num_threads(THREADS)
    peers = Peers(sys.argv[1], sys.argv[2])
    serve(
        {
            "peft": peers.peft,
            "hf_mixed": peers.hf_mixed,
            "one_at_a_time": peers.one_at_a_time,
            "ctranslate2_f32": peers.ctranslate2("float32"),
            "ctranslate2_int8": peers.ctranslate2("int8"),
        }
    )


if __name__ == "__main__":
    main()
