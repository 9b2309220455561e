"""Libraries and a command that speak to OpenAI's API, before the base and a task that ship: what they answer
is what the server's own routes answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clients_in_the_wild.asking import asked, ran, url_of
from tests.end_to_end.served import Served
from tests.places import ROOT

pytestmark = pytest.mark.usefixtures("compiled_quickly")
EXAMPLE = "http://127.0.0.1:8000"
"""The server of the documentation."""
PRAISE = "it 's a charming and often affecting journey ."
BLAME = "a joyless mess"
LABELS = ["negative", "positive"]
SCHEMA = {"type": "object", "properties": {"tone": {"type": "string", "enum": LABELS}}, "required": ["tone"]}


@pytest.fixture(scope="module")
def key(key_of: Callable[..., str]) -> str:
    return key_of("default")


@pytest.fixture(scope="module")
def native(shipped: Served, key: str) -> dict[str, dict[str, Any]]:
    """What `/v1/generate` says of both texts, after `/v1/classify` chose among the labels."""
    found = {}
    for text in (PRAISE, BLAME):
        body = {"task": "sentiment", "input": text}
        (found[text],) = shipped.post("/v1/generate", body | {"logprobs": True})["results"]
        (ranked,) = shipped.post("/v1/classify", body)["results"]
        found[text]["label"] = ranked["label"]
    return found


def used(result: dict[str, Any]) -> list[int]:
    """Its tokens as OpenAI counts them: of the prompt, of the answer, in all."""
    asked, answered = result["usage"]["input_tokens"], result["usage"]["output_tokens"]
    return [asked, answered, asked + answered]


def test_litellm(
    openai_2: Path, shipped: Served, key: str, native: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": str(tmp_path)}
    said = asked(openai_2, "litellm_calls.py", f"{url_of(shipped)}/openai/v1", key, **offline)
    praised = native[PRAISE]
    assert said["completion"] == [praised["text"], "stop"]
    assert said["stream"] == said["text_completion"] == said["router"] == praised["text"]
    assert said["usage"] == said["stream_usage"] == used(praised)
    assert said["tool"] == ["judge", {"tone": praised["label"]}]
    assert said["response_format"] == {"tone": praised["label"]}
    unknown, unauthenticated, embedding = said["errors"]
    assert unknown[0] == "NotFoundError" and "nobody" in unknown[1]
    assert unauthenticated[0] == "AuthenticationError"
    assert embedding[0] == "BadRequestError" and "embedding" in embedding[1].casefold()


def test_langchain(
    openai_2: Path, shipped: Served, key: str, native: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    env = {"TIKTOKEN_CACHE_DIR": str(encodings(openai_2)), "HOME": str(tmp_path)}
    said = asked(openai_2, "langchain_calls.py", f"{url_of(shipped)}/openai/v1", key, **env)
    praised, blamed = native[PRAISE], native[BLAME]
    assert said["invoke"] == [praised["text"], "stop"]
    assert said["stream"] == said["history"] == said["responses"] == praised["text"]
    assert said["batch"] == [praised["text"], blamed["text"], praised["text"]]
    assert said["async"] == blamed["text"]
    kinds = ("input_tokens", "output_tokens", "total_tokens")
    assert [said["usage"][kind] for kind in kinds] == used(praised)
    assert [said["stream_usage"][-1][kind] for kind in kinds] == used(praised)
    logprobs = praised["choices"][0]["logprobs"]["token_logprobs"]
    assert [each["logprob"] for each in said["logprobs"]["content"]] == logprobs
    assert said["structured"] == dict.fromkeys(("json_schema", "function_calling"), blamed["label"])
    assert said["completions"] == [praised["text"]] and said["completion_stream"] == praised["text"]
    (param, ids), (_, text) = said["embeddings"]
    assert param == "input" and "check_embedding_ctx_length=False" in ids
    assert "check_embedding_ctx_length" not in text


def encodings(python: Path) -> Path:
    """The token ids of OpenAI's models, which LangChain sends for embeddings, as LiteLLM brings them."""
    (found,) = python.parents[1].glob("lib/python*/site-packages/litellm/litellm_core_utils/tokenizers")
    return found


def test_instructor(openai_2: Path, shipped: Served, key: str, native: dict[str, dict[str, Any]]) -> None:
    said = asked(openai_2, "instructor_calls.py", f"{url_of(shipped)}/openai/v1", key)
    wanted = [
        [native[text]["label"], native[text]["label"], used(native[text])[0]] for text in (PRAISE, BLAME)
    ]
    assert said == {"TOOLS": wanted, "JSON_SCHEMA": wanted}


def test_llm(
    openai_2: Path, shipped: Served, key: str, native: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """The command without plugins, told of the server as the documentation says."""
    (documented,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "openai.md").read_text(), re.DOTALL)
    (model,) = yaml.safe_load(documented.replace(EXAMPLE, url_of(shipped)))
    models = [model, model | {"model_id": "chorus-completion", "completion": True}]
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
    (tmp_path / "keys.json").write_text(json.dumps({"chorus": key}))
    env = {"LLM_USER_PATH": str(tmp_path), "HOME": str(tmp_path)}
    praise, blame = native[PRAISE], native[BLAME]

    def llm(*arguments: str) -> str:
        return ran([openai_2, "-m", "llm", *arguments], **env).strip()

    assert llm("-m", "chorus", PRAISE) == praise["text"]
    assert llm("-m", "chorus", "-s", "You judge reviews.", "--no-stream", BLAME) == blame["text"]
    assert json.loads(llm("-m", "chorus", "--schema", json.dumps(SCHEMA), BLAME)) == {"tone": blame["label"]}
    assert llm("-m", "chorus-completion", PRAISE) == praise["text"]
    logged = json.loads(llm("logs", "list", "--json", "-n", "0"))
    assert len(logged) == 4
    tokens = [[each["input_tokens"], each["output_tokens"]] for each in logged]
    assert sorted(tokens[:2]) == sorted([used(praise)[:2], used(blame)[:2]])
