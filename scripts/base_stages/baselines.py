"""Baselines for a task's figures: the commonest label, and logistic regression on bags of words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from base_stages.tasks import Task

_WORD = re.compile(r"[a-z0-9']+|[^\sa-z0-9']")
LONGEST = 128
EPOCHS = 8
ROWS = 64
RATE = 0.5
DECAY = 1e-6

Array = np.ndarray[Any, np.dtype[Any]]


def measure_baselines(task: Task) -> dict[str, float]:
    """Accuracy on the report split: `majority` and `bag_of_words`."""
    answers = [label for _, label in task.report]
    common = Counter(label for _, label in task.train).most_common(1)[0][0]
    said = bag_of_words(task)
    return {
        "majority": float(np.mean([answer == common for answer in answers])),
        "bag_of_words": float(np.mean([a == b for a, b in zip(said, answers, strict=True)])),
    }


def bag_of_words(task: Task) -> list[str]:
    """Answers on the report split of a softmax regression over the words and word pairs that occur at least
    twice in train. It uses AdaGrad with fixed epochs and seed."""
    train, report = ([words(text) for text in task.texts(rows)] for rows in (task.train, task.report))
    counts = Counter(word for found in train for word in set(found))
    index = {word: n + 1 for n, word in enumerate(sorted(w for w, count in counts.items() if count > 1))}
    labels = {label: n for n, label in enumerate(task.labels)}
    wanted = np.array([labels[label] for _, label in task.train])
    weights = _fit(_features(train, index), wanted, len(index) + 1, len(labels))
    scores = weights[_features(report, index)].sum(axis=1) + weights[0]
    return [task.labels[n] for n in scores.argmax(axis=1)]


def words(text: str) -> list[str]:
    """Words and pairs of neighbouring words, in lower case."""
    single = _WORD.findall(text.lower())
    return single + [f"{a} {b}" for a, b in pairwise(single)]


def _features(texts: Sequence[Sequence[str]], index: dict[str, int]) -> Array:
    """[texts, LONGEST] of distinct known words. The last row of the weights stands for no word and stays
    0."""
    nothing = len(index) + 1
    features = np.full((len(texts), LONGEST), nothing)
    for row, found in enumerate(texts):
        known = sorted({index[word] for word in found if word in index})[:LONGEST]
        features[row, : len(known)] = known
    return features


def _fit(features: Array, wanted: Array, bias_and_words: int, classes: int) -> Array:
    """Weights [1 + words + 1, classes]: the bias first, the row for no word last."""
    weights = np.zeros((bias_and_words + 1, classes))
    squares = np.full_like(weights, 1e-8)
    generator = np.random.Generator(np.random.Philox(11))
    for _ in range(EPOCHS):
        order = generator.permutation(len(features))
        for start in range(0, len(order), ROWS):
            rows = order[start : start + ROWS]
            _descend(weights, squares, features[rows], wanted[rows])
    return weights


def _descend(weights: Array, squares: Array, features: Array, wanted: Array) -> None:
    """One AdaGrad step on the weights that these rows touch."""
    touched, places = np.unique(features, return_inverse=True)
    present = np.zeros((len(features), len(touched)))
    np.put_along_axis(present, places.reshape(features.shape), 1, axis=1)
    scores = present @ weights[touched] + weights[0]
    slopes = np.exp(scores - scores.max(axis=1, keepdims=True))
    slopes /= slopes.sum(axis=1, keepdims=True)
    slopes[np.arange(len(wanted)), wanted] -= 1
    slopes /= len(wanted)
    gradient = present.T @ slopes + DECAY * weights[touched]
    for rows, change in ((touched, gradient), (np.array([0]), slopes.sum(axis=0)[None])):
        squares[rows] += change * change
        weights[rows] -= RATE * change / np.sqrt(squares[rows])
    weights[-1] = 0
