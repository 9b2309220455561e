"""Questions of packs as subjects: their values for the labels of their versions, asked of a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from chorus.cli.root import chorus
from chorus_server.api.evaluation.questions import labels_of, value_said, values_of
from chorus_server.errors import InvalidInputError
from chorus_server.jobs_wiring import start_engine_jobs
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from prompts_store.records import PackEntry
from prompts_store.testing import example_calibration
from tests.server.api.api_harness import ApiServer, error_of, eventually
from tests.server.api.evaluation.test_evaluation import LABELS as BOTH
from tests.server.api.evaluation.test_evaluation import (
    MEANT,
    ROWS,
    evaluated,
    pack,
    predictions,
    start,
    succeeded,
    upload,
)

LABELS = ("no", "yes", "maybe")


def entry(**labels: str) -> PackEntry:
    return PackEntry("good", "default", "first", 1, labels)


@pytest.mark.parametrize(
    ("mapped", "values"),
    [
        ({}, LABELS),
        ({"true": "yes", "false": "no"}, ("false", "true", "maybe")),
        ({"yes": "no", "no": "yes"}, ("yes", "no", "maybe")),
        ({"maybe": "yes"}, ("no", "maybe")),  # no value means the label maybe
    ],
)
def test_values_are_in_the_order_of_labels_and_lead_back_to_them(
    mapped: dict[str, str], values: tuple[str, ...]
) -> None:
    made = entry(**mapped)
    assert values_of(made, LABELS) == values
    labels = labels_of(made, LABELS, values)
    assert [value_said(made, f" {label} ".strip()) for label in labels] == list(values)
    assert labels_of(made, LABELS, values[::-1]) == labels[::-1]


def test_a_text_that_only_reads_like_a_value_does_not_count_as_it() -> None:
    made = entry(true="yes", false="no")
    assert value_said(made, " yes ") == "true"
    assert value_said(made, "true") == "no label: true" and value_said(made, " false") == "no label:  false"
    assert value_said(made, "maybe") == "maybe" and value_said(made, "who knows") == "who knows"


@pytest.mark.parametrize(
    ("values", "code"), [(("true", "no idea"), "unknown_label"), (("true", "yes"), None)]
)
def test_a_value_without_a_label_of_its_own_is_refused(values: tuple[str, ...], code: str | None) -> None:
    with pytest.raises(InvalidInputError) as caught:
        labels_of(entry(true="yes", false="no"), LABELS, values)
    assert caught.value.field == "labels" and "default/first@1" in caught.value.message
    assert caught.value.code == (code or "invalid_input")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    """A server with three tasks and a pack of two of them, that takes evaluations."""
    with ApiServer(tmp_path_factory.mktemp("questions"), vocabulary) as server:
        server.push("first", labels=BOTH, template="review: {text}")
        server.push("second", seed=1, labels=BOTH)
        server.push("other", seed=2, labels=["a", "b"])
        pack(server, {"good": {"task": "first", "values": MEANT}, "kind": {"task": "other"}})
        start_engine_jobs(server.services)
        yield server
        assert server.engine.wait_idle(300)


@pytest.fixture(scope="module")
def file(api: ApiServer) -> str:
    """The rows with the question's values, which JSON has a type for."""
    return upload(api, [row | {"label": row["label"] == "yes"} for row in ROWS])


def test_a_packs_question_is_evaluated_in_its_own_values(api: ApiServer, file: str) -> None:
    pack(api, {"good": {"task": "second", "values": MEANT}}, "moved")
    pack(api, {"good": {"task": "first", "values": MEANT}}, "moved")
    subjects = ({"pack": "moved", "question": "good"}, {"pack": "moved@2", "question": "good"})
    found = succeeded(api, file, *subjects)
    pinned = [{"pack": f"default/moved@{number}", "question": "good"} for number in (1, 2)]
    assert found["spec"]["subjects"] == pinned and found["spec"]["labels"] == ["false", "true"]
    names = [(each["kind"], each["name"]) for each in found["result"]["subjects"]]
    assert names == [("pack", "default/moved@1:good"), ("pack", "default/moved@2:good")]
    plain = upload(api, ROWS)
    tasks = succeeded(api, plain, {"task": "second"}, {"task": "first"})
    values = {label: value for value, label in MEANT.items()}
    for ours, theirs in zip(predictions(api, found), predictions(api, tasks), strict=True):
        assert ours["answers"] == [values[theirs["answers"][0]]]
        assert ours["subjects"] == [each | {"said": values[each["said"]]} for each in theirs["subjects"]]
    for mine, other in zip(found["result"]["subjects"], tasks["result"]["subjects"], strict=True):
        assert mine["confusion"] == {"labels": ["false", "true"], "counts": other["confusion"]["counts"]}
        assert mine["metrics"] == other["metrics"] and mine["reliability"] == other["reliability"]
    assert found["result"]["comparisons"] == tasks["result"]["comparisons"]
    # The other way round the labels are ranked the other way round; a question without a map has its labels.
    turned = succeeded(api, file, subjects[0], labels=["true", "false"])
    first, again = predictions(api, found)[0]["subjects"][0], predictions(api, turned)[0]["subjects"][0]
    assert again["said"] == first["said"] and again["log_probabilities"] == first["log_probabilities"][::-1]
    kind = upload(api, [{"text": row["text"], "label": "a"} for row in ROWS])
    same = succeeded(api, kind, {"pack": "desk", "question": "kind"}, {"task": "other"})
    assert all(line["subjects"][0] == line["subjects"][1] for line in predictions(api, same))


def test_a_packs_question_in_greedy_and_calibrated_answers(api: ApiServer, file: str) -> None:
    api.push("sound", seed=8, labels=BOTH)
    fitted = example_calibration(9.0, prior=(2.0, -2.0))
    api.store.calibrate("default", "sound", 1, fitted)
    eventually(
        lambda: api.post("/v1/classify", {"task": "sound", "input": "x"}).json()["results"][0]["calibrated"]
    )
    pack(api, {"good": {"task": "sound", "values": MEANT}}, "sure")
    subject = {"pack": "sure", "question": "good"}
    texts = [row["text"] for row in ROWS]
    lines = predictions(api, succeeded(api, file, subject, answer_by="calibrated"))
    for line, each in zip(
        lines, api.post("/v1/classify", {"task": "sound", "inputs": texts}).json()["results"], strict=True
    ):
        mine = line["subjects"][0]
        assert MEANT[mine["said"]] == each["label"]
        assert mine["confidence"] == pytest.approx(max(each["probabilities"].values()), abs=1e-4)
    written = succeeded(api, file, subject, answer_by="greedy", max_new_tokens=3)
    told = api.post("/v1/generate", {"task": "sound", "inputs": texts, "max_new_tokens": 3}).json()["results"]
    entry = PackEntry("good", "default", "sound", 1, MEANT)
    said = [line["subjects"][0]["said"] for line in predictions(api, written)]
    assert said == [value_said(entry, each["text"]) for each in told]
    some = start(api, file, subject, answer_by="calibrated", labels=["true"])
    assert some.status_code == 400 and error_of(some)["field"] == "labels"


def test_a_value_of_the_file_that_the_question_has_not_is_named_by_its_row(api: ApiServer) -> None:
    file = upload(api, [{"text": "x", "label": True}, {"text": "y", "label": "yes"}])
    found = evaluated(api, file, {"pack": "desk", "question": "good"})
    assert found["status"] == "failed" and found["error"]["code"] == "unknown_label"
    assert found["error"]["field"] == "file" and "row 2" in found["error"]["message"]


def test_an_unknown_question_is_told_those_that_there_are(api: ApiServer, file: str) -> None:
    refused = start(api, file, {"pack": "desk", "question": "refund"})
    assert "'refund'; it has 'good', 'kind'." in error_of(refused)["message"]
    pack(api, {f"q{n}": {"task": "first"} for n in range(30)}, "wide")
    many = start(api, file, {"pack": "wide", "question": "refund"})
    assert "'q7' and 22 more" in error_of(many)["message"] and "q8" not in error_of(many)["message"]


def test_the_command_shows_a_packs_question_in_its_values(api: ApiServer, file: str) -> None:
    result = CliRunner().invoke(chorus, ["--url", api.url, "evaluate", "pack:desk:good", file])
    assert result.exit_code == 0, result.output
    assert "default/desk@1:good: answers (rows)" in result.output and "yes" not in result.output
    assert " false " in result.output and " true " in result.output
    listed = CliRunner().invoke(chorus, ["--url", api.url, "evaluate", "list"])
    assert "default/desk@1:good" in listed.output


def test_a_grant_of_a_pack_lets_another_tenant_evaluate_it(tmp_path: Path, vocabulary: Vocabulary) -> None:
    owner, guest = ("canary-owner-0123456789", "canary-guest-0123456789")
    keys = {owner: Principal("acme", "o"), guest: Principal("ours", "g")}
    with ApiServer(tmp_path, vocabulary, keys=KeyRing(keys, Principal("ours", "anonymous"))) as api:
        api.http.headers["authorization"] = f"Bearer {owner}"
        api.push("first", labels=BOTH)
        pack(api, {"good": {"task": "first", "values": MEANT}})
        start_engine_jobs(api.services)
        api.http.headers["authorization"] = f"Bearer {guest}"
        file = upload(api, [{"text": row["text"], "label": row["label"] == "yes"} for row in ROWS[:8]])
        subject = {"pack": "acme/desk", "question": "good"}
        refused = start(api, file, subject)
        assert refused.status_code == 404 and error_of(refused)["code"] == "unknown_pack"
        api.store.share("pack", "acme", "desk", "ours", ["infer"])
        found = succeeded(api, file, subject)
        assert found["result"]["subjects"][0]["name"] == "acme/desk@1:good"
        assert start(api, file, {"task": "acme/first"}).status_code == 404, "only the pack was shared"
        assert api.engine.wait_idle(300)
