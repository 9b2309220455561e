"""In which type the model's matrices are kept and multiplied, chosen by processor.

XLA multiplies matrices on a CPU with a library that asks the processor what it has: the flag
`--xla_cpu_max_isa` limits the code that XLA writes itself, not these products. So the processor alone decides
(docs/decisions/0011-matrix-type-by-processor.md).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

FloatDtype = Literal["float32", "bfloat16"]

FLOAT_DTYPES: dict[str, FloatDtype] = {"f32": "float32", "bf16": "bfloat16"}
"""By the settings' names."""

BF16_INSTRUCTIONS = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX-512 BF16"}
"""Linux's names of the instruction sets that multiply bf16 and add in f32, the fastest first; ours for
people."""

_CPU_INFO = Path("/proc/cpuinfo")


def choose_matrix_dtype(
    wanted: Literal["auto", "f32", "bf16"], compute_dtype: FloatDtype, platform: str, flags: Collection[str]
) -> tuple[FloatDtype, str]:
    """Choose the type of the matrices. Returns it, and the reason with the way to choose otherwise.

    Args:
        wanted: `auto` is bf16 on a CPU with bf16 instructions, else the compute dtype.
        platform: JAX's name of the backend: `cpu`, `gpu`, `tpu`.
        flags: of the processor, as `processor_flags` reads them; of no account on another platform.
    """
    if wanted != "auto":
        return FLOAT_DTYPES[wanted], "asked for"
    if platform != "cpu":
        return compute_dtype, "the compute type; matrix_dtype chooses another"
    if compute_dtype == "bfloat16":
        return compute_dtype, "the compute type; matrix_dtype=f32 chooses the other"
    fast = [name for flag, name in BF16_INSTRUCTIONS.items() if flag in flags]
    if fast:
        return "bfloat16", f"this processor has {fast[0]}; matrix_dtype=f32 gives the numbers of f32"
    return "float32", (
        f"this processor is not known to have {' or '.join(BF16_INSTRUCTIONS.values())}; matrix_dtype=bf16 "
        "halves their memory, and is slower"
    )


def processor_flags(text: str | None = None) -> frozenset[str]:
    """Instruction sets of this machine's processor, by Linux's names. Empty where there is no /proc/cpuinfo
    (macOS), or where it lists none (arm64 calls them features, and has other ones).

    Args:
        text: of a /proc/cpuinfo; None reads this machine's.
    """
    if text is None:
        try:
            text = _CPU_INFO.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return frozenset()
    lists = [line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags")]
    # Cores may differ in a container's or a hybrid processor's list; a product runs on all of them.
    return frozenset.intersection(*map(frozenset, lists)) if lists else frozenset()
