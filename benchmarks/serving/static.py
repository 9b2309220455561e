"""Static batching with the engine's own programs: what continuous batching is measured against."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import jax
import numpy as np
from direct import Direct, MadePrompts
from workload import Request

from chorus_server.engine.executor.testing import MemoryPrompts
from chorus_server.engine.plans import Admission, BlockShape, DecodePlan, PrefillPlan, RowLoad
from chorus_server.engine.sampling import Sampling


@dataclass
class Turn:
    """What one run took.

    Attributes:
        prefill: seconds.
        decode: seconds, by block shape; `maxima` are the decode steps taken there, `lengths` the tokens made.
    """

    seconds: float = 0.0
    prefill: float = 0.0
    decode: defaultdict[BlockShape, float] = field(default_factory=lambda: defaultdict(float))
    maxima: defaultdict[BlockShape, int] = field(default_factory=lambda: defaultdict(int))
    lengths: defaultdict[BlockShape, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def bound(self) -> float:
        """The most that continuous batching can gain: every decode step with every slot at work."""
        full = sum(
            seconds * self.lengths[shape] / (shape.slots * self.maxima[shape])
            for shape, seconds in self.decode.items()
        )
        return (self.prefill + sum(self.decode.values())) / (self.prefill + full)

    def as_json(self) -> dict[str, float]:
        """For the result file."""
        return {
            "prefill_seconds": self.prefill,
            "decode_seconds": sum(self.decode.values()),
            "sum_of_maxima": sum(self.maxima.values()),
            "sum_of_lengths_over_slots": sum(n / shape.slots for shape, n in self.lengths.items()),
        }


class StaticBatches:
    """Fills a block with requests of like input lengths, decodes it to its last row's end, takes the next.

    Args:
        tasks: their prompts are put on the device here, once.
    """

    def __init__(self, direct: Direct, prompt_length: int, tasks: int) -> None:
        made = MadePrompts(direct.config.d_model)
        values = {f"{prompt_length}#{n}": made.fetch(f"{prompt_length}#{n}") for n in range(tasks)}
        self._executor = direct.executor(MemoryPrompts(values))
        self._length, self._first = prompt_length, direct.config.padded_vocab_size
        self._ladder = direct.ladder
        for place, digest in enumerate(values):
            rows = tuple(range(place * prompt_length, (place + 1) * prompt_length))
            bucket = self._ladder.input_buckets[0]
            plan = PrefillPlan(0, bucket, ((1,),), (), (RowLoad(digest, rows),))
            self._executor.collect(self._executor.dispatch(plan))

    def run(self, requests: Sequence[Request]) -> Turn:
        """Answer all of them."""
        turn = Turn()
        started = time.perf_counter()
        for shape, batch in self._batches(requests):
            self._prefill(shape, batch, turn)
            self._decode(shape, batch, turn)
        turn.seconds = time.perf_counter() - started
        return turn

    def _batches(self, requests: Sequence[Request]) -> Iterator[tuple[BlockShape, list[Request]]]:
        """By the block that holds them, sorted by input length, as many as it has slots."""
        by_shape: defaultdict[BlockShape, list[Request]] = defaultdict(list)
        for request in sorted(requests, key=self._input_length):
            by_shape[self._shape(request)].append(request)
        for shape, members in sorted(by_shape.items()):
            for start in range(0, len(members), shape.slots):
                yield shape, members[start : start + shape.slots]

    def _input_length(self, request: Request) -> int:
        return self._length + len(request.ids)

    def _bucket_length(self, request: Request) -> int:
        length = self._input_length(request)
        return min(L for _, L in self._ladder.input_buckets if length <= L)

    def _shape(self, request: Request) -> BlockShape:
        fitting = [
            shape
            for shape in self._ladder.blocks
            if self._bucket_length(request) <= shape.input_length and request.new_tokens <= shape.new_tokens
        ]
        return min(fitting, key=lambda shape: (shape.input_length + shape.new_tokens, shape))

    def _prefill(self, shape: BlockShape, batch: Sequence[Request], turn: Turn) -> None:
        started = time.perf_counter()
        rows = max(B for B, _ in self._ladder.input_buckets)
        block = self._ladder.blocks.index(shape)
        for start in range(0, len(batch), rows):
            part = batch[start : start + rows]
            L = max(self._bucket_length(request) for request in part)
            B = min(B for B, length in self._ladder.input_buckets if length == L and len(part) <= B)
            admissions = tuple(
                Admission(row, block, (start + row,), Sampling(one.new_tokens, one.new_tokens))
                for row, one in enumerate(part)
            )
            plan = PrefillPlan(0, (B, L), tuple(self._ids(one) for one in part), admissions)
            self._executor.collect(self._executor.dispatch(plan))
        jax.block_until_ready(self._executor._blocks[block].state)
        turn.prefill += time.perf_counter() - started

    def _decode(self, shape: BlockShape, batch: Sequence[Request], turn: Turn) -> None:
        started = time.perf_counter()
        block, most = self._ladder.blocks.index(shape), max(request.new_tokens for request in batch)
        made = 0
        while made < most:  # a dispatch ends by itself with the last row
            tokens = min(self._executor.max_tokens_per_dispatch, most - made)
            self._executor.collect(self._executor.dispatch(DecodePlan(0, block, "plain", tokens)))
            made += tokens
        turn.decode[shape] += time.perf_counter() - started
        turn.maxima[shape] += most
        turn.lengths[shape] += int(np.sum([request.new_tokens for request in batch]))

    def _ids(self, request: Request) -> tuple[int, ...]:
        first = self._first + request.task * self._length
        return (*range(first, first + self._length), *request.ids)
