"""Labels are unique to the model, visible and bounded."""

from __future__ import annotations

from typing import Any

import pytest

from prompts_store.errors import InvalidError
from prompts_store.tasks.labels import MAX_LABEL_CHARACTERS, MAX_LABELS, check_labels


@pytest.mark.parametrize(
    "labels", [(), ("no", "yes"), ["World", "Sci/Tech"], ("é", "e"), ("a b", "ab"), ("A", "a")]
)
def test_good_labels_come_back_verbatim_and_in_order(labels: Any) -> None:
    assert check_labels(labels) == tuple(labels)


@pytest.mark.parametrize(
    ("labels", "field", "says"),
    [
        ("positive", "labels", "not str"),
        (None, "labels", "NoneType"),
        ({"a": 1}, "labels", "dict"),
        (["a", 3], "labels.1", "int"),
        (["a", ""], "labels.1", "blank"),
        (["\u3000 "], "labels.0", "blank"),
        (["a", "b", "a"], "labels.2", "same as label 0"),
        (["new york", " new  york "], "labels.1", "same as label 0"),
        (["\ufb01ne", "fine"], "labels.1", "same as label 0"),
        (["x" * (MAX_LABEL_CHARACTERS + 1)], "labels.0", "257 characters"),
        ([str(i) for i in range(MAX_LABELS + 1)], "labels", "513 labels"),
        (["a\n"], "labels.0", "control"),
        (["a\x00"], "labels.0", "control"),
        (["\udfff"], "labels.0", "surrogates"),
    ],
)
def test_bad_labels_are_named(labels: Any, field: str, says: str) -> None:
    with pytest.raises(InvalidError) as caught:
        check_labels(labels)
    assert (caught.value.code, caught.value.field) == ("invalid_labels", field)
    assert says in caught.value.message


def test_the_path_is_the_caller_s() -> None:
    with pytest.raises(InvalidError) as caught:
        check_labels(["a", "a"], field="metadata.labels")
    assert caught.value.field == "metadata.labels.1"
