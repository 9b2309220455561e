"""Rules that hold for the value of any setting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from chorus_server.urls import split_http_url
from prompts_store.text import has_control_characters, is_unicode

MIB = 1 << 20

YEAR_SECONDS = 31_536_000
"""The longest time that any setting may give: clocks and locks cannot wait for ever longer."""

_LARGEST = 2**53


def written(value: Any) -> str:
    """A number, or a list of numbers or shapes, in command-line form."""
    if not isinstance(value, list | tuple):
        return str(value)
    return ",".join("x".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in value)


def _numbers(value: Any) -> Any:
    """Turn `64,128` into a tuple; leave anything else as it is."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _shapes(value: Any) -> Any:
    """Turn `128x64x16,256x64x16` into tuples; leave anything else as it is."""
    return tuple(tuple(part.split("x")) if isinstance(part, str) else part for part in _numbers(value))


def _http_urls(value: tuple[str, ...]) -> tuple[str, ...]:
    for url in value:
        split_http_url(url)
    return value


def _pairs(value: tuple[str, ...]) -> tuple[str, ...]:
    names = []
    for pair in value:
        name, _, meaning = pair.partition("=")
        if not (name.strip() and meaning.strip()):
            raise ValueError("must be pairs as in NAME=REFERENCE,OTHER=REFERENCE")
        names.append(name.strip())
    if len(set(names)) != len(names):
        raise ValueError("must give each name once")
    return value


_Number = Annotated[int, Field(ge=1, le=65_536)]
NumberList = Annotated[tuple[_Number, ...], BeforeValidator(_numbers), Field(min_length=1)]
PairList = Annotated[tuple[str, ...], BeforeValidator(_numbers), AfterValidator(_pairs)]
UrlList = Annotated[tuple[str, ...], BeforeValidator(_numbers), AfterValidator(_http_urls)]
PathList = Annotated[tuple[Path, ...], BeforeValidator(_numbers)]
ShapeList = Annotated[tuple[tuple[_Number, ...], ...], BeforeValidator(_shapes), Field(min_length=1)]


class ShapeChoice(BaseModel):
    """The setting `shapes`: a preset, and what an expert puts in place of its parts.

    As text it is words, as in `small input_lengths=64,128 blocks=128x64x16`; in the settings file also a
    table. Without a preset it is `auto`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["auto", "small", "medium", "large"] = Field(
        "auto", description="What the rest is taken from: `auto`, `small`, `medium` or `large`."
    )
    input_lengths: NumberList | None = Field(
        None,
        description="Compiled input lengths in tokens (prompt, text and `</s>`); the largest is the limit of "
        "an input.",
    )
    batch_rows: NumberList | None = Field(
        None, description="Batch sizes of the encoder that are compiled at each length."
    )
    blocks: ShapeList | None = Field(
        None,
        description="Decode blocks as INPUTxNEWxSLOTS: input tokens, new tokens and number of sequences that "
        "fit into one.",
    )
    score_buckets: ShapeList | None = Field(
        None,
        description="Label ranking as INPUTSxNODES of one dispatch: what an input's labels begin with are "
        "the nodes of a tree, and more labels take more trees.",
    )
    decode_tokens_per_dispatch: _Number | None = Field(
        None,
        description="Tokens decoded in one device step for each sequence: more is faster, but answers "
        "arrive later. By default 4, or what `auto` chooses.",
    )

    @model_validator(mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        if isinstance(value, ShapeChoice):
            return value
        found: dict[str, Any] = {}
        if isinstance(value, str):
            for word in value.split():
                name, given, text = word.partition("=")
                name, text = (name, text) if given else ("preset", word)
                if name in found:
                    raise ValueError(f"must give {name} once, and no space within a list")
                found[name] = text
        elif isinstance(value, dict):
            found = value
        else:
            raise ValueError("must be a preset with its parts, as in 'small batch_rows=1,4'")
        if unknown := sorted(found.keys() - cls.model_fields.keys()):
            raise ValueError(f"has no part {unknown[0]!r}; the parts are {', '.join(cls.model_fields)}")
        return found

    @property
    def lists(self) -> dict[str, Any]:
        """The preset and the lists, without what is no list."""
        return self.model_dump(exclude={"decode_tokens_per_dispatch"})

    def __str__(self) -> str:
        parts = self.model_dump(exclude={"preset"}, exclude_none=True)
        words = (f"{name}={written(part)}" for name, part in parts.items())
        return " ".join((self.preset, *words))


class SettingsGroup(BaseModel):
    """Settings that belong together, each with its bounds, its default and its meaning. Frozen.

    In every group, values that no name, path, URL or machine number can have are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _plain_text(cls, value: Any, info: ValidationInfo) -> Any:
        for text in value if isinstance(value, list | tuple) else (value,):
            if not isinstance(text, str | Path):
                continue
            if has_control_characters(str(text)) or not is_unicode(str(text)):
                raise ValueError("must contain no control characters, and be UTF-8")
            if text == "" and not isinstance(cls.model_fields[str(info.field_name)].default, tuple):
                raise ValueError("must not be empty; leave it out to get the default")
        return value

    @field_validator("*", check_fields=False)
    @classmethod
    def _machine_number(cls, value: Any) -> Any:
        parts = value if isinstance(value, tuple) else (value,)
        numbers = [n for part in parts for n in (part if isinstance(part, tuple) else (part,))]
        if any(isinstance(number, int) and number > _LARGEST for number in numbers):
            raise ValueError(f"must be at most {_LARGEST}")
        return value
