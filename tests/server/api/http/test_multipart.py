"""The streamed form: cut anywhere it gives the same bytes, and only one part `file` is taken."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.api.http.multipart import Form
from chorus_server.errors import InvalidInputError

TYPE = "multipart/form-data; boundary=edge"
CONTENT = b"a\tb\r\n--edge\r-\r\n1\t2\r\n\r\n" + bytes(range(256))


def part(name: str, content: bytes, filename: str | None = "train.tsv") -> bytes:
    shown = "" if filename is None else f'; filename="{filename}"'
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"{shown}\r\nX-Other: 1\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = b"--edge--\r\n"
BODY = part("file", CONTENT) + END


def fed(chunks: list[bytes]) -> tuple[bytes, Form]:
    form = Form(TYPE, ("file",))
    content = b"".join(piece for chunk in chunks for _, piece in form.feed(chunk))
    form.finish()
    return content, form


@given(st.lists(st.integers(0, len(BODY)), max_size=20))
@settings(derandomize=True, deadline=None, max_examples=300)
def test_cut_anywhere_it_gives_the_files_bytes(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(BODY)]
    content, form = fed([BODY[a:b] for a, b in itertools.pairwise(edges)])
    assert content == CONTENT
    assert form.filename == "train.tsv"


def test_byte_by_byte_the_name_is_known_before_the_first_byte_of_the_file() -> None:
    form = Form(TYPE, ("file",))
    for at in range(len(BODY)):
        if form.feed(BODY[at : at + 1]):
            break
    assert form.filename == "train.tsv"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (part("other", b"x") + END, "unknown_field", "body"),
        (part("file", b"x") + part("file", b"y") + END, "invalid_input", "file"),
        (part("file", b"x") + part("metadata", b"{}") + END, "unknown_field", "body"),
        (part("file", b"x"), "invalid_input", "body"),
        (BODY[:-12], "invalid_input", "body"),
        (b"no form at all", "invalid_input", "body"),
        (b"", "invalid_input", "body"),
        (b"--edge\r\nContent-Disposition: form-data\r\nx: " + b"y" * 100_000, None, None),
        (b"--edge\r\nno header at all\r\n\r\nx\r\n" + END, None, None),
    ],
)  # fmt: skip
def test_what_is_no_such_form_is_refused(body: bytes, code: str | None, field: str | None) -> None:
    with pytest.raises(InvalidInputError) as raised:
        fed([body])
    assert code is None or (raised.value.code, raised.value.field) == (code, field)


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 5000])
def test_a_form_without_a_usable_boundary_is_refused(kind: str) -> None:
    with pytest.raises(InvalidInputError):
        Form(kind, ("file",))


def test_a_part_without_a_file_name_has_none() -> None:
    assert fed([part("file", b"x", filename=None) + END])[1].filename is None
    assert fed([part("file", b"x", filename="") + END])[1].filename is None
