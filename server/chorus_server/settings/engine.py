"""Settings under `[engine]`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from chorus_server.settings.values import MIB, YEAR_SECONDS, SettingsGroup, ShapeChoice


class EngineSettings(SettingsGroup):
    """The model, the devices that it runs on, and the shapes that it is compiled for."""

    model: str = Field(
        "embedded",
        description="Base model: a folder, a Hugging Face hub id, a `gs://` T5X folder, or `embedded`, the "
        "small one that ships with Chorus.",
    )
    compute_dtype: Literal["auto", "f32", "bf16"] = Field(
        "auto", description="Type the model computes in. `auto` is f32 on a CPU and bf16 on an accelerator."
    )
    matrix_dtype: Literal["auto", "f32", "bf16"] = Field(
        "auto",
        description="Type that the model's matrices are kept and multiplied in. `auto` is bf16 on a CPU with "
        "bf16 instructions (AMX-BF16, AVX-512 BF16), where answers are 1.6 to 2 times as fast; else the "
        "compute type. docs/models.md says what bf16 changes.",
    )
    layout: Literal["unrolled", "scanned"] = Field(
        "unrolled",
        description="One buffer for each layer's weights (fast decode), or all stacked (fast compile).",
    )
    model_devices: int = Field(
        1, ge=1, description="Devices that share each tensor: heads, feed-forward and vocabulary are split."
    )
    data_devices: int = Field(
        1,
        ge=1,
        description="Groups of `model_devices` devices; each holds all weights and part of the rows and "
        "slots.",
    )
    memory_limit_bytes: int | None = Field(
        None,
        ge=1,
        description="Device memory that may be used; by default nine tenths of what the device has.",
    )
    prompt_rows: int | None = Field(
        None,
        ge=1,
        description="Rows of the device-resident prompt table. By default 8192, or what `auto` chooses.",
    )
    host_prompts_bytes: int = Field(
        512 * MIB, ge=0, description="Prompt values kept in host memory, in bytes."
    )
    shapes: ShapeChoice = Field(
        ShapeChoice(),
        description="Shapes that are compiled: `small` for inputs of up to 256 tokens, which is ready "
        "soonest; `medium` for up to 512; `large` with more rows and slots. `auto` is `medium` on a CPU; on "
        "a GPU or TPU it chooses rows and slots by device memory and model. The start prints them. An "
        "expert puts lists in place of a preset's, as in `small batch_rows=1,4 blocks=256x64x8`.",
    )
    batch_invariant: bool = Field(
        False,
        description="Use one compiled shape for each input length, so that load cannot change an answer's "
        "rounding.",
    )
    step_timeout_seconds: float = Field(
        120.0,
        ge=0,
        le=YEAR_SECONDS,
        description="A device step that takes longer than this ends the process; 0 means no limit.",
    )
    compile_cache_dir: Path | None = Field(
        None,
        description="Folder that keeps compiled programs for later starts, also of other replicas; by "
        "default `compile_cache` in the data folder. They are code that the server runs: only root, its user "
        "and their group may be able to write there.",
    )
