"""How a text that is too long is cut: which field of the template, and on which side. Serving and tuning do
the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from chorus_server.errors import InvalidInputError
from chorus_server.model.vocabulary import Side, Vocabulary
from chorus_server.tuning.document.recipe import TRUNCATION_SETTING
from prompts_store.tasks.template import Template, around_field, parse_template


@dataclass(frozen=True, slots=True)
class Truncation:
    """A version's own way to cut. Without one the end of the whole text is cut.

    Attributes:
        field: name of a field that the template uses once.
        side: `left` cuts its start, `right` its end.
    """

    field: str
    side: Side

    @staticmethod
    def of(settings: Mapping[str, Any]) -> Truncation | None:
        """The one in a version's settings, which were checked when they were stored."""
        asked = settings.get(TRUNCATION_SETTING)
        return None if asked is None else Truncation(asked["field"], asked["side"])

    def ids(
        self,
        vocabulary: Vocabulary,
        template: Template,
        text: bytes,
        fields: Mapping[str, bytes],
        most: int,
        *,
        allow_sentinels: bool,
    ) -> list[int] | None:
        """At most `most` ids of a rendered text; None if there are more without the field.

        Args:
            fields: those that the text was rendered from.
        """
        parts = around_field(text, template, fields, self.field)
        return vocabulary.encode_around(*parts, most, self.side, allow_sentinels=allow_sentinels)


def check_truncation(asked: Any, field: str) -> None:
    """Refuse a `truncation` that is not one. Raises InvalidInputError."""
    if not isinstance(asked, dict) or asked.keys() != {"field", "side"}:
        raise InvalidInputError(
            'truncation is an object such as {"field": "text", "side": "left"}.', field=field
        )
    if not isinstance(asked["field"], str):
        raise InvalidInputError("It is the name of a field of the template.", field=f"{field}.field")
    if asked["side"] not in get_args(Side):
        raise InvalidInputError("It is left or right.", field=f"{field}.side")


def misplaced(template: str, asked: Truncation) -> str | None:
    """Why this template has no such field to cut; None if it has."""
    fields = [name for _, name in parse_template(template).pieces if name is not None]
    if fields.count(asked.field) == 1:
        return None
    uses = "several times" if asked.field in fields else "nowhere"
    known = ", ".join(dict.fromkeys(fields))
    return (
        f"The template uses the field to cut {uses}: name one that it uses once, out of {known}, or leave "
        "truncation out."
    )
