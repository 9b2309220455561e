"""What a T5 looks like: sizes, activation, head. Plain data without JAX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chorus_server.errors import InvalidModelError

Activation = Literal["gelu", "relu"]


@dataclass(frozen=True, slots=True)
class T5Config:
    """Architecture of one encoder-decoder T5. It is hashable, so that it can be a static jit argument.

    Attributes:
        name: shown to people; it affects no number.
        vocab_size: number of pieces and extra ids, without padding rows (32100 for T5).
        padded_vocab_size: V, rows of the embedding (32128 for T5).
        d_model: D.
        d_kv: K, width of one head. H x K need not equal D.
        d_ff: F.
        num_heads: H.
        num_encoder_layers, num_decoder_layers: N of each stack.
        relative_buckets: rows of the relative position table, shared by all layers of a stack.
        relative_max_distance: distances from this one on share the last bucket.
        gated: T5 1.1's feed-forward, activation(x wi_0) * (x wi_1). If false, T5 1.0's activation(x wi).
        activation: "gelu" is the tanh approximation (Hugging Face's gelu_new).
        tied: T5 1.0's head: the transposed embedding, whose input is scaled by d_model ** -0.5.
        norm_epsilon: added to the mean square under the root.
        dropout_rate: only training uses it.
        pad_id, eos_id, decoder_start_id: special ids.
        extra_ids: number of sentinels at the end of the vocabulary; <extra_id_0> is the highest id.
    """

    name: str
    vocab_size: int
    padded_vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_heads: int
    num_encoder_layers: int
    num_decoder_layers: int
    relative_buckets: int = 32
    relative_max_distance: int = 128
    gated: bool = True
    activation: Activation = "gelu"
    tied: bool = False
    norm_epsilon: float = 1e-6
    dropout_rate: float = 0.1
    pad_id: int = 0
    eos_id: int = 1
    decoder_start_id: int = 0
    extra_ids: int = 100

    def __post_init__(self) -> None:
        positive = (
            "vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_encoder_layers", "num_decoder_layers",
        )  # fmt: skip
        for name in positive:
            if getattr(self, name) < 1:
                raise InvalidModelError(f"{name} must be at least 1, got {getattr(self, name)}", field=name)
        if self.padded_vocab_size < self.vocab_size:
            message = f"padded_vocab_size {self.padded_vocab_size} is below vocab_size {self.vocab_size}"
            raise InvalidModelError(message, field="padded_vocab_size")
        if self.activation not in ("gelu", "relu"):
            message = f"activation must be gelu or relu, got {self.activation!r}"
            raise InvalidModelError(message, field="activation")
        if self.relative_buckets < 4 or self.relative_buckets % 2:
            message = f"relative_buckets must be even and at least 4, got {self.relative_buckets}"
            raise InvalidModelError(message, field="relative_buckets")
        if self.relative_max_distance <= self.relative_buckets // 2:
            message = (
                f"relative_max_distance {self.relative_max_distance} must exceed half of relative_buckets "
                f"({self.relative_buckets // 2}): nearer distances have a bucket each"
            )
            raise InvalidModelError(message, field="relative_max_distance")

    @property
    def inner_width(self) -> int:
        """H * K, the width of all heads together."""
        return self.num_heads * self.d_kv


_SIZES: dict[str, tuple[int, int, int, int, int]] = {
    # name: D, K, F, H, N
    "small": (512, 64, 1024, 6, 8),
    "base": (768, 64, 2048, 12, 12),
    "large": (1024, 64, 2816, 16, 24),
    "xl": (2048, 64, 5120, 32, 24),
    "xxl": (4096, 64, 10240, 64, 24),
}


def named_config(name: str) -> T5Config:
    """T5 1.1 of a published size; or "tiny": two layers of odd widths, for tests.

    Raises:
        InvalidModelError: there is no such size.
    """
    if name == "tiny":
        return T5Config(
            name="tiny", vocab_size=163, padded_vocab_size=168, d_model=26, d_kv=5, d_ff=37, num_heads=3,
            num_encoder_layers=2, num_decoder_layers=2,
        )  # fmt: skip
    if name not in _SIZES:
        sizes = ", ".join(("tiny", *_SIZES))
        raise InvalidModelError(f"no model size {name!r}; choose one of {sizes}", field="size")
    d_model, d_kv, d_ff, heads, layers = _SIZES[name]
    return T5Config(
        name=f"t5-1.1-{name}", vocab_size=32100, padded_vocab_size=32128, d_model=d_model, d_kv=d_kv,
        d_ff=d_ff, num_heads=heads, num_encoder_layers=layers, num_decoder_layers=layers,
    )  # fmt: skip
