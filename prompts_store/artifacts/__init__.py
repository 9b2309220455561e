"""Prompt artifacts: the files in which prompts travel. They are read strictly and written reproducibly, with
numpy only.

    read_artifact(bytes or path, limits=ArtifactLimits(...)) -> Artifact     every check, or ArtifactError
    write_artifact(values, "safetensors") -> bytes                           any format of FORMATS

Nothing here unpickles, extracts an archive to disk, or hands a file to a library before its description was
checked.
"""

from prompts_store.artifacts.multitask import TASK_INDEX
from prompts_store.artifacts.peft_config import is_model_name
from prompts_store.artifacts.read import Artifact, read_artifact
from prompts_store.artifacts.reasons import REASONS, Reason
from prompts_store.artifacts.registry import FORMATS, ArtifactFormat
from prompts_store.artifacts.types import ArtifactLimits, ArtifactMetadata, ComputeDtype
from prompts_store.artifacts.write import peft_files, write_artifact, write_peft_folder

__all__ = [
    "FORMATS",
    "REASONS",
    "TASK_INDEX",
    "Artifact",
    "ArtifactFormat",
    "ArtifactLimits",
    "ArtifactMetadata",
    "ComputeDtype",
    "Reason",
    "is_model_name",
    "peft_files",
    "read_artifact",
    "write_artifact",
    "write_peft_folder",
]
