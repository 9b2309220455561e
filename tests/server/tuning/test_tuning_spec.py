"""The job document: every default written out, and every mistake named by its dotted path."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from server.errors import InvalidInputError
from server.tuning.spec import JobSpec, Source

FILE = {"file": "file-abc"}
PLAIN: dict[str, Any] = {
    "task": "sst2",
    "data": {"train": FILE},
    "template": "{sentence}",
    "labels": ["negative", "positive"],
}


def but(**changes: Any) -> dict[str, Any]:
    return {**PLAIN, **changes}


def test_a_short_document_gets_every_default() -> None:
    spec = JobSpec.from_json(PLAIN)
    (prompt,) = spec.prompts
    assert (prompt.task, prompt.index, prompt.metrics, prompt.target) == ("sst2", 0, ("accuracy",), "label")
    assert prompt.recipe.initialiser == "class_labels"
    assert spec.micro_batch_size is None and spec.seed == 0 and spec.ensemble is None
    written = spec.to_json()
    assert written["prompts"][0]["recipe"]["steps"] == 30_000
    assert written["prompts"][0]["recipe"]["micro_batch_size"] is None


@pytest.mark.parametrize(
    "document",
    [
        PLAIN,
        but(ensemble=5, ensemble_name="five", seed=3, promote=True, base_fingerprint="f" * 64),
        but(description="two\n\tlines" + "x" * 2_000),
        but(labels=[], target="answer", metrics=["squad_f1", "exact_match"]),
        but(recipe={"batch_size": 12, "micro_batch_size": 4, "initialiser": "uniform"}),
        but(initial_prompt="acme/other@3", recipe={"prompt_length": 20}),
        but(prompts=[{"recipe": {"learning_rate": 0.1}}, {"task": "other", "index": 7}]),
        but(data={"train": FILE, "report": {"url": "https://x/y.csv"}, "selection_from": "report"}),
    ],
)
def test_the_normalised_form_reads_back_as_the_same_spec(document: dict[str, Any]) -> None:
    spec = JobSpec.from_json(document)
    written = json.loads(json.dumps(spec.to_json()))
    assert JobSpec.from_json(written) == spec
    assert JobSpec.from_json(written).to_json() == written


def test_free_text_gets_what_it_can_have() -> None:
    (prompt,) = JobSpec.from_json(but(labels=[])).prompts
    assert prompt.metrics == ("exact_match",) and prompt.recipe.initialiser == "sampled_vocabulary"
    (transfer,) = JobSpec.from_json(but(initial_prompt="other")).prompts
    assert transfer.recipe.initialiser == "existing_prompt"


def test_entries_override_what_stands_beside_them() -> None:
    document = but(
        recipe={"steps": 10, "learning_rate": 0.3},
        prompts=[{"recipe": {"learning_rate": 0.1}}, {"task": "cb", "labels": ["no", "yes"], "index": 9}],
    )
    first, second = JobSpec.from_json(document).prompts
    assert (first.task, first.index, first.recipe.steps, first.recipe.learning_rate) == ("sst2", 0, 10, 0.1)
    assert (second.task, second.index, second.recipe.learning_rate) == ("cb", 9, 0.3)


def test_an_ensemble_is_the_same_prompt_with_other_indices() -> None:
    spec = JobSpec.from_json(but(ensemble=3, index=4))
    assert [member.index for member in spec.members] == [4, 5, 6]
    assert spec.ensemble_name == "sst2-ensemble" and spec.tasks == ("sst2",)


def test_files_are_named_by_their_fields() -> None:
    spec = JobSpec.from_json(but(data={"train": FILE, "report": {"file": "file-z"}}))
    assert spec.files == {"data.train.file": "file-abc", "data.report.file": "file-z"}
    assert spec.prompts[0].data.train == Source("file", "file-abc")
    several = JobSpec.from_json(but(prompts=[{}, {"data": {"train": {"path": "/x.csv"}}}]))
    assert several.files == {"prompts.0.data.train.file": "file-abc"}


def test_a_settled_size_is_written_into_each_recipe() -> None:
    spec = JobSpec.from_json(but(recipe={"batch_size": 12})).settled(4)
    assert spec.prompts[0].recipe.micro_batch_size == 4
    assert spec.to_json()["prompts"][0]["recipe"]["micro_batch_size"] == 4
    with pytest.raises(InvalidInputError) as caught:
        spec.settled(5)
    assert caught.value.field == "recipe.micro_batch_size"


def test_a_job_of_another_base_is_refused() -> None:
    assert JobSpec.from_json(PLAIN).for_base("a").base_fingerprint == "a"
    with pytest.raises(InvalidInputError) as caught:
        JobSpec.from_json(but(base_fingerprint="b")).for_base("a")
    assert caught.value.code == "base_mismatch"


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({key: PLAIN[key] for key in PLAIN if key != "task"}, "task", "is required"),
    (but(task="SST 2"), "task", "is not a name"),
    (but(data=None), "data", "is required"),
    (but(data={}), "data.train", "is required"),
    (but(data={"train": "x.csv"}), "data.train", "must be one of"),
    (but(data={"train": {"file": "x"}}), "data.train.file", "not the id"),
    (but(data={"train": {"url": "ftp://x"}}), "data.train.url", "http"),
    (but(data={"train": FILE, "format": "xml"}), "data.format", "one of"),
    (but(data={"train": FILE, "selection": FILE, "selection_rows": 5}), "data.selection_rows", "cut from"),
    (but(data={"train": FILE, "selection_from": "report"}), "data.selection_from", "no report"),
    (but(data={"train": FILE, "column_names": ["a", "a"]}), "data.column_names", "twice"),
    (but(template="{a.b}"), "template", "not a name"),
    (but(columns={"other": "x"}), "columns", "no field"),
    (but(labels=["a", "a"]), "labels.1", "unique"),
    (but(target_texts={"0": "meh"}), "target_texts.0", "none of the labels"),
    (but(description="two\r\nlines"), "description", "control characters"),
    (but(metrics=["f1"]), "metrics", "no metric"),
    (but(labels=[], metrics=["f1_macro"]), "metrics", "needs labels"),
    (but(recipe={"steps": 0}), "recipe.steps", "must be from 1"),
    (but(recipe={"speed": 1}), "recipe", "no field"),
    (but(recipe={"batch_size": 32, "micro_batch_size": 5}), "recipe.micro_batch_size", "divide"),
    (but(recipe={"batch_size": "x"}), "recipe.batch_size", "int"),
    (but(labels=[], recipe={"initialiser": "class_labels"}), "recipe.initialiser", "no labels"),
    (but(recipe={"initialiser": "existing_prompt"}), "recipe.initialiser", "goes with"),
    (but(initial_prompt="other", recipe={"initialiser": "uniform"}), "initial_prompt", "goes with"),
    (but(recipe={"initialiser": "text"}), "recipe.initialiser", "goes with"),
    (but(recipe={"decay_factor": 0.5}), "recipe.decay_factor", "give both"),
    (but(recipe={"prompt_length": 511}), "recipe.prompt_length", "leave room"),
    (but(recipe={"max_input_tokens": 50}), "recipe.max_input_tokens", "leave room"),
    (but(labels=["a"]), "labels", "no choice"),
    (but(initial_prompt="a/b/c"), "initial_prompt", "not a reference"),
    (but(seed=-1), "seed", "whole number"),
    (but(seed=True), "seed", "whole number"),
    (but(promote=1), "promote", "true or false"),
    (but(ensemble=1), "ensemble", "from 2 to 64"),
    (but(ensemble_name="x"), "ensemble_name", "goes with"),
    (but(ensemble=2, prompts=[{}, {}]), "ensemble", "one prompt's data"),
    (but(prompts=[]), "prompts", "list of 1"),
    (but(prompts=[{}, {"index": 0}]), "prompts.1.index", "prompts 0 and 1"),
    (but(prompts=[{"index": 1}, {}]), "prompts.0.index", "prompts 0 and 1"),
    (but(prompts=[{}, {}], index=1), "index", "prompts 0 and 1"),
    (but(prompts=[{"recipe": {"steps": 5}}, {}]), "prompts.0.recipe.steps", "share"),
    (but(prompts=[{}, {"task": ""}]), "prompts.1.task", "1 to"),
    (but(prompts=[{"recipe": {"steps": 5}}, {"recipe": {"steps": 6}}]), "prompts.1.recipe.steps", "share"),
    (but(recipe={"steps": -1}, prompts=[{"recipe": {"dropout_rate": 0}}]), "recipe.steps", "from 1"),
    (but(prompts=[{"speed": 1}]), "prompts.0", "no field"),
    (but(colour="red"), "", "no field"),
    (but(settings={"temperature": float("nan")}), "settings", "JSON"),
    (but(description="\x00"), "description", "control"),
]


@pytest.mark.parametrize(("document", "field", "message"), REFUSED)
def test_a_mistake_is_named(document: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        JobSpec.from_json(document)
    assert (caught.value.field or "") == field
    assert message in caught.value.message


def test_reading_a_document_costs_no_jax() -> None:
    code = "import sys, server.tuning.spec; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
