"""The sweep of a job document: which recipes a job tries on its data, and how it chooses among them.

    {"search": "random", "named": "table6", "space": {"steps": [1000]}, "count": 20}

A *trial* is one recipe; it is trained once for each of the job's `seeds`. Successive halving is that of
Jamieson and Talwalkar 2016: all trials train for a part of the steps, the best 1/eta of them go on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise, product
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.document.fields import MAX_ITEMS, DocumentModel, ShortText, refuse
from chorus_server.tuning.document.prompt import PromptDocument
from chorus_server.tuning.document.recipe import RELEASED, Recipe
from chorus_server.tuning.raw_bits import raw_bits

MAX_TRAINED = 256
"""Most prompts that a sweep trains: its trials, each as often as there are seeds."""

_DRAWS = 64
"""How many draws a random search makes for each trial that it wants, since draws repeat."""

_WORDS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
_ONE = {"anyOf": [*({"type": each} for each in ("boolean", "number", "string")), _WORDS]}
_MOST_VALUES = 64


def _value(sent: Any) -> Any:
    """A value of a knob; a union of types would put their names into the paths of errors."""
    if isinstance(sent, list | tuple) and len(sent) <= MAX_ITEMS and all(isinstance(n, str) for n in sent):
        return tuple(sent)
    if not isinstance(sent, bool | int | float | str):
        raise PydanticCustomError("no_value", "Send a number, a text, a list of texts, true or false.")
    return sent


KnobValue = Annotated[Any, PlainValidator(_value), WithJsonSchema(_ONE)]
Knobs = Annotated[dict[ShortText, KnobValue], Field(max_length=64)]
"""Values of some knobs of a recipe."""


class ValueRange(DocumentModel):
    """Every value from `low` to `high`."""

    low: float = Field(default_factory=float, description="Smallest value. Required.")
    high: float = Field(default_factory=float, description="Largest value. Required.")
    scale: Literal["log", "linear"] = Field(
        "log", description="Whether equal ratios (`log`) or equal differences are equally likely."
    )
    points: int | None = Field(
        None, ge=2, le=64, description="How many values, evenly apart by `scale`, a grid takes of it."
    )

    def at(self, share: float) -> float:
        """The value at a share, from 0 to 1, of the way from `low` to `high`; with four digits."""
        low, high = self.low, self.high
        value = low * (high / low) ** share if self.scale == "log" else low + (high - low) * share
        return min(max(float(f"{value:.4g}"), low), high)


def _values(sent: Any) -> Any:
    """What a knob of a space may be: a tuple of values, or a span, which `completed` reads."""
    if isinstance(sent, ValueRange | Mapping):
        return sent
    if not isinstance(sent, list | tuple) or not 1 <= len(sent) <= _MOST_VALUES:
        words = "Send a list of 1 to {most} values, or an object with low and high."
        raise PydanticCustomError("no_values", words, {"most": _MOST_VALUES})
    return tuple(_value(each) for each in sent)


_LIST: dict[str, Any] = {"type": "array", "items": _ONE, "minItems": 1, "maxItems": _MOST_VALUES}
KnobValues = Annotated[
    Any,
    PlainValidator(_values),
    WithJsonSchema({"anyOf": [_LIST, {"type": "object"}]}),
]
Space = Annotated[dict[ShortText, KnobValues], Field(max_length=64)]

NAMED: Mapping[str, Mapping[str, Any]] = {
    "table6": {
        "learning_rate": ValueRange(low=0.001, high=0.5, points=5),
        "parameter_scaling": (True, False),
        "batch_size": (32, 64, 128, 256, 512),
        "steps": (10_000, 20_000, 30_000),
        "warmup_steps": (0, 2_000, 3_000),
        "decay_factor": (1.0, 0.1, 0.5),
        "steps_per_decay": (0, 4_000, 6_000, 8_000),
    }
}
"""Spaces that have a name: `table6` is that of Lester et al. 2021, Table 6, where `off` is 0, or 1 for the
factor."""


class Rung(DocumentModel):
    """A part of successive halving, after which the worst trials are left behind."""

    steps: int = Field(1, ge=1, le=100_000_000, description="Up to which its trials train.")
    trials: int = Field(1, ge=1, le=MAX_TRAINED, description="How many trials train.")


class SweepDocument(DocumentModel):
    """A search among recipes."""

    search: Literal["grid", "random", "halving"] = Field(
        "grid",
        description="`grid`, every combination of the space's values; `random`, `count` recipes drawn from "
        "it; `halving`, successive halving: as many drawn, or the grid without `count`, all of which train "
        "for a part of the steps, and the best 1/`eta` go on, rung after rung.",
    )
    named: Literal["table6"] | None = Field(
        None,
        description="Search the space of the paper's Table 6. Knobs of `space` take the place of its own. "
        "Halving leaves out its `steps`.",
    )
    space: Space = Field(
        default_factory=dict,
        description="For each knob of the recipe that varies: a list of values, or a span.",
    )
    count: int | None = Field(
        None, ge=1, le=MAX_TRAINED, description="How many recipes are drawn; different ones."
    )
    eta: int = Field(3, ge=2, le=64, description="Of a rung's trials, one in so many goes on.")
    rungs: tuple[Rung, ...] = Field(
        default_factory=tuple,
        strict=False,
        fail_fast=True,
        max_length=32,
        description="The rungs of halving: `steps` up to which, and how many `trials`. The first has all "
        "trials, the last ends with the recipe's steps. When left out, each has 1/`eta` of the trials of the "
        "one before and `eta` times its steps, until one trial is left.",
    )
    publish: int = Field(
        1,
        ge=0,
        le=64,
        description="Of so many of the best trials a version is made, of each by its best seed. All seeds of "
        "these trials are measured on test, of the best at least.",
    )
    together: int = Field(
        64,
        ge=1,
        le=64,
        description="So many prompts at most share a dispatch, if their recipes have one shape. Fewer make "
        "shorter slices, which requests wait for.",
    )
    trials: tuple[Knobs, ...] = Field(
        default_factory=tuple,
        strict=False,
        fail_fast=True,
        max_length=MAX_TRAINED,
        description="The recipes that are tried, each by its knobs; when sent, nothing is searched for, and "
        "`space`, `named` and `count` play no part.",
    )

    def completed(self, prompt: PromptDocument, sent: Recipe, seed: int, seeds: int) -> SweepDocument:
        """The sweep with its trials and rungs written out.

        Args:
            prompt: the job's one prompt, completed.
            sent: its recipe as it was sent.
            seed: of the job; draws follow from it.
            seeds: how often each trial is trained.

        Raises:
            InvalidInputError: a knob, a value or a combination of values is not valid, or there are too many.
        """
        most = MAX_TRAINED // seeds
        space = {
            name: ValueRange.read(values, f"sweep.space.{name}") if isinstance(values, Mapping) else values
            for name, values in self.space.items()
        }
        asked = self.model_copy(update={"space": space})
        trials = self.trials or tuple(asked._found(sent, prompt.recipe, seed, most))
        if self.trials:
            paths = [f"sweep.trials.{number}" for number in range(len(trials))]
            trials = tuple(_written_out(each, sent, at) for each, at in zip(trials, paths, strict=True))
        if len(trials) > most:
            field = "sweep.trials" if self.trials else "sweep.space"
            refuse(
                f"makes {len(trials)} trials of {seeds} seeds each; {MAX_TRAINED} prompts are the most", field
            )
        known: dict[Recipe, int] = {}
        for number, knobs in enumerate(trials):
            where = f"sweep.trials.{number}" if self.trials else "sweep.space"
            first = known.setdefault(_checked(prompt, knobs, where, self.search == "halving"), number)
            if first != number:
                refuse(f"makes trial {number} the same as trial {first}", where)
        rungs = self._rungs(prompt.recipe.steps, len(trials))
        return asked.model_copy(update={"trials": trials, "rungs": rungs})

    def _rungs(self, steps: int, trials: int) -> tuple[Rung, ...]:
        """The rungs for so many trials of so many steps; none without halving."""
        if self.search != "halving":
            if self.rungs:
                refuse("go with the search halving", "sweep.rungs")
            return ()
        last = _whole_log(min(trials, steps), self.eta)
        made = tuple(
            Rung(steps=-(-steps // self.eta ** (last - n)), trials=max(1, trials // self.eta**n))
            for n in range(last + 1)
        )
        rungs = self.rungs or made
        for number, (rung, after) in enumerate(pairwise(rungs), start=1):
            if after.steps <= rung.steps:
                refuse("must be above those of the rung before", f"sweep.rungs.{number}.steps")
            if after.trials > rung.trials:
                refuse("must not be above those of the rung before", f"sweep.rungs.{number}.trials")
        if rungs[0].trials != trials:
            refuse(f"is {rungs[0].trials}, and there are {trials} trials", "sweep.rungs.0.trials")
        if rungs[-1].steps != steps:
            message = f"is {rungs[-1].steps}, and the recipe has {steps} steps"
            refuse(message, f"sweep.rungs.{len(rungs) - 1}.steps")
        return rungs

    def _found(self, sent: Recipe, recipe: Recipe, seed: int, most: int) -> Iterator[dict[str, Any]]:
        space = self._space()
        if not space:
            refuse("is required: name the knobs that vary, or a named space", "sweep.space", "missing_field")
        if self.search == "random" and self.count is None:
            refuse(
                "is required for a random search: how many recipes to draw", "sweep.count", "missing_field"
            )
        if self.search == "grid" and self.count is not None:
            refuse(
                "goes with a random search, or with halving; a grid takes every combination", "sweep.count"
            )
        if self.count is None:
            return _grid(space, sent, recipe, most)
        if self.count > most:
            refuse(f"is {self.count}, and with this many seeds {most} trials are the most", "sweep.count")
        return _drawn(space, sent, recipe, seed, self.count)

    def _space(self) -> dict[str, Any]:
        named = dict(NAMED[self.named]) if self.named else {}
        if self.search == "halving":
            named.pop("steps", None)
        space = named | self.space
        for name, values in self.space.items():
            field = f"sweep.space.{name}"
            if name not in Recipe.model_fields:
                refuse("is no knob of the recipe", field, "unknown_field")
            if isinstance(values, ValueRange):
                _check_span(name, values, field)
                values = tuple(_rounded(name, values.at(share)) for share in (0.0, 1.0))
            for value in values:
                Recipe.read({name: value}, "sweep.space")
        return space


def _check_span(name: str, span: ValueRange, field: str) -> None:
    for bound in ("low", "high"):
        if not span.sent(bound):
            refuse("is required", f"{field}.{bound}", "missing_field")
    if not (_is_whole(name) or Recipe.model_fields[name].annotation is float):
        refuse("is no number; list its values", field)
    if not span.low < span.high:
        refuse("must be above low", f"{field}.high")
    if span.scale == "log" and span.low <= 0:
        refuse("must be above 0 on a log scale; send scale linear, or list the values", f"{field}.low")


def _checked(prompt: PromptDocument, knobs: Mapping[str, Any], where: str, halving: bool) -> Recipe:
    """The recipe of a trial; one that would be refused by itself is refused."""
    for name in knobs:
        if name not in Recipe.model_fields:
            refuse("is no knob of the recipe", f"{where}.{name}", "unknown_field")
    if halving and "steps" in knobs:
        refuse("are what halving varies by itself: leave them out", f"{where}.steps")
    for name in ("prompt_length", "initialiser", "initialiser_words", "initialiser_text"):
        if prompt.initial_prompt is not None and name in knobs:
            refuse("is fixed by initial_prompt", f"{where}.{name}")
    recipe = recipe_of(prompt.recipe, knobs, where)
    try:
        recipe.check()
        if recipe.initialiser == "class_labels" and not (prompt.labels or prompt.labels_from_data):
            raise InvalidInputError("initialiser is class_labels, and the prompt has no labels")
        if recipe.initialiser == "existing_prompt" and prompt.initial_prompt is None:
            raise InvalidInputError("initialiser is existing_prompt, which goes with an initial_prompt")
    except InvalidInputError as error:
        shown = ", ".join(f"{name} {value}" for name, value in knobs.items())
        raise InvalidInputError(f"a trial with {shown} cannot be: {error.message}", field=where) from error
    return recipe


def recipe_of(recipe: Recipe, knobs: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """The recipe of a trial: the job's with other knobs. Words or a text of the job's play no part in a trial
    with another initialiser, and those of a trial name its initialiser."""
    knobs = dict(knobs)
    for name, initialiser in (("initialiser_words", "words"), ("initialiser_text", "text")):
        if name in knobs:
            knobs.setdefault("initialiser", initialiser)
        elif knobs.get("initialiser", initialiser) != initialiser:
            knobs[name] = None
    return Recipe.read(recipe.to_json() | knobs, where)


def _written_out(knobs: Mapping[str, Any], sent: Recipe, where: str) -> dict[str, Any]:
    """A trial with the knobs of `RELEASED` in place of `defaults`, where neither it nor the recipe sends
    them; as `Recipe.completed` does for a recipe."""
    found = dict(knobs)
    defaults = found.pop("defaults", None)
    if defaults == "paper" and sent.defaults == "released":
        refuse("is fixed by recipe.defaults: leave that out to vary it", f"{where}.defaults")
    if defaults == "released":
        found = {name: each for name, each in RELEASED.items() if not sent.sent(name)} | found
    return found


def _grid(space: Mapping[str, Any], sent: Recipe, recipe: Recipe, most: int) -> Iterator[dict[str, Any]]:
    """Every combination, each once, in the order of the space. Of a space with far too many only so many as
    show that."""
    axes: list[tuple[Any, ...]] = []
    for name, values in space.items():
        if isinstance(values, ValueRange):
            if values.points is None:
                message = "is a span: say how many points a grid takes, list values, or search at random"
                refuse(message, f"sweep.space.{name}")
            shares = (n / (values.points - 1) for n in range(values.points))
            values = tuple(dict.fromkeys(_rounded(name, values.at(share)) for share in shares))
        axes.append(values)
    number = math.prod(map(len, axes))
    if number > 100_000:
        refuse(f"has {number} combinations; search at random, or list fewer values", "sweep.space")
    every = (dict(zip(space, values, strict=True)) for values in product(*axes))
    found = list(_distinct(every, sent, recipe))
    if len(found) > most:
        message = (
            f"has {len(found)} combinations, and {most} trials are the most; list fewer values, or search at "
            "random with a count"
        )
        refuse(message, "sweep.space")
    return iter(found)


def _drawn(
    space: Mapping[str, Any], sent: Recipe, recipe: Recipe, seed: int, count: int
) -> Iterator[dict[str, Any]]:
    """So many different combinations, drawn from a stream of the seed's."""

    def draw(number: int) -> dict[str, Any]:
        return {name: _pick(name, values, seed, number) for name, values in space.items()}

    found = list(islice(_distinct(map(draw, range(_DRAWS * count)), sent, recipe), count))
    if len(found) < count:
        message = (
            f"is {count}, and {_DRAWS * count} draws found only {len(found)} different recipes in the space"
        )
        refuse(message, "sweep.count")
    return iter(found)


def _pick(name: str, values: Any, seed: int, number: int) -> Any:
    bits = int(raw_bits(1, "sweep", seed, number, name)[0]) >> 11
    if isinstance(values, ValueRange):
        return _rounded(name, values.at(bits * 2.0**-53))
    return values[bits % len(values)]


def _distinct(trials: Iterator[dict[str, Any]], sent: Recipe, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """The trials, each once. Decay is off if its factor or its steps are: the paper lists `off` for both."""
    known: set[tuple[Any, ...]] = set()
    for each in trials:
        knobs = _written_out(each, sent, "sweep.space")
        if {"decay_factor", "steps_per_decay"} & knobs.keys():
            factor = knobs.get("decay_factor", recipe.decay_factor)
            every = knobs.get("steps_per_decay", recipe.steps_per_decay)
            off = factor == 1 or every == 0
            knobs |= {"decay_factor": 1.0, "steps_per_decay": 0} if off else {}
        key = tuple((name, type(value) is bool, value) for name, value in sorted(knobs.items()))
        if key not in known:
            known.add(key)
            yield knobs


def _rounded(name: str, value: float) -> int | float:
    return round(value) if _is_whole(name) else value


def _is_whole(name: str) -> bool:
    return Recipe.model_fields[name].annotation in (int, int | None)


def _whole_log(number: int, base: int) -> int:
    """The largest k with `base ** k <= number`."""
    found = 0
    while base ** (found + 1) <= number:
        found += 1
    return found
