"""Prompts on the Hugging Face hub, as PEFT adapters. `huggingface_hub` (the extra `hub`) does the exchange.

    found = hub.download("owner/name@v1")
    client.tasks.push("tickets", found.content, lineage=found.lineage)

`huggingface_hub` takes its token from HF_TOKEN or the file that `hf auth login` writes, and the hub's address
from HF_ENDPOINT. Both functions block; in a coroutine, use `asyncio.to_thread`.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorus.artifacts import MAX_ARTIFACT_BYTES, PEFT_CONFIG, PEFT_PICKLE, PEFT_WEIGHTS, read_artifact
from chorus.errors import (
    ChorusError,
    ConfigurationError,
    HubError,
    InvalidArgumentError,
    ModelMismatchError,
)
from chorus.hub_card import CARD, card_of
from chorus.saving import peft_files
from chorus.types import ModelInfo, Version

_ADAPTER = re.compile(r"(?P<repository>[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*)(@(?P<revision>[\w.\-/]+))?")


@dataclass(frozen=True, slots=True)
class HubAdapter:
    """A PEFT adapter as one commit on the hub has it.

    Attributes:
        repository: `owner/name`.
        content: a zip of its two files, which `client.tasks.push` takes.
        lineage: where it came from, with the commit, for the version.
        base_model: its base's name, by its configuration.
        base_fingerprint, vocabulary_digest: those of its base, by its card; Chorus writes them there.
    """

    repository: str
    content: bytes
    lineage: Mapping[str, Any]
    base_model: str | None = None
    base_fingerprint: str | None = None
    vocabulary_digest: str | None = None

    def check_base(self, model: ModelInfo) -> None:
        """Compare what is known of the adapter's base with the model that a server runs. A fingerprint proves
        more than a name: push it as `base_fingerprint`, and the server compares it.

        Raises:
            ModelMismatchError: the vocabularies differ, or, if there is no fingerprint, the names.
        """
        theirs = self.vocabulary_digest
        if theirs and model.vocabulary_digest and theirs != model.vocabulary_digest:
            raise _mismatch(
                f"{self.repository} was tuned with the vocabulary {theirs[:12]}..., and the server's has the "
                f"digest {model.vocabulary_digest[:12]}...: it reads other ids. Serve its own base."
            )
        named = self.base_model
        if self.base_fingerprint is None and named is not None and not _may_be_one(named, model.name):
            raise _mismatch(
                f"{self.repository} was tuned on {named!r}, and the server runs {model.name!r}. If they are "
                f"one model, say so by base_fingerprint: {model.fingerprint}"
            )


def download(adapter: str) -> HubAdapter:
    """Fetch an adapter. Its revision is resolved to a commit first, and every byte is compared with the hash
    that the hub's listing of this commit has.

    Args:
        adapter: `owner/name` or `owner/name@revision`, a branch, a tag or a commit.

    Raises:
        HubError: there is none, no access or no network; it has only a pickle; or what arrived is damaged.
        InvalidArgumentError: it is no hub id.
        ConfigurationError: the extra `hub` is not installed.
    """
    repository, revision = _parsed(adapter)
    with _hub(adapter) as library:
        info = library.HfApi().model_info(repository, revision=revision, files_metadata=True)
        listed = {file.rfilename: file for file in info.siblings or ()}
        _check_members(adapter, set(listed))
        if not info.sha:
            raise HubError(f"The hub names no commit of {adapter}.")
        with tempfile.TemporaryDirectory(prefix="chorus-hub-") as folder:
            for name in (PEFT_CONFIG, PEFT_WEIGHTS):
                if (listed[name].size or 0) > MAX_ARTIFACT_BYTES:
                    size = listed[name].size
                    raise HubError(f"{name} of {adapter} has {size} bytes; a prompt has a few megabytes.")
                library.hf_hub_download(repository, name, revision=info.sha, local_dir=folder)
                _check_content(adapter, listed[name], (Path(folder) / name).read_bytes())
            config = (Path(folder) / PEFT_CONFIG).read_bytes()
            content = read_artifact(folder).content
    said = {} if info.card_data is None else info.card_data.to_dict().get("chorus")
    return HubAdapter(
        repository=repository,
        content=content,
        lineage={"hub": {"repository": repository, "revision": revision or "main", "commit": info.sha}},
        base_model=_text(_object(config), "base_model_name_or_path"),
        base_fingerprint=_text(said, "base_fingerprint"),
        vocabulary_digest=_text(said, "vocabulary_digest"),
    )


def upload(
    repository: str,
    version: Version,
    adapter: bytes,
    *,
    model: ModelInfo | None = None,
    license: str | None = None,
    public: bool = False,
) -> str:
    """Commit a version to the hub as a PEFT adapter, with a model card. The version's lineage stays here: it
    may name your files.

    Args:
        repository: `owner/name`; it is made if it does not exist.
        version: what the card tells about.
        adapter: the version's file, `client.tasks.artifact(..., format="peft")`.
        model: the server's base; if the version belongs to it, the card has its vocabulary's digest.
        license: the hub's word for it, such as `apache-2.0`.
        public: whether anybody may see a repository that is made now. One that exists stays as it is.

    Returns:
        `owner/name@commit`, which `download` takes.

    Raises:
        HubError: no access, or no network.
        InvalidArgumentError: it is no hub id.
        ConfigurationError: the extra `hub` is not installed.
    """
    repository, revision = _parsed(repository)
    if revision is not None:
        raise InvalidArgumentError("A push goes to the main branch; leave @revision out.", field="repository")
    files = peft_files(adapter)
    base_model = _text(_object(files[PEFT_CONFIG]), "base_model_name_or_path")
    with _hub(repository) as library:
        files[CARD] = card_of(repository, version, base_model, model, license).encode()
        api = library.HfApi()
        api.create_repo(repository, private=not public, exist_ok=True)
        number = f"{version.task.rpartition('/')[2]}@{version.version}"
        done = api.create_commit(
            repository,
            [library.CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=f"Add {number}",
        )
    return f"{repository}@{done.oid}"


@contextmanager
def _hub(what: str) -> Iterator[Any]:
    """`huggingface_hub`. Its errors become sentences without addresses, since those may hold signatures."""
    try:
        import huggingface_hub as library
        from huggingface_hub import errors
    except ImportError:
        raise ConfigurationError(
            "The hub needs huggingface_hub. Install it from a checkout of Chorus: pip install '.[hub]'"
        ) from None
    # It has changed its HTTP library twice, whose errors are the base of its own.
    transport = errors.HfHubHTTPError.__mro__[1]
    try:
        yield library
    except errors.GatedRepoError:
        raise HubError(f"{what}: accept its conditions on the hub, and set HF_TOKEN.") from None
    except errors.RepositoryNotFoundError:
        raise HubError(f"The hub has no repository {what} (a private one needs HF_TOKEN).") from None
    except errors.RevisionNotFoundError:
        raise HubError(f"The hub has no such revision: {what}.") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = " Check HF_TOKEN and what it may do." if status in (401, 403) else ""
        raise HubError(f"The hub answered {status} for {what}.{hint}") from None
    except (transport, OSError, errors.OfflineModeIsEnabled) as error:
        cause = type(error.__cause__ or error).__name__
        raise HubError(f"{what} cannot be exchanged with the hub ({cause}).") from None
    except ChorusError:
        raise
    except ValueError as error:
        raise HubError(f"The hub's answer about {what} cannot be used: {error}") from None


def _parsed(adapter: str) -> tuple[str, str | None]:
    match = _ADAPTER.fullmatch(adapter)
    if match is None:
        raise InvalidArgumentError(
            f"{adapter!r} is not a hub id; expected owner/name or owner/name@revision.", field="repository"
        )
    return match["repository"], match["revision"]


def _check_members(adapter: str, names: set[str]) -> None:
    if PEFT_CONFIG not in names:
        raise HubError(f"{adapter} has no {PEFT_CONFIG}: it is not a PEFT adapter.")
    if PEFT_WEIGHTS in names:
        return
    if PEFT_PICKLE in names:
        raise HubError(
            f"{adapter} has only {PEFT_PICKLE}, a pickle, which can run code when it is read. Load it with "
            "PEFT and push it again with push_to_hub(..., safe_serialization=True)."
        )
    raise HubError(f"{adapter} has no {PEFT_WEIGHTS}.")


def _check_content(adapter: str, listed: Any, content: bytes) -> None:
    """Raise HubError unless a file has the size and the hash of the hub's listing: SHA-256 for a large file,
    git's blob id for a small one."""
    if listed.lfs is not None:
        expected, found = listed.lfs.sha256, hashlib.sha256(content).hexdigest()
    else:
        blob = b"blob %d\0" % len(content) + content
        expected, found = listed.blob_id, hashlib.sha1(blob, usedforsecurity=False).hexdigest()
    if listed.size not in (None, len(content)) or expected not in (None, found):
        raise HubError(
            f"{listed.rfilename} of {adapter} did not arrive as the hub lists it: {len(content)} bytes with "
            f"the hash {found[:12]}..., not {listed.size} with {str(expected)[:12]}.... Try again."
        )


def _object(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _text(found: Any, name: str) -> str | None:
    value = found.get(name) if isinstance(found, dict) else None
    return value if isinstance(value, str) and value else None


def _may_be_one(one: str, other: str) -> bool:
    """Whether two names may mean one model: hub ids as a whole, a path or a bare name by its last part."""
    left, right = (name.casefold() for name in (one, other))
    ids = _ADAPTER.fullmatch(left), _ADAPTER.fullmatch(right)
    if ids[0] and ids[1]:
        return ids[0]["repository"] == ids[1]["repository"]
    return _last_part(left) == _last_part(right)


def _last_part(name: str) -> str:
    return name.partition("@")[0].rstrip("/").rpartition("/")[2]


def _mismatch(message: str) -> ModelMismatchError:
    return ModelMismatchError(message, code="base_mismatch", field="base_model")
