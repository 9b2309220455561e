"""Checks documents, one JSON object a line on standard input, and answers each with a line: what is wrong, or
nothing. It runs in the environment of tests/schemas.txt, which has Kubernetes' schemas; those of other kinds
are beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate

VERSION = "1.37"
SCHEMAS = Path(__file__).parent / "schemas"


def trouble(document: dict[str, object]) -> str:
    own = SCHEMAS / f"{document.get('kind')}.json"
    try:
        if own.exists():
            jsonschema.Draft7Validator(json.loads(own.read_text())).validate(document)
        else:
            kubernetes_validate.validate(document, VERSION, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return str(error.message)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


for line in sys.stdin:
    sys.stdout.write(json.dumps(trouble(json.loads(line))) + "\n")
