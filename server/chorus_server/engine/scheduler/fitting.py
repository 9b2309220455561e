"""Which compiled shapes a request fits, if any, and what it costs. Depends only on the ladder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from chorus_server.engine.limits import Limits, input_too_long, target_too_long
from chorus_server.engine.plans import BlockMode, BlockShape, Ladder
from chorus_server.engine.requests import InputPart, PromptHandle, Request, ScoreRequest
from chorus_server.engine.sampling import Sampling, UnfitSettingsError
from chorus_server.engine.target_trees import Targets, target_trees
from chorus_server.errors import InputTooLongError, InternalError, InvalidInputError


@dataclass(frozen=True, slots=True)
class Fit:
    """The compiled shapes of a request.

    Attributes:
        length: input tokens, counting prompts, text and `</s>`.
        prompts: the distinct prompts that it reads.
        input_class: the smallest L of the ladder that holds the input.
        shape: the decode blocks that it may use; None for a score.
        slots: how many decode slots it needs.
        mode: the block mode in which it decodes.
        nodes: of the compiled trees that its targets are scored in; 0 for a generate request.
        cost: padded tokens of work, for fair queueing.
    """

    length: int
    prompts: tuple[PromptHandle, ...]
    input_class: int
    shape: BlockShape | None
    slots: int
    mode: BlockMode
    nodes: int
    cost: float


class Fitter:
    """Fits requests to a ladder.

    Args:
        vocab_size: V. Text ids must be below it, so that nobody reads another's prompt rows by id.
        prompt_rows: how many device rows one request may need.
    """

    def __init__(self, ladder: Ladder, vocab_size: int, prompt_rows: int) -> None:
        self._limits = Limits(ladder)
        self._tree_sizes = ladder.tree_sizes
        self._vocab_size = vocab_size
        self._prompt_rows = prompt_rows
        self._last_targets: tuple[Targets, int] | None = None
        """The last targets and the nodes of their trees: the items of one call share them."""

    def fit(self, request: Request) -> Fit:
        """The shapes for `request`.

        Raises:
            InputTooLongError: the input is longer than the largest bucket.
            InvalidInputError: no block or score bucket holds it, or its prompts do not fit the device table.
        """
        length = self._length(request.input)
        prompts = self._prompts(request.input)
        most, input_class = self._limits.max_input_tokens, self._limits.input_class(length)
        if input_class is None:
            raise InputTooLongError(input_too_long(str(length), most), field="input")
        if isinstance(request, ScoreRequest):
            nodes = self._nodes(request.targets)
            return Fit(length, prompts, input_class, None, 0, "plain", nodes, float(input_class + nodes))
        shape = self._shape(request.sampling, length)
        slots = request.sampling.slots
        cost = float(input_class + slots * request.sampling.max_new_tokens)
        return Fit(length, prompts, input_class, shape, slots, "plain" if slots == 1 else "grouped", 0, cost)

    def _length(self, parts: Sequence[InputPart]) -> int:
        length = 0
        for part in parts:
            if isinstance(part, PromptHandle):
                length += part.length
                continue
            length += len(part)
            if part and not (min(part) >= 0 and max(part) < self._vocab_size):
                raise InvalidInputError(f"Token ids must be in [0, {self._vocab_size}).", field="input")
        if not length:
            raise InvalidInputError("The input is empty: it needs at least the end token.", field="input")
        return length

    def _prompts(self, parts: Sequence[InputPart]) -> tuple[PromptHandle, ...]:
        prompts = tuple(dict.fromkeys(part for part in parts if isinstance(part, PromptHandle)))
        rows = sum(prompt.length for prompt in prompts)
        if rows > self._prompt_rows:
            raise InvalidInputError(
                f"The request's prompts need {rows} rows of the device table, but {self._prompt_rows} "
                "is the limit for one request: raise the server's prompt_rows or use shorter prompts.",
                field="task",
                code="prompt_rows_exceeded",
            )
        if len({prompt.digest for prompt in prompts}) != len(prompts):
            raise InvalidInputError("The same prompt is named with two lengths.", field="input")
        return prompts

    def _shape(self, sampling: Sampling, length: int) -> BlockShape:
        fitting = self._limits.shapes(length, sampling.slots, sampling.max_new_tokens)
        if fitting:
            return min(fitting, key=lambda shape: (shape.input_length + shape.new_tokens, shape))
        most = self._limits.max_input_tokens
        if length > most:
            raise InputTooLongError(input_too_long(str(length), most), field="input")
        try:
            self._limits.new_tokens_for(asdict(sampling), length, sampling.max_new_tokens)
        except UnfitSettingsError as unfit:
            raise InvalidInputError(unfit.message, field=unfit.names[0]) from None
        raise InternalError("no block holds a request, and none of its settings is too high")

    def _nodes(self, targets: Targets) -> int:
        """Nodes of the compiled trees that these targets are scored in."""
        last = self._last_targets
        if last is None or last[0] is not targets:
            last = self._last_targets = (targets, self._nodes_of(targets))
        return last[1]

    def _nodes_of(self, targets: Targets) -> int:
        if not targets or not all(targets):
            raise InvalidInputError("A score needs at least one target and no empty one.", field="targets")
        longest = self._limits.max_target_tokens
        for place, target in enumerate(targets):
            if min(target) < 0 or max(target) >= self._vocab_size:
                raise InvalidInputError(
                    f"Token ids must be in [0, {self._vocab_size}).", field=f"targets.{place}"
                )
            if len(target) > longest:
                message = target_too_long(str(len(target)), longest)
                raise InputTooLongError(f"Target {place} {message}: shorten it.", field=f"targets.{place}")
        if problem := self._limits.too_many_targets(targets):
            raise InputTooLongError(f"The targets {problem}.", field="targets")
        return sum(tree.nodes for tree in target_trees(targets, self._tree_sizes))
