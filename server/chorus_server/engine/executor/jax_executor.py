"""The executor on a JAX device: plans in, results out, compiled programs only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chorus_server.engine.executor import packing, results
from chorus_server.engine.executor import programs as names
from chorus_server.engine.executor.compiling import CompiledPrograms
from chorus_server.engine.executor.decode import DecodeOutput
from chorus_server.engine.executor.lanes import ENCODING, Lanes, run_apart
from chorus_server.engine.executor.prefill import EncodedRows
from chorus_server.engine.executor.programs import ModelSpec
from chorus_server.engine.executor.state import BlockState
from chorus_server.engine.plans import (
    DecodePlan,
    Ladder,
    PrefillPlan,
    RowLoad,
    ScorePlan,
    StepPlan,
    StepResult,
)
from chorus_server.engine.protocols import HostPrompts, PendingStep
from chorus_server.errors import InternalError


@dataclass(frozen=True, slots=True)
class Dispatched:
    """A step under way: its plan, and the device arrays that will hold its result."""

    plan: StepPlan
    outputs: Any
    searches: dict[int, tuple[int, ...]]


@dataclass(slots=True)
class _Block:
    """One block: its device state, and the host's record of the searches in it (leader -> slots)."""

    state: BlockState
    searches: dict[int, tuple[int, ...]] = field(default_factory=dict)


class JaxExecutor:
    """Implements `protocols.Executor`. `build_executor` makes it; it is used from one thread.

    Every call runs an executable that was compiled at start, so no plan can cause a compile. State is donated
    from step to step: a step may be dispatched before earlier ones are collected, and sees the state that
    they leave. On a CPU, programs that read nothing of each other run at the same time: encoding has a lane,
    and so does each block.
    """

    def __init__(
        self,
        spec: ModelSpec,
        ladder: Ladder,
        compiled: CompiledPrograms,
        prompts: HostPrompts,
        padded_vocab_size: int,
        decoder_start_id: int,
    ) -> None:
        self._spec = spec
        self._ladder = ladder
        self._programs = compiled
        self._prompts = prompts
        self._padded_vocab_size = padded_vocab_size
        self._start_id = decoder_start_id
        self._table, self._tokens, states = compiled["empty"]()
        self._blocks = [_Block(state) for state in states]
        self._encoded: tuple[tuple[tuple[int, ...], ...], EncodedRows] | None = None
        self._lanes = Lanes([ENCODING, *range(len(ladder.blocks))], run_apart(spec.places))

    @property
    def ladder(self) -> Ladder:
        return self._ladder

    @property
    def prompt_row_capacity(self) -> int:
        return self._spec.rows

    @property
    def padded_vocab_size(self) -> int:
        return self._padded_vocab_size

    @property
    def max_tokens_per_dispatch(self) -> int:
        """A decode plan that asks for more steps runs this many."""
        return self._spec.output_width

    @property
    def compiled(self) -> CompiledPrograms:
        """The executables, with their compile times and temporary bytes."""
        return self._programs

    def dispatch(self, plan: StepPlan) -> PendingStep:
        """Start a step and return at once.

        Raises:
            InternalError: the plan does not fit the ladder. Nothing ran.
            KeyError: the plan loads a prompt that is not in the host tier.
        """
        if isinstance(plan, PrefillPlan):
            return self._prefill(plan)
        if isinstance(plan, ScorePlan):
            return self._score(plan)
        return self._decode(plan)

    def collect(self, pending: PendingStep) -> StepResult:
        """Wait for a step and read what it produced."""
        if not isinstance(pending, Dispatched):
            raise InternalError("this step was dispatched by another executor")
        plan = pending.plan
        if isinstance(plan, PrefillPlan):
            return results.prefill_result(plan, pending.outputs)
        if isinstance(plan, ScorePlan):
            return results.score_result(plan, pending.outputs)
        return results.decode_result(plan, pending.outputs, pending.searches)

    def _load(self, loads: Sequence[RowLoad]) -> None:
        table = (self._spec.rows, self._spec.width)
        per_load = self._ladder.rows_per_load
        for numbers, values in packing.pack_loads(loads, self._prompts, table, per_load, self._spec.dtype):
            program = self._programs["load_rows"]
            self._table = self._lanes.start(ENCODING, program, self._table, numbers, values)

    def _encode(self, plan: PrefillPlan | ScorePlan) -> EncodedRows:
        """Put the batch's encoder memory in `_tokens`; say where its rows are."""
        bucket, ladder = plan.bucket, self._ladder
        if bucket not in ladder.input_buckets:
            raise InternalError(f"a plan uses input bucket {bucket}; compiled are {ladder.input_buckets}")
        counts = ladder.token_counts(bucket)
        tokens = plan.tokens or counts[-1]
        if tokens not in counts:
            raise InternalError(f"a plan uses {tokens} tokens of bucket {bucket}; compiled are {counts}")
        ids, starts, lengths = packing.pack_inputs(plan.inputs, bucket, tokens, ladder.max_rows)
        self._load(plan.loads)
        program = self._programs[names.encode_name(bucket, tokens)]
        self._tokens, finite = self._lanes.start(
            ENCODING, program, self._spec.params, self._table, self._tokens, ids, starts, lengths
        )
        where: dict[str, Any] = {"starts": starts, "lengths": lengths}
        rows = EncodedRows(finite=finite, **where)
        self._encoded = plan.inputs, rows
        return rows

    def _prefill(self, plan: PrefillPlan) -> Dispatched:
        packed = []
        for index, group in packing.rounds(plan.admissions):
            shape = self._ladder.blocks[index]
            if any(len(plan.inputs[each.row]) > shape.input_length for each in group):
                raise InternalError(f"a plan admits rows of bucket {plan.bucket} to the shorter {shape}")
            most = self._ladder.max_rows
            packed.append((index, packing.pack_admissions(group, most, shape, self._start_id)))
        rows = self._encode(plan)
        for index, admitted in packed:
            block, shape = self._blocks[index], self._ladder.blocks[index]
            program = self._programs[names.admit_name(shape)]
            block.state = self._lanes.start(index, program, block.state, self._tokens, rows, admitted)
        for admission in plan.admissions:
            self._note_search(admission.block, admission.slots, admission.sampling.num_beams > 1)
        return Dispatched(plan, _start_copy(rows.finite), {})

    def _note_search(self, block: int, slots: tuple[int, ...], is_search: bool) -> None:
        searches = self._blocks[block].searches
        for leader in [leader for leader, group in searches.items() if set(group) & set(slots)]:
            del searches[leader]
        if is_search:
            searches[slots[0]] = slots

    def _score(self, plan: ScorePlan) -> Dispatched:
        """Trees of one size run together, whatever their rows, and those of one input where a dispatch has
        room for one. Which it is follows from the bucket and the input's own targets, so its bits depend on
        no other input."""
        most = max(self._ladder.tree_sizes, default=0)
        for size in {len(target) for targets in plan.targets for target in targets}:
            if not 0 < size <= most:
                raise InternalError(f"a plan scores a target of {size} tokens in trees of {most} nodes")
        rows, (_, L), scored = self._rows_of(plan), plan.bucket, []
        most_rows, start, read = (
            self._ladder.max_rows,
            self._start_id,
            (self._spec.params, self._tokens, rows),
        )
        for bucket, groups in packing.score_dispatches(plan, self._ladder):
            length = self._ladder.memory_length(bucket, L)
            program = self._programs[names.score_name(*bucket, length)]
            several = self._ladder.trees_of_one(bucket)
            shapes = several or (bucket,)
            packed = [
                packing.pack_trees(*each, start, most_rows) for each in zip(groups, shapes, strict=True)
            ]
            trees = tuple(each for _, each in packed)
            chosen, count = packed[0][0][: bucket[0]], np.int32(len(groups[0]))
            arguments = (count, trees) if several else trees
            found = self._lanes.start(ENCODING, program, *read, chosen, *arguments)
            for group, each in zip(groups, found if several else (found,), strict=True):
                scored.append((group, _start_copy(each)))
        return Dispatched(plan, scored, {})

    def _rows_of(self, plan: ScorePlan) -> EncodedRows:
        if not plan.encoded:
            return self._encode(plan)
        if self._encoded is None or self._encoded[0] != plan.inputs:
            raise InternalError("a plan scores inputs that are not those encoded last")
        return self._encoded[1]

    def _decode(self, plan: DecodePlan) -> Dispatched:
        block, shape = self._blocks[plan.block], self._ladder.blocks[plan.block]
        if plan.mode == "plain":
            block.searches.clear()  # they are over: the scheduler changes the mode only of empty blocks
        release = np.zeros((shape.slots,), np.bool_)
        release[list(plan.release)] = True
        steps = np.int32(min(plan.tokens, self._spec.output_width))
        program = self._programs[names.decode_name(shape, plan.mode)]
        output: DecodeOutput
        block.state, output = self._lanes.start(
            plan.block, program, self._spec.params, block.state, release, steps
        )
        for leader in set(plan.release) & block.searches.keys():
            del block.searches[leader]
        for small in (output.tokens, output.log_probs, output.counts, output.started, output.done):
            _start_copy(small)
        return Dispatched(plan, output, dict(block.searches))


def _start_copy(array: Any) -> Any:
    """Start copying to the host now, so that `collect` need not wait for it."""
    array.copy_to_host_async()
    return array
