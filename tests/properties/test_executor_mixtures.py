"""Who shares a batch with a request cannot change its answer: the same bits as alone, at one compiled shape
(CPU, f32 and matrices in bf16).

A pool of requests (no prompt, one, two, prompts of NaN, infinities and extreme norms; greedy, sampled,
limits) is run
alone, each in a row and slot of its own, then in thousands of random mixtures: random neighbours, rows,
slots, decode steps a dispatch, slots reused and released half way. Tokens must be identical and log
probabilities bit-identical.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chorus_server.engine.executor import JaxExecutor, choosing, prefill
from chorus_server.engine.executor.testing import MemoryPrompts, tiny_executor, tiny_model
from chorus_server.engine.plans import (
    Admission,
    BeamsDone,
    BlockShape,
    DecodePlan,
    Ladder,
    PrefillPlan,
    RowLoad,
    ScorePlan,
)
from chorus_server.engine.sampling import Sampling
from chorus_server.model import layers

B, NEW = 8, 8
LADDER = Ladder(((B, 12), (B, 24)), (BlockShape(24, NEW, 16),) * 2, ((4, 8), (1, 16)), 32)
OTHER_SHAPES = Ladder(((3, 16), (3, 40)), (BlockShape(40, 12, 5),) * 2, ((2, 8),), 32)
MIXTURES = 2000
PROMPTS = {"a": 5, "b": 1, "c": 9, "nan": 4, "inf": 3, "huge": 4}
PLACES = {name: tuple(range(10 * i, 10 * i + rows)) for i, (name, rows) in enumerate(PROMPTS.items())}
LOADS = tuple(RowLoad(name, rows) for name, rows in PLACES.items())
Log = tuple[tuple[int, ...], bytes, bool]
"""Tokens, bits of their log probabilities, failed."""


@dataclass(frozen=True)
class Case:
    """One request of the pool. `parts` are prompt names or text ids; `width` its slots."""

    parts: tuple[str | int, ...]
    sampling: Sampling
    width: int = 1
    targets: tuple[tuple[int, ...], ...] = ()

    def ids(self, V: int) -> tuple[int, ...]:
        rows = ((V + r for r in PLACES[part]) if isinstance(part, str) else (part,) for part in self.parts)
        return tuple(each for some in rows for each in some)


def _values() -> MemoryPrompts:
    random = np.random.default_rng(0)
    values = {name: random.normal(size=(rows, 26)).astype(np.float32) for name, rows in PROMPTS.items()}
    values["nan"][1:3, 5:] = np.nan
    values["inf"][1, :] = np.inf
    values["huge"] *= np.float32(1e4)
    return MemoryPrompts(values)


def _changes(index: int) -> dict[str, Any]:
    """Settings that change logits or tell of the likeliest ids; three rows in four have none."""
    if index % 4 != 1:
        return {"top_logprobs": 5} if index % 8 == 3 else {}
    return {
        "repetition_penalty": (1.0, 1.3, 0.8)[index % 3],
        "frequency_penalty": (0.0, 0.7)[index % 2],
        "presence_penalty": (-0.5, 0.0, 0.4, 0.0)[index // 4 % 4],
        "no_repeat_ngram_size": (0, 1, 2, 3)[index // 8 % 4],
        "logit_bias": ((), ((2 + index % 150, 6.0), (160, -4.0)))[index // 16 % 2],
        "top_logprobs": (0, 20)[index // 4 % 2],
    }


def _pool(count: int) -> list[Case]:
    random = np.random.default_rng(1)
    cases = []
    for index in range(count):
        names = [str(name) for name in random.choice([*PROMPTS], size=int(random.choice([0, 1, 1, 2])))]
        text = random.integers(2, 160, size=int(random.integers(1, 5))).tolist()
        parts = (*names, *text, 1) if index % 3 else (*text[:1], *names, *text, 1)
        targets = tuple(  # of few pieces, so that they share what they begin with; some take several trees
            tuple(random.integers(2, 12, size=int(random.integers(1, 8))).tolist()) for _ in range(index % 7)
        )
        sampling = Sampling(
            max_new_tokens=int(random.integers(1, NEW + 1)),
            min_new_tokens=int(random.integers(0, 2)),
            temperature=[0.0, 0.0, 1.0, 0.6][index % 4],
            top_k=[0, 0, 0, 7, 20][index % 5],
            top_p=[1.0, 1.0, 0.8][index % 3],
            seed=index // 8,
            **_changes(index),
        )
        cases.append(Case(parts, sampling, targets=targets))
    return cases


def _grouped_pool(count: int) -> list[Case]:
    """Searches of 2, 4, 7 and 10 beams and groups of samples."""
    cases = []
    for index, case in enumerate(_pool(count)):
        width = (2, 4, 7, 10)[index % 4]
        samples = index % 5 == 3
        settings = Sampling(
            case.sampling.max_new_tokens,
            num_beams=1 if samples else width,
            temperature=1.0 if samples else 0.0,
            length_penalty=(0.0, 0.6, 1.5)[index % 3],
            length_penalty_rule=("t5x", "huggingface")[index // 3 % 2],
            seed=index,
            **_changes(index // 2),
        )
        cases.append(Case(case.parts, settings, width))
    return cases


@dataclass
class _Running:
    case: int
    slots: tuple[int, ...]
    tokens: dict[int, list[int]]
    log_probs: dict[int, list[float]]
    top: dict[int, list[Any]]
    failed: dict[int, bool] = field(default_factory=dict)
    beams: BeamsDone | None = None
    left: set[int] = field(default_factory=set)

    def log(self) -> tuple[Any, ...]:
        """The answer, without the slots that it was made in."""
        if self.beams is not None:
            return (
                self.beams.failed,
                tuple(
                    (
                        b.tokens,
                        np.array([b.score, *b.log_probabilities], np.float32).tobytes(),
                        b.ended,
                        b.top,
                    )
                    for b in self.beams.beams
                ),
            )
        return tuple(
            (
                tuple(self.tokens[s]),
                np.array([*self.log_probs[s], *_values_of(self.top[s])], np.float32).tobytes(),
                self.failed.get(s, False),
            )
            for s in self.slots
        )


def _values_of(top: list[Any]) -> list[float]:
    return [float(each) for place in top for pair in place for each in pair]


class Mixer:
    """Drives one block of an executor: admits cases, decodes, releases, and hands out finished answers."""

    def __init__(self, executor: JaxExecutor, pool: list[Case], block: int, mode: Any, seed: int) -> None:
        self.executor, self.pool, self.block, self.mode = executor, pool, block, mode
        self.random = np.random.default_rng(seed)
        self.shape = executor.ladder.blocks[block]
        self.free = set(range(self.shape.slots))
        self.running: list[_Running] = []
        self.mixtures = self.released = 0
        self.step = 0

    def prefill(self, wanted: list[int]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Encode these cases (of one length class) with padding rows among them, each in a random row and
        slots."""
        V = self.executor.padded_vocab_size
        ids = [self.pool[case].ids(V) for case in wanted]
        length = max(len(row) for row in ids)
        bucket = min((b for b in self.executor.ladder.input_buckets if b[1] >= length), key=lambda b: b[1])
        # Rows of two tokens before, between and behind them move every one to another offset.
        rows = self.random.permutation(bucket[0])[: len(wanted)].tolist()
        inputs: list[tuple[int, ...]] = [(int(self.random.integers(2, 160)), 1)] * (max(rows) + 1)
        admissions = []
        for case, row, row_ids in zip(wanted, rows, ids, strict=True):
            size = self.pool[case].width
            slots = tuple(self.random.choice(sorted(self.free), size=size, replace=False).tolist())
            self.free -= set(slots)
            inputs[row] = row_ids
            admissions.append(Admission(row, self.block, slots, self.pool[case].sampling))
            tokens, log_probs, top = ({slot: list[Any]() for slot in slots} for _ in range(3))
            self.running.append(_Running(case, slots, tokens, log_probs, top, left=set(slots)))
        self.step += 1
        plan = PrefillPlan(self.step, bucket, tuple(inputs), tuple(admissions))
        result = self.executor.collect(self.executor.dispatch(plan))
        self.mixtures += 1
        new = self.running[-len(wanted) :]
        for running, row in zip(new, rows, strict=True):
            if row in result.failed:  # type: ignore[union-attr]
                yield self._finish(running, ("failed encoding",))

    def decode(self, tokens: int, release: tuple[int, ...] = ()) -> Iterator[tuple[int, tuple[Any, ...]]]:
        self.step += 1
        plan = DecodePlan(self.step, self.block, self.mode, tokens, release)
        result: Any = self.executor.collect(self.executor.dispatch(plan))
        beams = {done.leader: done for done in result.beams}
        by_slot = {slot.slot: slot for slot in result.slots}
        for running in list(self.running):
            if running.slots[0] in beams:
                running.beams = beams[running.slots[0]]
                running.left.clear()
            for slot in running.slots:
                if slot in by_slot:
                    running.tokens[slot] += by_slot[slot].tokens
                    running.log_probs[slot] += by_slot[slot].log_probabilities
                    running.top[slot] += by_slot[slot].top
                    running.failed[slot] = by_slot[slot].failed
                    if by_slot[slot].done:
                        running.left.discard(slot)
            if not running.left:
                yield self._finish(running, running.log())

    def _finish(self, running: _Running, log: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
        self.running.remove(running)
        self.free |= set(running.slots)
        return running.case, log

    def alone(self, case: int) -> tuple[Any, ...]:
        """The answer with nobody else in the block."""
        assert not self.running
        answers = list(self.prefill([case]))
        while not answers:
            answers += self.decode(NEW)
        return answers[0][1]

    def every(self) -> list[tuple[Any, ...]]:
        """The answers of the whole pool, as many at once as there is room for."""
        V, found = self.executor.padded_vocab_size, dict[int, tuple[Any, ...]]()
        by_length = sorted(range(len(self.pool)), key=lambda case: len(self.pool[case].ids(V)))
        room = min(self.executor.ladder.input_buckets[0][0], self.shape.slots)
        for first in range(0, len(by_length), room):
            found |= dict(self.prefill(by_length[first : first + room]))
            while self.running:
                found |= dict(self.decode(NEW))
        return [found[case] for case in range(len(self.pool))]

    def mix(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """One mixture: admit random cases to free slots beside those half way, decode a little, release
        some."""
        V = self.executor.padded_vocab_size
        longest = self.random.choice([bucket[1] for bucket in self.executor.ladder.input_buckets])
        wanted: list[int] = []
        room = len(self.free)
        for case in self.random.permutation(len(self.pool)).tolist():
            fits = _class(self.executor.ladder, len(self.pool[case].ids(V))) == longest
            if fits and self.pool[case].width <= room and len(wanted) < B:
                wanted.append(case)
                room -= self.pool[case].width
        if wanted:
            yield from self.prefill(wanted)
        release: tuple[int, ...] = ()
        if self.running and self.random.random() < 0.2:
            gone = self.running[int(self.random.integers(len(self.running)))]
            release = gone.slots
            self._finish(gone, ())
            self.released += 1
        yield from self.decode(int(self.random.integers(1, 5)), release)


def _class(ladder: Ladder, length: int) -> int:
    return min(bucket[1] for bucket in ladder.input_buckets if length <= bucket[1])


def _load(executor: JaxExecutor) -> JaxExecutor:
    plan = PrefillPlan(0, executor.ladder.input_buckets[0], ((2, 1),), (), LOADS)
    executor.collect(executor.dispatch(plan))
    return executor


@pytest.fixture(scope="module")
def executor() -> JaxExecutor:
    return _load(tiny_executor(LADDER, _values()))


@pytest.fixture(scope="module")
def in_bf16() -> JaxExecutor:
    return _load(tiny_executor(LADDER, _values(), model=tiny_model(matrix_dtype="bfloat16")))


def _differences(
    executor: JaxExecutor, pool: list[Case], block: int, mode: Any, mixtures: int
) -> tuple[int, int]:
    """(answers compared, answers that differ from the one alone)."""
    alone = Mixer(executor, pool, block, mode, seed=5)
    expected = [alone.alone(case) for case in range(len(pool))]
    mixer = Mixer(executor, pool, block, mode, seed=6)
    compared = different = 0
    while mixer.mixtures < mixtures:
        for case, log in mixer.mix():
            compared += 1
            different += log != expected[case]
    assert mixer.released > mixtures // 100  # half-way slots were released, and used again
    return compared, different


def test_plain_rows_have_the_same_bits_in_every_mixture(executor: JaxExecutor) -> None:
    compared, different = _differences(executor, _pool(96), 0, "plain", MIXTURES)
    assert compared > 2 * MIXTURES and different == 0


def test_plain_rows_have_the_same_bits_with_matrices_in_bf16(in_bf16: JaxExecutor) -> None:
    compared, different = _differences(in_bf16, _pool(96), 0, "plain", MIXTURES // 5)
    assert compared > 2 * MIXTURES // 5 and different == 0


def test_beams_and_samples_have_the_same_bits_with_matrices_in_bf16(in_bf16: JaxExecutor) -> None:
    compared, different = _differences(in_bf16, _grouped_pool(48), 1, "grouped", MIXTURES // 20)
    assert compared > MIXTURES // 20 and different == 0


def test_beams_and_samples_have_the_same_bits_in_every_mixture(executor: JaxExecutor) -> None:
    compared, different = _differences(executor, _grouped_pool(48), 1, "grouped", MIXTURES // 5)
    assert compared > MIXTURES // 5 and different == 0


def test_the_pool_has_failures_and_every_kind_of_end(executor: JaxExecutor) -> None:
    pool = _pool(96)
    alone = Mixer(executor, pool, 0, "plain", seed=3)
    logs = [alone.alone(case) for case in range(len(pool))]
    poisoned = [{"nan", "inf"} & set(map(str, case.parts)) != set() for case in pool]
    assert [log == ("failed encoding",) for log in logs] == poisoned and 10 < sum(poisoned) < 60
    healthy = [log[0] for log, bad in zip(logs, poisoned, strict=True) if not bad]
    assert any(tokens[-1] == 1 for tokens, _, _ in healthy)
    assert any(tokens[-1] != 1 for tokens, _, _ in healthy)
    # Answers depend on the request.
    assert len({tokens for tokens, _, _ in healthy}) > len(healthy) // 2


def _sums(executor: JaxExecutor, cases: list[Case], rows: list[int]) -> list[bytes]:
    V = executor.padded_vocab_size
    inputs: list[tuple[int, ...]] = [(2, 1)] * B
    targets: list[Any] = [()] * B
    for case, row in zip(cases, rows, strict=True):
        inputs[row], targets[row] = case.ids(V), case.targets
    bucket = (B, max(_class(executor.ladder, len(row)) for row in inputs))
    plan = ScorePlan(1, bucket, tuple(inputs), tuple(targets))
    result: Any = executor.collect(executor.dispatch(plan))
    return [np.array(result.log_probabilities[row], np.float32).tobytes() for row in rows]


@pytest.mark.parametrize("which", ["executor", "in_bf16"])
def test_scores_have_the_same_bits_in_every_mixture(which: str, request: pytest.FixtureRequest) -> None:
    executor = request.getfixturevalue(which)
    V, random = executor.padded_vocab_size, np.random.default_rng(2)
    by_class: dict[int, list[Case]] = {12: [], 24: []}
    for case in _pool(60):
        by_class[_class(LADDER, len(case.ids(V)))].append(case)
    for cases in by_class.values():
        expected = [_sums(executor, [case], [int(random.integers(B))])[0] for case in cases]
        for _ in range(100):
            chosen = random.permutation(len(cases))[: int(random.integers(2, B + 1))].tolist()
            rows = random.permutation(B)[: len(chosen)].tolist()
            got = _sums(executor, [cases[index] for index in chosen], rows)
            assert got == [expected[index] for index in chosen]


def test_other_shapes_give_the_same_tokens(executor: JaxExecutor) -> None:
    """Another batch, length and block: logits differ by rounding, tokens agree on 99.9 %."""
    others = _load(tiny_executor(OTHER_SHAPES, _values(), without=("grouped", "score")))
    pool = _pool(1200)
    one, two = (Mixer(each, pool, 0, "plain", seed=4).every() for each in (executor, others))
    made = same = 0
    for ours, theirs in zip(one, two, strict=True):
        if ours == ("failed encoding",):
            assert theirs == ours
            continue
        mine, other = ours[0][0], theirs[0][0]
        made += max(len(mine), len(other))
        same += sum(a == b for a, b in zip(mine, other, strict=False))
    assert made > 2000 and same >= 0.999 * made


@pytest.mark.usefixtures("compiled_quickly")  # from here on
def test_control_seeds_folded_with_the_slot_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = choosing.uniform

    def by_slot(seed: Any, place: Any, index: Any) -> Any:
        return real(seed, jnp.arange(seed.shape[0], dtype=jnp.int32), index)

    monkeypatch.setattr(choosing, "uniform", by_slot)
    broken = _load(tiny_executor(LADDER, _values(), without=("grouped", "score")))
    compared, different = _differences(broken, _pool(96), 0, "plain", 60)
    assert different > compared // 20


@pytest.mark.usefixtures("compiled_quickly")
def test_control_memory_masked_only_in_the_scores_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without zeros beyond a row's length, a former occupant's NaN reaches the next one: 0 x NaN."""

    def careless(functions: Any, memory: Any, tokens: Any, rows: Any, admitted: Any, apart: bool) -> Any:
        starts, most = rows.starts[admitted.rows], jax.tree.leaves(memory)[0].shape[2]
        new = functions.row_memory(tokens, starts, jnp.full_like(starts, most), most)
        return jax.tree.map(lambda old, each: old.at[admitted.targets].set(each, mode="drop"), memory, new)

    monkeypatch.setattr(prefill, "_write_memory", careless)
    broken = _load(tiny_executor(LADDER, _values(), without=("grouped", "score")))
    _, different = _differences(broken, _pool(96), 0, "plain", 60)
    assert different > 0


@pytest.mark.usefixtures("compiled_quickly")
def test_control_activations_rounded_by_a_scale_of_their_batch_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a careless quantisation would: the largest value of any row decides how the others are rounded."""

    def by_batch(x: Any, weight: Any, dtype: Any) -> Any:
        matrix = weight[...]
        largest = jnp.max(jnp.where(jnp.isfinite(x), jnp.abs(x), 0))
        rounded = (x / jnp.maximum(largest, 1e-6)).astype(matrix.dtype)
        return jnp.matmul(rounded, matrix, preferred_element_type=dtype) * largest

    monkeypatch.setattr(layers, "multiply", by_batch)
    model = tiny_model(matrix_dtype="bfloat16")
    broken = _load(tiny_executor(LADDER, _values(), model=model, without=("grouped", "score")))
    compared, different = _differences(broken, _pool(96), 0, "plain", 60)
    assert different > compared // 20
