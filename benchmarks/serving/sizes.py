"""How much is measured: a real run, and a quick one that only shows that everything works."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """Counts, lengths in tokens, durations in seconds.

    Attributes:
        ladder: settings of the compiled shapes that differ from the server's defaults.
        budget_prompts: prompts that the device table holds in the registry part.
        host_prompts: prompts that the host tier holds there.
        requests, rounds: of one turn; measured turns of each contender.
    """

    model: str = "small"
    prompt_length: int = 100
    prompt_rows: int = 110_000
    ladder: dict[str, Any] = field(default_factory=dict)
    requests: int = 96
    rounds: int = 3
    tasks: tuple[int, ...] = (1, 32, 64, 1000)
    registered: int = 10_000
    in_use: int = 1000
    budget_prompts: int = 256
    host_prompts: int = 512
    text_requests: int = 128
    text_rounds: int = 2
    served_tasks: int = 64
    idle_requests: int = 60
    uploads: int = 30
    cold: int = 150
    ensembles: int = 20
    points: int = 48
    prompt_lengths: tuple[int, ...] = (1, 20, 50, 100, 150)
    text_lengths: tuple[int, ...] = (16, 32, 64, 128, 256, 400)
    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    offered: tuple[float, ...] = (0.25, 0.5, 0.7, 0.85, 1.0, 1.2)
    seconds_a_load: float = 8.0
    tuning_phases: int = 3
    seconds_a_phase: float = 12.0

    @property
    def longest(self) -> int:
        """Input tokens of the largest bucket."""
        return max(self.ladder.get("input_lengths", (512,)))


REAL = Sizes()

QUICK = Sizes(
    model="tiny",
    prompt_length=6,
    prompt_rows=400,
    ladder={
        "input_lengths": (32, 64),
        "batch_rows": (1, 4),
        "blocks": ((64, 64, 4), (64, 128, 4)),
        "score_buckets": ((2, 16),),
    },
    requests=12,
    rounds=1,
    tasks=(1, 4, 20),
    registered=40,
    in_use=20,
    budget_prompts=8,
    host_prompts=12,
    text_requests=12,
    text_rounds=1,
    served_tasks=8,
    idle_requests=6,
    uploads=3,
    cold=5,
    ensembles=3,
    points=8,
    prompt_lengths=(1, 6, 12),
    text_lengths=(8, 16, 32),
    concurrency=(1, 4),
    offered=(0.5, 1.0),
    seconds_a_load=1.0,
    tuning_phases=1,
    seconds_a_phase=2.0,
)
