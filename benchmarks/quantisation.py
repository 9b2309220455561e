"""What int8 at rest and bf16 do to a model's answers: logits and greedy tokens beside the parent's, bytes.

    python benchmarks/quantisation.py MODEL --texts sentences.tsv --machine 2core-cpu

Takes the first column of the first `--count` rows after the header. f32 compute. Writes
benchmarks/results/DATE-MACHINE-quantisation.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chorus_server.model.checkpoints import LoadedModel, load_model
from chorus_server.model.checkpoints.convert import convert_checkpoint
from chorus_server.model.decoding import greedy_tokens

RESULTS = Path(__file__).parent / "results"
NEW_TOKENS = 16


def batch(loaded: LoadedModel, texts: list[str]) -> tuple[Any, Any]:
    """ids [B, L] and lengths [B]."""
    assert loaded.vocabulary is not None
    encoded = [[*loaded.vocabulary.encode(text)[:126], loaded.vocabulary.eos_id] for text in texts]
    ids = np.zeros((len(encoded), max(map(len, encoded))), np.int32)
    for row, each in enumerate(encoded):
        ids[row, : len(each)] = each
    return jnp.asarray(ids), jnp.asarray([len(each) for each in encoded])


def answers(
    loaded: LoadedModel, texts: list[str], forced: list[list[int]] | None
) -> tuple[Any, list[list[int]]]:
    """Logits [B, T, V] of `forced` targets (of its own greedy answer when None), and its greedy answer."""
    model = loaded.model
    ids, lengths = batch(loaded, texts)
    encoded = jax.jit(model.functions.encode)(
        model.params, jnp.zeros((1, model.config.d_model)), ids, lengths
    )
    greedy = greedy_tokens(model, encoded, lengths, NEW_TOKENS)
    targets = np.zeros((len(texts), 1, NEW_TOKENS), np.int32)
    for row, each in enumerate(forced or greedy):
        targets[row, 0, : len(each)] = each
    counts = jnp.asarray([[len(each)] for each in forced or greedy])
    decode = jax.jit(model.functions.decode_targets)
    return np.asarray(decode(model.params, encoded, lengths, targets, counts)), greedy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--machine", required=True)
    options = parser.parse_args()
    lines = options.texts.read_text().splitlines()[1 : options.count + 1]
    texts = [line.split("\t")[0].strip() for line in lines]
    parent = load_model(options.model)
    expected, said = answers(parent, texts, None)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for dtype, matrix_dtype in (
            ("float32", None), ("bfloat16", None), ("int8", None), ("float32", "bfloat16"),
        ):  # fmt: skip
            folder = Path(scratch) / f"{dtype}-{matrix_dtype}"
            convert_checkpoint(options.model, folder, dtype=dtype)
            loaded = load_model(folder, matrix_dtype=matrix_dtype)
            logits, greedy = answers(loaded, texts, said)
            name = dtype if matrix_dtype is None else f"{dtype}, matrices {matrix_dtype}"
            found[name] = {
                "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
                "bytes_in_memory": sum(leaf.nbytes for leaf in jax.tree.leaves(loaded.model.params)),
                "logits_relative_l2": float(np.linalg.norm(logits - expected) / np.linalg.norm(expected)),
                "same_greedy_answer": sum(a == b for a, b in zip(greedy, said, strict=True)),
                "texts": len(texts),
            }
            print(name, json.dumps(found[name]), flush=True)
    record = {
        "what": "quantisation", "date": datetime.now(UTC).date().isoformat(), "machine": options.machine,
        "model": Path(options.model).name, "jax": jax.__version__, "found": found,
    }  # fmt: skip
    path = RESULTS / f"{record['date']}-{options.machine}-quantisation.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(path.name)


if __name__ == "__main__":
    main()
