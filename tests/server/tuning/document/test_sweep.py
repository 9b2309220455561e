"""Which trials a sweep makes: each once, within its space, the same for the same seed; and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.document.sweep import NAMED, ValueRange

DOCUMENT: dict[str, Any] = {
    "task": "sst2",
    "data": {"train": {"file": "file-abc"}},
    "labels": ["negative", "positive"],
    "recipe": {"steps": 81, "prompt_length": 5},
}
PAPER: Mapping[str, Any] = NAMED["table6"]


def _job(sweep: Mapping[str, Any] | None = None, **more: Any) -> JobDocument:
    asked = {} if sweep is None else {"sweep": dict(sweep)}
    return JobDocument.from_json(DOCUMENT | asked | more)


def _key(knobs: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(knobs.items()))


def test_a_grid_has_every_combination_once() -> None:
    space = {"learning_rate": [0.1, 0.3, 0.1], "prompt_length": [5, 20], "parameter_scaling": [True, False]}
    trials = _job({"space": space}).trials
    assert {_key(knobs) for knobs in trials} == {
        _key({"learning_rate": rate, "prompt_length": length, "parameter_scaling": scaled})
        for rate in (0.1, 0.3)
        for length in (5, 20)
        for scaled in (True, False)
    }
    assert len(trials) == 8


def test_points_of_a_span_are_evenly_apart_and_whole_where_the_knob_is() -> None:
    trials = _job({"space": {"learning_rate": {"low": 0.01, "high": 1, "points": 3}}}).trials
    assert [knobs["learning_rate"] for knobs in trials] == [0.01, 0.1, 1]
    lengths = {"low": 5, "high": 20, "points": 4, "scale": "linear"}
    trials = _job({"space": {"prompt_length": lengths}}).trials
    assert [knobs["prompt_length"] for knobs in trials] == [5, 10, 15, 20]


def test_the_papers_space_is_its_table_6() -> None:
    grid = {"learning_rate": [0.3], "batch_size": [32], "parameter_scaling": [False], "warmup_steps": [0]}
    trials = _job({"named": "table6", "space": grid}).trials
    # Decay is off once, and 2 factors times 3 distances: each with the 3 numbers of steps.
    assert len(trials) == 3 * (1 + 2 * 3)
    assert {(knobs["decay_factor"] == 1) == (knobs["steps_per_decay"] == 0) for knobs in trials} == {True}
    with pytest.raises(InvalidInputError, match="has 3150 combinations, and 256 trials are the most"):
        _job({"named": "table6"})  # 5 * 2 * 5 * 3 * 3 * 7


@pytest.mark.parametrize("seed", [0, 7])
def test_a_random_search_draws_different_recipes_from_the_space(seed: int) -> None:
    job = _job({"search": "random", "named": "table6", "count": 60}, seed=seed)
    assert len({_key(knobs) for knobs in job.trials}) == 60
    for knobs in job.trials:
        for name, value in knobs.items():
            known = PAPER[name]
            if isinstance(known, ValueRange):
                assert known.low <= value <= known.high
            else:
                assert value in known
    rates = sorted(knobs["learning_rate"] for knobs in job.trials)
    middle = math.sqrt(0.001 * 0.5)  # on a log scale: half of the draws are below it
    assert 18 <= sum(rate < middle for rate in rates) <= 42
    again = _job({"search": "random", "named": "table6", "count": 60}, seed=seed)
    other = _job({"search": "random", "named": "table6", "count": 60}, seed=seed + 1)
    assert again.trials == job.trials != other.trials


def test_more_seeds_draw_the_same_recipes() -> None:
    asked = {"search": "random", "space": {"learning_rate": {"low": 0.1, "high": 1}}, "count": 9}
    assert _job(asked).trials == _job(asked, seeds=3).trials


@pytest.mark.parametrize(
    ("trials", "steps", "eta", "rungs"),
    [
        (27, 81, 3, [(3, 27), (9, 9), (27, 3), (81, 1)]),
        (10, 100, 3, [(12, 10), (34, 3), (100, 1)]),
        (4, 2, 2, [(1, 4), (2, 2)]),
        (1, 10, 2, [(10, 1)]),
    ],
)
def test_rungs_of_halving(trials: int, steps: int, eta: int, rungs: list[tuple[int, int]]) -> None:
    values = [round(0.1 + 0.01 * n, 2) for n in range(trials)]
    sweep = {"search": "halving", "eta": eta, "space": {"learning_rate": values}}
    job = _job(sweep, seeds=2, recipe={**DOCUMENT["recipe"], "steps": steps})
    assert [(rung.steps, rung.trials) for rung in job.rungs] == rungs
    begins = [0, *(steps for steps, _ in rungs)]
    cost = sum((steps - begin) * count for (steps, count), begin in zip(rungs, begins, strict=False))
    assert job.training_steps == 2 * cost <= 2 * trials * steps


def test_training_steps_count_every_seed_of_every_trial() -> None:
    assert _job().training_steps == 81
    assert _job(seeds=3).training_steps == 243
    assert _job({"space": {"learning_rate": [0.1, 0.2]}}, seeds=3).training_steps == 486
    assert _job({"space": {"steps": [10, 20]}}, seeds=2).training_steps == 60


def test_members_are_seeds_of_trials() -> None:
    job = _job({"space": {"learning_rate": [0.1, 0.2]}}, seeds=2, index=4)
    assert [(each.recipe.learning_rate, each.index) for each in job.members] == [
        (0.1, 4), (0.1, 5), (0.2, 4), (0.2, 5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "sweep",
    [
        {"space": {"learning_rate": [0.1, 0.3], "initialiser": ["uniform", "class_labels"]}},
        {"search": "random", "named": "table6", "count": 5},
        {"search": "halving", "space": {"learning_rate": {"low": 0.1, "high": 1}}, "count": 9, "publish": 2},
        {"trials": [{"learning_rate": 0.1}, {"prompt_length": 7, "weight_decay": 0}]},
    ],
)
def test_the_stored_form_is_read_as_the_same_document(sweep: dict[str, Any]) -> None:
    job = _job(sweep, seeds=3)
    assert JobDocument.from_json(job.to_json()) == job
    assert job.sweep is not None and job.to_json()["sweep"]["trials"] == [dict(each) for each in job.trials]


def test_released_defaults_are_those_of_a_job_of_its_own() -> None:
    for more in ({}, {"loss_reduction": "mean"}):
        recipe = DOCUMENT["recipe"] | more
        job = _job({"space": {"defaults": ["paper", "released"]}}, recipe=recipe)
        alone = [
            JobDocument.from_json(DOCUMENT | {"recipe": {**recipe, "defaults": name}})
            for name in ("paper", "released")
        ]
        assert [each.recipe for each in job.members] == [each.members[0].recipe for each in alone]
        assert JobDocument.from_json(job.to_json()).members == job.members
    released = {"defaults": "released", "second_moment_steps_before": 7}
    (trial,) = _job({"trials": [released]}).trials
    assert trial == {"max_text_tokens": 512, "second_moment_steps_before": 7, "loss_reduction": "sum"}


def test_every_knob_of_the_recipe_may_vary() -> None:
    words = ["cat", "dog"]
    space = {"initialiser": ["words", "class_labels"], "learning_rate": [0.1]}
    job = _job({"space": space}, recipe={**DOCUMENT["recipe"], "initialiser_words": words})
    found = [(each.recipe.initialiser, each.recipe.initialiser_words) for each in job.members]
    assert found == [("words", tuple(words)), ("class_labels", None)]
    job = _job({"space": {"initialiser_words": [words, ["cow"]]}})
    assert [each.recipe.initialiser_words for each in job.members] == [("cat", "dog"), ("cow",)]
    assert {each.recipe.initialiser for each in job.members} == {"words"}
    assert JobDocument.from_json(job.to_json()) == job
    span = {"low": 4, "high": 16, "points": 2}
    job = _job({"space": {"max_text_tokens": span, "micro_batch_size": span}})
    assert [tuple(knobs.values()) for knobs in job.trials] == [(4, 4), (4, 16), (16, 4), (16, 16)]
    assert all(type(value) is int for knobs in job.trials for value in knobs.values())


def test_a_plain_document_is_stored_as_before_there_were_sweeps() -> None:
    assert not {"seeds", "sweep"} & _job().to_json().keys()


@pytest.mark.parametrize(
    ("sent", "field", "words"),
    [
        ({"sweep": {}}, "sweep.space", "is required"),
        ({"sweep": {"space": {"learning_rat": [1]}}}, "sweep.space.learning_rat", "is no knob"),
        ({"sweep": {"space": {"learning_rate": 3}}}, "sweep.space.learning_rate", "Send a list of 1 to 64"),
        ({"sweep": {"space": {"learning_rate": [[1]]}}}, "sweep.space.learning_rate", "Send a number"),
        ({"sweep": {"space": {"learning_rate": [0.1, -1]}}}, "sweep.space.learning_rate", "at least"),
        ({"sweep": {"space": {"learning_rate": {"lo": 1}}}}, "sweep.space.learning_rate.lo", "There is no"),
        ({"sweep": {"space": {"learning_rate": {"low": 1, "high": "a"}}}}, "sweep.space.learning_rate.high",
         "Send a number"),
        ({"sweep": {"space": {"learning_rate": [["a", 1]]}}}, "sweep.space.learning_rate", "list of texts"),
        ({"sweep": {"trials": [{"initialiser": "words"}]}}, "sweep.trials.0", "goes with the initialiser"),
        ({"sweep": {"space": {"defaults": ["paper", "released"]}},
          "recipe": {**DOCUMENT["recipe"], "defaults": "released"}}, "sweep.space.defaults", "leave that"),
        ({"sweep": {"space": {"learning_rate": {"low": 1}}}}, "sweep.space.learning_rate.high", "required"),
        ({"sweep": {"space": {"learning_rate": {"low": 2, "high": 1}}}}, "sweep.space.learning_rate.high",
         "above low"),
        ({"sweep": {"space": {"initialiser": {"low": 1, "high": 2}}}}, "sweep.space.initialiser", "no num"),
        ({"sweep": {"space": {"learning_rate": {"low": 0.1, "high": 1}}}}, "sweep.space.learning_rate",
         "how many points"),
        ({"sweep": {"search": "random", "space": {"seeds": [1]}}}, "sweep.space.seeds", "is no knob"),
        ({"sweep": {"search": "random", "space": {"steps": [1, 2]}}}, "sweep.count", "is required"),
        ({"sweep": {"search": "random", "space": {"steps": [1, 2]}, "count": 3}}, "sweep.count", "only 2"),
        ({"sweep": {"space": {"steps": [1, 2]}, "count": 3}}, "sweep.count", "takes every combination"),
        ({"sweep": {"space": {"initialiser": ["text"]}}}, "sweep.space", "with initialiser text cannot be"),
        ({"sweep": {"space": {"prompt_length": [511]}}}, "sweep.space", "must leave room"),
        ({"sweep": {"trials": [{"steps": 3}, {"steps": 3}]}}, "sweep.trials.1", "the same as trial 0"),
        ({"sweep": {"trials": [{}, {"steps": 81}]}}, "sweep.trials.1", "the same as trial 0"),
        ({"sweep": {"trials": [{"step": 3}]}}, "sweep.trials.0.step", "is no knob"),
        ({"sweep": {"search": "halving", "space": {"steps": [1, 2]}}}, "sweep.space.steps", "leave them out"),
        ({"sweep": {"space": {"steps": [1, 2]}, "rungs": [{"steps": 1}]}}, "sweep.rungs", "go with"),
        ({"sweep": {"search": "halving", "space": {"clip_rms": [1, 2]},
                    "rungs": [{"steps": 9, "trials": 2}, {"steps": 9, "trials": 1}]}},
         "sweep.rungs.1.steps", "above"),
        ({"sweep": {"search": "halving", "space": {"clip_rms": [1, 2]},
                    "rungs": [{"steps": 9, "trials": 2}]}},
         "sweep.rungs.0.steps", "the recipe has 81 steps"),
        ({"sweep": {"space": {"clip_rms": [1, 2, 3, 4, 5]}}, "seeds": 64}, "sweep.space", "4 trials are"),
        ({"sweep": {"space": {"clip_rms": [1]}}, "ensemble": 2}, "sweep", "leave out ensemble"),
        ({"sweep": {"space": {"clip_rms": [1]}}, "prompts": [{}, {}]}, "sweep", "leave out prompts"),
        ({"seeds": 2, "prompts": [{}, {}]}, "seeds", "leave out prompts"),
        ({"seeds": 2, "ensemble": 2}, "seeds", "leave out ensemble"),
        ({"sweep": {"space": {"clip_rms": [1]}},
          "data": {"train": {"file": "file-abc"}, "validation_rows": 0}}, "data.validation_rows", "is 0"),
        ({"seeds": 2, "data": {"train": {"file": "file-abc"}, "validation_rows": 0}}, "data.validation_rows",
         "chooses among seeds"),
        ({"sweep": {"space": {"prompt_length": [5, 6]}}, "initial_prompt": "a@1"},
         "sweep.space.prompt_length", "fixed by initial_prompt"),
    ],
)  # fmt: skip
def test_what_cannot_be_names_its_field(sent: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as refused:
        JobDocument.from_json(DOCUMENT | sent)
    assert refused.value.field == field


def test_a_wide_grid_is_refused_before_it_is_built() -> None:
    names = ("clip_rms", "learning_rate", "weight_decay", "z_loss", "dropout_rate", "second_moment_decay")
    space = {name: [round(0.01 + n / 100, 2) for n in range(64)] for name in names}
    with pytest.raises(InvalidInputError, match="68719476736 combinations"):
        _job({"space": space})
