"""Why a file is refused. The list is closed; its words are error codes, metric labels and names of tests."""

from __future__ import annotations

from enum import StrEnum

from prompts_store.errors import ArtifactError

UPLOAD_FIELD = "file"


class Reason(StrEnum):
    """One value for each kind of refusal; `docs/artifacts.md` says what to do about each."""

    # The file as a whole.
    EMPTY_FILE = "empty_file"
    FILE_TOO_LARGE = "file_too_large"
    FILE_UNREADABLE = "file_unreadable"
    SYMLINK = "symlink"
    UNKNOWN_FORMAT = "unknown_format"
    COMPRESSED = "compressed"
    PICKLE = "pickle"
    NPZ = "npz"

    # The description of the tensor, and whether the bytes agree with it.
    HEADER_TOO_LARGE = "header_too_large"
    HEADER_INVALID = "header_invalid"
    DUPLICATE_KEY = "duplicate_key"
    TENSOR_NAME = "tensor_name"
    TENSOR_MISSING = "tensor_missing"
    TENSOR_EXTRA = "tensor_extra"
    BAD_OFFSETS = "bad_offsets"
    TRUNCATED = "truncated"
    TRAILING_BYTES = "trailing_bytes"

    # The prompt itself.
    WRONG_DTYPE = "wrong_dtype"
    WRONG_RANK = "wrong_rank"
    WRONG_WIDTH = "wrong_width"
    EMPTY_PROMPT = "empty_prompt"
    TOO_LONG = "too_long"
    NOT_FINITE = "not_finite"
    OVERFLOW = "overflow"

    # What the file says about itself.
    METADATA_INVALID = "metadata_invalid"
    UNSUPPORTED_KIND = "unsupported_kind"
    DIGEST_MISMATCH = "digest_mismatch"
    BASE_MISMATCH = "base_mismatch"

    # Zip archives.
    ZIP_INVALID = "zip_invalid"
    ZIP_ENTRIES = "zip_entries"
    ZIP_PATH = "zip_path"
    ZIP_DUPLICATE = "zip_duplicate"
    ZIP_ENCRYPTED = "zip_encrypted"
    ZIP_COMPRESSION = "zip_compression"
    ZIP_BOMB = "zip_bomb"

    # PEFT adapters.
    PEFT_CONFIG_MISSING = "peft_config_missing"
    PEFT_CONFIG_INVALID = "peft_config_invalid"
    PEFT_KIND = "peft_kind"
    PEFT_WEIGHTS_MISSING = "peft_weights_missing"
    PEFT_PICKLE = "peft_pickle"
    PEFT_ROWS = "peft_rows"
    PEFT_TASK = "peft_task"


REASONS: tuple[Reason, ...] = tuple(Reason)


def refusal(reason: Reason, message: str) -> ArtifactError:
    """The error for a refused file, ready to raise."""
    return ArtifactError(message, field=UPLOAD_FIELD, code=reason.value)
