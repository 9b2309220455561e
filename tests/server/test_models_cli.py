"""`chorus models plan`: the figures by hand, the wording, and what does not divide."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from chorus_server.device_plan import Wanted, plan_devices, planned_programs
from chorus_server.engine.executor.sizes import tree_bytes
from chorus_server.engine.memory_plan import weight_bytes
from chorus_server.engine.step_bytes import decode_step_bytes
from chorus_server.model.config import named_config
from chorus_server.model.layout import Layout
from chorus_server.model.matrix_types import choose_matrix_dtype, processor_flags
from chorus_server.model.mesh import abstract_mesh, device_mesh
from chorus_server.model.parameters import is_matrix, parameter_count, parameter_shapes
from chorus_server.models_cli import models
from chorus_server.settings import load_settings

XXL = ["plan", "--size", "xxl", "--devices", "8", "--dtype", "bf16", "--slots", "64"]


def _json(*arguments: str) -> Any:
    result = CliRunner().invoke(models, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_xxl_on_eight_devices_by_hand() -> None:
    found = _json(*XXL, "--input-tokens", "256", "--new-tokens", "32", "--bandwidth", "1000")
    assert found["mesh"] == {"data": 1, "model": 8}
    norms = (24 * 2 + 1 + 24 * 3 + 1) * 4096
    cut = parameter_count(named_config("xxl")) - norms
    device = found["device_bytes"]
    assert device["weights"] == 2 * (cut // 8 + norms)
    assert device["prompt_rows"] == 8192 * 4096 * 2 // 8
    position = 24 * 2 * 64 * 64 * 2 // 8  # keys and values of 24 layers, 8 of 64 heads of 64, two bytes
    assert device["encoder_memory"] == 64 * 256 * position
    step = found["decode_step_bytes"]
    assert step["encoder_memory"] == device["encoder_memory"]
    assert step["self_attention"] == 64 * 32 * position
    assert step["logits"] == 64 * 32128 * 4
    layer = (
        6 * 4096 * 4096 + 3 * 4096 * 10240
    )  # two attentions without one's keys and values, gated feed-forward
    whole = 24 * layer + 4096 * 32128 + 32 * 64
    assert step["weights"] == 2 * (whole // 8 + (24 * 3 + 1) * 4096)
    assert step["total"] == sum(step[name] for name in step if name != "total")
    assert found["decode_step_milliseconds"] == pytest.approx(step["total"] / 1e9, rel=1e-3)
    decode = found["programs"]["decode[256x32x64,plain]"]
    assert decode["arguments"] > step["weights"] + step["encoder_memory"] and decode["donated"] > 0
    assert {"weights", "slots", "logits", "total"} <= set(device)


@pytest.mark.parametrize("devices", [["--devices", "2"], ["--devices", "2", "--data-devices", "2"]])
def test_training_is_planned_on_several_devices(devices: list[str]) -> None:
    alone, spread, none = (
        _json("plan", "--size", "base", *more) for more in ([], devices, [*devices, "--tuning-prompts", "0"])
    )
    programs = [name for name in alone["programs"] if "tuning" in name]
    assert programs and [name for name in spread["programs"] if "tuning" in name] == programs
    # Half the rows or half of each layer, and as much of prompts and of what lies between layers.
    training = spread["device_bytes"]["training"]
    assert 0.5 <= training / alone["device_bytes"]["training"] < 0.6
    assert "training" not in none["device_bytes"] and not any("tuning" in name for name in none["programs"])


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.parametrize("layout", ["unrolled", "scanned"])
def test_what_training_takes_is_near_what_xla_asks_for(layout: Layout) -> None:
    """Of the estimate only that; `benchmarks/plan_check.py` compares larger models on several devices."""
    config = replace(named_config("small"), num_encoder_layers=4, num_decoder_layers=4)
    wanted = Wanted(
        devices=1, data_devices=1, dtype="float32", matrix_dtype="float32", layout=layout, slots=8,
        input_tokens=256, new_tokens=8, batch_rows=8, prompt_rows=64, tuning_prompts=1, tuning_rows=8,
        prompt_length=20,
    )  # fmt: skip
    every = {each.name: each for each in planned_programs(config, wanted, device_mesh(1, 1))}
    program = every["tuning accumulate[256]"]
    found = program.jit().lower(*program.arguments).compile().memory_analysis().temp_size_in_bytes
    steps = tree_bytes([every["tuning apply"].arguments])
    estimate = plan_devices(config, wanted).training - steps
    assert 0.75 <= found / estimate <= 1.25


def test_a_group_has_a_row_more_where_rows_do_not_divide() -> None:
    cut = [_json("plan", "--size", "base", "--devices", "2", "--data-devices", "2", "--tuning-rows", rows)
           for rows in ("3", "4")]  # fmt: skip
    assert cut[0]["device_bytes"]["training"] == cut[1]["device_bytes"]["training"]


def test_a_step_moves_what_is_there_not_what_there_is_room_for() -> None:
    config, mesh = named_config("base"), abstract_mesh(2, 4)
    short, long = (decode_step_bytes(config, "float32", 16, tokens, 3, mesh) for tokens in (100, 200))
    assert long.encoder_memory == 2 * short.encoder_memory
    assert (short.weights, short.self_attention) == (long.weights, long.self_attention)
    alone = decode_step_bytes(config, "float32", 16, 100, 3)
    assert alone.encoder_memory == 8 * short.encoder_memory  # 2 groups of slots, 4 of heads
    assert weight_bytes(config, 4, mesh) < weight_bytes(config, 4) / 3.9


def test_a_platform_shows_what_a_server_would_choose() -> None:
    found = _json("plan", "--size", "xxl", "--platform", "gpu", "--device-memory", "60")
    assert " blocks=256x64x48,512x256x24 " in found["settings"]["shapes"]
    assert load_settings(found["settings"]).prompt_rows == 65_536
    assert found["shapes"]["slots"] == 24 and found["shapes"]["batch_rows"] == 8
    costs = {each["setting"]: each for each in found["costs"]}
    served = [name for name in found["programs"] if not name.startswith("tuning")]
    assert sum(each["programs"] for each in costs.values()) == len(served) == 32
    device = found["device_bytes"]
    assert costs["blocks"]["bytes"] == device["encoder_memory"] + device["slots"]
    assert costs["prompt_rows"]["bytes"] == device["prompt_rows"] == 65_536 * 4096 * 2
    card = ("plan", "--size", "xxl", "--device-memory")
    spread = _json(*card, "16", "--platform", "tpu", "--devices", "8", "--data-devices", "2")
    assert " blocks=256x64x112,512x256x48 " in spread["settings"]["shapes"]
    given = _json(*card, "60", "--platform", "gpu", "--prompt-rows", "100")
    assert given["settings"]["prompt_rows"] == "100"
    shown = CliRunner().invoke(models, ["plan", "--size", "small", "--platform", "cpu"])
    assert shown.exit_code == 0 and "medium, chosen for cpu" in shown.output, shown.output


def test_matrices_count_in_their_own_type() -> None:
    wide, narrow = (
        _json("plan", "--size", "base", "--dtype", "f32", "--matrix-dtype", each) for each in ("f32", "bf16")
    )
    sizes = parameter_shapes(named_config("base"))
    matrices = sum(math.prod(shape) for name, shape in sizes.items() if is_matrix(name))
    assert wide["device_bytes"]["weights"] - narrow["device_bytes"]["weights"] == 2 * matrices
    assert narrow["decode_step_bytes"]["weights"] < 0.51 * wide["decode_step_bytes"]["weights"]
    assert narrow["shapes"]["matrix_dtype"] == "bfloat16"
    # On a CPU the default is what its processor gets, elsewhere the compute type.
    chosen = choose_matrix_dtype("auto", "float32", "cpu", processor_flags())[0]
    cpu = _json("plan", "--size", "base", "--platform", "cpu")["shapes"]
    assert (cpu["dtype"], cpu["matrix_dtype"]) == ("float32", chosen)


def test_the_table_is_for_people() -> None:
    result = CliRunner().invoke(models, [*XXL, "--bandwidth", "3350"])
    assert result.exit_code == 0, result.output
    for words in (
        "1 data x 8 model",
        "encoder memory",
        "training (estimate)",
        "must move",
        "decode[512x64x64,plain]",
    ):
        assert words in result.output
    assert "at 3350 GB/s" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "small", "--devices", "4"], "do not divide num_heads 6"),
        (["--size", "base", "--devices", "6", "--data-devices", "4"], "4 data devices do not divide 6"),
        (["--size", "base", "--devices", "2", "--data-devices", "2", "--slots", "3"], "3 slots of block"),
        ([], "either MODEL or --size"),
        (["--size", "xxl", "--platform", "gpu"], "--platform gpu needs --device-memory"),
        (["--size", "xxl", "--device-memory", "60"], "--device-memory needs --platform"),
        (
            ["--size", "xxl", "--platform", "tpu", "--device-memory", "16", "--slots", "4"],
            "leave out --slots",
        ),
        (["--size", "xxl", "--platform", "tpu", "--device-memory", "16"], "weights takes 21,239.0 MiB"),
        (["--size", "base", "--platform", "cpu", "--devices", "3", "--data-devices", "3"], "16 slots"),
        (["--size", "xxl", "--platform", "metal"], "'cpu', 'gpu', 'tpu'"),
        (["--size", "small", "small"], "either MODEL or --size"),
    ],
)
def test_what_does_not_divide_is_one_sentence(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(models, ["plan", *arguments])
    assert result.exit_code != 0 and words in result.output and "Traceback" not in result.output
