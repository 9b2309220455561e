"""Does a request fit the compiled shapes at all, and which; what does it cost. Pure functions of the
ladder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from server.engine.plans import BlockMode, BlockShape, Ladder
from server.engine.requests import GenerateRequest, InputPart, PromptHandle, Request, ScoreRequest
from server.errors import InputTooLongError, InvalidInputError

Targets = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """Where a request belongs.

    Attributes:
        length: input tokens: prompts, text and `</s>`.
        prompts: distinct prompts it reads.
        input_class: the smallest L of the ladder that holds it.
        shape: decode blocks it may use; None for a score.
        slots: decode rows it needs.
        mode: block mode it decodes in.
        score_bucket: None for a generate request.
        cost: padded tokens of work, for fairness.
    """

    length: int
    prompts: tuple[PromptHandle, ...]
    input_class: int
    shape: BlockShape | None
    slots: int
    mode: BlockMode
    score_bucket: tuple[int, int] | None
    cost: float


@dataclass(frozen=True, slots=True)
class Fitter:
    """Fits requests to a ladder.

    Attributes:
        vocab_size: V; text ids are below it, so that nobody reads another's prompt rows by id.
        prompt_rows: device rows that one request may need.
    """

    ladder: Ladder
    vocab_size: int
    prompt_rows: int
    _fitted: list[tuple[Targets, tuple[int, int], int]] = field(default_factory=list, compare=False)
    """The last targets, their bucket and how many tokens they have: the items of one call share them."""

    def fit(self, request: Request) -> Fit:
        """Where `request` belongs.

        Raises:
            InputTooLongError: the input is longer than the largest bucket.
            InvalidInputError: no block or score bucket holds it, or its prompts exceed the device table.
        """
        length = self._length(request.input)
        prompts = self._prompts(request.input)
        input_class = min((L for _, L in self.ladder.input_buckets if length <= L), default=None)
        if input_class is None:
            raise InputTooLongError(
                f"The input has {length} tokens (prompt, text and </s>), at most "
                f"{self.ladder.max_input_tokens} fit: shorten the text or ask for truncation.",
                field="input",
            )
        if isinstance(request, ScoreRequest):
            bucket, tokens = self._score_bucket(request.targets)
            return Fit(length, prompts, input_class, None, 0, "plain", bucket, float(input_class + tokens))
        shape = self._shape(request, length, input_class)
        slots = request.sampling.slots
        cost = float(input_class + slots * request.sampling.max_new_tokens)
        return Fit(
            length, prompts, input_class, shape, slots, "plain" if slots == 1 else "grouped", None, cost
        )

    def _length(self, parts: Sequence[InputPart]) -> int:
        length = 0
        for part in parts:
            if isinstance(part, PromptHandle):
                length += part.length
                continue
            length += len(part)
            if part and not (min(part) >= 0 and max(part) < self.vocab_size):
                raise InvalidInputError(f"Token ids must be in [0, {self.vocab_size}).", field="input")
        if not length:
            raise InvalidInputError("The input is empty: it needs at least the end token.", field="input")
        return length

    def _prompts(self, parts: Sequence[InputPart]) -> tuple[PromptHandle, ...]:
        prompts = tuple(dict.fromkeys(part for part in parts if isinstance(part, PromptHandle)))
        rows = sum(prompt.length for prompt in prompts)
        if rows > self.prompt_rows:
            raise InvalidInputError(
                f"The request's prompts need {rows} rows of the device table, at most {self.prompt_rows} are "
                "there for one request: raise the server's prompt_rows or use shorter prompts.",
                field="task",
                code="prompt_rows_exceeded",
            )
        if len({prompt.digest for prompt in prompts}) != len(prompts):
            raise InvalidInputError("One prompt is named with two lengths.", field="input")
        return prompts

    def _shape(self, request: GenerateRequest, length: int, input_class: int) -> BlockShape:
        # A block takes rows of buckets that are no longer than it, so the class counts, not the length.
        sampling = request.sampling
        fitting = [
            shape
            for shape in self.ladder.blocks
            if input_class <= shape.input_length
            and sampling.max_new_tokens <= shape.new_tokens
            and sampling.slots <= shape.slots
        ]
        if fitting:
            return min(fitting, key=lambda shape: (shape.input_length + shape.new_tokens, shape))
        raise self._no_block(request, length)

    def _no_block(self, request: GenerateRequest, length: int) -> InvalidInputError:
        sampling, blocks = request.sampling, self.ladder.blocks
        if length > self.ladder.max_input_tokens:
            return InputTooLongError(
                f"The input has {length} tokens, at most {self.ladder.max_input_tokens} fit: shorten it.",
                field="input",
            )
        if sampling.slots > max(shape.slots for shape in blocks):
            most = max(shape.slots for shape in blocks)
            field = "num_beams" if sampling.num_beams > 1 else "n"
            return InvalidInputError(f"{field} must be at most {most}, got {sampling.slots}.", field=field)
        most = max(
            (s.new_tokens for s in blocks if length <= s.input_length and sampling.slots <= s.slots),
            default=0,
        )
        return InvalidInputError(
            f"max_new_tokens must be at most {most} for an input of {length} tokens, "
            f"got {sampling.max_new_tokens}.",
            field="max_new_tokens",
        )

    def _score_bucket(self, targets: Targets) -> tuple[tuple[int, int], int]:
        """The bucket, and how many tokens the targets have in all."""
        for fitted, bucket, tokens in self._fitted:
            if fitted is targets:
                return bucket, tokens
        bucket = self._bucket_of(targets)
        tokens = sum(len(target) for target in targets)
        self._fitted[:] = [(targets, bucket, tokens)]
        return bucket, tokens

    def _bucket_of(self, targets: Targets) -> tuple[int, int]:
        if not targets or not all(targets):
            raise InvalidInputError("A score needs at least one target and no empty one.", field="targets")
        longest = max(len(target) for target in targets)
        for place, target in enumerate(targets):
            if min(target) < 0 or max(target) >= self.vocab_size:
                raise InvalidInputError(
                    f"Token ids must be in [0, {self.vocab_size}).", field=f"targets.{place}"
                )
        fitting = sorted((T, C) for C, T in self.ladder.score_buckets if longest <= T)
        if not fitting:
            most = max((T for _, T in self.ladder.score_buckets), default=0)
            place = max(range(len(targets)), key=lambda index: len(targets[index]))
            raise InputTooLongError(
                f"Target {place} has {longest} tokens, at most {most} fit: use shorter labels.",
                field=f"targets.{place}",
            )
        enough = [(T, C) for T, C in fitting if len(targets) <= C]
        T, C = enough[0] if enough else max(fitting, key=lambda bucket: (bucket[1], -bucket[0]))
        return C, T
