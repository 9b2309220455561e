"""`chorus files` and `chorus tune` against the fake: what is sent, what is shown, how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chorus.cli import job_following
from chorus.types import JobEvent
from tests.clients.conftest import Run
from tests.clients.fake_chorus import FakeChorus
from tests.clients.fake_tuning import happened, refuse

VERSION = {
    "task": "sst2",
    "version": 2,
    "reference": "default/sst2@2",
    "metrics": {
        "validation_accuracy": 0.9,
        "validation_mean": 0.9,
        "test_accuracy": 0.875,
        "test_mean": 0.875,
    },
}
SCRIPT = [
    happened(2, "status", {"status": "running"}),
    happened(3, "step", {"step": 1, "steps": 2, "losses": [0.5]}),
    happened(4, "published", VERSION),
    happened(5, "status", {"status": "succeeded"}),
]


@pytest.fixture(autouse=True)
def one_version(fake: FakeChorus) -> None:
    """What jobs make, if a test says nothing else."""
    fake.tuning.script = SCRIPT
    fake.tuning.result = {"prompts": [VERSION], "ensemble": None}


def job_id(number: int = 0) -> str:
    """As the fake names them."""
    return f"job-{number:024x}"


def document(fake: FakeChorus) -> Any:
    """What the last job was started with."""
    return [*fake.tuning.jobs.values()][-1]["spec"]


def test_files_from_push_to_delete(run: Run, fake: FakeChorus, train: str) -> None:
    identity = run("files", "push", train).stdout.strip()
    assert fake.tuning.records[identity]["name"] == "train.tsv"
    assert json.loads(run("files", "push", train, "--name", "b.csv", "--json").stdout)["name"] == "b.csv"
    listed = run("files", "list").stdout
    assert identity in listed and "22 B" in listed
    assert len(json.loads(run("files", "list", "--json").stdout)["files"]) == 2
    assert "22 bytes" in run("files", "show", identity).stdout
    assert json.loads(run("files", "show", identity, "--json").stdout)["id"] == identity
    assert run("files", "delete", identity).exit_code == 1
    assert run("files", "delete", identity, "--yes").stdout == f"{identity} deleted\n"
    assert "unknown_file in file" in run("files", "show", identity).stderr


def test_tuning_uploads_starts_follows_and_says_what_was_made(run: Run, fake: FakeChorus, train: str) -> None:
    result = run(
        "tune", "sst2", train, "--template", "{sentence}", "--label", "negative", "--label", "positive",
        "--target-text", "0=negative", "--target-text", "1=positive", "--column", "sentence=text",
        "--recipe", "steps=2", "--recipe", "learning_rate=0.1", "--recipe", "initialiser=uniform",
        "--recipe", "parameter_scaling=true", "--validation", train, "--metric", "accuracy",
        "--ensemble", "5", "--seed", "3", "--format", "tsv", "--promote",
        "--settings", '{"max_new_tokens": 2}',
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert document(fake) == {
        "task": "sst2",
        "data": {
            "format": "tsv",
            "train": {"file": f"file-{0:024x}"},
            "validation": {"file": f"file-{1:024x}"},
        },
        "template": "{sentence}",
        "columns": {"sentence": "text"},
        "target_texts": {"0": "negative", "1": "positive"},
        "labels": ["negative", "positive"],
        "metrics": ["accuracy"],
        "recipe": {"steps": 2, "learning_rate": 0.1, "initialiser": "uniform", "parameter_scaling": True},
        "seed": 3,
        "ensemble": 5,
        "promote": True,
        "settings": {"max_new_tokens": 2},
    }
    lines = [line[10:] if line[2:3] == ":" else line for line in result.stdout.splitlines()]
    assert lines == [
        "queued",
        "running",
        "step 1 of 2  loss prompt 0 0.5",
        "published default/sst2@2",
        "succeeded",
        "default/sst2@2  prompt 0  accuracy 0.9 (validation), accuracy 0.875 (test)",
        "",
        'Try it:  chorus classify default/sst2@2 "TEXT"',
    ]
    assert result.stderr == f"{job_id()} started\n"


@pytest.mark.parametrize("words", [("tune", "start"), ("tune",)])
def test_a_task_without_a_verb_is_started(
    run: Run, fake: FakeChorus, train: str, words: tuple[str, ...]
) -> None:
    assert run(*words, "--recipe", "steps=1", "list2", train).exit_code == 0
    assert document(fake)["task"] == "list2"


def test_detached_it_tells_the_id(run: Run, fake: FakeChorus, train: str) -> None:
    result = run("tune", "sst2", train, "--detach")
    assert result.stdout == f"{job_id()}\n"
    assert "chorus tune follow job-" in result.stderr
    assert not any(request.url.path.endswith("/events") for request in fake.seen)
    assert json.loads(run("tune", "sst2", train, "--detach", "--json").stdout)["status"] == "queued"


def test_followed_as_json_it_is_a_line_for_each_event(run: Run, train: str) -> None:
    lines = [json.loads(line) for line in run("tune", "sst2", train, "--json").stdout.splitlines()]
    assert [line["event"] for line in lines] == ["status", "status", "step", "published", "status", "done"]
    assert lines[2]["data"]["losses"] == [0.5] and lines[2]["seq"] == 3
    assert lines[-1]["job"]["status"] == "succeeded"


def test_a_failed_job_says_why_and_what_to_do(run: Run, fake: FakeChorus, train: str) -> None:
    fake.tuning.script = [happened(2, "status", {"status": "failed"})]
    fake.tuning.error = {"code": "missing_column", "message": "Row 1\nlacks it.", "field": "data.train"}
    result = run("tune", "sst2", train)
    assert result.exit_code == 1
    assert "chorus: the job failed: missing_column in data.train: Row 1 lacks it.\n" in result.stderr
    assert "resume" not in result.stderr, "it never made a step: there is nothing to go on from"
    fake.tuning.jobs[job_id()]["progress"] = {"step": 7}
    assert f"checkpoint: chorus tune resume {job_id()}\n" in run("tune", "follow", job_id()).stderr
    fake.tuning.error = {"code": "diverged", "message": "Start a new one.", "field": None}
    assert "resume" not in run("tune", "follow", job_id()).stderr, "it would diverge again"


def test_a_cancelled_job_exits_with_1(run: Run, fake: FakeChorus, train: str) -> None:
    fake.tuning.script = [happened(2, "status", {"status": "cancelled"})]
    result = run("tune", "sst2", train)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, "The job was cancelled.")


def test_an_ensemble_is_told_with_its_members(run: Run, fake: FakeChorus, train: str) -> None:
    fake.tuning.result = {
        "prompts": [VERSION, VERSION],
        "ensemble": {"name": "sst2-ensemble", "reference": "default/sst2-ensemble@1", "members": ["a", "b"]},
    }
    out = run("tune", "sst2", train).stdout
    assert "default/sst2-ensemble@1  an ensemble of 2\n" in out
    assert 'Try it:  chorus ensemble vote sst2-ensemble "TEXT"' in out


@pytest.mark.parametrize(
    ("labels", "verb"), [((), "generate"), (("--label", "a", "--label", "b"), "classify")]
)
def test_what_to_try_is_what_the_prompt_does(
    run: Run, train: str, labels: tuple[str, ...], verb: str
) -> None:
    assert f'Try it:  chorus {verb} default/sst2@2 "TEXT"' in run("tune", "sst2", train, *labels).stdout


def test_every_line_of_a_job_with_several_prompts_names_its_prompt(
    run: Run, fake: FakeChorus, train: str, tmp_path: Path
) -> None:
    measured = {"split": "validation", "metrics": {"accuracy": 0.5}, "step": 2}
    stopped = {"step": 2, "status": "stopped_early", "message": "no better"}
    fake.tuning.script = [
        happened(2, "step", {"step": 1, "steps": 2, "losses": [0.5, None]}),
        *(happened(3 + n, "evaluated", {"prompt": n, **measured}) for n in (0, 1)),
        *(happened(5 + n, "prompt_stopped", {"prompt": n, **stopped}) for n in (0, 1)),
        *(happened(7 + n, "published", {"prompt": n, **VERSION}) for n in (0, 1)),
        happened(9, "status", {"status": "succeeded"}),
    ]
    fake.tuning.result = {"prompts": [{"status": "diverged"}, VERSION], "ensemble": None}
    two = tmp_path / "two.json"
    two.write_text(json.dumps({"prompts": [{"task": "one", "labels": ["a", "b"]}, {"task": "two"}]}))
    lines = run("tune", "start", "--document", str(two)).stdout.splitlines()
    first, second = ("prompt 0 (one)", "prompt 1 (two)")
    assert [line[10:] for line in lines if line[2:3] == ":"][1:-1] == [
        f"step 1 of 2  loss {first} 0.5, {second} -",
        f"step 2  {first}  accuracy 0.5 on validation",
        f"step 2  {second}  accuracy 0.5 on validation",
        f"step 2  {first}  stopped early: no better",
        f"step 2  {second}  stopped early: no better",
        f"{first}  published default/sst2@2",
        f"{second}  published default/sst2@2",
    ]
    assert f"default/sst2@2  {second}  accuracy 0.9 (validation), accuracy 0.875 (test)" in lines
    assert lines[-1] == 'Try it:  chorus generate default/sst2@2 "TEXT"', (
        "the one that was made has no labels"
    )
    lines = run("tune", "sst2", train, "--ensemble", "2").stdout.splitlines()
    assert lines[1].endswith("step 1 of 2  loss prompt 0 0.5, prompt 1 -")


def test_the_test_split_may_choose(run: Run, fake: FakeChorus, train: str) -> None:
    assert run("tune", "sst2", train, "--test", train, "--validation-from", "test").exit_code == 0
    assert document(fake)["data"]["validation_from"] == "test"
    assert run("tune", "sst2", train, "--validation-from", "dev").exit_code == 2


def test_the_options_of_0_1_0_are_still_taken_and_not_shown(run: Run, fake: FakeChorus, train: str) -> None:
    old = ("--selection", train, "--report", train, "--selection-rows", "3", "--selection-from", "report")
    assert run("tune", "sst2", train, *old, "--detach").exit_code == 0
    data = document(fake)["data"]
    assert set(data) == {"train", "validation", "test", "validation_rows", "validation_from"}
    assert (data["validation_rows"], data["validation_from"]) == (3, "test")
    assert "selection" not in run("tune", "start", "--help").stdout
    assert run("tune", "sst2", train, "--elections", train).exit_code == 2


def test_ctrl_c_leaves_the_job_and_says_how_to_come_back(
    run: Run, fake: FakeChorus, train: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Any, event: JobEvent) -> str | None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job_following.JobLines, "line", interrupted)
    result = run("tune", "sst2", train)
    assert result.exit_code == 130
    job = job_id()
    assert f"chorus tune follow {job}" in result.stderr and f"chorus tune cancel {job}" in result.stderr
    assert not any(request.url.path.endswith("/cancel") for request in fake.seen)


def test_following_listing_showing_cancelling_resuming(run: Run, fake: FakeChorus, train: str) -> None:
    job = run("tune", "sst2", train, "--detach").stdout.strip()
    fake.tuning.jobs[job]["progress"] = {"step": 3, "steps": 9}
    assert "3 of 9" in run("tune", "list").stdout
    assert run("tune", "list", "--status", "failed").stdout == "There are no jobs.\n"
    assert json.loads(run("tune", "list", "--json").stdout)["jobs"][0]["id"] == job
    assert run("tune", "cancel", job).stdout == f"{job} is cancelled\n"
    again = run("tune", "cancel", job)
    assert again.exit_code == 1 and "job_over in job" in again.stderr
    assert run("tune", "resume", job, "--detach").stdout == f"{job} is queued\n"
    assert "default/sst2@2" in run("tune", "follow", job).stdout
    shown = run("tune", "show", job).stdout
    assert "succeeded" in shown and "default/sst2@2" in shown
    assert json.loads(run("tune", "show", job, "--json").stdout)["result"]["prompts"]
    assert run("tune", "resume", job).exit_code == 1
    assert "unknown_job" in run("tune", "follow", "job-x").stderr


def test_a_running_job_is_cancelled_at_its_next_step(run: Run, fake: FakeChorus, train: str) -> None:
    job = run("tune", "sst2", train, "--detach").stdout.strip()
    fake.tuning.change = lambda request, identity, verb: __import__("httpx2").Response(  # type: ignore[method-assign]
        200, json=fake.tuning.jobs[identity] | {"status": "running", "cancel_requested": True}
    )
    assert run("tune", "cancel", job).stdout == f"{job} is running and will stop at its next step\n"


def test_a_document_from_a_file(run: Run, fake: FakeChorus, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"data": {"train": {"path": "/a"}}, "prompts": [{"task": "a"}, {"task": "b"}],
                                "recipe": {"steps": 5, "batch_size": 4}}))  # fmt: skip
    assert run("tune", "--document", str(file), "--recipe", "steps=6", "--detach").exit_code == 0
    assert document(fake) == {
        "data": {"train": {"path": "/a"}},
        "prompts": [{"task": "a"}, {"task": "b"}],
        "recipe": {"steps": 6, "batch_size": 4},
    }


def test_a_document_names_files_beside_it(run: Run, fake: FakeChorus, tmp_path: Path) -> None:
    file, other = tmp_path / "made" / "job.json", "file-" + "b" * 24
    file.parent.mkdir()
    (file.parent / "train.jsonl").write_text('{"text": "good", "label": "1"}\n')
    data = {"train": "train.jsonl", "test": other, "validation": {"path": "/a"}, "format": "jsonl"}
    file.write_text(json.dumps({"task": "a", "data": data}))
    assert run("tune", "--document", str(file), "--detach").exit_code == 0
    ((uploaded, record),) = fake.tuning.records.items()
    assert record["name"] == "train.jsonl"
    assert document(fake)["data"] == {
        "train": {"file": uploaded},
        "test": {"file": other},
        "validation": {"path": "/a"},
        "format": "jsonl",
    }
    assert run("tune", "--document", str(file), "--test", "server:/b", "--detach").exit_code == 0
    assert document(fake)["data"]["test"] == {"path": "/b"}
    file.write_text(json.dumps({"task": "a", "data": {"train": "gone.jsonl"}}))
    refused = run("tune", "--document", str(file), "--detach")
    assert refused.exit_code == 2 and "data.train" in refused.stderr and "gone.jsonl" in refused.stderr


@pytest.mark.parametrize(
    ("data", "source"),
    [
        ("file-" + "b" * 24, {"file": "file-" + "b" * 24}),
        ("https://example.org/a.tsv", {"url": "https://example.org/a.tsv"}),
        ("server:/data/a.tsv", {"path": "/data/a.tsv"}),
    ],
)
def test_what_the_server_has_is_not_uploaded(run: Run, fake: FakeChorus, data: str, source: Any) -> None:
    run("tune", "t", data, "--test", data, "--detach")
    assert document(fake)["data"] == {"train": source, "test": source}
    assert fake.tuning.records == {}


@pytest.mark.parametrize(
    ("words", "stderr"),
    [
        (("tune", "sst2"), "Name the task and its training data"),
        (("tune", "sst2", "/nowhere/a.tsv"), "is not a local file"),
        (("tune", "sst2", "file-" + "a" * 24, "--test", "/nowhere"), "test '/nowhere' is not a local"),
        (("tune", "sst2", "file-" + "a" * 24, "--recipe", "steps"), "--recipe 'steps' must be NAME=VALUE"),
        (("tune", "sst2", "file-" + "a" * 24, "--recipe", "a=1", "--recipe", "a=2"), "'a' twice"),
        (("tune", "--document", "/nowhere"), "does not exist"),
        (("tune", "follow"), "Missing argument"),
    ],
)
def test_what_is_not_understood_sends_nothing(
    run: Run, fake: FakeChorus, words: tuple[str, ...], stderr: str
) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert stderr in " ".join(result.stderr.split())
    assert fake.seen == []


def test_a_refused_document_is_a_sentence(run: Run, fake: FakeChorus, train: str) -> None:
    fake.tuning.refusal = refuse(
        400, "unknown_label", "target_texts.0 is none of the labels", "target_texts.0"
    )
    result = run("tune", "sst2", train)
    assert result.exit_code == 1
    assert result.stderr == (
        "chorus: unknown_label in target_texts.0: target_texts.0 is none of the labels [req_1]\n"
    )
    assert fake.tuning.records == {}
