"""From a request's input to the engine's: template, tokens, prompt, `</s>`. Only text is ever truncated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chorus_server.api.http.errors import StoreAnswerError
from chorus_server.api.inference.items import Item, Value
from chorus_server.engine.limits import input_too_long, target_too_long
from chorus_server.engine.requests import PromptHandle
from chorus_server.errors import InputTooLongError, InvalidInputError
from chorus_server.model.utf8 import characters
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tuning.document.recipe import SENTINEL_SETTING
from prompts_store.errors import StoreError
from prompts_store.records import PromptVersion
from prompts_store.tasks.template import render_input

MAX_INPUT_CHARACTERS = 1_000_000
"""Most characters of one input; a longer one is refused before it is tokenised."""

_COUNTED_CHARACTERS = 16_384
"""If a text is too long, the error gives its number of tokens, up to this length; beyond it, only a lower
bound."""


def prepare_item(
    item: Item,
    version: PromptVersion | None,
    vocabulary: Vocabulary,
    *,
    max_tokens: int,
) -> Item:
    """The item with its version and the engine's input.

    Args:
        version: None for the base model, which takes plain text.
        max_tokens: limit for prompt, text and `</s>` together.

    Raises:
        InvalidInputError: the fields do not fit the template.
        InputTooLongError: there are too many characters or tokens; the error gives both numbers.
    """
    text = _render(version, item.value, item.input_field)
    rows = version.manifest.length if version is not None else 0
    room = max_tokens - rows - 1
    if room < 0:
        raise InputTooLongError(
            f"The prompt alone has {rows} rows, and the limit is {max_tokens} tokens with '</s>'.",
            field=item.input_field,
        )
    try:
        ids, whole = vocabulary.encode_start(text, room)
    except InputTooLongError as error:
        raise InputTooLongError(error.message, field=item.input_field) from None
    truncated = len(ids) > room
    if truncated and not item.truncate:
        if not whole and characters(text) <= _COUNTED_CHARACTERS:
            ids, whole = vocabulary.encode(text.decode()), True
        more, count = "" if whole else "more than ", len(ids)
        raise InputTooLongError(
            input_too_long(
                f"{more}{rows + count + 1}",
                max_tokens,
                f" ({rows} of the prompt, {more}{count} of the text, 1 for '</s>')",
            ),
            field=item.input_field,
        )
    body = (*ids[:room], vocabulary.eos_id)
    prompt = (PromptHandle(version.manifest.digest, rows),) if version is not None else ()
    return replace(item, version=version, input=(*prompt, body), truncated=truncated)


def _render(version: PromptVersion | None, value: Value, field: str) -> bytes:
    if text_bytes(value) > MAX_INPUT_CHARACTERS and (size := _characters(value)) > MAX_INPUT_CHARACTERS:
        raise InputTooLongError(
            f"The input has {size} characters, the limit is {MAX_INPUT_CHARACTERS}: shorten it.", field=field
        )
    if version is not None:
        try:
            return render_input(version.manifest.template, value, field=field)
        except StoreError as error:
            raise StoreAnswerError(error) from None
    if not isinstance(value, bytes):
        raise InvalidInputError(
            "The base model has no template: send the input as a text.", field=field, code="invalid_field"
        )
    return value


def text_bytes(value: Value) -> int:
    """Total bytes of an input's texts."""
    return len(value) if isinstance(value, bytes) else sum(map(len, value.values()))


def _characters(value: Value) -> int:
    return sum(map(characters, [value] if isinstance(value, bytes) else value.values()))


def answer_start(vocabulary: Vocabulary, version: PromptVersion | None) -> tuple[int, ...]:
    """Tokens that an answer begins with before its text: `<extra_id_0>` if the prompt was tuned that way."""
    begins = version is not None and version.manifest.settings.get(SENTINEL_SETTING) is True
    return (vocabulary.sentinel(0),) if begins else ()


def label_targets(
    vocabulary: Vocabulary,
    labels: Sequence[str],
    max_tokens: int,
    field: str,
    start: tuple[int, ...] = (),
    *,
    sent: bool = True,
) -> list[tuple[int, ...]]:
    """Token ids of each label, including `</s>`.

    Args:
        field: dotted path of the labels or, if they are the version's own, of the field that named the
            version.
        start: tokens that each label begins with; see `answer_start`.
        sent: whether the request sent the labels, so that an error can name one by its position.

    Raises:
        InvalidInputError: a label is empty, too long or the same as another.
    """
    targets: dict[tuple[int, ...], None] = {}

    def refused(index: int, problem: str, advice: str) -> InvalidInputError:
        if sent:
            return InvalidInputError(f"The label {problem}: {advice}.", field=f"{field}.{index}")
        message = f"Label {index} of the version {problem}: send labels of your own, or use another version."
        return InvalidInputError(message, field=field)

    for index, label in enumerate(labels):
        ids, whole = vocabulary.encode_start(label.encode(), max_tokens)
        if not ids:
            raise refused(index, "has no tokens", "give it a text")
        target = (*start, *ids, vocabulary.eos_id)
        if len(target) > max_tokens:
            beside = "<extra_id_0> and " if start else ""
            more = "" if whole else "more than "
            raise refused(index, target_too_long(f"{more}{len(target)}", max_tokens, beside), "shorten it")
        if target in targets:
            raise refused(index, "has the same tokens as an earlier one", "keep one")
        targets[target] = None
    return list(targets)
