"""The plan of `chorus models plan` beside XLA: every program of T5-XXL compiled for simulated devices in both
layouts, nothing allocated, and the bytes of arguments, results and donated results compared.

    python benchmarks/plan_check.py --size xxl --devices 8 --slots 64

Writes benchmarks/results/DATE-MACHINE-plan_check.json. XLA's temporaries are kept too, and what training
takes beside the estimate: in bf16 they mean something on a GPU only, where a CPU would widen to f32.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="xxl")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--data-devices", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--input-tokens", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--batch-rows", type=int, default=8)
    parser.add_argument("--prompt-rows", type=int, default=8192)
    parser.add_argument("--tuning-prompts", type=int, default=1)
    parser.add_argument("--tuning-rows", type=int, default=8)
    parser.add_argument("--prompt-length", type=int, default=100)
    return parser.parse_args()


def compare(program: Any) -> dict[str, Any]:
    from chorus_server.engine.executor.sizes import program_bytes

    started, ours = time.perf_counter(), program_bytes(program)
    xla = program.jit().lower(*program.arguments).compile().memory_analysis()
    theirs = (xla.argument_size_in_bytes, xla.output_size_in_bytes, xla.alias_size_in_bytes)
    exact = theirs == (ours.arguments, ours.results, ours.donated)
    return {
        "arguments": ours.arguments, "results": ours.results, "donated": ours.donated, "xla": theirs,
        "exact": exact, "xla_temporaries": xla.temp_size_in_bytes,
        "compile_seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def main() -> None:
    options = _arguments()
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={options.devices} --xla_backend_optimization_level=0 "
        "--xla_llvm_disable_expensive_passes=true"
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
    from machine import machine, versions

    from chorus_server.device_plan import Wanted, document, plan_devices, planned_programs
    from chorus_server.model.config import named_config
    from chorus_server.model.layout import LAYOUTS
    from chorus_server.model.mesh import device_mesh

    config = named_config(options.size)
    mesh = device_mesh(options.data_devices, options.devices // options.data_devices)
    shapes = {name: value for name, value in vars(options).items() if name != "size"}
    found: dict[str, Any] = {}
    for layout in LAYOUTS:
        wanted = Wanted(layout=layout, matrix_dtype=options.dtype, **shapes)
        found[layout] = {"plan": document(plan_devices(config, wanted)), "programs": {}}
        for program in planned_programs(config, wanted, mesh):
            found[layout]["programs"][program.name] = compared = compare(program)
            print(layout, program.name, compared, flush=True)
        training = found[layout]["programs"].get(f"tuning accumulate[{options.input_tokens}]")
        if training is not None:
            estimate = found[layout]["plan"]["device_bytes"]["training"]
            ratio = training["xla_temporaries"] / estimate
            found[layout]["training_of_estimate"] = round(ratio, 3)
            print(f"{layout}: for training XLA asks for {ratio:.2f} times the estimate", flush=True)
    every = [each["exact"] for layout in found.values() for each in layout["programs"].values()]
    where = machine()
    record = {
        "what": "plan_check", "date": datetime.now(UTC).date().isoformat(), "machine": where,
        "versions": versions(Path(sys.executable)), "programs_compared": len(every), "exact": sum(every),
        "layouts": found,
    }  # fmt: skip
    path = HERE / "results" / f"{record['date']}-{where['name']}-plan_check.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{sum(every)} of {len(every)} programs exact", path.name)


if __name__ == "__main__":
    main()
