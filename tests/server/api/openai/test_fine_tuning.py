"""OpenAI's fine-tuning: bodies become documents of tuning jobs, and jobs come back in OpenAI's fields."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chorus_server.api.openai.fine_tuning import look_at
from chorus_server.api.schemas.openai.fine_tuning import (
    FineTuningCheckpoints,
    FineTuningEvents,
    FineTuningJob,
    FineTuningJobs,
)
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from prompts_store.jobs.records import Job, Lease
from prompts_store.testing import example_prompt
from tests.server.api.api_harness import FINGERPRINT, WIDTH, ApiServer
from tests.server.api.openai.files_tools import push

OURS, THEIRS, FEW = "canary-ours-0123456789", "canary-theirs-0123456789", "canary-few-0123456789"
JOBS = "/openai/v1/fine_tuning/jobs"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    """Two tenants, and a key of the first that names only tasks that begin with `few-`."""
    keys = {
        OURS: Principal("ours", "us"),
        THEIRS: Principal("theirs", "them"),
        FEW: Principal("ours", "few", tasks=("few-*",)),
    }
    ring = KeyRing(keys, Principal("ours", "anonymous"))
    with ApiServer(tmp_path_factory.mktemp("jobs"), vocabulary, keys=ring) as server:
        server.http.headers["authorization"] = f"Bearer {OURS}"
        yield server


@pytest.fixture(autouse=True)
def nothing_left(api: ApiServer) -> Iterator[None]:
    yield
    for job in api.store.list_jobs("ours", "tuning", limit=500).items:
        if job.finished_at is None:
            api.store.cancel_job("ours", job.id)


def messages(*texts: str) -> dict[str, Any]:
    roles = ["system"] * (len(texts) % 2) + ["user", "assistant"] * (len(texts) // 2)
    return {"messages": [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]}


def rows(count: int) -> list[Any]:
    return [messages("good", "yes"), messages("bad", "no")] * (count // 2)


def uploaded(api: ApiServer, lines: list[Any], purpose: str = "fine-tune") -> str:
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    found: str = push(api, {"purpose": purpose}, content).json()["id"]
    return found


@pytest.fixture(scope="module")
def file(api: ApiServer) -> str:
    return uploaded(api, rows(100))


@pytest.fixture(scope="module")
def own_file(api: ApiServer) -> str:
    """One that the key for few tasks may see."""
    file = {"file": ("rows.jsonl", "".join(json.dumps(line) + "\n" for line in rows(100)))}
    few = {"authorization": f"Bearer {FEW}"}
    sent = api.http.post("/openai/v1/files", data={"purpose": "fine-tune"}, files=file, headers=few)
    return str(sent.json()["id"])


def start(api: ApiServer, file: str, key: str = OURS, **body: Any) -> httpx2.Response:
    sent = {"model": "base", "training_file": file} | body
    return api.http.post(JOBS, json=sent, headers={"authorization": f"Bearer {key}"})


def refusal(answer: httpx2.Response, status: int = 400) -> tuple[str, str]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error["param"], error["code"]


def stored(api: ApiServer, answer: httpx2.Response) -> dict[str, Any]:
    """The one prompt of the job's document."""
    assert answer.status_code == 200, answer.text
    (prompt,) = api.store.get_job("ours", answer.json()["id"]).spec["prompts"]
    return dict(prompt)


def claimed(api: ApiServer) -> tuple[Job, Lease]:
    # Longer than all tests of this module take: what one of them has left at work is no other's.
    found = api.store.claim_job("tuning", "a runner", 36_000, FINGERPRINT)
    assert found is not None
    return found


def test_auto_becomes_numbers_that_suit_the_file(api: ApiServer, file: str) -> None:
    answer = start(api, file, suffix="My Desk!", metadata={"who": "me"})
    body = answer.json()
    FineTuningJob.model_validate(body)
    assert (body["status"], body["seed"], body["model"]) == (
        "queued",
        0,
        api.http.get("/v1/model").json()["name"],
    )
    assert (body["training_file"], body["validation_file"], body["metadata"]) == (file, None, {"who": "me"})
    knobs = {"n_epochs": 80, "batch_size": 16, "learning_rate_multiplier": 1.0}
    assert body["hyperparameters"] == body["method"]["supervised"]["hyperparameters"] == knobs
    prompt = stored(api, answer)
    assert prompt["task"] == "my-desk"
    assert prompt["recipe"] | {"steps": 500, "batch_size": 16, "prompt_length": 20} == prompt["recipe"], (
        "100 rows, 80 times, over 16"
    )
    assert (prompt["template"], prompt["labels_from_data"]) == ("{text}", True)
    assert (prompt["answer_by"], prompt["data"]["format"]) == ("greedy", "jsonl")


@pytest.mark.parametrize("place", ["method", "hyperparameters"])
def test_numbers_are_kept(api: ApiServer, file: str, place: str) -> None:
    knobs = {"n_epochs": 3, "batch_size": 10, "learning_rate_multiplier": 0.5}
    method = {"type": "supervised", "supervised": {"hyperparameters": knobs}}
    more: dict[str, Any] = {place: method if place == "method" else knobs}
    answer = start(api, file, **more, seed=7)
    assert answer.json()["hyperparameters"] == knobs
    assert answer.json()["seed"] == 7
    recipe = stored(api, answer)["recipe"]
    assert (recipe["steps"], recipe["learning_rate"], recipe["evaluate_every_steps"]) == (30, 0.15, 30)


def test_the_job_is_the_native_one(api: ApiServer, file: str) -> None:
    made = start(api, file).json()
    assert api.http.get(f"/v1/tuning/jobs/{made['id']}").json()["status"] == "queued"
    task = api.http.get(f"/v1/tuning/jobs/{made['id']}").json()["tasks"][0]
    assert task.startswith("ours/ft-") and len(task) == len("ours/ft-01234567")
    for prefix in ("", "/openai"):
        assert api.http.get(f"{prefix}/v1/fine_tuning/jobs/{made['id']}").json() == made


def test_fields_of_a_job_document_go_first(api: ApiServer, file: str) -> None:
    more = {"recipe": {"prompt_length": 3, "steps": 5}, "labels": ["no", "yes"], "answer_by": "ranked"}
    prompt = stored(api, start(api, file, chorus=more, hyperparameters={"batch_size": 4}))
    assert (prompt["recipe"]["prompt_length"], prompt["recipe"]["steps"]) == (3, 5)
    assert (prompt["labels"], prompt["labels_from_data"]) == (["no", "yes"], False)
    assert (prompt["recipe"]["batch_size"], prompt["answer_by"]) == (4, "ranked")


def test_few_rows_are_all_learned(api: ApiServer) -> None:
    answer = start(api, uploaded(api, rows(6)))
    prompt = stored(api, answer)
    assert (prompt["data"]["validation_rows"], prompt["recipe"]["batch_size"]) == (0, 6)
    assert answer.json()["hyperparameters"]["n_epochs"] == 500
    many = stored(api, start(api, uploaded(api, rows(500))))
    assert many["data"]["validation_rows"] is None
    assert many["recipe"]["steps"] == 507, "450 rows are left: 18 times, over 16"
    assert many["recipe"]["evaluate_every_steps"] == 51
    other = start(api, uploaded(api, rows(6)), validation_file=uploaded(api, rows(2)))
    assert stored(api, other)["data"]["validation_rows"] is None


def test_the_template_takes_what_the_rows_have(tmp_path: Path) -> None:
    def look(*lines: Any) -> Any:
        path = tmp_path / "rows"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines)[:-1])
        return look_at(path, "train.jsonl")

    one = messages("Be brief.", "good", "yes")
    assert (look(one, one).template, look(one, one).rows) == ("{text}", 2), "one system for all is learned"
    assert look(one, messages("good", "yes")).template == "{system}\n{text}"
    assert look(messages("a", "b", "good", "yes")).template == "{history}\n{text}"
    assert look({"prompt": "a", "completion": 100 * "b"}).target_tokens == 101
    assert look(one, "not an object").template == "{text}", "the job says what is wrong"


def test_a_history_is_cut_at_its_start(api: ApiServer) -> None:
    prompt = stored(api, start(api, uploaded(api, 20 * [messages("a", "b", "good", "yes")])))
    assert prompt["settings"] == {"truncation": {"field": "history", "side": "left"}}


def test_a_task_is_gone_on_from(api: ApiServer, file: str) -> None:
    more = {"base_fingerprint": FINGERPRINT, "template": "say {text}", "labels": ("no", "yes")}
    settings = {"sentinel_before_target": True, "max_new_tokens": 3}
    values, manifest = example_prompt(3, length=4, width=WIDTH, settings=settings, **more)
    api.store.publish("ours", "known", values, manifest)
    prompt = stored(api, start(api, file, model="known"))
    assert (prompt["task"], prompt["initial_prompt"]) == ("known", "ours/known@1")
    assert (prompt["template"], prompt["labels"]) == ("say {text}", ["no", "yes"])
    assert (prompt["recipe"]["prompt_length"], prompt["recipe"]["sentinel_before_target"]) == (4, True)
    assert prompt["settings"] == {"max_new_tokens": 3}
    answer = start(api, file, model="known@1", suffix="next")
    assert (answer.json()["model"], stored(api, answer)["task"]) == ("known@1", "next")


@pytest.mark.parametrize(
    "body, param, code",
    [
        ({"method": {"type": "dpo", "dpo": {}}}, "method.type", "invalid_input"),
        ({"method": {"type": "supervised", "reinforcement": {}}}, "method.reinforcement", "invalid_input"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "invalid_input"),
        ({"hyperparameters": {"batch_size": "many"}}, "hyperparameters.batch_size", "invalid_input"),
        (
            {"hyperparameters": {"learning_rate_multiplier": -1}},
            "hyperparameters.learning_rate_multiplier",
            "invalid_input",
        ),
        (
            {"hyperparameters": {"learning_rate_multiplier": 1e-15}},
            "hyperparameters.learning_rate_multiplier",
            "invalid_input",
        ),
        ({"integrations": [{"type": "wandb"}]}, "integrations", "invalid_input"),
        ({"suffix": ""}, "suffix", "invalid_input"),
        ({"suffix": "!!"}, "suffix", "invalid_name"),
        ({"seed": -1}, "seed", "invalid_input"),
        ({"metadata": {"chorus.n_epochs": "1"}}, "metadata", "invalid_input"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_input"),
        ({"chorus": {"recipe": {"speed": 1}}}, "chorus.recipe.speed", "unknown_field"),
        ({"chorus": {"speed": 1}}, "chorus.speed", "unknown_field"),
        ({"chorus": {"task": "?"}}, "chorus.task", "invalid_name"),
        (
            {"chorus": {"recipe": {"prompt_length": 500}}},
            "chorus.recipe.prompt_length",
            "prompt_rows_exceeded",
        ),
        ({"model": ""}, "model", "invalid_input"),
        ({"training_file": None}, "training_file", "invalid_input"),
    ],
)
def test_what_a_job_cannot_have(
    api: ApiServer, file: str, body: dict[str, Any], param: str, code: str
) -> None:
    assert refusal(start(api, file, **body)) == (param, code)


def test_what_is_not_there(api: ApiServer, file: str, own_file: str) -> None:
    assert refusal(start(api, "file-" + 24 * "0"), 404) == ("training_file", "unknown_file")
    assert refusal(start(api, file, validation_file="nothing"), 404) == ("validation_file", "unknown_file")
    assert refusal(start(api, file, model="nothing"), 404) == ("model", "unknown_task")
    assert refusal(start(api, file, THEIRS), 404) == ("training_file", "unknown_file")
    assert refusal(start(api, file, FEW, suffix="few-more"), 404) == ("training_file", "unknown_file")
    assert refusal(start(api, own_file, FEW, suffix="more"), 404) == ("suffix", "unknown_task")
    assert start(api, own_file, FEW, suffix="few-more").status_code == 200, "the control"


@pytest.mark.parametrize("own", [{"system": None}, {"text": 5}, {"system": []}, {"history": {}}])
def test_a_row_whose_columns_are_no_texts_is_the_jobs_to_refuse(
    api: ApiServer, file: str, own: dict[str, Any]
) -> None:
    odd = uploaded(api, [messages("good", "yes") | own, *rows(2)])
    for sent in ({"training_file": odd}, {"validation_file": odd}):
        assert start(api, file, **sent).status_code == 200
    assert stored(api, start(api, odd))["template"] == "{text}"


def test_a_file_for_something_else(api: ApiServer) -> None:
    answer = start(api, uploaded(api, rows(2), "batch"))
    assert refusal(answer) == ("training_file", "invalid_input")


def test_noise_is_ignored(api: ApiServer, file: str) -> None:
    noise: dict[str, Any] = {
        "integrations": None,
        "validation_file": None,
        "seed": None,
        "method": None,
        "next_year": 1,
    }
    assert start(api, file, suffix=None, hyperparameters={"n_epochs": "auto"}, **noise).status_code == 200


def test_a_job_from_its_queue_to_its_model(api: ApiServer, file: str) -> None:
    made = start(api, file, hyperparameters={"n_epochs": 2}).json()["id"]

    def now() -> dict[str, Any]:
        found = api.http.get(f"{JOBS}/{made}").json()
        FineTuningJob.model_validate(found)
        return dict(found)

    job, lease = claimed(api)
    assert (job.id, now()["status"]) == (made, "validating_files")
    api.store.update_job(lease, progress={"phase": "compiling"})
    assert now()["status"] == "running"
    progress = {"phase": "training", "step": 5, "train_rows": 90, "train_tokens": 360, "seconds_left": 60.0}
    api.store.update_job(lease, status="running", progress=progress)
    assert now()["estimated_finish"] > now()["created_at"] and now()["trained_tokens"] is None
    metrics = {"accuracy": 0.5, "mean": 0.5}
    evaluated = {"prompt": 0, "task": "x", "split": "validation", "metrics": metrics}
    made_version = {
        "prompt": 0, "reference": "ours/x@1", "best_step": 4,
        "metrics": {f"validation_{name}": value for name, value in metrics.items()},
    }  # fmt: skip
    told: list[tuple[str, dict[str, Any]]] = [
        ("warning", {"message": "3 rows are odd"}),
        ("labels", {"prompt": 0, "labels": ["no", "yes"]}),
        ("step", {"step": 2, "steps": 5, "losses": [0.25]}),
        ("evaluated", {**evaluated, "step": 2}),
        ("evaluated", {**evaluated, "step": 4}),
        ("evaluated", {**evaluated, "step": 4, "prompt": 1}),
        ("checkpointed", {"step": 4}),
        ("published", made_version),
    ]
    api.store.append_events(lease, told)
    api.store.finish_job(lease, "succeeded", result={"prompts": [made_version]})
    over = now()
    assert (over["status"], over["fine_tuned_model"], over["error"]) == ("succeeded", "x@1", None)
    assert (over["trained_tokens"], over["estimated_finish"]) == (5 * 16 * 4, None)
    body = api.http.get(f"{JOBS}/{made}/events").json()
    FineTuningEvents.model_validate(body)
    assert [(each["level"], each["message"]) for each in body["data"]][::-1] == [
        ("info", "The job waits for its turn"),
        ("info", "Validating the files"),
        ("info", "Fine-tuning job started"),
        ("warn", "3 rows are odd"),
        ("info", "Labels: no, yes"),
        ("info", "Step 2/5: training loss=0.25"),
        ("info", "Step 2: validation accuracy=0.5000"),
        ("info", "Step 4: validation accuracy=0.5000"),
        ("info", "Step 4: validation accuracy=0.5000"),
        ("info", "Checkpoint written at step 4"),
        ("info", "New fine-tuned model created: x@1"),
        ("info", "The job has successfully completed"),
    ]
    step = next(each for each in body["data"] if each["data"].get("train_loss"))
    assert (step["type"], step["data"]["train_loss"], step["data"]["total_steps"]) == ("metrics", 0.25, 5)
    kept = api.http.get(f"{JOBS}/{made}/checkpoints").json()
    FineTuningCheckpoints.model_validate(kept)
    assert [(each["step_number"], each["fine_tuned_model_checkpoint"]) for each in kept["data"]] == [
        (4, "x@1"),
        (2, ""),
    ]
    assert kept["data"][0]["metrics"] == {"step": 4, "full_valid_mean_token_accuracy": 0.5, **metrics}


def test_pages_of_events(api: ApiServer, file: str) -> None:
    made = start(api, file).json()["id"]
    _, lease = claimed(api)
    api.store.append_events(lease, [("checkpointed", {"step": step}) for step in range(5)])
    whole = api.http.get(f"{JOBS}/{made}/events").json()["data"]
    found: list[Any] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        page = api.http.get(f"{JOBS}/{made}/events", params=query).json()
        found += page["data"]
        if not page["has_more"]:
            break
        query["after"] = page["last_id"]
    assert found == whole and len(whole) == 7
    for after in (
        "nothing",
        f"ftevent-{24 * '0'}-1",
        whole[0]["id"] + "x",
        whole[0]["id"].replace("event", "ckpt"),
    ):
        assert refusal(api.http.get(f"{JOBS}/{made}/events", params={"after": after}))[0] == "after"


def test_a_list_of_jobs(api: ApiServer, file: str) -> None:
    made = [start(api, file, metadata={"n": str(n)}).json()["id"] for n in range(3)][::-1]
    body = api.http.get(JOBS, params={"limit": 2}).json()
    FineTuningJobs.model_validate(body)
    assert [job["id"] for job in body["data"]] == made[:2]
    assert (body["first_id"], body["last_id"], body["has_more"]) == (*made[:2], True)
    after = api.http.get(JOBS, params={"limit": 2, "after": made[1]}).json()
    assert after["data"][0]["id"] == made[2]
    for after in ("nothing", "job-" + 24 * "0"):
        assert refusal(api.http.get(JOBS, params={"after": after}))[0] == "after"
    theirs = api.http.get(JOBS, headers={"authorization": f"Bearer {THEIRS}"}).json()
    assert theirs == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_pages_are_full_of_what_a_key_may_see(api: ApiServer, file: str, own_file: str) -> None:
    mine = [start(api, own_file, FEW, suffix="few-more", seed=n).json()["id"] for n in range(3)][::-1]
    others = [start(api, file, suffix="more", seed=n).json()["id"] for n in range(3)]
    control = api.http.get(JOBS, params={"limit": 2}).json()["data"]
    assert [job["id"] for job in control] == others[:0:-1]
    seen = {"authorization": f"Bearer {FEW}"}
    body = api.http.get(JOBS, params={"limit": 2}, headers=seen).json()
    assert ([job["id"] for job in body["data"]], body["has_more"]) == (mine[:2], True)
    body = api.http.get(JOBS, params={"limit": 1, "after": mine[1]}, headers=seen).json()
    assert [job["id"] for job in body["data"]] == mine[2:]


def test_pages_of_checkpoints_are_full_of_the_first_prompts(api: ApiServer, file: str) -> None:
    made = start(api, file).json()["id"]
    _, lease = claimed(api)
    facts = {"task": "x", "split": "validation", "metrics": {"mean": 0.5}}
    told = [("evaluated", {**facts, "prompt": p, "step": step}) for step in (1, 2, 3) for p in range(5)]
    api.store.append_events(lease, told)
    found: list[int] = []
    query: dict[str, Any] = {"limit": 2}
    for more in (True, False):
        page = api.http.get(f"{JOBS}/{made}/checkpoints", params=query).json()
        found += [each["step_number"] for each in page["data"]]
        query["after"] = page["last_id"]
        assert page["has_more"] is more
    assert found == [3, 2, 1]


def test_pause_resume_and_cancel(api: ApiServer, file: str) -> None:
    made = start(api, file).json()["id"]
    _, lease = claimed(api)

    def post(verb: str) -> httpx2.Response:
        return api.http.post(f"{JOBS}/{made}/{verb}")

    assert post("pause").json()["status"] == "validating_files", "its runner has yet to see it"
    api.store.release_job(lease)
    assert api.store.claim_job("tuning", "another", 60, FINGERPRINT) is None
    assert api.http.get(f"{JOBS}/{made}").json()["status"] == "queued"
    assert post("resume").json()["status"] == "queued"
    assert claimed(api)[0].id == made
    assert post("cancel").json()["status"] == "validating_files"
    events = api.http.get(f"{JOBS}/{made}/events").json()["data"]
    assert [each["message"] for each in events if "The job" in each["message"]][::-1] == [
        "The job waits for its turn",
        "The job is paused",
        "The job waits for its turn",
        "The job goes on",
        "The job will be cancelled",
    ]
    answer = post("pause")
    assert answer.status_code == 200
    api.store.cancel_job("ours", made)


def test_a_conflict_is_not_tried_again(api: ApiServer, file: str) -> None:
    made = start(api, file).json()["id"]
    api.http.post(f"{JOBS}/{made}/cancel")
    answer = api.http.post(f"{JOBS}/{made}/pause")
    assert refusal(answer, 409) == ("job", "job_over")
    assert answer.headers["x-should-retry"] == "false"


def test_a_failure_names_the_file(api: ApiServer, file: str) -> None:
    made = start(api, file).json()["id"]
    _, lease = claimed(api)
    said = {"code": "invalid_data", "message": "train.jsonl, row 3: ...", "field": "data.train"}
    api.store.finish_job(lease, "failed", error=said)
    assert api.http.get(f"{JOBS}/{made}").json()["error"] == {
        "code": "invalid_training_file",
        "message": said["message"],
        "param": "training_file",
    }


def test_a_native_job_is_shown_too(api: ApiServer, file: str) -> None:
    document = {
        "task": "native", "data": {"train": {"file": file}, "format": "jsonl"}, "labels": ["no", "yes"],
        "recipe": {"prompt_length": 3, "steps": 10, "learning_rate": 0.6}, "metadata": {"a": "b"},
    }  # fmt: skip
    made = api.http.post("/v1/tuning/jobs", json=document).json()["id"]
    found = api.http.get(f"{JOBS}/{made}").json()
    FineTuningJob.model_validate(found)
    assert found["hyperparameters"] == {
        "n_epochs": None,
        "batch_size": 32,
        "learning_rate_multiplier": 2.0,
    }
    assert found["metadata"] == {"a": "b"}
