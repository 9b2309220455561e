"""What goes into the engine and what comes out: plain data, so that HTTP may one day be another process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from chorus_server.engine.plans import Likeliest
from chorus_server.engine.sampling import Sampling
from chorus_server.errors import ChorusError


@dataclass(frozen=True, slots=True)
class PromptHandle:
    """A prompt named by its content.

    Attributes:
        digest: SHA-256 (hex) of the prompt's values; the key of the host tier and of the prompt rows.
        length: rows P of the `[P, D]` array.
    """

    digest: str
    length: int


InputPart = PromptHandle | tuple[int, ...]
"""A prompt, or ordinary token ids. A request's input is a tuple of parts, which are joined without gaps."""


Priority = Literal["interactive", "batch"]
"""The two classes of a tenant's requests. Interactive ones go first; batch ones get the rest of the tenant's
share, and at least a tenth of it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asks. Used for fairness, quotas, metrics and usage.

    Attributes:
        request_id: unique within the process; also written to the admission journal.
        tenant: the owner whose share of the engine pays for the request.
        task: `tenant/task`, or empty for the base model; only a metric label.
        weight: the tenant's fair-share weight, above 0.
        priority: its class within the tenant.
        deadline_seconds: counted from submission; infinity waits for ever, and None takes the engine's own.
        key: id of the caller's key; empty without one.
        digest: of the version that `task` means, for usage.
        call, item: id of the HTTP request and the item's place in it, for usage.
        version: number of the version that `task` means, for traces and metrics.
        traceparent: of the span that this is a part of (W3C Trace Context); empty if it is not recorded.
    """

    request_id: str
    tenant: str = "default"
    task: str = ""
    weight: float = 1.0
    priority: Priority = "interactive"
    deadline_seconds: float | None = None
    key: str = ""
    digest: str = ""
    call: str = ""
    item: int = 0
    version: int | None = None
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Asks for tokens. `input` already ends in `</s>`; it is not empty and fits the largest bucket."""

    origin: Origin
    input: tuple[InputPart, ...]
    sampling: Sampling = field(default_factory=Sampling)
    stream: bool = False


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Asks for the log probability of each target after the input.

    Attributes:
        targets: token ids of each target, including `</s>`.
        fixed_shape: answer in one shape that the input's length alone decides, as `batch_invariant` does with
            every request: then not even the rounding depends on what else is in the batch. Alone it costs a
            full batch.
    """

    origin: Origin
    input: tuple[InputPart, ...]
    targets: tuple[tuple[int, ...], ...]
    fixed_shape: bool = False


Request = GenerateRequest | ScoreRequest

RequestKind = Literal["generate", "score"]


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went, in seconds. `first_token` is counted from submission, and is None for a score."""

    queue: float
    prefill: float
    decode: float
    first_token: float | None


@dataclass(frozen=True, slots=True)
class SequenceOutput:
    """One finished sequence.

    Attributes:
        tokens: without `</s>`.
        log_probabilities: natural logarithms for each token in `tokens`, under the unmodified distribution;
            beams too.
        score: sum of the log probabilities, including `</s>`, or the beam's penalised score.
        finish_reason: `stop` (`</s>`), `stop_string` or `length`.
        top: what was likeliest in the place of each token; empty unless `top_logprobs` asked.
    """

    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    score: float
    finish_reason: str
    top: tuple[Likeliest, ...] = ()


@dataclass(frozen=True, slots=True)
class TokensEvent:
    """New tokens of one sequence of a streamed request. Never sent for beams."""

    index: int
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FinishedEvent:
    """The last event of a generate request: `n` sequences."""

    sequences: tuple[SequenceOutput, ...]
    input_tokens: int
    timings: Timings


@dataclass(frozen=True, slots=True)
class ScoredEvent:
    """The only event of a score request: a sum of log probabilities for each target."""

    log_probabilities: tuple[float, ...]
    input_tokens: int
    timings: Timings


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """The last event of a request that failed."""

    error: ChorusError


RequestOutcome = FinishedEvent | ScoredEvent | FailedEvent
RequestEvent = TokensEvent | RequestOutcome
