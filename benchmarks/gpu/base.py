"""T5 1.1 base, greedy, one static batch: new tokens a second, beside FasterTransformer's published figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from scale import Scale
from setting import OUTPUT_WIDTH, compiled, stopwatch

from chorus_server.engine.executor.packing import pack_admissions, pack_inputs
from chorus_server.engine.executor.prefill import EncodedRows
from chorus_server.engine.executor.programs import admit_name, decode_name, encode_name
from chorus_server.engine.plans import Admission, BlockShape, Ladder
from chorus_server.engine.sampling import Sampling
from chorus_server.model.t5 import Model

PUBLISHED = {"tokens_per_second": 18_137, "by": "FasterTransformer, T5 base, A100, fp16, batch 128, top-k 4"}


def measure(scale: Scale, model: Model) -> dict[str, Any]:
    B, L, T = scale.base_batch, scale.base_input, scale.base_new_tokens
    assert T <= OUTPUT_WIDTH
    shape = BlockShape(L, T, B)
    names = encode_name((B, L), B * L), admit_name(shape), decode_name(shape, "plain")
    ladder = Ladder(((B, L),), (shape,), (), 8)
    spec, program = compiled(model, ladder, 8, lambda name: name in (*names, "empty"))
    encode, admit, decode = (program[name] for name in names)
    ids = np.random.default_rng(0).integers(100, model.config.vocab_size - 100, (B, L)).astype(np.int32)
    packed = pack_inputs(ids.tolist(), (B, L), B * L, B)
    admissions = [Admission(row, 0, (row,), Sampling(T, T)) for row in range(B)]
    admitted = pack_admissions(admissions, B, shape, model.config.decoder_start_id)

    def whole() -> Any:
        table, tokens, (state,) = program["empty"]()
        tokens, finite = encode(spec.params, table, tokens, *packed)
        state = admit(state, tokens, EncodedRows(*packed[1:], finite), admitted)
        return decode(spec.params, state, np.zeros(B, bool), np.int32(T))[1]

    taken, output = stopwatch(whole, scale.repeats), whole()
    assert int(np.asarray(output.counts).sum()) == B * T, "a row ended early"
    rate = B * T / taken["median"]
    return {
        "model": model.config.name, "batch": B, "input_tokens": L, "new_tokens": T, "seconds": taken,
        "tokens_per_second": rate, "published": PUBLISHED,
        "times_published": rate / PUBLISHED["tokens_per_second"],  # type: ignore[operator]
    }  # fmt: skip
