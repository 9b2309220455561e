"""What XLA is given for a card, read without one: the server's own programs, lowered to StableHLO for CUDA.

    python benchmarks/gpu/lowered.py                       T5-XXL in bf16 on a card of 80 GB, two layers of it
    python benchmarks/gpu/lowered.py --size small --memory 60

For each program: which arguments it overwrites, its custom calls, and every operation whose result is as
large as the keys or values of one layer. StableHLO comes before XLA's passes: what fuses, what is copied and
which kernels run is decided after it, by a compiler that needs CUDA's jaxlib. So an operation listed here may
cost nothing, but a copy of encoder memory that is asked for, an argument that is not given away, or attention
that is not cuDNN's call, shows here already.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo

from chorus_server.engine.executor import Program, model_spec, programs
from chorus_server.model.config import T5Config, named_config
from chorus_server.model.t5 import build
from chorus_server.settings import Settings
from chorus_server.shapes import Deployment, Shapes, shapes_of

KINDS = ("encode", "admit", "decode", "score")
_OP = re.compile(r'= "?(?:stablehlo|chlo)\.(\w+)')
_CALL = re.compile(r"(?:func\.)?call @([\w.]+)")
_TARGET = re.compile(r"custom_call @([\w$.]+)")
_RESULT = re.compile(r"tensor<((?:\d+x)*)(\w+)>")
_WIDTHS = {
    "i1": 1,
    "i8": 1,
    "ui8": 1,
    "bf16": 2,
    "f16": 2,
    "i32": 4,
    "ui32": 4,
    "f32": 4,
    "i64": 8,
    "ui64": 8,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="xxl")
    parser.add_argument("--memory", type=float, default=60.0, help="GB that JAX finds on the card")
    parser.add_argument("--layers", type=int, default=2, help="of each stack; all are alike")
    options = parser.parse_args()
    config = named_config(options.size)
    found = review(config, chosen(config, options.memory), options.layers)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


def chosen(config: T5Config, gigabytes: float) -> Shapes:
    """What a server on such a card chooses."""
    limit = int(gigabytes * 1e9 * 0.9)
    return shapes_of(Settings(), Deployment(config, "gpu", limit, jnp.bfloat16, jnp.bfloat16))


def review(config: T5Config, shapes: Shapes, layers: int) -> dict[str, Any]:
    """The largest program of each kind (both modes of decode), by name."""
    small = replace(config, num_encoder_layers=layers, num_decoder_layers=layers)
    model = build(small, dtype="bfloat16").with_attention("cudnn")
    found: dict[str, Any] = {}
    for program in _largest(list(programs(model_spec(model, shapes.prompt_rows), shapes.ladder))):
        block = max(shapes.ladder.blocks, key=lambda each: each.slots * each.input_length)
        layer = config.inner_width * 2
        least = {
            "decode": block.slots * min(block.input_length, block.new_tokens) * layer,
            "admit": block.slots * block.input_length * layer,
        }.get(program.name.split("[")[0], shapes.ladder.max_tokens * layer)
        found[program.name] = lowered(program, least)
    return found


def lowered(program: Program, least: int) -> dict[str, Any]:
    """What is in a program's StableHLO for CUDA.

    Args:
        least: bytes of a result from which an operation is listed.
    """
    with patch.object(fused_attention_stablehlo, "check_cudnn_version", lambda: 91200):
        traced = program.jit().trace(*program.arguments)
        text = str(traced.lower(lowering_platforms=("cuda",)).as_text())
    calls: Counter[str] = Counter()
    large: Counter[str] = Counter()
    open_regions: list[str] = []
    for line in _lines(_functions(text), "main"):
        calls.update(_TARGET.findall(line))
        operation = _OP.search(line)
        name = operation[1] if operation else ""
        if operation and line.endswith("({"):  # its result stands where its region ends
            open_regions.append(name)
            continue
        if open_regions and line.lstrip().startswith("}) :"):
            name = open_regions.pop()
        results = _RESULT.findall(re.split(r"->|.*:", line)[-1]) if name else []
        for dimensions, kind in results[-1:]:
            shape = [int(each) for each in dimensions.split("x") if each]
            if math.prod(shape) * _WIDTHS.get(kind, 4) >= least:
                large[f"{name} {'x'.join(map(str, shape))} {kind}"] += 1
    donated = sum(len(jax.tree.leaves(program.arguments[index])) for index in program.donate)
    return {
        "donated": donated,
        "overwritten": len(re.findall(r"tf\.aliasing_output|jax\.buffer_donor", text.split("{\n", 2)[1])),
        "custom_calls": dict(calls),
        "listed_from_bytes": least,
        "large": dict(large.most_common()),
    }


def _largest(every: list[Program]) -> Iterator[Program]:
    for kind in KINDS:
        named = [each for each in every if each.name.startswith(f"{kind}[")]
        yield named[-2 if kind == "decode" else -1]
        if kind == "decode":
            yield named[-1]


def _functions(text: str) -> dict[str, list[str]]:
    """The lines of each function of a module."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if head := re.search(r"func\.func (?:public|private) @([\w.]+)", line):
            found[head[1]] = own = []
        elif found:
            own.append(line)
    return found


def _lines(functions: dict[str, list[str]], name: str) -> Iterator[str]:
    """A function's lines, with those of the functions it calls in their places."""
    for line in functions[name]:
        called = _CALL.search(line)
        if called and called[1] in functions:
            yield from _lines(functions, called[1])
        else:
            yield line


if __name__ == "__main__":
    main()
