"""Answers of `/v1/generate`, `/v1/classify` and `/v1/ensemble`."""

from __future__ import annotations

from chorus.types.base import Batch, ErrorDetail, Usage, Wire


class TopLogprob(Wire):
    """One of the likeliest tokens in a place."""

    token: str
    id: int
    logprob: float


class TokenLogprobs(Wire):
    """Natural logarithm of each output token's probability under the model's own distribution.

    Attributes:
        top_logprobs: for each token, the likeliest in its place; only if `top_logprobs` was requested.
    """

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[list[TopLogprob]] | None = None


class Choice(Wire):
    """One of the sequences that a request with `n` or `logprobs` asked for."""

    text: str
    finish_reason: str
    score: float | None = None
    logprobs: TokenLogprobs | None = None


class Generation(Wire):
    """One generated answer. `task`, `version` and `digest` are None for the base model.

    Attributes:
        finish_reason: `stop`, `stop_string` or `length`.
        truncated: whether the input text was cut to the model's limit, as the request allowed.
        choices: present if `n` > 1 or `logprobs` was requested; `text` is that of the first one.
    """

    task: str | None = None
    version: int | None = None
    digest: str | None = None
    text: str
    finish_reason: str
    truncated: bool = False
    usage: Usage
    choices: list[Choice] | None = None


class GenerateResponse(Batch[Generation]):
    """Generated texts, in the order of the request."""

    @property
    def text(self) -> str:
        """The only item's text."""
        return self.one.text

    @property
    def texts(self) -> list[str]:
        """Every item's text. Raises the first failure."""
        return [item.text for item in self.values]


class Classification(Wire):
    """The likeliest label and each label's share.

    Attributes:
        probabilities: softmax over the labels' summed token log probabilities.
        log_probabilities: natural logarithms before the softmax, including `</s>`; None means minus infinity.
    """

    task: str | None = None
    version: int | None = None
    digest: str | None = None
    label: str
    probabilities: dict[str, float]
    log_probabilities: dict[str, float | None]
    truncated: bool = False
    usage: Usage


class ClassifyResponse(Batch[Classification]):
    """Labels, in the order of the request."""

    @property
    def label(self) -> str:
        """The only item's label."""
        return self.one.label

    @property
    def labels(self) -> list[str]:
        """Every item's label. Raises the first failure."""
        return [item.label for item in self.values]


class MemberVote(Wire):
    """The answer of one member of an ensemble. A member that failed has `error` and no `answer`, and did not
    vote.
    """

    task: str
    version: int | None = None
    digest: str | None = None
    answer: str | None = None
    log_probability: float | None = None
    weight: float = 1.0
    error: ErrorDetail | None = None


class ResolvedEnsemble(Wire):
    """The stored ensemble that answered."""

    task: str
    version: int


class EnsembleAnswer(Wire):
    """The members' common answer.

    Attributes:
        counts: votes for each answer; if weights were given, sums of weights.
        agreement: the winner's share, between 0 and 1.
        ensemble: None if tasks were listed.
    """

    answer: str
    counts: dict[str, float]
    agreement: float
    members: list[MemberVote]
    ensemble: ResolvedEnsemble | None = None
    truncated: bool = False


class EnsembleResponse(Batch[EnsembleAnswer]):
    """Votes, in the order of the request."""

    @property
    def answer(self) -> str:
        """The only item's answer."""
        return self.one.answer

    @property
    def answers(self) -> list[str]:
        """Every item's answer. Raises the first failure."""
        return [item.answer for item in self.values]
