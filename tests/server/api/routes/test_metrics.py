"""What `/metrics` shows, whole, after a fixed set of requests.

Names, kinds, descriptions, labels and what is counted are an interface: dashboards and alerts are written
against them. The fixture holds every line, sorted; of what is measured, or depends on how steps fell, only
that it is there.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chorus_server.model.vocabulary import Vocabulary
from tests.places import FIXTURES
from tests.server.api.api_harness import ApiServer, Gate, artifact, eventually, gated_server

EXPECTED = FIXTURES / "metrics" / "asked.txt"
BINARY = {"content-type": "application/octet-stream"}
_COUNTED = re.compile(r"(\w+_total(?:\{.*\})?) (.+)")
_MEASURED = re.compile(r"(\w+(?:\{.*\})?) .+")


def lines(text: str) -> list[str]:
    """Of an exposition, sorted; counts with their number, everything else without."""
    found = []
    for line in text.splitlines():
        if "_created" in line:  # when a series was made
            continue
        if line.startswith("chorus_lora_requests_info{"):  # which tasks are still resident
            line = "chorus_lora_requests_info"
        kept = line.startswith("#") or _COUNTED.fullmatch(line)
        found.append(line if kept else _MEASURED.sub(r"\1", line))
    return sorted(found)


def ask(api: ApiServer) -> None:
    """One request of each kind, one after another, and some that are refused."""
    api.push("sst2", labels=["negative", "positive"])
    item = {"task": "sst2", "input": "a good film"}
    for path, body, status in (
        ("/v1/generate", {"requests": [item | {"max_new_tokens": 4}]}, 200),
        ("/v1/generate", {"requests": [item]}, 200),
        ("/v1/classify", item, 200),
        ("/v1/generate", {"requests": [{"task": "nobody", "input": "x"}]}, 404),
        ("/v1/generate", {"requests": []}, 400),
    ):
        answer = api.post(path, body)
        assert answer.status_code == status, answer.text
    for content in (b"no prompt at all", artifact(3, 1)[:-5]):
        refused = api.http.post("/v1/tasks/sst2/versions", content=content, headers=BINARY)
        assert refused.status_code == 400
    for name, status in (("train.tsv", 201), ("../x.tsv", 400)):
        sent = api.http.post("/v1/files", params={"name": name}, content=b"a\tb\n1\t2\n", headers=BINARY)
        assert sent.status_code == status
    assert api.http.get("/v1/tasks/sst2").status_code == 200
    assert api.http.get("/nothing/here").status_code == 404
    assert api.engine.wait_idle(300)


def test_every_line_after_a_fixed_set_of_requests(tmp_path: Path, vocabulary: Vocabulary) -> None:
    with ApiServer(tmp_path, vocabulary) as api:
        ask(api)
        # What the recorder's threads do each second.
        api.services.usage.save()
        api.services.usage.send()
        shown = lines(api.http.get("/metrics").text)
    assert shown == EXPECTED.read_text().splitlines()


def test_what_waits_and_what_is_resident_is_told(tmp_path: Path, vocabulary: Vocabulary) -> None:
    """Work units of what waits come back to 0, and names are capped; the control is that they were there."""
    gate = Gate()
    with gated_server(tmp_path, vocabulary, gate) as api:
        for number in range(70):
            api.push(f"task{number:02}", rows=1, seed=number)
        asked = [{"task": f"task{number:02}", "input": "good"} for number in range(70)]
        assert api.post("/v1/generate", {"requests": asked[:2], "max_new_tokens": 1}).status_code == 200
        stats = api.engine.stats()
        assert sorted(stats.resident_tasks) == ["default/task00", "default/task01"]
        assert (stats.queued_units, stats.waiting_tasks) == (0, ())
        gate.close()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(api.post, "/v1/generate", {"requests": asked, "max_new_tokens": 8})
            assert gate.waiting.wait(300)
            eventually(lambda: api.engine.stats().permits == len(asked))
            waits = api.engine.stats()
            gate.open.set()
            assert answer.result().status_code == 200
        # Each has a row, its text, </s> and at most 8 new tokens.
        assert waits.queued_units >= 10 * (len(asked) - waits.prefilling) > 0
        assert 40 < len(waits.waiting_tasks) <= 64
        assert api.engine.wait_idle(300)
        stats = api.engine.stats()
        assert (stats.queued_units, stats.waiting_tasks) == (0, ())
        assert 2 < len(stats.resident_tasks) <= 64
        assert api.post("/v1/generate", {"requests": asked[5:6], "max_new_tokens": 1}).status_code == 200
        assert api.engine.stats().resident_tasks[0] == "default/task05"
