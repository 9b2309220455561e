"""The base model in this process, and its answers for whole splits: every example's, for many prompts.

The loop of the library measures its report split too, but tells metrics only; the statistics here need every
single answer, at longer inputs than training uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chorus_server.model.checkpoints import load_model
from chorus_server.model.functions import Functions
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tuning.training.answering import greedy_answers, label_scores
from chorus_server.tuning.training.initialisers import InitialiserSource, PromptValues

TOKENS_A_DISPATCH = 4096
Ids = Sequence[int]


@dataclass(frozen=True)
class Base:
    """Loaded once; f32."""

    functions: Functions
    params: Any
    vocabulary: Vocabulary
    fingerprint: str
    name: str

    @staticmethod
    def load(folder: Path) -> Base:
        loaded = load_model(folder)
        assert loaded.vocabulary is not None
        model = loaded.model
        return Base(model.functions, model.params, loaded.vocabulary, loaded.fingerprint, loaded.name)

    @cached_property
    def embedding(self) -> PromptValues:
        """[V, D] f32."""
        return np.asarray(self.params["embedding"], np.float32)

    @property
    def source(self) -> InitialiserSource:
        """What initialisers draw from."""
        return InitialiserSource(
            self.vocabulary, lambda ids: self.embedding[list(ids)], self.embedding.shape[1]
        )

    def scores(
        self, prompts: PromptValues | None, inputs: Sequence[Ids], labels: Sequence[Ids], params: Any = None
    ) -> PromptValues:
        """Log probability of each label: [N, R, C] (N is 1 without prompts).

        Args:
            prompts: [N, P, D].
            inputs: R texts as ids with `</s>`.
            labels: C labels as ids with `</s>`.
            params: other weights than the base's (model tuning).
        """
        packed = np.zeros((len(labels), max(map(len, labels))), np.int32)
        for row, label in enumerate(labels):
            packed[row, : len(label)] = label
        lengths = np.array([len(label) for label in labels], np.int32)
        compiled = jax.jit(partial(label_scores, self.functions))

        def dispatch(table: Any, ids: Any, sizes: Any) -> Any:
            B = len(ids)
            repeated = (
                np.broadcast_to(packed, (B, *packed.shape)),
                np.broadcast_to(lengths, (B, len(lengths))),
            )
            return compiled(self.params if params is None else params, table, ids, sizes, *repeated)

        return self._each(prompts, inputs, dispatch, cost=packed.size)

    def texts(self, prompts: PromptValues | None, inputs: Sequence[Ids], new_tokens: int) -> list[list[str]]:
        """Greedy texts, [N][R]."""
        compiled = jax.jit(partial(greedy_answers, self.functions, new_tokens))
        tokens = self._each(
            prompts,
            inputs,
            lambda table, ids, sizes: compiled(self.params, table, ids, sizes),
            cost=new_tokens,
        )
        return [[self._text(row.tolist()) for row in prompt] for prompt in tokens]

    def ids(self, text: str, longest: int) -> tuple[int, ...]:
        """A text cut to `longest` ids, and `</s>`."""
        return (*self.vocabulary.encode(text)[:longest], self.vocabulary.eos_id)

    def _text(self, row: list[int]) -> str:
        eos = self.vocabulary.eos_id
        return self.vocabulary.decode(row[: row.index(eos)] if eos in row else row)

    def _each(
        self,
        prompts: PromptValues | None,
        inputs: Sequence[Ids],
        dispatch: Callable[[Any, Any, Any], Any],
        cost: int,
    ) -> Any:
        """Every prompt before every input, in dispatches of similar lengths; [N, R, ...]."""
        N, P = (1, 0) if prompts is None else prompts.shape[:2]
        table = np.zeros((1, 1, self.embedding.shape[1]), np.float32) if prompts is None else prompts
        places = sorted(
            ((n, r) for n in range(N) for r in range(len(inputs))), key=lambda place: len(inputs[place[1]])
        )
        found: Any = None
        first, V = 0, self.functions.config.padded_vocab_size
        for last, L in _rungs([P + len(inputs[r]) for _, r in places]):
            B = max(1, TOKENS_A_DISPATCH // (L + 2 * cost))
            for start in range(first, last, B):
                some = places[start : min(start + B, last)]
                ids, sizes = np.zeros((B, L), np.int32), np.zeros(B, np.int32)
                for row, (n, r) in enumerate(some):
                    sizes[row] = P + len(inputs[r])
                    ids[row, : sizes[row]] = [*range(V + n * P, V + n * P + P), *inputs[r]]
                answers = np.asarray(dispatch(table, ids, sizes))
                if found is None:
                    found = np.zeros((N, len(inputs), *answers.shape[1:]), answers.dtype)
                for row, place in enumerate(some):
                    found[place] = answers[row]
            first = last
        return found


def _rungs(lengths: Sequence[int], count: int = 3) -> list[tuple[int, int]]:
    """Ascending lengths, cut in parts: (end, length of its programs)."""
    ends = sorted({math.ceil(len(lengths) * (n + 1) / count) for n in range(count)})
    return [(end, -(-lengths[end - 1] // 8) * 8) for end in ends]
