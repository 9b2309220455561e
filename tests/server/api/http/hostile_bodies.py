"""Bodies that cost little to send and much to read: for each field of a route's body, and for forms."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

SIZE = 600_000
"""Bytes of one hostile value: what `{"inputs": [0, 0, ...]}` needed to stop a server for seconds."""


def values(size: int = SIZE) -> dict[str, bytes]:
    """JSON values of about `size` bytes, by what is bad about them."""

    def repeated(item: bytes, begin: bytes = b"[", end: bytes = b"]") -> bytes:
        return begin + b",".join([item] * (size // (len(item) + 1))) + end

    keys = [b'"%x":0' % n for n in range(size // 8)]
    wide = b"[" + b",".join([repeated(b"{}")[: 64 * 3] + b"]"] * (size // 200)) + b"]"
    return {
        "zeros": repeated(b"0"),
        "objects": repeated(b"{}"),
        "lists": repeated(b"[]"),
        "empty texts": repeated(b'""'),
        "texts": repeated(b'"good"'),
        "numbers": repeated(b"-0.5e-3"),
        "wrong items": repeated(b'{"task":1,"input":[],"x":{}}'),
        "lists of lists": wide,
        "keys": b"{" + b",".join(keys) + b"}",
        "one key": repeated(b'"text":""', b"{", b"}"),
        "deep": b"[" * (size // 2) + b"]" * (size // 2),
        "escapes": b'"' + b"\\u0061" * (size // 6) + b'"',
        "NULs": b'"' + b"\\u0000" * (size // 6) + b'"',
        "pairs": b'"' + b"\\ud83d\\ude00" * (size // 12) + b'"',
        "quotes": b'"' + b'\\"' * (size // 2) + b'"',
        "open text": b'"' + b'a\\"' * (size // 3),
        "words": b'"' + b"a " * (size // 2) + b'"',
        "one word": b'"' + b"a" * size + b'"',
        "ligatures": b'"' + "\ufdfa".encode() * (size // 3) + b'"',
        "digits": b"9" * size,
        "fraction": b"0." + b"9" * size,
        "overflow": repeated(b"1e999"),
        "space": b"[" + b" " * size + b"]",
        "not UTF-8": b'"' + b"\xff" * size + b'"',
    }


def json_bodies(
    fields: Iterable[str], good: Mapping[str, Any], size: int = SIZE
) -> Iterator[tuple[str, bytes]]:
    """A body for each field and each hostile value, the rest as in `good`; and bodies that are no object."""
    for kind, value in values(size).items():
        yield f"the body: {kind}", value
        for field in fields:
            others = json.dumps({name: given for name, given in good.items() if name != field})[1:-1]
            begin = b"{" + others.encode() + (b"," if others else b"")
            yield f"{field}: {kind}", begin + b'"' + field.encode() + b'":' + value + b"}"


def many(count: int) -> dict[str, tuple[str, Any]]:
    """Small bodies that ask for as much work as one request may, by name: path and document."""
    texts = ["good"] * count
    labels = [f"good {first}{second}" for first in "abcdefghijklmnop" for second in "abcdefghijklmnop"]
    settings = {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "seed": 1, "max_new_tokens": 2, "stop": ["x"]}
    item = {"task": None, "input": "good", "logprobs": True}
    message = {"role": "user", "content": [{"type": "text", "text": "a"}] * 30}
    return {
        "inputs": ("/v1/generate", {"task": None, "inputs": texts, "max_new_tokens": 1}),
        "stream": ("/v1/generate", {"task": None, "inputs": texts, "max_new_tokens": 1, "stream": True}),
        "requests": ("/v1/generate", {"requests": [item | settings] * count}),
        "unknown tasks": (
            "/v1/generate",
            {"requests": [{"task": f"t{n}", "input": ""} for n in range(count)]},
        ),
        "labels": ("/v1/classify", {"task": None, "inputs": texts, "labels": labels}),
        "blank labels": (
            "/v1/classify",
            {
                "task": None,
                "inputs": texts[:64],
                "labels": [label.replace(" ", " " * 505) for label in labels],
            },
        ),
        "long texts": (
            "/v1/generate",
            {"task": None, "inputs": ["good film " * 80] * count, "truncate": True, "max_new_tokens": 1},
        ),
        "prompts": ("/v1/completions", {"model": "a", "prompt": texts, "max_tokens": 1, "logprobs": 2}),
        "streamed prompts": (
            "/v1/completions",
            {"model": "a", "prompt": texts, "max_tokens": 1, "echo": True, "stream": True},
        ),
        "messages": ("/v1/chat/completions", {"model": "a", "messages": [message] * 4 * count}),
        "members": ("/v1/ensemble", {"tasks": ["a"] * 16, "inputs": ["good"] * (count // 16)}),
    }


def schemas() -> dict[str, dict[str, Any]]:
    """Schemas that are short to send and long to read, by what is bad about them."""

    def repeated(count: int, **definitions: Any) -> dict[str, Any]:
        return {"properties": {"x": {"anyOf": [{"$ref": "#/$defs/X"}] * count}}, "$defs": definitions}

    long = "n" * 400
    names = [f"{long}{n}" for n in range(1000)]
    return {
        "values": repeated(500, X={"enum": [n + 0.5 for n in range(256)]}),
        "long integers": repeated(100, X={"enum": [10**2999 + n for n in range(256)]}),
        "long references": repeated(500, X={"$ref": f"#/$defs/{1000 * long}"}, **{1000 * long: {"const": 1}}),
        "required": {"properties": {name: {} for name in names}, "required": names},
        "long values": {"enum": [n * "a" for n in range(300_000, 300_003)]},
        "long constants": {
            "properties": {
                **{f"x{n}": {"$ref": "#/$defs/X"} for n in range(500)},
                "y": {"enum": ["good", "bad"]},
            },
            "$defs": {"X": {"const": [[0] * 100] * 100}},
        },
    }


def queries(size: int = 60_000) -> dict[str, str]:
    """Queries of about `size` bytes."""
    return {"names": "a&" * (size // 2), "one name": "a" * size, "one value": "limit=" + "1" * size}


BOUNDARY = b"edge"
FORM = {"content-type": "multipart/form-data; boundary=edge"}


def part(head: bytes, content: bytes) -> bytes:
    """One part of a form."""
    return b"--" + BOUNDARY + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


def form(metadata: bytes, file: bytes = b"x") -> bytes:
    """A form with a file and metadata."""
    named = b'Content-Disposition: form-data; name="%s"'
    end = b"--" + BOUNDARY + b"--\r\n"
    return part(named % b"file" + b'; filename="x"', file) + part(named % b"metadata", metadata) + end


def forms() -> dict[str, bytes]:
    """Forms of about `SIZE` bytes, by what is bad about them."""
    named = b'Content-Disposition: form-data; name="file"; filename="x"'
    return {
        "parts": part(named, b"") * (SIZE // 80),
        "headers": part(b"a: b\r\n" * (SIZE // 6) + named, b""),
        "long header": part(b"a: " + b"b" * SIZE, b""),
        "near boundaries": part(named, b"\r\n--edg" * (SIZE // 7)),
        "line ends": part(named, b"\r\n" * (SIZE // 2)),
        "no form": b"\r\n" * (SIZE // 2),
    }
