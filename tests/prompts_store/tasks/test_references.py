import pytest

from prompts_store.errors import InvalidError
from prompts_store.names import check_alias, check_name
from prompts_store.records import Reference
from prompts_store.tasks.references import check_version, format_reference, parse_reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sst2", Reference("acme", "sst2")),
        ("other/sst2", Reference("other", "sst2")),
        ("sst2@3", Reference("acme", "sst2", version=3, alias=None)),
        ("other/a.b_c-d@canary", Reference("other", "a.b_c-d", alias="canary")),
        ("0@v1.2", Reference("acme", "0", alias="v1.2")),
        ("sst2@2147483647", Reference("acme", "sst2", version=2**31 - 1, alias=None)),
        ("a" * 64, Reference("acme", "a" * 64)),
    ],
)
def test_a_reference_means(text: str, expected: Reference) -> None:
    parsed = parse_reference(text, tenant="acme")
    assert parsed == expected
    assert parse_reference(format_reference(parsed), tenant="unused") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@live",
        "sst2@",
        "sst2@0",
        "sst2@-1",
        "sst2@03",
        "sst2@2147483648",
        "sst2@" + "9" * 5000,
        "sst2@٣",  # an Arabic digit: int() would take it
        "sst2@3x",
        "sst2@Live",
        "sst2@live@live",
        "/sst2",
        "acme/",
        "a/b/c",
        "../sst2",
        "acme/../etc",
        "SST2",
        "sst 2",
        "sst2\n",
        "-sst2",
        ".sst2",
        "é",
        "a" * 65,
        "\ud800",
        None,
        3,
    ],
)
def test_what_is_no_reference_is_refused_with_the_form(text: object) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_reference(text, tenant="acme", field="requests.1.task")  # type: ignore[arg-type]
    assert caught.value.code == "invalid_reference"
    assert caught.value.field == "requests.1.task"
    assert "tenant/task@3" in caught.value.message
    assert caught.value.message.isascii() and len(caught.value.message) < 300


def test_names_and_aliases() -> None:
    assert check_name("2024.q1", field="task") == "2024.q1"
    assert check_alias("v2") == "v2"
    with pytest.raises(InvalidError, match="start with a letter") as caught:
        check_alias("2")
    assert (caught.value.code, caught.value.field) == ("invalid_alias", "alias")
    with pytest.raises(InvalidError) as caught:
        check_name("Acme", field="tenant")
    assert (caught.value.code, caught.value.field) == ("invalid_name", "tenant")


@pytest.mark.parametrize("number", [0, -1, 2**31, True, "1", 1.0, None])
def test_what_is_no_version_number_is_refused(number: object) -> None:
    with pytest.raises(InvalidError) as caught:
        check_version(number)
    assert (caught.value.code, caught.value.field) == ("invalid_version", "version")
