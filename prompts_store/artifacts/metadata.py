"""What a file says about its prompt: one JSON object, as the text `chorus` in the safetensors metadata.

    {"kind": "soft_prompt", "digest", "base_fingerprint", "template", "labels", "settings", "omitted":
    [names]}

All of it is optional on reading. It must fit into the header of 16 KiB. If it would not, the longest parts
are left out on writing, and `omitted` names them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.artifacts.strict_json import parse_object
from prompts_store.artifacts.types import ArtifactLimits, ArtifactMetadata
from prompts_store.digests import manifest_fields
from prompts_store.errors import InvalidError
from prompts_store.records import PromptManifest
from prompts_store.tasks.labels import check_labels
from prompts_store.tasks.template import check_template
from prompts_store.text import shown

METADATA_KEY = "chorus"

_WHAT = "The file's metadata"
_DEPTH = 8
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_OMITTABLE = ("template", "labels", "settings")


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """The object as read: what the uploader gets, and what only the reading code needs.

    Attributes:
        metadata: the part for the artifact.
        digest: the values' digest, as the file's author wrote it down.
        notes: sentences for the uploader.
    """

    metadata: ArtifactMetadata
    digest: str | None = None
    notes: tuple[str, ...] = ()


def read_metadata(texts: Mapping[str, str], limits: ArtifactLimits) -> FileMetadata:
    """The metadata of a safetensors header. Keys of other programs are ignored.

    Raises:
        ArtifactError: `metadata_invalid`, `duplicate_key`, `unsupported_kind` or `base_mismatch`.
    """
    if METADATA_KEY not in texts:
        return FileMetadata(ArtifactMetadata())
    found = parse_object(
        texts[METADATA_KEY].encode("utf-8"), what=_WHAT, reason=Reason.METADATA_INVALID, max_depth=_DEPTH
    )
    kind = found.get("kind", "soft_prompt")
    if kind != "soft_prompt":
        raise refusal(
            Reason.UNSUPPORTED_KIND, f"The file's kind is {shown(kind)}; only soft_prompt is served."
        )
    metadata = ArtifactMetadata(
        template=_template(found.get("template")),
        labels=_labels(found.get("labels")),
        settings=_settings(found.get("settings")),
        base_fingerprint=_sha256(found.get("base_fingerprint"), "base_fingerprint"),
    )
    check_base(metadata.base_fingerprint, limits)
    return FileMetadata(metadata, _sha256(found.get("digest"), "digest"), _omitted(found.get("omitted")))


def check_base(fingerprint: str | None, limits: ArtifactLimits) -> None:
    """Raise ArtifactError (`base_mismatch`) if both fingerprints are known and differ."""
    if fingerprint is None or limits.base_fingerprint is None or fingerprint == limits.base_fingerprint:
        return
    raise refusal(
        Reason.BASE_MISMATCH,
        f"The prompt was tuned on the base model {fingerprint[:12]}..., and this server runs "
        f"{limits.base_fingerprint[:12]}...; tune it again on this model, or serve the other one.",
    )


def check_digest(expected: str | None, actual: str) -> None:
    """Raise ArtifactError (`digest_mismatch`) if the file names another digest than its values have."""
    if expected is not None and expected != actual:
        raise refusal(
            Reason.DIGEST_MISMATCH,
            f"The file says that its values have the digest {expected[:12]}..., but they have "
            f"{actual[:12]}...; it was damaged or edited. Download it again, or write it without metadata.",
        )


def render_metadata(
    manifest: PromptManifest | None, header_fits: Callable[[Mapping[str, str]], bool]
) -> dict[str, str]:
    """The safetensors metadata of a manifest.

    Args:
        manifest: None if there is none.
        header_fits: says whether a header with this metadata is within its limit.
    """
    if manifest is None:
        return {}
    fields = manifest_fields(manifest)
    kept = {
        key: value for key, value in fields.items() if key not in ("length", "width") and value is not None
    }
    omitted: list[str] = []
    for name in sorted(_OMITTABLE, key=lambda name: len(_text(kept[name])), reverse=True):
        if header_fits({METADATA_KEY: _text(kept)}):
            break
        del kept[name]
        omitted.append(name)
        kept["omitted"] = sorted(omitted)
    return {METADATA_KEY: _text(kept)}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _template(value: Any) -> str | None:
    if value is None:
        return None
    try:
        check_template(value)
    except InvalidError as error:
        raise _invalid(f"its template cannot be used. {error.message}") from None
    return str(value)


def _labels(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    try:
        return check_labels(value)
    except InvalidError as error:
        raise _invalid(f"its labels cannot be used. {error.message}") from None


def _settings(value: Any) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise _invalid("its settings are not an object.")
    return value


def _sha256(value: Any, name: str) -> str | None:
    if value is not None and not (isinstance(value, str) and _SHA256.fullmatch(value)):
        raise _invalid(f"its {name} is not a SHA-256 in lower-case hex.")
    return value


def _omitted(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(item in _OMITTABLE for item in value):
        raise _invalid("its list of omitted fields is not a list.")
    return tuple(
        f"The file had no room for the {name} of the version it came from; send it with the upload."
        for name in value
    )


def _invalid(problem: str) -> Exception:
    return refusal(Reason.METADATA_INVALID, f"{_WHAT} cannot be used: {problem}")
