"""The client and the command against the real server: real sockets, store, vocabulary and engine."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from chorus import AsyncClient, Client, DoneEvent, ResultEvent, TokenEvent, errors
from chorus.cli.root import chorus
from chorus.load import LoadSpec, run_load
from chorus.load.outcomes import Recorder
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import load_keys
from tests.server.api.api_harness import FINGERPRINT, WIDTH, ApiServer, artifact, prompt


@pytest.fixture
def real(api: ApiServer) -> Any:
    with Client(api.url) as client:
        yield client


def test_the_life_of_a_prompt(real: Client, tmp_path: Path) -> None:
    first = real.tasks.push(
        "life",
        prompt(3, seed=1),
        template="{text}",
        labels=["negative", "positive"],
        settings={"max_new_tokens": 4},
        metrics={"accuracy": 0.5},
        lineage={"by": "hand"},
        base_fingerprint=FINGERPRINT,
        description="Its life.",
    )
    assert (first.task, first.version, first.length, first.width) == ("default/life", 1, 3, WIDTH)
    assert (first.created, first.aliases, first.labels) == (True, ["live"], ["negative", "positive"])
    again = real.tasks.push("life", prompt(3, seed=1), labels=["negative", "positive"],
                            settings={"max_new_tokens": 4}, base_fingerprint=FINGERPRINT)  # fmt: skip
    assert (again.version, again.created, again.digest) == (1, False, first.digest)
    second = real.tasks.push("life", artifact(5, seed=2), promote_to="canary")
    assert (second.version, second.aliases, second.created) == (2, ["canary"], True)

    assert real.tasks.get("default/life").aliases == {"live": 1, "canary": 2}
    assert real.tasks.get("life").description == "Its life."
    assert [v.version for v in real.tasks.versions("life")] == [2, 1]
    assert real.tasks.version("life@canary").digest == second.digest
    assert "default/life" in {task.task for task in real.tasks.list(prefix="li")}

    moved = real.tasks.promote("life", 2)
    assert (moved.alias, moved.version, moved.previous) == ("live", 2, 1)
    assert real.tasks.rollback("life").version == 1
    real.tasks.remove_alias("life", "canary")
    aliases = real.tasks.aliases("life")
    assert aliases.aliases == {"live": 1}
    assert [move.alias for move in aliases.history].count("live") == 3

    near = real.tasks.neighbors("life", top_k=2)
    assert [len(row.neighbors) for row in near.rows] == [2, 2, 2]
    with pytest.raises(errors.ConflictError):
        real.tasks.delete_version("life", 1)
    real.tasks.delete_version("life", 2)
    real.tasks.delete("life")
    with pytest.raises(errors.NotFoundError) as raised:
        real.tasks.get("life")
    assert raised.value.code == "unknown_task"


def test_formats_come_back_as_they_went(real: Client, tmp_path: Path) -> None:
    values = prompt(4, seed=9)
    version = real.tasks.push("formats", values, base_fingerprint=FINGERPRINT)
    npy = np.load(io.BytesIO(real.tasks.artifact("formats", format="npy")), allow_pickle=False)
    assert npy.tobytes() == values.tobytes()
    for format, name in (
        ("safetensors", "a.safetensors"),
        ("npy", "a.npy"),
        ("peft", "adapter"),
        ("peft", "a.zip"),
    ):
        saved = real.tasks.pull("formats", tmp_path / name, format=format)  # type: ignore[arg-type]
        assert real.tasks.push(f"copy-{name.replace('.', '-')}", saved).digest == version.digest


def test_float64_is_rounded_and_said_so(real: Client) -> None:
    version = real.tasks.push("wide", prompt(2).astype(np.float64))
    assert version.notes and version.digest == real.tasks.push("narrow", prompt(2)).digest


def test_generate_alone_mixed_and_async(real: Client, api: ApiServer) -> None:
    real.tasks.push("gen-a", prompt(3, seed=1))
    real.tasks.push("gen-b", prompt(5, seed=2), template="{a} {b}")
    mixed = real.generate(
        requests=[
            {"task": "gen-b", "input": {"a": "good", "b": "film"}, "max_new_tokens": 8},
            {"task": None, "input": "good film"},
            {"task": "gen-a@1", "input": "good"},
        ],
        max_new_tokens=6,
        deadline_seconds=30,
    )
    assert [item.usage.prompt_tokens for item in mixed.values] == [5, 0, 3]
    alone = real.generate("gen-a", input="good", max_new_tokens=6)
    assert alone.one == mixed.values[2]

    async def many() -> list[str]:
        async with AsyncClient(api.url) as client:
            answers = await asyncio.gather(
                *(client.generate("gen-a", input="good", max_new_tokens=6) for _ in range(12))
            )
            return [answer.text for answer in answers]

    assert set(asyncio.run(many())) == {alone.text}
    sampled = real.generate(
        "gen-a", input="good", n=2, temperature=1.0, seed=1, logprobs=True, max_new_tokens=4
    )
    assert sampled.one.choices is not None and len(sampled.one.choices) == 2
    assert sampled.one.choices[0].logprobs is not None


def test_streamed_texts_join_to_the_answer(real: Client) -> None:
    real.tasks.push("streamed", prompt(3, seed=1))
    texts = ["good film", "the moving science of rain"]
    whole = real.generate("streamed", inputs=texts, max_new_tokens=8)
    with real.stream("streamed", inputs=texts, max_new_tokens=8) as stream:
        events = list(stream)
    assert isinstance(events[-1], DoneEvent)
    for index, text in enumerate(whole.texts):
        tokens = [e.text for e in events if isinstance(e, TokenEvent) and e.index == index]
        results = [e.result.text for e in events if isinstance(e, ResultEvent) and e.index == index]
        assert ["".join(tokens)] == results == [text]


def test_leaving_a_stream_frees_the_server(api: ApiServer) -> None:
    with Client(api.url) as client, client.stream(input="the good film", max_new_tokens=8) as stream:
        next(stream)
    assert api.engine.wait_idle(300)


def test_classify_and_ensemble(real: Client) -> None:
    for seed in (1, 2, 3):
        real.tasks.push(f"vote-{seed}", prompt(2, seed=seed), labels=["negative", "positive"])
    answer = real.classify("vote-1", inputs=["good film", "bad film"])
    assert set(answer.labels) <= {"negative", "positive"}
    assert all(sum(item.probabilities.values()) == pytest.approx(1.0) for item in answer.values)
    members = [f"vote-{seed}" for seed in (1, 2, 3)]
    voted = real.ensemble(tasks=members, input="good film", weights=[1, 1, 2]).one
    assert voted.ensemble is None and sum(voted.counts.values()) == 4
    stored = real.ensembles.create("three", members, weights=[1, 1, 2])
    assert [member.version for member in stored.members] == [1, 1, 1]
    by_name = real.ensemble("three", input="good film").one
    assert (by_name.answer, by_name.counts) == (voted.answer, voted.counts)
    assert by_name.ensemble is not None and by_name.ensemble.task == "default/three"
    assert real.ensembles.get("three@1").digest == real.ensembles.get("default/three@live").digest
    assert "default/three" in {ensemble.ensemble for ensemble in real.ensembles.list()}
    second = real.ensembles.create("three", members)
    assert [each.version for each in real.ensembles.versions("default/three")] == [2, 1]
    assert real.ensembles.promote("three", second.version, expected=1).previous == 1
    with pytest.raises(errors.ConflictError, match="moved meanwhile"):
        real.ensembles.promote("three", 1, expected=1)
    assert real.ensembles.get("three").back == {"live": 1}
    found = real.ensembles.aliases("three", limit=1)
    assert (found.aliases, found.back) == ({"live": 2}, {"live": 1})
    assert [(move.alias, move.previous, move.version) for move in found.history] == [("live", 1, 2)]
    assert real.ensembles.rollback("three", version=1, expected=2).version == 1
    real.ensembles.promote("three", 2, "next")
    real.ensembles.remove_alias("three", "next")
    every = [1, 2, 1, 2, None]
    assert [move.version for move in real.ensembles.aliases("three").history] == every
    page = real.ensembles.aliases("three", limit=3)
    older = real.ensembles.aliases("three", limit=3, cursor=page.next_cursor)
    assert [move.version for move in (*older.history, *page.history)] == every and older.next_cursor is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chorus.routes.moves.PAGE", 2)
        whole = real.ensembles.aliases("three")
    assert [move.version for move in whole.history] == every and whole.next_cursor is None
    real.ensembles.delete("three")
    with pytest.raises(errors.NotFoundError):
        real.ensembles.get("three")


def test_service_routes(real: Client) -> None:
    assert real.health().status == "ok" and real.ready().ready
    model = real.model()
    assert (model.fingerprint, model.name) == (FINGERPRINT, "tiny")
    assert (model.compute_dtype, model.matrix_dtype) == ("float32", "float32")
    assert model.system_fingerprint is not None and model.system_fingerprint.startswith("fp_")
    assert "chorus_" in real.metrics()


@pytest.mark.parametrize(
    ("call", "kind", "field"),
    [
        (lambda c: c.generate("absent", input="x"), errors.NotFoundError, "task"),
        (lambda c: c.generate(requests=[{"task": None, "input": "x"}, {"task": "n", "input": "x"}]),
         errors.NotFoundError, "requests.1.task"),
        (lambda c: c.generate(input="x", temperature=-1), errors.InvalidInputError, "temperature"),
        (lambda c: c.generate(input="good " * 5000), errors.InputTooLongError, "input"),
        (lambda c: c.generate(input="\ud800"), errors.InvalidInputError, None),
        (lambda c: c.tasks.push("bad", b"\x80\x04pickle"), errors.InvalidInputError, None),
        (lambda c: c.tasks.push("bad", prompt(2) * np.float32("nan")), errors.InvalidInputError, None),
        (lambda c: c.tasks.push("bad", prompt(2, width=WIDTH + 1)), errors.InvalidInputError, None),
        (lambda c: c.tasks.push("bad", prompt(2), base_fingerprint="0" * 9), errors.ModelMismatchError, None),
    ],
)  # fmt: skip
def test_refusals_are_typed_and_name_the_field(
    real: Client, call: Any, kind: type, field: str | None
) -> None:
    with pytest.raises(kind) as raised:
        call(real)
    assert raised.value.request_id.startswith("req_")
    assert raised.value.message
    if field is not None:
        assert raised.value.field == field


def test_a_key_is_needed_and_works(tmp_path: Path, vocabulary: Vocabulary) -> None:
    key, scrape = tmp_path / "key", tmp_path / "scrape"
    key.write_text("a-long-enough-key-of-ours\n")
    scrape.write_text("a-long-enough-scrape-token\n")
    keys = load_keys("default", None, key, scrape)
    with ApiServer(tmp_path / "data", vocabulary, keys=keys) as server:
        with Client(server.url) as anonymous, pytest.raises(errors.UnauthenticatedError):
            anonymous.model()
        with Client(server.url, key.read_text().strip()) as client:
            assert client.model().name == "tiny"
            assert "chorus_" in client.metrics(scrape_token=scrape.read_text().strip())
        told = CliRunner().invoke(chorus, ["--url", server.url, "--key-file", str(key), "tasks", "list"])
        assert told.exit_code == 0
        told = CliRunner().invoke(chorus, ["--url", server.url, "tasks", "list"])
        assert told.exit_code == 1 and told.stderr.startswith("chorus: unauthenticated")


def command(api: ApiServer, *words: str) -> Result:
    result = CliRunner().invoke(chorus, ["--url", api.url, *words])
    assert result.exit_code == 0, result.output
    return result


def test_the_command_against_the_server(api: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "prompt.safetensors"
    file.write_bytes(artifact(3, seed=4))
    push = ("tasks", "push", "cli", str(file), "--label", "negative", "--label", "positive")
    assert command(api, *push).stdout == "default/cli@1 created, now live\n"
    command(api, "tasks", "push", "cli", str(file), "--settings", '{"max_new_tokens": 3}', "--promote")
    assert command(api, "tasks", "rollback", "cli").stdout == "cli@live is now version 1 (was 2)\n"
    assert json.loads(command(api, "tasks", "show", "cli", "--json").stdout)["aliases"] == {"live": 1}
    command(api, "tasks", "pull", "cli@2", str(tmp_path / "adapter"), "--format", "peft")
    adapter = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "tiny"  # AutoPeftModel finds its base by it
    adapter["base_model_name_or_path"] = "google/t5-v1_1-small"
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(adapter))
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(load_file(weights), weights)  # as PEFT saves it: without what Chorus wrote into its header
    told = command(api, "tasks", "push", "cli-peft", str(tmp_path / "adapter"))
    assert "note: Warning: the file names its base model 'google/t5-v1_1-small'" in told.stderr
    assert "google/t5-v1_1-small" in command(api, "tasks", "show", "cli-peft@1").stdout
    assert "was there already" in command(api, *push).stdout
    generated = command(api, "generate", "cli", "good film", "--max-new-tokens", "6").stdout
    streamed = command(api, "generate", "cli", "good film", "--max-new-tokens", "6", "--stream").stdout
    assert generated == streamed
    assert command(api, "classify", "cli", "good film").stdout.startswith(("positive", "negative"))
    command(api, "ensemble", "create", "cli-both", "cli@2", "cli@live")
    assert "(agreement " in command(api, "ensemble", "vote", "cli-both", "good film").stdout
    assert "default/cli-both@1" in command(api, "ensemble", "show", "cli-both").stdout
    command(api, "ensemble", "create", "cli-both", "cli@2")
    assert "cli@2" in command(api, "ensemble", "versions", "cli-both").stdout
    assert "now version 2 (was 1)" in command(api, "ensemble", "promote", "cli-both", "2").stdout
    assert "now version 1" in command(api, "ensemble", "rollback", "cli-both").stdout
    assert command(api, "ensemble", "aliases", "cli-both").stdout.count("live") == 4
    assert "norm" in command(api, "tasks", "neighbors", "cli").stdout
    assert "ready" in command(api, "status").stdout
    assert command(api, "ensemble", "delete", "cli-both", "--yes").stdout == "cli-both deleted\n"
    assert command(api, "tasks", "delete", "cli", "--version", "2", "--yes").stdout == "cli@2 deleted\n"


@pytest.mark.parametrize("route", ["generate", "stream", "classify"])
def test_load_on_the_server(api: ApiServer, real: Client, route: Any) -> None:
    tasks = [f"load-{seed}" for seed in range(3)]
    for seed, task in enumerate(tasks):
        real.tasks.push(task, prompt(2, seed=seed), labels=["negative", "positive"])
    settings = {} if route == "classify" else {"max_new_tokens": 4}
    spec = LoadSpec(
        tasks=tuple(tasks), inputs=("good film", "bad rain"), route=route, settings=settings, mix="zipf",
        arrivals="open", rate_per_second=500.0, requests=60, concurrency=16,
    )  # fmt: skip
    recorder = Recorder()

    async def go() -> None:
        async with AsyncClient(api.url, max_connections=16) as client:
            await run_load(client, spec, recorder)

    asyncio.run(go())
    assert dict(recorder.errors) == {}
    assert len(recorder.outcomes) == 60
    assert api.engine.wait_idle(300)


def test_packs_and_decisions(real: Client) -> None:
    for seed in (1, 2):
        real.tasks.push("feeling", prompt(3, seed=seed), labels=["good", "bad"])
    mapped = {"task": "feeling", "values": {"true": "good", "false": "bad"}}
    first = real.packs.create("desk", {"happy": mapped, "mood": "feeling@2"})
    assert (first.version, first.questions["mood"].version) == (1, 2)
    second = real.packs.create("desk", {"happy": mapped}, unknown_questions="base")
    assert real.packs.promote("desk", second.version).previous == 1
    assert real.packs.get("desk@live").unknown_questions == "base"
    assert real.packs.rollback("default/desk").version == 1
    real.packs.promote("desk", 2, "next")
    real.packs.remove_alias("desk", "next")
    assert [each.version for each in real.packs.versions("desk")] == [2, 1]
    assert [move.version for move in real.packs.aliases("desk", limit=2).history] == [2, None]
    assert [pack.pack for pack in real.packs.list()] == ["default/desk"]
    assert real.packs.share("desk", "birch").rights == ["infer"]
    assert [grant.grantee for grant in real.packs.grants("desk")] == ["birch"]
    real.packs.unshare("desk", "birch")

    asked = [{"type": "predicate", "name": "happy", "instructions": "Is it?"}]
    decided = real.decide("desk", "good film", asked)
    assert (decided.model, decided.answers[0].name) == ("default/desk@1", "happy")
    one = real.system_one("desk", "good film", {"happy": {"type": "noul", "instructions": "Is it?"}})
    assert one.answers["happy"].noul == decided.answers[0].probability
    assert {"base", "desk", "feeling"} <= {model.name for model in real.models().models}
    with pytest.raises(errors.InvalidInputError, match="'other'"):
        real.decide("desk", "x", [{**asked[0], "name": "other"}])
    real.packs.delete("desk")
    with pytest.raises(errors.NotFoundError):
        real.packs.get("desk")


def test_packs_on_the_command_line(api: ApiServer, real: Client) -> None:
    real.tasks.push("cli-mood", prompt(3, seed=5), labels=["good", "bad"])
    made = command(
        api, "packs", "create", "cli-desk", "--question", "happy=cli-mood",
        "--map", "happy:true=good", "--map", "happy:false=bad",
    ).stdout  # fmt: skip
    assert "default/cli-desk@1" in made and "true=good" in made
    command(api, "packs", "create", "cli-desk", "--question", "happy=cli-mood", "--unknown", "base")
    assert command(api, "packs", "promote", "cli-desk", "2").stdout == (
        "cli-desk@live is now version 2 (was 1)\n"
    )
    assert "version 1" in command(api, "packs", "rollback", "cli-desk").stdout
    command(api, "packs", "promote", "cli-desk", "2", "--alias", "next")
    assert "next" in command(api, "packs", "aliases", "cli-desk").stdout
    command(api, "packs", "aliases", "cli-desk", "--remove", "next")
    assert "happy" in command(api, "packs", "versions", "cli-desk").stdout
    assert "default/cli-desk" in command(api, "packs", "list").stdout
    assert "refuse" in command(api, "packs", "show", "cli-desk@1").stdout
    assert "birch" in command(api, "packs", "share", "cli-desk", "--with", "birch").stdout
    assert command(api, "packs", "delete", "cli-desk", "--yes").stdout == "cli-desk deleted\n"
