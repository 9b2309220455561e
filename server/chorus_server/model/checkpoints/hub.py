"""Models on the Hugging Face hub. Downloads what a T5 needs, and nothing else, into huggingface_hub's
cache."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.added_tokens import TOKENIZER_FILES
from chorus_server.model.checkpoints.chorus_format import CHECKPOINT_METADATA
from chorus_server.model.checkpoints.huggingface import SAFETENSORS_FILE, SAFETENSORS_INDEX
from chorus_server.model.checkpoints.torch_reader import TORCH_FILE as TORCH_SINGLE
from chorus_server.model.checkpoints.torch_reader import TORCH_INDEX as TORCH_INDEX
from chorus_server.model.checkpoints.vocabulary_files import VOCABULARY_NAMES as VOCABULARIES

_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*)(@(?P<revision>[\w.\-/]+))?")
# huggingface_hub has twice changed the HTTP library it uses, and the base class of its errors is that
# library's.
_TRANSPORT_ERROR: type[Exception] = HfHubHTTPError.__mro__[1]
_LOCAL_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
_BESIDE_WEIGHTS = ["config.json", "generation_config.json", *VOCABULARIES, *TOKENIZER_FILES]
_TORCH = (TORCH_INDEX, TORCH_SINGLE)
_PATTERNS = {
    CHECKPOINT_METADATA: [CHECKPOINT_METADATA, "config.json", "spiece.model", "tensors/*"],
    SAFETENSORS_INDEX: [*_BESIDE_WEIGHTS, SAFETENSORS_INDEX, "model-*-of-*.safetensors"],
    SAFETENSORS_FILE: [*_BESIDE_WEIGHTS, SAFETENSORS_FILE],
    TORCH_INDEX: [*_BESIDE_WEIGHTS, TORCH_INDEX, "pytorch_model-*-of-*.bin"],
    TORCH_SINGLE: [*_BESIDE_WEIGHTS, TORCH_SINGLE],
}
"""For each kind of checkpoint, best first: the file that identifies it, and the files to download."""


def is_hub_id(source: str) -> bool:
    """Whether a source that is not a folder looks like `owner/name` or `owner/name@revision`."""
    return _HUB_ID.fullmatch(source) is not None


def download_model(source: str, *, allow_torch: bool) -> Path:
    """Download a model, or its missing files, and return its folder. huggingface_hub shows the progress.

    Without a network, earlier downloads are used.

    Args:
        source: `owner/name` or `owner/name@revision`.
        allow_torch: download `pytorch_model*.bin` if there are no safetensors.

    Raises:
        InvalidModelError: there is no such model, no access or no network, or only files that Chorus does not
            read.
    """
    match = _HUB_ID.fullmatch(source)
    if match is None:
        raise InvalidModelError(f"{source!r} is neither a folder nor a hub id (owner/name)", field="model")
    repo, revision = match["repo"], match["revision"]
    try:
        return _download(repo, revision, allow_torch)
    except GatedRepoError as error:
        raise _unavailable(source, "its licence must be accepted on the hub, and HF_TOKEN set") from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise _unavailable(
            source, "the hub has no such model or revision (a private one needs HF_TOKEN)"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        return _cached(source, repo, revision, error)
    except HfHubHTTPError as error:
        raise _unavailable(source, f"the hub answered with an error: {error}") from error
    except (_TRANSPORT_ERROR, OSError) as error:
        if isinstance(error, OSError) and error.errno in _LOCAL_FAULTS:
            raise _unavailable(source, f"the files cannot be written: {error}") from error
        return _cached(source, repo, revision, error)


def _download(repo: str, revision: str | None, allow_torch: bool) -> Path:
    info = HfApi().model_info(repo, revision=revision)
    files = {file.rfilename for file in info.siblings or ()}
    patterns = _wanted(repo, files, allow_torch)
    return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))


def _wanted(repo: str, files: set[str], allow_torch: bool) -> list[str]:
    found = next((marker for marker in _PATTERNS if marker in files), None)
    if found is None:
        raise _unavailable(repo, "it has no weights that Chorus can read (safetensors)")
    if found in _TORCH and not allow_torch:
        raise _unavailable(
            repo,
            "its weights exist only as pytorch_model.bin, which the server never reads. "
            f"Convert it once: chorus models convert {repo} {repo.partition('/')[2]}-chorus",
        )
    return _PATTERNS[found]


def _cached(source: str, repo: str, revision: str | None, cause: Exception) -> Path:
    """What was downloaded before. huggingface_hub finds a snapshot only if everything that is asked for is
    there."""
    for marker, patterns in _PATTERNS.items():
        try:
            found = snapshot_download(repo, revision=revision, allow_patterns=patterns, local_files_only=True)
        except (LocalEntryNotFoundError, OfflineModeIsEnabled):
            continue
        if (Path(found) / marker).is_file():
            return Path(found)
    raise _unavailable(
        source, f"the hub cannot be reached, and the model has not been downloaded before ({cause})"
    ) from cause


def _unavailable(source: str, reason: str) -> InvalidModelError:
    return InvalidModelError(
        f"cannot get {source} from the hub: {reason}", field="model", code="model_unavailable"
    )
