"""Compares Chorus with the numbers that `reference.py` wrote, and keeps the outcome as JSON.

    python benchmarks/parity/compare.py --model FOLDER --reference FOLDER --machine 2core-cpu

Writes benchmarks/results/DATE-MACHINE-parity.json and exits with 1 if a figure misses its target: relative L2
error of f32 logits and encodings at most 1e-5, the same greedy tokens and beams on every sentence, the same
ids for every text.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chorus_server.engine.executor.testing import MemoryPrompts, tiny_executor
from chorus_server.engine.plans import Admission, BlockShape, DecodePlan, Ladder, PrefillPlan, RowLoad
from chorus_server.engine.sampling import Sampling
from chorus_server.model.checkpoints.load import load_model
from chorus_server.model.decoding import greedy_tokens
from chorus_server.model.t5 import Model

RESULTS = Path(__file__).parents[1] / "results"
TARGET = 1e-5
BATCH = 25
BF16_SENTENCES = 50  # bf16 products are slow on CPU
STEP = 128
"""Input lengths are rounded up to a multiple of this: one compile each."""


class Reference:
    """What `reference.py` wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record: dict[str, Any] = json.loads((folder / "reference.json").read_text())
        self.prompt = np.load(folder / "prompt.npy", allow_pickle=False)

    def greedy(self, length: int) -> list[list[int]]:
        return self._lines("greedy", length)

    def beams(self, length: int) -> list[dict[str, Any]]:
        return self._lines("beams", length)

    def _lines(self, what: str, length: int) -> list[Any]:
        lines: list[Any] = json.loads((self.folder / f"{what}_{length}.json").read_text())
        return lines

    def logits(self, length: int) -> Any:
        return np.load(self.folder / f"logits_{length}.npy", mmap_mode="r", allow_pickle=False)

    def encoded(self, length: int, index: int) -> Any:
        return np.load(self.folder / f"encoded_{index}_{length}.npy", allow_pickle=False)


class Error:
    """Relative L2 error over everything added, and the worst single item."""

    def __init__(self) -> None:
        self._difference = self._total = self.worst = 0.0

    def add(self, got: Any, expected: Any) -> None:
        got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        difference, total = float(((got - expected) ** 2).sum()), float((expected**2).sum())
        self._difference += difference
        self._total += total
        self.worst = max(self.worst, (difference / total) ** 0.5)

    @property
    def overall(self) -> float:
        return (self._difference / self._total) ** 0.5


def compare_length(model: Model, reference: Reference, length: int, dtype: str) -> dict[str, Any]:
    """All sentences behind a prompt of `length` rows, in padded batches whose every row has its own
    length."""
    functions, V = model.functions, model.config.padded_vocab_size
    rows = [[*range(V, V + length), *ids] for ids in reference.record["ids"]]
    expected, greedy = reference.logits(length), reference.greedy(length)
    positions = expected.shape[1]
    encode, forced = jax.jit(functions.encode), jax.jit(functions.decode_targets)
    table = np.asarray(reference.prompt)
    logits, encodings, same = Error(), Error(), 0
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        width = -(-max(len(rows[index]) for index in batch) // STEP) * STEP
        ids, lengths = np.zeros((BATCH, width), np.int32), np.zeros(BATCH, np.int32)
        targets = np.zeros((BATCH, 1, positions), np.int32)
        for place, index in enumerate(batch):
            ids[place, : len(rows[index])], lengths[place] = rows[index], len(rows[index])
            targets[place, 0, : len(greedy[index])] = greedy[index][:positions]
        encoded = encode(model.params, table, ids, lengths)
        whole = np.full((BATCH, 1), positions, np.int32)
        got = np.asarray(forced(model.params, encoded, lengths, targets, whole))
        tokens = greedy_tokens(model, encoded, lengths, reference.record["new_tokens"])
        for place, index in enumerate(batch):
            real = min(len(greedy[index]), positions)
            logits.add(got[place, 0, :real], expected[index, :real])
            same += tokens[place] == greedy[index]
            if index < reference.record["encoded"]:
                known = reference.encoded(length, index)
                encodings.add(np.asarray(encoded[place, : len(known)], np.float32), known)
    return {
        "dtype": dtype, "prompt_length": length, "sentences": len(rows), "same_greedy_tokens": same,
        "logits_relative_l2": logits.overall, "logits_relative_l2_worst_sentence": logits.worst,
        "encoder_relative_l2": encodings.overall, "longest_input": max(map(len, rows)),
        "inputs_past_128": sum(len(row) > 128 for row in rows),
    }  # fmt: skip


def compare_beams(model: Model, reference: Reference, length: int) -> dict[str, Any]:
    """Beam 4 without length penalty through the engine's own executor."""
    searches, V = reference.beams(length), model.config.padded_vocab_size
    rows = [(*range(V, V + length), *ids) for ids in reference.record["ids"][: len(searches)]]
    width = -(-max(map(len, rows)) // STEP) * STEP
    new_tokens = reference.record["new_tokens"]
    ladder = Ladder(((4, width),), (BlockShape(width, new_tokens, 16),), (), 64)
    prompts = MemoryPrompts({"p": np.asarray(reference.prompt[: max(length, 1)])})
    executor = tiny_executor(ladder, prompts, model=model, prompt_rows=160, without=("plain",))
    loads: tuple[RowLoad, ...] = (RowLoad("p", tuple(range(max(length, 1)))),)
    sampling = Sampling(new_tokens, num_beams=4, length_penalty=0.0)
    same, worst = 0, 0.0
    for start in range(0, len(rows), 4):
        batch = tuple(rows[start : start + 4])
        admissions = tuple(
            Admission(row, 0, tuple(range(4 * row, 4 * row + 4)), sampling) for row in range(len(batch))
        )
        executor.collect(executor.dispatch(PrefillPlan(start, (4, width), batch, admissions, loads)))
        loads, found = (), {}
        while len(found) < len(batch):
            result = executor.collect(executor.dispatch(DecodePlan(start, 0, "grouped", 8)))
            found |= {done.leader: done.beams for done in result.beams}
        for row, search in enumerate(searches[start : start + 4]):
            beams = found[4 * row]
            ours = [[*beam.tokens, 1] if beam.ended else [*beam.tokens] for beam in beams]
            same += ours == search["sequences"]
            differences = (abs(b.score - s) for b, s in zip(beams, search["scores"], strict=True))
            worst = max(worst, *differences)
    return {
        "prompt_length": length, "searches": len(rows), "same_four_sequences_in_order": same,
        "largest_score_difference": worst,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--machine", required=True)
    options = parser.parse_args()
    reference, started = Reference(options.reference), time.time()
    record: dict[str, Any] = {
        "what": "parity", "date": datetime.now(UTC).date().isoformat(), "machine": options.machine,
        "model": options.model.name, "jax": jax.__version__, "reference": reference.record["reference"],
        "target_relative_l2": TARGET, "lengths": [], "beams": [],
    }  # fmt: skip
    for dtype in ("float32", "bfloat16"):
        loaded = load_model(options.model, dtype=dtype)
        if dtype == "float32":
            assert loaded.vocabulary is not None
            ids = [[*loaded.vocabulary.encode(text), 1] for text in reference.record["texts"]]
            known = reference.record["ids"]
            record["texts_with_the_same_ids"] = sum(a == b for a, b in zip(ids, known, strict=True))
        for length in reference.record["prompt_lengths"]:
            record["lengths"].append(compare_length(loaded.model, reference, length, dtype))
            print(json.dumps(record["lengths"][-1]), flush=True)
        if dtype == "float32":
            for length in reference.record["beam_prompts"]:
                record["beams"].append(compare_beams(loaded.model, reference, length))
                print(json.dumps(record["beams"][-1]), flush=True)
    record["seconds"] = round(time.time() - started, 1)
    record["passed"] = passed(record, len(reference.record["texts"]))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{record['date']}-{options.machine}-parity.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"{path.name}: {'passed' if record['passed'] else 'FAILED'}")
    raise SystemExit(0 if record["passed"] else 1)


def passed(record: dict[str, Any], count: int) -> bool:
    exact = [line for line in record["lengths"] if line["dtype"] == "float32"]
    return (
        all(max(line["logits_relative_l2"], line["encoder_relative_l2"]) <= TARGET for line in exact)
        and all(line["same_greedy_tokens"] == count for line in exact)
        and all(line["same_four_sequences_in_order"] == line["searches"] for line in record["beams"])
        and record["texts_with_the_same_ids"] == count
    )


if __name__ == "__main__":
    main()
