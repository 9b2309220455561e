"""Step plans tell every executor what to do. They are plain serialisable data, with no clock and no decision
left open.

Replaying a recorded list of plans on an executor with the same weights and prompts gives the same tokens.

Shapes. An *input bucket* is `(B, L)`: how many rows a prefill step may have, and how long each may be. Its
rows lie end to end on an axis of tokens, whose size the plan says; the ladder has one or two for a bucket. A
*block* is a fixed group of
`slots` slots that decode together, with buffers of their own: encoder memory for `input_length` positions and
self-attention state for `new_tokens` positions of each slot. Blocks of one `BlockShape` share compiled
programs. A block runs either its `plain` decode program (slot s reads encoder memory s) or its `grouped` one
(for beams and samples: a slot reads the memory of its group's leader). The scheduler chooses this while the
block is empty, so a neighbour never changes the program that a request runs in.

Ids. Text ids are below the padded vocabulary size V; `V + r` is prompt row r.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chorus_server.engine.sampling import Sampling

BlockMode = Literal["plain", "grouped"]

LEAST_TOKENS = 3
"""A product of one or two rows has other bits than the same rows in a larger one, with bf16 operands."""


TREES_TOGETHER = 5
"""How many of the largest trees of one input are scored in one pass."""


@dataclass(frozen=True, slots=True, order=True)
class BlockShape:
    """Shape of a decode block. Each shape and mode is one compile.

    Attributes:
        input_length: encoder positions that a slot can attend to.
        new_tokens: decoder positions that a slot holds.
        slots: number of rows.
    """

    input_length: int
    new_tokens: int
    slots: int


@dataclass(frozen=True, slots=True)
class Ladder:
    """Every shape that is compiled at start. A request is padded to one of them, and each entry of a list is
    one compile or more.

    Attributes:
        input_buckets: `(B, L)` pairs of the encoder, in ascending order of L, then B.
        blocks: the blocks that exist, by index. Equal shapes share programs.
        score_buckets: `(R, J)`: inputs of one score dispatch, and nodes of the tree of targets that each has
            there (`target_trees`). More targets take more trees over the same encoded input.
        rows_per_load: prompt rows that one scatter writes.
    """

    input_buckets: tuple[tuple[int, int], ...]
    blocks: tuple[BlockShape, ...]
    score_buckets: tuple[tuple[int, int], ...]
    rows_per_load: int = 256

    def token_counts(self, bucket: tuple[int, int]) -> tuple[int, ...]:
        """Sizes of the token axis that are compiled for a bucket, ascending. The last holds B rows of L.

        The shortest buckets have one of half the size too, for rows that are shorter still, so that a few
        short inputs of a request, or the members of an ensemble, are one pass. So have those as long as a
        block's inputs, but for the longest.
        """
        B, L = bucket
        full = max(LEAST_TOKENS, B * L)
        blocks = {block.input_length for block in self.blocks}
        shortest = min(length for _, length in self.input_buckets)
        halved = B > 2 and (shortest == L or L in blocks - {max(blocks)})
        return (full // 2, full) if halved and full // 2 >= LEAST_TOKENS else (full,)

    @property
    def tree_sizes(self) -> tuple[int, ...]:
        """J of the trees that are compiled, ascending."""
        return tuple(sorted({nodes for _, nodes in self.score_buckets}))

    def score_rows(self, nodes: int, rows: int) -> int:
        """R of the dispatches that score trees of J = `nodes` for a batch of B = `rows`: the fewest that hold
        it, else the most that there are."""
        compiled = sorted(R for R, J in self.score_buckets if nodes == J)
        return next((R for R in compiled if rows <= R), compiled[-1])

    def trees_of_one(self, bucket: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """How many trees of how many nodes a dispatch of a score bucket has room for, if it is for one input
        and the largest trees: `TREES_TOGETHER` of these and one of each smaller size. Empty for others."""
        R, J = bucket
        sizes = self.tree_sizes
        if R > 1 or sizes[-1] != J:
            return ()
        return ((TREES_TOGETHER, J), *((1, size) for size in sizes[:-1]))

    def score_lengths(self, bucket: tuple[int, int]) -> tuple[int, ...]:
        """Lengths of encoder memory that a score bucket `(R, J)` is compiled with, ascending.

        For several inputs the shortest block's and the longest's; the memory of one is small beside what a
        tree computes, so it has the longest's alone.
        """
        held = {self._block_length(length) for _, length in self.input_buckets}
        return tuple(sorted({min(held) if bucket[0] > 1 else max(held), max(held)}))

    def memory_length(self, bucket: tuple[int, int], length: int) -> int:
        """To how many places the targets of a score bucket see an input of a bucket of this length."""
        return next(each for each in self.score_lengths(bucket) if length <= each)

    @property
    def max_tokens(self) -> int:
        """The largest token axis."""
        return max(max(self.token_counts(bucket)) for bucket in self.input_buckets)

    @property
    def max_rows(self) -> int:
        """The most rows of a prefill step."""
        return max(rows for rows, _ in self.input_buckets)

    def _block_length(self, length: int) -> int:
        """The shortest block that holds an input bucket of this length."""
        return min(block.input_length for block in self.blocks if length <= block.input_length)

    @property
    def max_input_tokens(self) -> int:
        """The longest input, counting prompt, text and `</s>`."""
        longest = max(length for _, length in self.input_buckets)
        return min(longest, max(block.input_length for block in self.blocks))

    @property
    def max_new_tokens(self) -> int:
        """The most tokens that a request may ask for at any input length."""
        return max(block.new_tokens for block in self.blocks)


@dataclass(frozen=True, slots=True)
class RowLoad:
    """Write the prompt `digest` (rows 0.. of its array) to these device rows before anything else in the plan
    runs."""

    digest: str
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Admission:
    """Put input row `row` into slots of a block.

    Attributes:
        row: row of the plan's batch.
        block: index into `Ladder.blocks`.
        slots: the group, with the leader first, whose encoder memory the group reads. In a plain block it is
            one slot. In a grouped block it is the beams of one search, or independent samples, whose seeds
            are folded with their place in the group.
        sampling: the result of `Sampling.on_device`.
    """

    row: int
    block: int
    slots: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class PrefillPlan:
    """Encode a batch and admit its rows to slots; without admissions, encode what a `ScorePlan` scores.

    Attributes:
        tokens: size of the token axis, one of `Ladder.token_counts`; 0 means the largest.
    """

    step: int
    bucket: tuple[int, int]
    inputs: tuple[tuple[int, ...], ...]
    admissions: tuple[Admission, ...]
    loads: tuple[RowLoad, ...] = ()
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """Encode a batch and sum the log probabilities of each input's targets; `tokens` as in `PrefillPlan`.

    The trees in which they are scored follow from the targets and the ladder: see `target_trees`.

    Attributes:
        encoded: whether the last plan that encoded anything has encoded these inputs.
    """

    step: int
    bucket: tuple[int, int]
    inputs: tuple[tuple[int, ...], ...]
    targets: tuple[tuple[tuple[int, ...], ...], ...]
    loads: tuple[RowLoad, ...] = ()
    tokens: int = 0
    encoded: bool = False


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """Run at most `tokens` decode steps of one block. It ends early when every slot is done.

    Attributes:
        release: slots that the scheduler freed since the block's last plan (cancelled, timed out, stop
            string). They are made inactive first. Slots that finished by themselves need no release.
    """

    step: int
    block: int
    mode: BlockMode
    tokens: int
    release: tuple[int, ...] = ()


StepPlan = PrefillPlan | ScorePlan | DecodePlan


@dataclass(frozen=True, slots=True)
class PrefillResult:
    """The step ran. `failed` rows had encodings that are not finite, and their slots are inactive."""

    step: int
    failed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """For each input of the plan, a log probability (natural logarithm, f32) of each target; NaN marks a
    failed row."""

    step: int
    log_probabilities: tuple[tuple[float, ...], ...]


Likeliest = tuple[tuple[int, float], ...]
"""The likeliest ids in one place with their log probabilities under the unmodified distribution, likeliest
first."""


@dataclass(frozen=True, slots=True)
class SlotTokens:
    """What one slot of a plain or sampled group did in a decode step.

    Attributes:
        tokens: new tokens, including `</s>` if it was chosen.
        log_probabilities: one for each of those tokens.
        top: for each of those tokens, what was likeliest in its place; empty if the slot did not ask.
        done: whether the slot is inactive after this step, because of `</s>` or its `max_new_tokens`.
        failed: whether its logits were not finite; `done` is then true.
    """

    slot: int
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    done: bool
    failed: bool = False
    top: tuple[Likeliest, ...] = ()


@dataclass(frozen=True, slots=True)
class Beam:
    """One finished hypothesis: tokens without `</s>`, its penalised score, and whether `</s>` ended it;
    `log_probabilities` and `top` as in `SlotTokens`."""

    tokens: tuple[int, ...]
    score: float
    ended: bool
    log_probabilities: tuple[float, ...] = ()
    top: tuple[Likeliest, ...] = ()


@dataclass(frozen=True, slots=True)
class BeamsDone:
    """A beam search is over: its hypotheses, best first. `leader` is the group's first slot."""

    leader: int
    beams: tuple[Beam, ...]
    failed: bool = False


@dataclass(frozen=True, slots=True)
class DecodeResult:
    """What each active slot did, and the searches that finished."""

    step: int
    block: int
    slots: tuple[SlotTokens, ...]
    beams: tuple[BeamsDone, ...] = ()


StepResult = PrefillResult | ScoreResult | DecodeResult
