"""`chorus batch run` against a real server: lines and tables, errors, an interruption and `--resume`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from chorus.cli import table_files
from chorus.cli.batch_rows import fields_of
from chorus.cli.root import chorus
from chorus_server.jobs_wiring import start_engine_jobs
from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer, counted, eventually

LABELS = ["no", "yes"]
TEXTS = ["good film", "bad movie", 'a "funny", movie', "waste\nof two hours", "moving", "the sky is warm"]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("cli"), vocabulary) as server:
        server.push("first", labels=LABELS, template="{{review}}: {text}")
        server.push("pair", seed=1, labels=LABELS, template="{premise} {hypothesis}")
        start_engine_jobs(server.services)
        yield server
        assert server.engine.wait_idle(300)


def command(api: ApiServer, *words: Any) -> Result:
    return CliRunner().invoke(chorus, ["--url", api.url, "batch", *map(str, words)])


def succeeded(api: ApiServer, *words: Any) -> Result:
    result = command(api, "run", *words)
    assert result.exit_code == 0, result.output
    return result


def classified(api: ApiServer, task: str, inputs: list[Any]) -> list[tuple[str, float]]:
    found = api.post("/v1/classify", {"task": task, "inputs": inputs}).json()["results"]
    return [(each["label"], each["probabilities"][each["label"]]) for each in found]


def test_lines_are_answered_into_a_file(api: ApiServer, tmp_path: Path) -> None:
    source, target = tmp_path / "lines.jsonl", tmp_path / "answers.jsonl"
    bodies = [{"task": "first", "input": text} for text in TEXTS] + [{"task": "none", "input": "x"}]
    lines = [
        {"custom_id": f"{n}", "method": "POST", "url": "/v1/classify", "body": body}
        for n, body in enumerate(bodies)
    ]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = succeeded(api, source, target)
    assert "7 answers, 1 of them with an error" in result.stderr
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line["custom_id"] for line in found] == [f"{n}" for n in range(6)]
    (bad,) = (tmp_path / "answers.errors.jsonl").read_text().splitlines()
    assert json.loads(bad)["custom_id"] == "6"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "answers.errors.jsonl", "answers.jsonl", "lines.jsonl",
    ]  # fmt: skip
    source.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    assert succeeded(api, source, target).stderr.endswith("6 answers\n")
    assert not (tmp_path / "answers.errors.jsonl").exists(), "it was of the earlier run"


def test_rows_of_csv_get_their_answers_beside_them(api: ApiServer, tmp_path: Path) -> None:
    source, target = tmp_path / "rows.csv", tmp_path / "answered.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "review"], *([n, text] for n, text in enumerate(TEXTS))])
    succeeded(api, source, target, "--task", "first", "--column", "text=review", "--prefix", "said_")
    with target.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["review"] for row in found] == TEXTS and [row["id"] for row in found] == [*"012345"]
    wanted = classified(api, "first", TEXTS)
    assert [row["said_answer"] for row in found] == [label for label, _ in wanted]
    for row, (_, probability) in zip(found, wanted, strict=True):
        assert float(row["said_probability"]) == pytest.approx(probability) and row["said_error"] == ""


def test_rows_of_parquet_keep_their_types(api: ApiServer, tmp_path: Path) -> None:
    source, target = tmp_path / "rows.parquet", tmp_path / "answered.parquet"
    columns = {"n": pyarrow.array([1, 2, 3], pyarrow.int16()), "premise": TEXTS[:3], "hypothesis": TEXTS[3:]}
    parquet.write_table(pyarrow.table(columns), source)
    succeeded(api, source, target, "--task", "pair")
    found = parquet.read_table(target)
    assert found.schema.field("n").type == pyarrow.int16()
    assert found.column_names == ["n", "premise", "hypothesis", "answer", "probability", "error"]
    inputs = [{"premise": a, "hypothesis": b} for a, b in zip(TEXTS[:3], TEXTS[3:], strict=True)]
    assert found["answer"].to_pylist() == [label for label, _ in classified(api, "pair", inputs)]
    assert found["error"].to_pylist() == [None] * 3


def test_rows_of_json_lines_are_written_about(api: ApiServer, tmp_path: Path) -> None:
    source, target = tmp_path / "rows.jsonl", tmp_path / "answered.jsonl"
    rows: list[dict[str, Any]] = [{"text": text, "extra": [n]} for n, text in enumerate(TEXTS)]
    rows.append({"text": "good " * 2_000, "extra": None})
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = succeeded(api, source, target, "--task", "base", "--generate", "--setting", "max_new_tokens=3")
    assert "1 of them with an error" in result.stderr
    found = [json.loads(line) for line in target.read_text().splitlines()]
    body = {"task": None, "inputs": TEXTS, "max_new_tokens": 3}
    wanted = [each["text"] for each in api.post("/v1/generate", body).json()["results"]]
    assert [row["answer"] for row in found] == [*wanted, None]
    assert [row["extra"] for row in found] == [row["extra"] for row in rows]
    assert found[-1]["error"].startswith("input_too_long: ") and found[0]["error"] is None


def test_columns_of_any_row_of_json_lines_are_written(api: ApiServer, tmp_path: Path) -> None:
    source, target = tmp_path / "rows.jsonl", tmp_path / "answered.csv"
    source.write_text('{"text": "good film"}\n{"id": 7, "text": "bad movie"}\n')
    succeeded(api, source, target, "--task", "base", "--generate", "--setting", "max_new_tokens=2")
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["text", "id", "answer", "error"] and [row["id"] for row in rows] == ["", "7"]


def test_an_interrupted_run_goes_on(tmp_path: Path, vocabulary: Vocabulary) -> None:
    """The command ends when the batch is cancelled in the middle; what was answered is not asked again."""
    source, target = tmp_path / "rows.tsv", tmp_path / "answered.tsv"
    source.write_text("text\n" + "".join(f"good film {n}\n" for n in range(1_500)))
    stopped: list[str] = []

    def stop_in_the_middle(plan: Any) -> None:
        jobs = [] if stopped else api.store.list_jobs("default", "batch").items
        if jobs and jobs[0].progress.get("rows", 0) > 100:
            stopped.append(jobs[0].id)
            api.store.cancel_job("default", jobs[0].id)

    with ApiServer(tmp_path / "data", vocabulary, on_dispatch=stop_in_the_middle) as api:
        api.push("first", labels=LABELS)
        start_engine_jobs(api.services)
        first = command(api, "run", source, target, "--task", "first")
        assert first.exit_code == 1 and "--resume" in first.stderr and not target.exists(), first.output
        assert command(api, "run", source, target, "--task", "first").exit_code == 2, "it does not begin anew"
        other = command(
            api, "run", source, target, "--task", "first", "--label", "a", "--label", "b", "--resume"
        )
        assert other.exit_code == 2 and "others than those" in other.stderr
        note = tmp_path / "answered.tsv.batch"
        noted = json.loads(note.read_text())
        assert noted.pop("job") == stopped[0]
        note.write_text(json.dumps(noted))  # as where the command is killed while it starts the batch
        job = api.store.get_job("default", stopped[0])
        assert job.status == "cancelled" and api.engine.wait_idle(300)
        parts = (tmp_path / "data" / "jobs" / "default" / job.id).glob("lines-*")
        kept = sum(path.read_bytes().count(b"\n") for path in parts)
        asked = counted(api, "chorus_requests_total", kind="score", outcome="ok")
        second = command(api, "run", source, target, "--task", "first", "--resume")
        assert second.exit_code == 0, second.output
        again = counted(api, "chorus_requests_total", kind="score", outcome="ok") - asked
        assert kept > 100 and again == 1_500 - kept
        assert len(target.read_text().splitlines()) == 1_501
        eventually(lambda: not list(tmp_path.glob("*.batch")))
        done = command(api, "run", source, target, "--task", "first", "--resume")
        assert done.exit_code == 2 and "no unfinished run" in done.stderr
        note.write_text(json.dumps({**noted, "run": "killed before its batch was there"}))
        begun = command(api, "run", source, target, "--task", "first", "--resume")
        assert begun.exit_code == 0 and len(api.store.list_jobs("default", "batch").items) == 2, begun.output


def test_what_cannot_be_read_is_refused_before_anything_is_sent(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(api.store.list_files("default", limit=500).items)
    target = tmp_path / "out.csv"
    cases: list[tuple[str, bytes, list[str], str]] = [
        ("a.csv", b"text\na\n", [], "--task"),
        ("a.jsonl", b'{"text": "a"}\n', [], "no lines of a batch"),
        ("a.jsonl", b"{}\n", ["--label", "a"], "go with --task"),
        ("a.txt", b"a\n", ["--task", "first"], "tells no format"),
        ("a.csv", b"review\na\n", ["--task", "first"], "no column 'text'"),
        ("a.csv", b"text,answer\na,b\n", ["--task", "first"], "--prefix"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "a", "answer": 1}\n', ["--task", "first"], "--prefix"),
        ("a.csv", b"text\na,b\n", ["--task", "first"], "row 1"),
        ("a.csv", b"text\n\xff\n", ["--task", "first"], "not UTF-8"),
        ("a.jsonl", b'{"text": ["a"]}\n', ["--task", "first"], "row 1: the column 'text' has list"),
        ("a.jsonl", b'{"text": NaN}\n', ["--task", "first"], "row 1: it is not JSON"),
        ("a.parquet", b"text", ["--task", "first"], "not a Parquet file"),
        ("a.csv", b"text\na\n", ["--task", "first", "--column", "colour=text"], "'colour'"),
    ]
    for name, content, options, words in cases:
        source = tmp_path / name
        source.write_bytes(content)
        result = command(api, "run", source, target, *options)
        assert result.exit_code == 2 and words in result.stderr, (name, result.output)
        source.unlink()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    source = tmp_path / "a.csv"
    source.write_bytes(b"text\na\n")
    result = command(api, "run", source, tmp_path / "a.parquet", "--task", "first")
    assert result.exit_code == 2 and "extra 'parquet'" in result.stderr
    assert len(api.store.list_files("default", limit=500).items) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv"]


def test_faults_of_lines_are_told(api: ApiServer, tmp_path: Path) -> None:
    source = tmp_path / "lines.jsonl"
    source.write_text('{"custom_id": "a", "method": "GET", "url": "/v1/classify", "body": {}}\n' * 2)
    result = command(api, "run", source, tmp_path / "out.jsonl")
    assert result.exit_code == 1 and "Line 1, method" in result.stderr and "line 2:" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.jsonl"]


def test_batches_are_listed_shown_and_cancelled(api: ApiServer, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("text\ngood film\n")
    succeeded(api, source, tmp_path / "answered.csv", "--task", "first")
    listed = command(api, "list")
    assert listed.exit_code == 0 and "/v1/classify" in listed.output
    job = api.store.list_jobs("default", "batch", status="succeeded").items[0].id
    assert "output" not in (shown := command(api, "show", job)).output and "answers" in shown.output
    assert command(api, "cancel", job).exit_code == 1


def test_jobs_of_every_kind_are_looked_after_together(api: ApiServer, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("text\ngood film\n")
    succeeded(api, source, tmp_path / "answered.csv", "--task", "first")

    def jobs(*words: str) -> Result:
        return CliRunner().invoke(chorus, ["--url", api.url, "jobs", *words])

    job = api.store.list_jobs("default", "batch", status="succeeded").items[0].id
    listed = jobs("list", "--kind", "batch", "--status", "succeeded")
    assert job in listed.output and "batch" in listed.output and "1 of 1" in listed.output
    assert "There are no jobs." in jobs("list", "--kind", "evaluation").output
    shown = jobs("show", job)
    assert shown.exit_code == 0 and "batch" in shown.output and "1 of 1" in shown.output
    followed = jobs("follow", job)
    assert followed.exit_code == 0 and "1 of 1 rows" in followed.stderr
    lines = [json.loads(line) for line in jobs("follow", job, "--json").stdout.splitlines()]
    assert lines[-1]["event"] == "done" and lines[-1]["job"]["kind"] == "batch"
    for verb in ("cancel", "resume"):
        refused = jobs(verb, job)
        assert refused.exit_code == 1 and "job_" in refused.stderr, refused.output
    failed = api.store.create_job("default", "batch", {"base_fingerprint": "another-base"}).id
    assert jobs("cancel", failed).output == f"{failed} is cancelled\n"
    ended = jobs("follow", failed)
    assert ended.exit_code == 1 and f"chorus: {failed} cancelled" in ended.stderr
    assert jobs("resume", failed).output == f"{failed} is queued\n"
    api.store.cancel_job("default", failed)


def test_tables_are_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("text\n" + "a\n" * 10)
    rows = table_files.rows_of(source)
    assert next(rows) == {"text": "a"} and next(rows) == {"text": "a"}


def test_fields_of_templates() -> None:
    assert fields_of("{{not}} {text} {a_1}{text}") == ["text", "a_1"]
