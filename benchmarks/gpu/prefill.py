"""An encoder pass and its admission, against the measured rate of matrix products; and with many prompts
resident, against one."""

from __future__ import annotations

from typing import Any

import numpy as np
from scale import Scale
from setting import compiled, stopwatch, weight_products

from chorus_server.engine.executor.packing import pack_admissions, pack_inputs
from chorus_server.engine.executor.prefill import EncodedRows
from chorus_server.engine.executor.programs import admit_name, decode_name, encode_name
from chorus_server.engine.plans import Admission, BlockShape, Ladder
from chorus_server.engine.sampling import Sampling
from chorus_server.model.t5 import Model

GOAL, RESIDENT_GOAL = 0.55, 0.97
LABEL_STEPS = 4


def products(model: Model, rows: int, length: int) -> tuple[float, float]:
    """Floating-point operations of an encoder pass, and of making its encoder memory."""
    config, positions = model.config, rows * length
    attention = 4 * rows * config.num_encoder_layers * length**2 * config.inner_width
    encoder = 2 * positions * weight_products(config, "encoder") + attention
    return encoder, 2 * positions * config.num_decoder_layers * 2 * config.d_model * config.inner_width


def measure(scale: Scale, model: Model, teraflops: float) -> dict[str, Any]:
    rows, length = scale.prefill
    shape = BlockShape(length, LABEL_STEPS, rows)
    ladder = Ladder(((rows, length),), (shape,), (), 8)
    encode, admit = encode_name((rows, length), rows * length), admit_name(shape)
    decode = decode_name(shape, "plain")
    table_rows = scale.residents * scale.prompt
    wanted = {"empty", encode, admit, decode}
    spec, program = compiled(model, ladder, table_rows, lambda name: name in wanted)
    admissions = [Admission(row, 0, (row,), Sampling(LABEL_STEPS, LABEL_STEPS)) for row in range(rows)]
    admitted = pack_admissions(admissions, rows, shape, model.config.decoder_start_id)
    many, one = (
        pack_inputs(_ids(scale, model, spread).tolist(), (rows, length), rows * length, rows)
        for spread in (True, False)
    )
    table, tokens, state = program["empty"]()
    held = {"tokens": tokens, "state": state[0]}

    def encoded(packed: Any) -> Any:
        """Whether each row is finite; the tokens' memory is donated from call to call, like the state."""
        held["tokens"], finite = program[encode](spec.params, table, held["tokens"], *packed)
        return finite

    def batch(packed: Any, steps: int) -> Any:
        """What a batch of labels costs: encode, admit, decode."""
        where = EncodedRows(*packed[1:], encoded(packed))
        held["state"] = program[admit](held["state"], held["tokens"], where, admitted)
        if not steps:
            return held["state"]
        release = np.zeros(rows, bool)
        held["state"], output = program[decode](spec.params, held["state"], release, np.int32(steps))
        return output.tokens

    alone = stopwatch(lambda: encoded(many), scale.repeats)
    admitting = stopwatch(lambda: batch(many, 0), scale.repeats)
    flops, memory_flops = products(model, rows, length)
    share = (flops + memory_flops) / admitting["median"] / 1e12 / teraflops
    spread, same = [], []
    for _ in range(scale.repeats):  # in turn, so that a clock that falls falls for both
        spread.append(stopwatch(lambda: batch(many, LABEL_STEPS), 1)["median"])
        same.append(stopwatch(lambda: batch(one, LABEL_STEPS), 1)["median"])
    ratio = float(np.median(same) / np.median(spread))
    return {
        "rows": rows, "length": length, "encode_seconds": alone, "encode_and_admit_seconds": admitting,
        "encode_share_of_matmul": flops / alone["median"] / 1e12 / teraflops, "share_of_matmul": share,
        "goal": GOAL, "reached": share >= GOAL, "xla_temporary_bytes": program.temporary_bytes[encode],
        "residents": {
            "prompts": scale.residents, "prompt_rows": scale.prompt, "table_bytes": int(table.nbytes),
            "batch_seconds_of_many": spread, "batch_seconds_of_one": same, "throughput_ratio": ratio,
            "goal": RESIDENT_GOAL, "reached": ratio >= RESIDENT_GOAL,
        },
    }  # fmt: skip


def _ids(scale: Scale, model: Model, spread: bool) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Rows that begin with a prompt: each its own, drawn from all residents, or all the same one."""
    rows, length = scale.prefill
    generator, V = np.random.default_rng(0), model.config.padded_vocab_size
    ids = generator.integers(100, model.config.vocab_size - 100, (rows, length)).astype(np.int32)
    chosen = generator.permutation(scale.residents)[np.arange(rows) % scale.residents]
    first = chosen[:, None] if spread else np.zeros((rows, 1), np.int64)
    ids[:, : scale.prompt] = V + first * scale.prompt + np.arange(scale.prompt)
    return ids
