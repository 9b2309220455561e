"""`chorus models`: the commands of `checkpoints_cli`, and `plan`, which has to know every program."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table

from chorus_server.checkpoints_cli import SIZES, as_json_option, models, source_options
from chorus_server.model.command import DTYPES, Command, Finite, Spelled, stated
from chorus_server.model.config import T5Config, named_config

if TYPE_CHECKING:
    from chorus_server.device_plan import DevicePlan, Wanted
    from chorus_server.engine.memory_plan import MemoryPlan
    from chorus_server.model.matrix_types import FloatDtype
    from chorus_server.shapes import Shapes

__all__ = ["models"]

_COUNT = click.IntRange(min=1, max=1_000_000)


def _count(flag: str, default: int, text: str) -> Callable[[Command], Command]:
    return click.option(flag, type=_COUNT, default=default, show_default=True, help=text)


@models.command()
@click.argument("model", required=False)
@click.option("--size", type=click.Choice(SIZES), help="A published size of T5 1.1, instead of MODEL.")
@_count("--devices", 1, "Number of devices.")
@_count("--data-devices", 1, "Groups of devices that share rows; the devices of a group share tensors.")
@click.option("--platform", type=click.Choice(("cpu", "gpu", "tpu")),
              help="Show what `shapes` `auto` chooses there, instead of one block.")  # fmt: skip
@click.option("--device-memory", type=Finite(min=0, min_open=True), metavar="GB",
              help="Memory that JAX finds on a device of that platform; nine tenths are used.")  # fmt: skip
@click.option("--dtype", type=Spelled(DTYPES), help="bf16, but f32 on a CPU.")
@click.option("--matrix-dtype", type=Spelled(DTYPES),
              help="As `matrix_dtype` `auto` chooses, on a CPU by this processor.")  # fmt: skip
@click.option("--layout", type=click.Choice(("unrolled", "scanned")), default="unrolled", show_default=True)
@_count("--slots", 64, "Sequences that decode together.")
@_count("--input-tokens", 512, "Encoder positions of a slot and of a prefill step.")
@_count("--new-tokens", 64, "Decoder positions of a slot.")
@_count("--batch-rows", 8, "Rows of a prefill step.")
@_count("--prompt-rows", 8192, "Rows of the prompt table.")
@click.option("--tuning-prompts", type=click.IntRange(min=0), default=1, show_default=True,
              help="Prompts that train together; 0 means none.")  # fmt: skip
@_count("--tuning-rows", 8, "Rows of each prompt in a micro-batch.")
@_count("--prompt-length", 100, "Rows of a prompt that is trained.")
@click.option("--bandwidth", type=Finite(min=0, min_open=True), metavar="GB/S",
              help="Memory bandwidth of a device; shows the least time a decode step can take.")  # fmt: skip
@source_options
@as_json_option
@stated
def plan(
    model: str | None,
    size: str | None,
    platform: str | None,
    device_memory: float | None,
    dtype: FloatDtype | None,
    matrix_dtype: FloatDtype | None,
    bandwidth: float | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Compute what a model takes of each device, and the bytes that a decode step must move.

    Nothing is allocated or compiled. MODEL is what `chorus models describe` takes, including a size. The
    bytes of arguments and results equal those of XLA's own analysis of the compiled programs.
    """
    from chorus_server.device_plan import Wanted, document, plan_devices, wanted_of
    from chorus_server.model.matrix_types import choose_matrix_dtype, processor_flags
    from chorus_server.settings.values import written
    from chorus_server.shapes import cost_table, shape_costs

    _check_choice(platform, device_memory)
    flags = {name: rest.pop(name) for name in tuple(rest) if name not in Wanted.__dataclass_fields__}
    config = _config(model, size, flags)
    compute: FloatDtype = dtype or ("float32" if platform == "cpu" else "bfloat16")
    matrix = matrix_dtype or choose_matrix_dtype("auto", compute, platform or "", processor_flags())[0]
    wanted, chosen = Wanted(dtype=compute, matrix_dtype=matrix, **rest), None
    if platform is not None:
        chosen = _chosen(config, wanted, platform, device_memory)
        wanted = wanted_of(chosen[0], wanted)
    found = plan_devices(config, wanted)
    if as_json:
        content = document(found)
        if bandwidth is not None:
            content["decode_step_milliseconds"] = round(found.step.milliseconds(bandwidth), 4)
        if chosen is not None:
            content["settings"] = {name: written(value) for name, value in chosen[0].settings.items()}
            content["costs"] = [each._asdict() for each in shape_costs(*chosen)]
        click.echo(json.dumps(content, indent=2))
    else:
        if chosen is not None:
            click.echo(cost_table(*chosen))
        _print(found, bandwidth)
    if chosen is not None:
        chosen[1].check()


_OF_ONE_BLOCK = ("slots", "input_tokens", "new_tokens", "batch_rows")


def _check_choice(platform: str | None, device_memory: float | None) -> None:
    """Raises click.UsageError for options that do not go together."""
    context = click.get_current_context()
    given = [
        f"--{name.replace('_', '-')}"
        for name in _OF_ONE_BLOCK
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    ]
    if platform is None and device_memory is not None:
        raise click.UsageError("--device-memory needs --platform, which tells what is chosen for it")
    if platform not in (None, "cpu") and device_memory is None:
        raise click.UsageError(
            f"--platform {platform} needs --device-memory: the GB that JAX finds on one device (by default "
            "three quarters of a GPU's memory)"
        )
    if platform is not None and given:
        raise click.UsageError(f"--platform chooses the shapes: leave out {', '.join(given)}")


def _chosen(
    config: T5Config, wanted: Wanted, platform: str, device_memory: float | None
) -> tuple[Shapes, MemoryPlan]:
    """What a server would choose there, and its memory."""
    from chorus_server.engine.memory_plan import DEVICE_SHARE, device_limit
    from chorus_server.settings import Settings
    from chorus_server.shapes import Deployment, shapes_of

    limit = device_limit(wanted.mesh) if device_memory is None else int(device_memory * 1e9 * DEVICE_SHARE)
    deployment = Deployment(config, platform, limit, wanted.dtype, wanted.matrix_dtype, wanted.mesh)
    table = click.get_current_context().get_parameter_source("prompt_rows") is not ParameterSource.DEFAULT
    shapes = shapes_of(Settings(prompt_rows=wanted.prompt_rows if table else None), deployment)
    return shapes, deployment.plan(shapes.ladder, shapes.prompt_rows)


def _config(model: str | None, size: str | None, flags: dict[str, Any]) -> T5Config:
    if (model is None) == (size is None):
        raise click.UsageError("give either MODEL or --size")
    if size is not None or model in SIZES:
        return named_config(size or str(model))
    from chorus_server.model.checkpoints.opening import OpenOptions, open_checkpoint

    return open_checkpoint(str(model), OpenOptions(**flags)).config


def _print(plan: DevicePlan, bandwidth: float | None) -> None:
    console, wanted, step = Console(), plan.wanted, plan.step
    mesh = f"{wanted.data_devices} data x {plan.model_devices} model"
    types = f"{wanted.dtype}, matrices in {wanted.matrix_dtype}"
    console.print(f"[bold]{plan.config.name}[/bold], {types}, {wanted.layout}, {mesh} devices")
    shape = f"{wanted.slots} slots of {wanted.input_tokens} + {wanted.new_tokens} tokens"
    console.print(f"{shape}, prefill steps of {wanted.batch_rows} rows", highlight=False)
    _table(console, "of each device", plan.uses())
    moved = [("weights", step.weights), ("encoder memory", step.encoder_memory)]
    moved += [("self-attention", step.self_attention), ("logits", step.logits), ("total", step.total)]
    _table(console, "a decode step must move", moved)
    if bandwidth is not None:
        console.print(f"at {bandwidth:g} GB/s: {step.milliseconds(bandwidth):.3f} ms a step", highlight=False)
    table = Table("program", box=None)
    for title in ("arguments", "results", "donated"):
        table.add_column(title, justify="right")
    for name, each in plan.programs.items():
        table.add_row(name.replace("[", r"\["), *map(_mib, (each.arguments, each.results, each.donated)))
    console.print(table)


def _table(console: Console, title: str, rows: list[tuple[str, int]]) -> None:
    table = Table(title, box=None)
    table.add_column("MiB", justify="right")
    table.add_column("bytes", justify="right")
    for use, count in rows:
        table.add_row(use, _mib(count), f"{count:,}")
    console.print(table)


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f}"
