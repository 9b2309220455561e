"""The model card of a version on the Hugging Face hub."""

from __future__ import annotations

import json
import re
from typing import Any

from chorus.types import ModelInfo, Version

CARD = "README.md"

_HUB_NAME = re.compile(r"[\w.\-]+(/[\w.\-]+)?")

_TEXT = """\
# {name}

A soft prompt of {length} rows, `[{length}, {width}]`, for the frozen T5 `{base}`. No other model fits.

```json
{facts}
```

The template says how the fields of an input become the model's text.

## Use it with PEFT

```python
from peft import PeftModel
from transformers import AutoTokenizer, T5ForConditionalGeneration

tokenizer = AutoTokenizer.from_pretrained({base!r})
base = T5ForConditionalGeneration.from_pretrained({base!r})
model = PeftModel.from_pretrained(base, {repository!r}).eval()
answer = model.generate(**tokenizer("TEXT, by the template", return_tensors="pt"))
print(tokenizer.decode(answer[0], skip_special_tokens=True))
```

## Use it with Chorus

```console
$ chorus tasks pull hub:{repository} --task {name}
$ chorus {verb} {name} TEXT
```
"""


def card_of(
    repository: str, version: Version, base_model: str | None, model: ModelInfo | None, license: str | None
) -> str:
    """A README.md: front matter that the hub reads, what the version says about itself, and how to use it.

    Args:
        repository: `owner/name`.
        version: the version.
        base_model: its base's name. A path is nothing that the hub knows, and is left out of the front
            matter.
        model: the server's base.
        license: the hub's word for it.
    """
    from huggingface_hub import ModelCardData

    chorus: dict[str, Any] = {"digest": version.digest, "base_fingerprint": version.base_fingerprint}
    if model is not None and model.fingerprint == version.base_fingerprint:
        chorus["vocabulary_digest"] = model.vocabulary_digest
    front = ModelCardData(
        base_model=base_model if base_model and _HUB_NAME.fullmatch(base_model) else None,
        library_name="peft",
        license=license,
        metrics=sorted(version.metrics) or None,
        tags=["prompt-tuning", "soft-prompt", "t5", "chorus"],
        chorus={key: value for key, value in chorus.items() if value is not None},
    )
    facts = version.model_dump(
        include={"template", "labels", "settings", "metrics", "digest", "base_fingerprint"}
    )
    text = _TEXT.format(
        name=version.task.rpartition("/")[2],
        length=version.length,
        width=version.width,
        base=base_model or "BASE",
        facts=json.dumps(facts, indent=2, ensure_ascii=False),
        repository=repository,
        verb="classify" if version.labels else "generate",
    )
    return f"---\n{front.to_yaml()}\n---\n\n{text}"
