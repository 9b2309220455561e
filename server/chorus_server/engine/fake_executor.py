"""A public in-memory executor whose output can be computed by hand, for tests of the scheduler and the API.

The rule. A request's input is a list of symbols: a text id stands for itself, row i of a prompt for
`crc32(digest) + i`. Its checksum is the sum of (position + 1) * symbol, modulo 1,000,003. Place p of a
request (0, or its place among samples or beams) ends with `</s>` after `1 + (checksum + p) % 9` tokens. Token
k is `FIRST_TOKEN + (checksum + 7 k + 13 p + seed) % (vocab_size - FIRST_TOKEN)`, where the seed counts only
if something is drawn. Its log probability is `-(token % 10 + 1) / 8`, that of `</s>` is -1/8. Target t scores
`-((checksum + sum(t)) % 1000) / 100`; beam p scores `-p - (checksum % 7) / 8`.

It also refuses every plan that would harm a real device: a busy slot that is admitted again, a row that
nobody wrote, a bucket that is not in the ladder, a release that comes too late. Such a plan raises
`PlanError`, which kills the engine and so fails the test.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from chorus_server.engine.plans import (
    Admission,
    Beam,
    BeamsDone,
    BlockMode,
    BlockShape,
    DecodePlan,
    DecodeResult,
    Ladder,
    Likeliest,
    PrefillPlan,
    PrefillResult,
    RowLoad,
    ScorePlan,
    ScoreResult,
    SlotTokens,
    StepPlan,
    StepResult,
)
from chorus_server.engine.protocols import HostPrompts, PendingStep
from chorus_server.engine.requests import GenerateRequest, InputPart, PromptHandle, ScoreRequest
from chorus_server.engine.sampling import Sampling

EOS = 1
FIRST_TOKEN = 3
_MODULUS = 1_000_003

TINY_LADDER = Ladder(
    input_buckets=((1, 16), (4, 16), (1, 64), (4, 64)),
    blocks=(BlockShape(16, 8, 8), BlockShape(64, 32, 8), BlockShape(64, 32, 8)),
    score_buckets=((1, 4), (4, 8)),
    rows_per_load=16,
)


class PlanError(Exception):
    """The scheduler broke the contract of plans."""


def checksum(symbols: Sequence[int]) -> int:
    """The number from which every output follows."""
    return sum((place + 1) * symbol for place, symbol in enumerate(symbols)) % _MODULUS


def prompt_symbol(digest: str, row: int) -> int:
    """The symbol of row `row` of a prompt."""
    return zlib.crc32(digest.encode()) + row


def symbols_of(parts: Sequence[InputPart]) -> list[int]:
    """A request's input as symbols."""
    symbols: list[int] = []
    for part in parts:
        if isinstance(part, PromptHandle):
            symbols.extend(prompt_symbol(part.digest, row) for row in range(part.length))
        else:
            symbols.extend(part)
    return symbols


def expected_tokens(request: GenerateRequest, vocab_size: int, place: int = 0) -> tuple[int, ...]:
    """The tokens of one place, computed by hand, without `</s>` and ignoring stop strings."""
    sampling = request.sampling
    seed = 0 if sampling.greedy else sampling.seed
    tokens = _tokens(checksum(symbols_of(request.input)), place, seed, sampling, vocab_size)
    return tuple(token for token in tokens if token != EOS)


def expected_scores(request: ScoreRequest) -> tuple[float, ...]:
    """The log probability of each target, computed by hand."""
    total = checksum(symbols_of(request.input))
    return tuple(_target_score(total, target) for target in request.targets)


def log_probability(token: int) -> float:
    """The log probability of one token, computed by hand."""
    return -0.125 if token == EOS else -(token % 10 + 1) / 8


def log_probabilities_near(token: int, most: int) -> Likeliest:
    """The `most` likeliest in a place where `token` was chosen: it and the ids below it, each an eighth
    less."""
    return tuple((token - rank, log_probability(token) - rank / 8) for rank in range(most))


def _told(tokens: Sequence[int], most: int) -> tuple[Likeliest, ...]:
    return tuple(log_probabilities_near(token, most) for token in tokens) if most else ()


def _target_score(total: int, target: Sequence[int]) -> float:
    return -((total + sum(target)) % 1000) / 100


def _tokens(total: int, place: int, seed: int, sampling: Sampling, vocab_size: int) -> tuple[int, ...]:
    natural = max(1 + (total + place) % 9, sampling.min_new_tokens)
    tokens = [
        FIRST_TOKEN + (total + 7 * k + 13 * place + seed) % (vocab_size - FIRST_TOKEN)
        for k in range(min(natural, sampling.max_new_tokens))
    ]
    return tuple(tokens) if len(tokens) >= sampling.max_new_tokens else (*tokens, EOS)


@dataclass(slots=True)
class _Slot:
    tokens: tuple[int, ...]
    top: int
    at: int = 0
    failed: bool = False


@dataclass(slots=True)
class _Beams:
    beams: tuple[Beam, ...]
    slots: tuple[int, ...]
    steps_left: int
    failed: bool = False


@dataclass(slots=True)
class _Block:
    shape: BlockShape
    mode: BlockMode | None = None
    slots: dict[int, _Slot] = field(default_factory=dict)
    beams: dict[int, _Beams] = field(default_factory=dict)

    def busy(self) -> set[int]:
        return set(self.slots) | {slot for group in self.beams.values() for slot in group.slots}


@dataclass(slots=True)
class FakePending:
    """A step that the fake executor has dispatched."""

    plan: StepPlan
    result: StepResult


class FakeExecutor:
    """An `Executor` in memory. As on a device, steps take effect in the order in which they are dispatched.

    Args:
        ladder: shapes to accept.
        host_prompts: where rows are loaded from.
        prompt_row_capacity: rows of the table.
        vocab_size: generated tokens are below this.
        padded_vocab_size: V; prompt row r is id V + r.
        on_dispatch, on_collect: called first, with the plan. They may block on a barrier, advance a fake
            clock or raise.
    """

    def __init__(
        self,
        host_prompts: HostPrompts,
        *,
        ladder: Ladder = TINY_LADDER,
        prompt_row_capacity: int = 64,
        vocab_size: int = 1000,
        padded_vocab_size: int | None = None,
        on_dispatch: Callable[[StepPlan], None] | None = None,
        on_collect: Callable[[StepPlan], None] | None = None,
    ) -> None:
        self.host_prompts = host_prompts
        self.vocab_size = vocab_size
        self.on_dispatch = on_dispatch
        self.on_collect = on_collect
        self.plans: list[StepPlan] = []
        self._ladder = ladder
        self._capacity = prompt_row_capacity
        self._padded = padded_vocab_size or vocab_size
        self._rows: dict[int, tuple[int, bool]] = {}
        self._blocks = [_Block(shape) for shape in ladder.blocks]
        self._encoded: tuple[tuple[tuple[int, ...], ...], list[tuple[int, bool]]] | None = None
        self._uncollected: list[FakePending] = []

    @property
    def ladder(self) -> Ladder:
        return self._ladder

    @property
    def prompt_row_capacity(self) -> int:
        return self._capacity

    @property
    def padded_vocab_size(self) -> int:
        return self._padded

    def dispatch(self, plan: StepPlan) -> PendingStep:
        """Run the step. Its result waits for `collect`. Raises PlanError for a plan that breaks the
        contract."""
        if self.on_dispatch is not None:
            self.on_dispatch(plan)
        self.plans.append(plan)
        match plan:
            case PrefillPlan():
                result: StepResult = self._prefill(plan)
            case ScorePlan():
                result = self._score(plan)
            case DecodePlan():
                result = self._decode(plan)
        pending = FakePending(plan, result)
        self._uncollected.append(pending)
        return pending

    def collect(self, pending: PendingStep) -> StepResult:
        """The step's result. Raises PlanError if an earlier step was not collected first."""
        if self.on_collect is not None:
            self.on_collect(pending.plan)
        if not self._uncollected or self._uncollected[0] is not pending:
            raise PlanError(f"step {pending.plan.step} was collected out of order")
        return self._uncollected.pop(0).result

    def _prefill(self, plan: PrefillPlan) -> PrefillResult:
        inputs = self._encode(plan)
        if not plan.admissions:
            return PrefillResult(
                plan.step, tuple(row for row, (_, finite) in enumerate(inputs) if not finite)
            )
        if sorted(admission.row for admission in plan.admissions) != list(range(len(plan.inputs))):
            raise PlanError(f"step {plan.step}: every row is admitted once")
        failed = []
        for admission in plan.admissions:
            total, finite = inputs[admission.row]
            if len(plan.inputs[admission.row]) > self._ladder.blocks[admission.block].input_length:
                raise PlanError(f"step {plan.step}: row {admission.row} is longer than its block")
            if finite:
                self._admit(admission, total)
            else:
                self._check_free(admission)
                failed.append(admission.row)
        return PrefillResult(plan.step, tuple(failed))

    def _score(self, plan: ScorePlan) -> ScoreResult:
        longest = max(self._ladder.tree_sizes, default=0)
        if any(not 0 < len(target) <= longest for targets in plan.targets for target in targets):
            raise PlanError(f"step {plan.step}: a target is empty, or longer than {longest}")
        if plan.encoded and (self._encoded is None or self._encoded[0] != plan.inputs):
            raise PlanError(f"step {plan.step} scores inputs that are not those encoded last")
        inputs = self._encoded[1] if plan.encoded and self._encoded else self._encode(plan)
        return ScoreResult(
            plan.step,
            tuple(
                tuple(_target_score(total, target) if finite else float("nan") for target in targets)
                for (total, finite), targets in zip(inputs, plan.targets, strict=True)
            ),
        )

    def _encode(self, plan: PrefillPlan | ScorePlan) -> list[tuple[int, bool]]:
        bucket, inputs = plan.bucket, plan.inputs
        if bucket not in self._ladder.input_buckets:
            raise PlanError(f"no bucket {bucket}")
        if not inputs or len(inputs) > bucket[0] or any(not 0 < len(ids) <= bucket[1] for ids in inputs):
            raise PlanError(f"{len(inputs)} inputs do not fit bucket {bucket}")
        counts = self._ladder.token_counts(bucket)
        tokens = plan.tokens or counts[-1]
        if tokens not in counts or sum(map(len, inputs)) > tokens:
            raise PlanError(f"{[len(ids) for ids in inputs]} tokens in {tokens} of {counts}")
        for load in plan.loads:
            self._load(load)
        found = [self._read(ids) for ids in inputs]
        self._encoded = inputs, found
        return found

    def _load(self, load: RowLoad) -> None:
        values = self.host_prompts.values(load.digest)
        if len(load.rows) != values.shape[0] or len(set(load.rows)) != len(load.rows):
            raise PlanError(f"prompt {load.digest} has {values.shape[0]} rows, got {len(load.rows)}")
        for place, row in enumerate(load.rows):
            if not 0 <= row < self._capacity:
                raise PlanError(f"no prompt row {row}")
            finite = bool(np.isfinite(values[place].astype(np.float32)).all())
            self._rows[row] = (prompt_symbol(load.digest, place), finite)

    def _read(self, ids: Sequence[int]) -> tuple[int, bool]:
        symbols, finite = [], True
        for token in ids:
            if token < self._padded:
                symbols.append(token)
                continue
            if token - self._padded not in self._rows:
                raise PlanError(f"prompt row {token - self._padded} was never written")
            symbol, row_finite = self._rows[token - self._padded]
            symbols.append(symbol)
            finite = finite and row_finite
        return checksum(symbols), finite

    def _check_free(self, admission: Admission) -> _Block:
        block = self._blocks[admission.block]
        if not admission.slots or set(admission.slots) & block.busy():
            raise PlanError(f"block {admission.block}: slots {admission.slots} are busy")
        if any(not 0 <= slot < block.shape.slots for slot in admission.slots):
            raise PlanError(f"block {admission.block} has no slots {admission.slots}")
        if admission.sampling.max_new_tokens > block.shape.new_tokens:
            raise PlanError(f"block {admission.block} holds {block.shape.new_tokens} new tokens a slot")
        return block

    def _admit(self, admission: Admission, total: int) -> None:
        block, sampling = self._check_free(admission), admission.sampling
        seed = 0 if sampling.greedy else sampling.seed
        hypotheses = [
            _tokens(total, place, seed, sampling, self.vocab_size) for place in range(len(admission.slots))
        ]
        if sampling.num_beams == 1:
            for slot, tokens in zip(admission.slots, hypotheses, strict=True):
                block.slots[slot] = _Slot(tokens, sampling.top_logprobs)
            return
        if sampling.num_beams != len(admission.slots):
            raise PlanError(f"{sampling.num_beams} beams were given {len(admission.slots)} slots")
        beams = tuple(
            self._beam(tokens, -place - (total % 7) / 8, sampling.top_logprobs)
            for place, tokens in enumerate(hypotheses)
        )
        block.beams[admission.slots[0]] = _Beams(beams, admission.slots, max(len(h) for h in hypotheses))

    def _beam(self, tokens: tuple[int, ...], score: float, top: int) -> Beam:
        text = tuple(token for token in tokens if token != EOS)
        return Beam(text, score, tokens[-1] == EOS, tuple(map(log_probability, text)), _told(text, top))

    def _decode(self, plan: DecodePlan) -> DecodeResult:
        block = self._blocks[plan.block]
        if block.busy() and block.mode not in (None, plan.mode):
            raise PlanError(f"block {plan.block} changed its mode while it was not empty")
        self._release(block, plan.release)
        block.mode = plan.mode if block.busy() else None
        slots = []
        for index in sorted(block.slots):
            slot = block.slots[index]
            tokens = slot.tokens[slot.at : slot.at + plan.tokens]
            slot.at += len(tokens)
            done = slot.at >= len(slot.tokens)
            log_probabilities = tuple(map(log_probability, tokens))
            told = _told(tokens, slot.top)
            slots.append(SlotTokens(index, tokens, log_probabilities, done, top=told))
            if done:
                del block.slots[index]
        beams = self._search(block, plan.tokens)
        if not block.busy():
            block.mode = None  # its next request may choose another mode
        return DecodeResult(plan.step, plan.block, tuple(slots), beams)

    def _search(self, block: _Block, tokens: int) -> tuple[BeamsDone, ...]:
        over = []
        for leader in sorted(block.beams):
            group = block.beams[leader]
            group.steps_left -= tokens
            if group.steps_left <= 0:
                over.append(BeamsDone(leader, group.beams))
                del block.beams[leader]
        return tuple(over)

    def _release(self, block: _Block, release: Sequence[int]) -> None:
        for slot in release:
            block.slots.pop(slot, None)
            for leader in [leader for leader, group in block.beams.items() if slot in group.slots]:
                if not set(block.beams[leader].slots) <= set(release):
                    raise PlanError("a search is released whole")
                if slot == block.beams[leader].slots[-1]:
                    del block.beams[leader]
