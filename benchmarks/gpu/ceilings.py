"""The two ceilings of a card: bytes a second of a copy, and bf16 matrix products a second."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from scale import Scale
from setting import stopwatch


def measure(scale: Scale) -> dict[str, Any]:
    x = jnp.ones((scale.copy_elements,), jnp.bfloat16)
    n = scale.matmul_size
    a = jnp.full((n, n), 1 / n, jnp.bfloat16)

    def copies(x: jax.Array) -> jax.Array:
        # Negation cannot be left out, and it reads and writes every value once.
        return jax.lax.fori_loop(0, scale.chain, lambda _, y: -y, x)

    def products(a: jax.Array, b: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(
            0, scale.chain, lambda _, y: jnp.matmul(a, y, preferred_element_type=jnp.bfloat16), b
        )

    copy, product = jax.jit(copies), jax.jit(products)
    copied = stopwatch(lambda: copy(x), scale.repeats)
    multiplied = stopwatch(lambda: product(a, a), scale.repeats)
    moved, made = 2 * x.nbytes * scale.chain, 2 * n**3 * scale.chain
    return {
        "copy_gigabytes_per_second": moved / copied["median"] / 1e9,
        "matmul_teraflops": made / multiplied["median"] / 1e12,
        "copy_seconds": copied, "matmul_seconds": multiplied, "matmul_size": n, "copied_bytes": x.nbytes,
    }  # fmt: skip
