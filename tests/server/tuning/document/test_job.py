"""The job document: every default written out; what is refused is in `test_golden_documents`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.document.data import DataSource
from chorus_server.tuning.document.job import JobDocument

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
    spec = JobDocument.from_json(PLAIN)
    (prompt,) = spec.prompts
    assert (prompt.task, prompt.index, prompt.metrics, prompt.target) == ("sst2", 0, ("accuracy",), "label")
    assert prompt.recipe.initialiser == "class_labels"
    assert prompt.recipe.micro_batch_size is None and spec.seed == 0 and spec.ensemble is None
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
        but(data={"train": FILE, "test": {"url": "https://x/y.csv"}, "validation_from": "test"}),
    ],
)
def test_the_normalised_form_reads_back_as_the_same_spec(document: dict[str, Any]) -> None:
    spec = JobDocument.from_json(document)
    written = json.loads(json.dumps(spec.to_json()))
    assert JobDocument.from_json(written) == spec
    assert JobDocument.from_json(written).to_json() == written


def test_free_text_gets_what_it_can_have() -> None:
    (prompt,) = JobDocument.from_json(but(labels=[])).prompts
    assert prompt.metrics == ("exact_match",) and prompt.recipe.initialiser == "sampled_vocabulary"
    (transfer,) = JobDocument.from_json(but(initial_prompt="other")).prompts
    assert transfer.recipe.initialiser == "existing_prompt"


def test_entries_override_what_stands_beside_them() -> None:
    document = but(
        recipe={"steps": 10, "learning_rate": 0.3},
        prompts=[{"recipe": {"learning_rate": 0.1}}, {"task": "cb", "labels": ["no", "yes"], "index": 9}],
    )
    first, second = JobDocument.from_json(document).prompts
    assert (first.task, first.index, first.recipe.steps, first.recipe.learning_rate) == ("sst2", 0, 10, 0.1)
    assert (second.task, second.index, second.recipe.learning_rate) == ("cb", 9, 0.3)


def test_an_ensemble_is_the_same_prompt_with_other_indices() -> None:
    spec = JobDocument.from_json(but(ensemble=3, index=4))
    assert [member.index for member in spec.members] == [4, 5, 6]
    assert spec.ensemble_name == "sst2-ensemble" and spec.tasks == ("sst2",)
    assert spec.training_steps == 3 * spec.prompts[0].recipe.steps


def test_sources_are_named_by_the_fields_that_were_sent() -> None:
    sent = JobDocument.read(
        but(
            data={"train": FILE, "test": {"path": "/x"}},
            prompts=[{}, {"data": {"validation": {"url": "https://x/y"}}}],
        )
    )
    assert list(sent.sources) == [
        ("data.train.file", "file", "file-abc"),
        ("data.test.path", "path", "/x"),
        ("prompts.1.data.validation.url", "url", "https://x/y"),
    ]
    train = JobDocument.from_json(PLAIN).prompts[0].data.train
    assert train == DataSource(file="file-abc") and (train.kind, train.value) == ("file", "file-abc")


def test_fields_have_the_paths_at_which_they_were_sent() -> None:
    sent = but(recipe={"steps": 1}, prompts=[{"task": "a", "recipe": {"z_loss": 0}}, {}])
    first, second = JobDocument.read(sent).paths
    assert (first("task"), first("labels"), first("columns")) == (
        "prompts.0.task",
        "labels",
        "prompts.0.columns",
    )
    assert (first("recipe", "z_loss"), first("recipe", "steps")) == (
        "prompts.0.recipe.z_loss",
        "recipe.steps",
    )
    assert (first("recipe", "dropout_rate"), second("recipe", "dropout_rate")) == (
        "prompts.0.recipe",
        "recipe",
    )
    (alone,) = JobDocument.read(PLAIN).paths
    assert (alone("task"), alone("columns"), alone("recipe", "steps")) == ("task", "columns", "body")


def test_a_job_of_another_base_is_refused() -> None:
    assert JobDocument.from_json(PLAIN).for_base("a").base_fingerprint == "a"
    with pytest.raises(InvalidInputError) as caught:
        JobDocument.from_json(but(base_fingerprint="b")).for_base("a")
    assert caught.value.code == "base_mismatch"


def test_reading_a_document_costs_no_jax() -> None:
    code = "import sys, chorus_server.tuning.document.job; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
