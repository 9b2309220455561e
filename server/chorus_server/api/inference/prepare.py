"""From a request's input to the engine's: template, tokens, prompt, `</s>`. Only text is ever truncated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from chorus_server.api.http.errors import StoreAnswerError
from chorus_server.api.inference.items import Item, Value
from chorus_server.api.schemas.inference import LONGEST_LABEL
from chorus_server.engine.limits import input_too_long, target_too_long
from chorus_server.engine.requests import PromptHandle
from chorus_server.errors import InputTooLongError, InvalidInputError
from chorus_server.model.utf8 import characters
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tuning.data.cutting import Truncation
from chorus_server.tuning.data.normalizers import normalized
from chorus_server.tuning.document.recipe import SENTINEL_SETTING, SPECIAL_TOKENS_SETTING
from prompts_store.errors import StoreError
from prompts_store.records import PromptVersion
from prompts_store.tasks.template import parse_template, render_input

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
    settings = version.manifest.settings if version is not None else {}
    special = item.special_tokens
    if special is None:
        special = settings.get(SPECIAL_TOKENS_SETTING) is True
    text, value = _render(version, item.value, item.input_field)
    rows = version.manifest.length if version is not None else 0
    room = max_tokens - rows - 1
    if room < 0:
        raise InputTooLongError(
            f"The prompt alone has {rows} rows, and the limit is {max_tokens} tokens with '</s>'.",
            field=item.input_field,
        )
    try:
        ids, whole = vocabulary.encode_start(text, room, allow_sentinels=special)
    except InputTooLongError as error:
        raise InputTooLongError(error.message, field=item.input_field) from None
    truncated = len(ids) > room
    if truncated and not item.truncate:
        if not whole and characters(text) <= _COUNTED_CHARACTERS:
            ids, whole = vocabulary.encode(text.decode(), allow_sentinels=special), True
        more, count = "" if whole else "more than ", len(ids)
        raise InputTooLongError(
            input_too_long(
                f"{more}{rows + count + 1}",
                max_tokens,
                f" ({rows} of the prompt, {more}{count} of the text, 1 for '</s>')",
            ),
            field=item.input_field,
        )
    truncation = Truncation.of(settings) if truncated else None
    if truncation is not None and version is not None:
        ids = _cut(item, version, truncation, vocabulary, text, value, room, special)
    body = (*ids[:room], vocabulary.eos_id)
    prompt = (PromptHandle(version.manifest.digest, rows),) if version is not None else ()
    return replace(item, version=version, input=(*prompt, body), truncated=truncated, special_tokens=special)


def _cut(
    item: Item,
    version: PromptVersion,
    truncation: Truncation,
    vocabulary: Vocabulary,
    text: bytes,
    value: Value,
    room: int,
    special: bool,
) -> list[int]:
    """Ids of a text that is too long, cut as its version says."""
    template = parse_template(version.manifest.template)
    fields = {template.fields[0]: value} if isinstance(value, bytes) else value
    try:
        ids = truncation.ids(vocabulary, template, text, fields, room, allow_sentinels=special)
    except InputTooLongError as error:
        raise InputTooLongError(error.message, field=item.input_field) from None
    if ids is None:
        raise InputTooLongError(
            f"The version cuts only the field {truncation.field}, and without it the text still has more "
            f"than the {room} tokens that fit: shorten the other fields.",
            field=item.input_field,
        )
    return ids


def _render(version: PromptVersion | None, value: Value, field: str) -> tuple[bytes, Value]:
    """The text, and what the template was filled with."""
    if text_bytes(value) > MAX_INPUT_CHARACTERS and (size := _characters(value)) > MAX_INPUT_CHARACTERS:
        raise InputTooLongError(
            f"The input has {size} characters, the limit is {MAX_INPUT_CHARACTERS}: shorten it.", field=field
        )
    if version is not None:
        try:
            value = _normalized(version, value)
            return render_input(version.manifest.template, value, field=field), value
        except StoreError as error:
            raise StoreAnswerError(error) from None
    if not isinstance(value, bytes):
        raise InvalidInputError(
            "The base model has no template: send the input as a text.", field=field, code="invalid_field"
        )
    return value, value


def _normalized(version: PromptVersion, value: Value) -> Value:
    """The value as its version's normaliser wants it."""
    template, settings = parse_template(version.manifest.template), version.manifest.settings
    if not isinstance(value, bytes):
        return normalized(settings, template, value)
    name = template.fields[0]
    return normalized(settings, template, {name: value})[name]


def text_bytes(value: Value) -> int:
    """Total bytes of an input's texts."""
    return len(value) if isinstance(value, bytes) else sum(map(len, value.values()))


def _characters(value: Value) -> int:
    return sum(map(characters, [value] if isinstance(value, bytes) else value.values()))


def answer_start(vocabulary: Vocabulary, version: PromptVersion | None) -> tuple[int, ...]:
    """Tokens that an answer begins with before its text: `<extra_id_0>` if the prompt was tuned that way."""
    begins = version is not None and version.manifest.settings.get(SENTINEL_SETTING) is True
    return (vocabulary.sentinel(0),) if begins else ()


@lru_cache(maxsize=4096)
def _label_ids(
    vocabulary: Vocabulary, label: str, most: int, special_tokens: bool
) -> tuple[Sequence[int], bool]:
    """See `Vocabulary.encode_start`. Labels come again and again, with every request and every line."""
    return vocabulary.encode_start(label.encode(), most, allow_sentinels=special_tokens)


def label_targets(
    vocabulary: Vocabulary,
    labels: Sequence[str],
    max_tokens: int,
    field: str,
    start: tuple[int, ...] = (),
    *,
    sent: bool = True,
    special_tokens: bool = False,
) -> list[tuple[int, ...]]:
    """Token ids of each label, including `</s>`.

    Args:
        field: dotted path of the labels or, if they are the version's own, of the field that named the
            version.
        start: tokens that each label begins with; see `answer_start`.
        sent: whether the request sent the labels, so that an error can name one by its position.
        special_tokens: whether `<extra_id_N>` is a sentinel.

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
        if len(label) > LONGEST_LABEL:  # not read, nor kept in the cache
            long = f"has {len(label)} characters, the limit is {LONGEST_LABEL}"
            raise refused(index, long, "shorten it")
        ids, whole = _label_ids(vocabulary, label, max_tokens, special_tokens)
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
