"""The values that the training of a version began with, made again from its lineage."""

from __future__ import annotations

from collections.abc import Callable

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.training.initialisers import InitialiserSource, PromptValues, initial_prompt
from prompts_store.records import PromptVersion


def began_from(version: PromptVersion) -> str | None:
    """The reference of the prompt that another one's training began with, as the lineage has it; None for
    those that began with something else."""
    found = version.lineage.get("initial_prompt")
    return found if isinstance(found, str) else None


def first_values(
    version: PromptVersion, source: Callable[[], InitialiserSource], existing: PromptValues | None
) -> PromptValues | None:
    """First values [P, D], f32: the same bits as the job's, on the base that it ran on. None for a version
    whose lineage does not tell, as one that was uploaded.

    Args:
        version: on the base that `source` is of.
        existing: the values of the prompt that `began_from` names.
    """
    seed, index = version.lineage.get("seed"), version.lineage.get("index")
    if version.lineage.get("source") != "tuning" or type(seed) is not int or type(index) is not int:
        return None
    try:
        recipe = Recipe.from_json(version.lineage.get("recipe"))
        if recipe.prompt_length != version.manifest.length:
            return None
        return initial_prompt(
            recipe, source(), seed, index, labels=version.manifest.labels, existing=existing
        )
    except InvalidInputError:  # somebody else wrote this lineage, or a part of it was left out
        return None
