"""The client and the command calibrate on a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chorus import AsyncClient, Client, errors
from chorus.cli.root import chorus
from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer, artifact, eventually
from tests.server.api.calibration.test_work import LABELS, ROWS, working

NAMES = {"0": "no", "1": "yes"}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("calibrations"), vocabulary) as api, working(api):
        with Client(api.url) as client:
            client.tasks.push("t", artifact(3, seed=1), labels=LABELS)
        yield api


def run(api: ApiServer, *words: str) -> Result:
    return CliRunner().invoke(chorus, ["--url", api.url, *words])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_the_clients_start_follow_and_list(real: ApiServer, file: Path) -> None:
    with Client(real.url) as client:
        data = client.files.push(file)
        job = client.tasks.calibrate("t@live", data, columns={"text": "said"}, target_texts=NAMES)
        assert (job.task, job.version, job.over) == ("default/t", 1, False)
        eventually(lambda: client.tasks.calibration_job("t", job).over)
        job = client.tasks.calibration_job("t", job)
        assert job.status == "succeeded", job.error
        (made,) = client.tasks.calibrations("t")
        assert made == client.tasks.calibration("t@1", job.result["calibration"])
        assert made.rows == len(ROWS) and made.measures.raw.bins and set(made.prior or ()) == set(LABELS)
        assert client.tasks.version("t").calibration == 1
        answer = client.classify("t", input="good").one
        assert (answer.calibrated, answer.calibration) == (True, 1)
        vote = client.ensemble(tasks=["t", "t"], input="good").one
        assert vote.calibrated and vote.probabilities == pytest.approx(answer.probabilities)
        with pytest.raises(errors.NotFoundError) as caught:
            client.tasks.calibration("t", 9)
        assert caught.value.code == "unknown_calibration"
        with pytest.raises(errors.ConflictError):
            client.tasks.cancel_calibration("t", job)

    async def awaited() -> list[int]:
        async with AsyncClient(real.url) as client:
            return [each.calibration for each in await client.tasks.calibrations("t")]

    assert asyncio.run(awaited()) == [1]


def test_the_command_uploads_waits_and_shows(real: ApiServer, file: Path) -> None:
    options = ["--column", "text=said", "--target-text", "0=no", "--target-text", "1=yes"]
    done = run(real, "calibrate", "t", str(file), *options, "--no-prior")
    assert done.exit_code == 0, done.output
    assert "default/t@1 has calibration 2: temperature " in done.output
    assert done.output.count("% accuracy, answer ") == 5
    listed = run(real, "tasks", "calibrations", "t")
    assert listed.exit_code == 0 and "float32" in listed.output
    found = json.loads(run(real, "--json", "tasks", "calibrations", "t@1").output)["calibrations"]
    assert [each["calibration"] for each in found] == [2, 1]
    assert found[0]["prior"] is None and set(found[1]["prior"]) == set(LABELS)
    shown = run(real, "tasks", "show", "t@1")
    assert "calibration" in shown.output

    few = file.with_name("few.jsonl")
    few.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:5]))
    failed = run(real, "calibrate", "t", str(few), *options)
    assert failed.exit_code == 1 and "the file has 5 rows" in failed.output
    refused = run(real, "calibrate", "t", "file-" + "0" * 24)
    assert refused.exit_code == 1 and "unknown_file" in refused.output
