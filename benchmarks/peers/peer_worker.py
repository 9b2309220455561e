"""The peers: PEFT, Hugging Face and CTranslate2. Runs in the peers' environment, never in Chorus's.

    python peer_worker.py MODEL_FOLDER

What each does with a list of requests:

    peft, peft_bf16               requests grouped by task, `set_adapter` for each task, its requests batched
    hf_mixed, _bf16, _compiled    hand-made `inputs_embeds` of mixed tasks, sorted by length, in batches
    one_at_a_time                 the same, one request a call
    ctranslate2_f32, _int8        prompts as further tokens of the source vocabulary

CTranslate2 has no soft prompts. Its converted models may have a source vocabulary of their own, and the
encoder's embedding is a table: so a prompt becomes P more tokens, and the arithmetic is that of the others.
A new task needs another conversion and another load. Here the warm-up pays for both.

`bf16` is the type of the weights: faster here than autocast. Every contender makes exactly the tokens that a
request wants. `compiled` is `torch.compile` of the encoder. Batches are sorted by text length, since a server
does not know how long its answers will be. PyTorch's static batch runs until its longest request is done;
CTranslate2 takes finished requests out.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from ctranslate2.converters import TransformersConverter
from peft import PromptTuningConfig, TaskType, get_peft_model
from transformers import AutoModelForSeq2SeqLM

sys.path.insert(0, str(Path(__file__).parent))
from serve_lines import serve
from workload import Request, ended, read

THREADS = int(os.environ.get("PEER_THREADS", str(os.cpu_count())))
BF16 = torch.bfloat16
Tokens = list[list[int]]


class TorchPeer:
    """PEFT or Hugging Face on one model folder and type, loaded when first asked for."""

    def __init__(
        self, model: str, dtype: torch.dtype, size: int | None = None, compiled: bool = False
    ) -> None:
        self._folder, self._dtype, self._size, self._compiled = model, dtype, size, compiled
        self._model: Any = None
        self._peft: dict[Path, Any] = {}

    def mixed(self, folder: Path) -> dict[str, Any]:
        requests, prompts = read(folder)
        table = torch.from_numpy(prompts).to(self._dtype)
        self._model = self._model or self._load()
        answers: dict[int, list[int]] = {}
        for batch in _batches(requests, range(len(requests)), self._size):
            some = [requests[place] for place in batch]
            ids, mask = _pad(some)
            with torch.inference_mode():
                text = self._model.get_input_embeddings()(ids)
                inputs = torch.cat([table[[request.task for request in some]], text], dim=1)
            full = torch.cat([torch.ones(len(some), table.shape[1], dtype=mask.dtype), mask], dim=1)
            made = _generate(self._model, some, inputs_embeds=inputs, attention_mask=full)
            answers |= dict(zip(batch, made, strict=True))
        return _said(requests, answers)

    def peft(self, folder: Path) -> dict[str, Any]:
        requests, prompts = read(folder)
        model = self._peft[folder] = self._peft.get(folder) or self._adapters(requests, prompts)
        answers: dict[int, list[int]] = {}
        places = sorted(range(len(requests)), key=lambda place: requests[place].task)
        for task, group in itertools.groupby(places, key=lambda place: requests[place].task):
            model.set_adapter(f"task{task}")
            for batch in _batches(requests, group, self._size):
                some = [requests[place] for place in batch]
                ids, mask = _pad(some)
                made = _generate(model, some, input_ids=ids, attention_mask=mask)
                answers |= dict(zip(batch, made, strict=True))
        return _said(requests, answers)

    def _adapters(self, requests: list[Request], prompts: np.ndarray[Any, Any]) -> Any:
        """Registering adapters belongs to set-up: the warm-up round pays for it, not the measured ones."""
        config = PromptTuningConfig(
            task_type=TaskType.SEQ_2_SEQ_LM,
            num_virtual_tokens=prompts.shape[1],
            num_transformer_submodules=1,
            tokenizer_name_or_path=self._folder,
        )
        model: Any = None
        for task in sorted({request.task for request in requests}):
            name = f"task{task}"
            if model is None:
                model = get_peft_model(self._load(), config, adapter_name=name).eval()
            else:
                model.add_adapter(name, config)
            with torch.no_grad():
                model.prompt_encoder[name].embedding.weight.copy_(torch.from_numpy(prompts[task]))
        return model

    def _load(self) -> Any:
        model = AutoModelForSeq2SeqLM.from_pretrained(self._folder, dtype=self._dtype).eval()
        if self._compiled:
            model.encoder = torch.compile(model.encoder, dynamic=True)
        return model


class CTranslate2Peer:
    """CTranslate2 in one compute type; each folder of work is a model of its own, with its prompts inside."""

    def __init__(self, model: str, compute_type: str) -> None:
        self._folder, self._type = model, compute_type
        self._models: dict[Path, ctranslate2.Translator] = {}
        self._words: list[str] = []
        self._places: dict[str, int] = {}

    def run(self, folder: Path) -> dict[str, Any]:
        requests, prompts = read(folder)
        translator = self._models[folder] = self._models.get(folder) or self._load(folder, prompts)
        answers: dict[int, list[int]] = {}
        for batch in _batches(requests, range(len(requests))):
            wanted = [requests[place].new_tokens for place in batch]
            exact = requests[batch[0]].exact
            found = translator.translate_batch(
                [self._pieces(requests[place], prompts.shape[1]) for place in batch],
                beam_size=1,
                max_input_length=0,
                max_decoding_length=max(wanted),
                min_decoding_length=max(wanted) if exact else 1,
                # A request leaves the batch when it has its tokens; where all want as many, nothing is asked.
                callback=partial(_enough, wanted) if len(set(wanted)) > 1 else None,
            )
            answers |= {
                place: [self._places[word] for word in answer.hypotheses[0]]
                for place, answer in zip(batch, found, strict=True)
            }
        return _said(requests, answers)

    def _load(self, folder: Path, prompts: np.ndarray[Any, Any]) -> ctranslate2.Translator:
        converted = folder / "ctranslate2"
        if not converted.exists():
            _WithPrompts(self._folder, prompts).convert(str(converted))
        self._words = json.loads((converted / "target_vocabulary.json").read_text())
        self._places = {word: place for place, word in enumerate(self._words)}
        return ctranslate2.Translator(
            str(converted),
            device="cpu",
            compute_type=self._type,
            inter_threads=1,
            intra_threads=THREADS,
        )

    def _pieces(self, request: Request, length: int) -> list[str]:
        prompt = [_prompt_token(request.task, row) for row in range(length)]
        return prompt + [self._words[i] for i in request.ids]


class _WithPrompts(TransformersConverter):  # type: ignore[misc]
    """Adds the prompts [tasks, P, D] to the encoder's embedding and to the source vocabulary."""

    def __init__(self, model: str, prompts: np.ndarray[Any, Any]) -> None:
        super().__init__(model)
        self._prompts = prompts

    def _load(self) -> Any:
        spec = super()._load()
        tasks, length, width = self._prompts.shape
        embeddings = spec.encoder.embeddings[0]
        known = torch.as_tensor(embeddings.weight.detach(), dtype=torch.float32)
        embeddings.weight = torch.cat([known, torch.from_numpy(self._prompts.reshape(-1, width))])
        words = list(spec._vocabularies["source"][0])
        words += [_prompt_token(task, row) for task in range(tasks) for row in range(length)]
        spec._vocabularies["source"][0] = words
        return spec


def _prompt_token(task: int, row: int) -> str:
    return f"<prompt {task} {row}>"


def _enough(wanted: list[int], step: Any) -> bool:
    return bool(step.step + 1 >= wanted[step.batch_id])


def _batches(requests: list[Request], places: Any, size: int | None = None) -> list[list[int]]:
    """Places of requests, shortest text first, in batches of the size that was fastest here."""
    size = size or (8 if max(request.new_tokens for request in requests) <= 8 else 16)
    ordered = sorted(places, key=lambda place: len(requests[place].ids))
    return [ordered[n : n + size] for n in range(0, len(ordered), size)]


def _pad(batch: list[Request]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(request.ids) for request in batch)
    ids = torch.tensor([request.ids + [0] * (longest - len(request.ids)) for request in batch])
    mask = torch.tensor([[1] * len(request.ids) + [0] * (longest - len(request.ids)) for request in batch])
    return ids, mask


def _generate(model: Any, batch: list[Request], **inputs: Any) -> Tokens:
    count = max(request.new_tokens for request in batch)
    least = {"min_new_tokens": count} if batch[0].exact else {}
    with torch.inference_mode():
        found = model.generate(**inputs, max_new_tokens=count, **least, do_sample=False, num_beams=1)
    made: Tokens = found[:, 1:].tolist()
    return made


def _said(requests: list[Request], answers: dict[int, list[int]]) -> dict[str, Any]:
    """The answers, in the requests' order, where they are not of a wanted length."""
    if requests[0].exact:
        return {}
    return {"answers": [ended(answers[place]) for place in range(len(requests))]}


def contenders(model: str) -> dict[str, Callable[[Path], dict[str, Any]]]:
    """Every peer by name; nothing is loaded yet."""
    f32, bf16 = TorchPeer(model, torch.float32), TorchPeer(model, BF16)
    compiled = TorchPeer(model, BF16, compiled=True)
    return {
        "peft": f32.peft,
        "peft_bf16": bf16.peft,
        "hf_mixed": f32.mixed,
        "hf_mixed_bf16": bf16.mixed,
        "hf_mixed_bf16_compiled": compiled.mixed,
        "one_at_a_time": TorchPeer(model, torch.float32, size=1).mixed,
        "ctranslate2_f32": CTranslate2Peer(model, "float32").run,
        "ctranslate2_bf16": CTranslate2Peer(model, "bfloat16").run,
        "ctranslate2_int8": CTranslate2Peer(model, "int8").run,
        "ctranslate2_int8_bf16": CTranslate2Peer(model, "int8_bfloat16").run,
    }


def unsupported() -> dict[str, str]:
    """Contenders that this processor cannot run, and why: CTranslate2 would quietly compute in f32."""
    types = ctranslate2.get_supported_compute_types("cpu")
    wanted = {"ctranslate2_bf16": "bfloat16", "ctranslate2_int8_bf16": "int8_bfloat16"}
    return {
        name: f"CTranslate2 {ctranslate2.__version__} has no {dtype} on this processor, only {sorted(types)}"
        for name, dtype in wanted.items()
        if dtype not in types
    }


def main() -> None:
    torch.set_num_threads(THREADS)
    known: dict[str, Callable[[Path], dict[str, Any]]] = contenders(sys.argv[1])
    serve({"unsupported": lambda _: {"unsupported": unsupported()}, **known})


if __name__ == "__main__":
    main()
