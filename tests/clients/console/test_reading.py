"""What pages compute by themselves: files of examples, templates, rows of prompts, metrics."""

from __future__ import annotations

import array
import asyncio
import hashlib
import json
import math
import re
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, get_args

import httpx2
import pytest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from chorus import AsyncClient
from chorus.cli.job_view import JobView
from chorus.types import AuditRow, Job, Tick
from chorus_console import data, limits_form, rows
from chorus_console.door import Visit, own_path
from chorus_console.templates_of import fields_of, filled
from chorus_console.trials import trials_of
from chorus_console.views import interpreting, operations, tuning
from chorus_console.views.interpreting import cosine, drawn, likeness, moves, read_rows
from chorus_console.views.jobs import risk
from chorus_console.views.tenants import checked
from prompts_store.tenants.limits import KeyLimits, TenantLimits
from tests.clients.fake_chorus import FakeChorus, tick
from tests.clients.fake_tuning import happened


def test_a_file_is_looked_at_as_a_whole() -> None:
    found = data.look(b"the text,label\na,yes\nb,no\nc,yes\n", "x.csv")
    assert (found.columns, found.rows, found.problems) == (["the text", "label"], 3, [])
    assert (found.target, found.answers, found.template) == ("label", ["no", "yes"], "{the_text}")


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        (b"a,label\nx,y\nx\n", "x.csv", "Row 2 has 1 columns"),
        (b"a,a\nx,y\n", "x.csv", "The first line names the columns, each once."),
        (b"label\ny\n", "x.csv", "There is one column"),
        (b"", "x.csv", "The file has no rows."),
        (b'a,label\n"x,y\n', "x.csv", "Line 2 cannot be read"),
        (b"a\tlabel\nx\ty\nz\t\n", "x.tsv", "Row 2: label is empty."),
        (b'{"a": 1, "label": "y"}\n[]\n', "x.jsonl", "Row 2 is no JSON object"),
        (b'{"a": 1, "label": "y"}\n{"a": 2}\n', "x.jsonl", "Row 2 has no label."),
    ],
)
def test_what_is_wrong_with_a_file_names_the_row(content: bytes, name: str, problem: str) -> None:
    (said, *_) = data.look(content, name).problems
    assert said.startswith(problem)


@pytest.mark.parametrize(("content", "name"), [(b"a\xff", "x.csv"), (b"a", "x.xlsx")])
def test_what_is_no_table_is_refused(content: bytes, name: str) -> None:
    with pytest.raises(HTTPException):
        data.look(content, name)


@pytest.mark.parametrize(
    ("column", "field"), [("text", "text"), ("the text", "the_text"), ("1st", "column_1st")]
)
def test_a_column_has_a_field(column: str, field: str) -> None:
    assert data.field_name(column) == field and fields_of(f"{{{field}}}") == [field]


def test_pasted_rows_are_recognised() -> None:
    assert rows.read(b"one\ntwo\n", "") == ["one", "two"]
    assert rows.read(b'{"a": "x", "b": 2}\n', "") == [{"a": "x", "b": "2"}]
    assert rows.read(b"a\tb\nx\ty\n", "") == [{"a": "x", "b": "y"}]
    with pytest.raises(HTTPException, match="Line 3"):
        rows.read(b"a,b\nx,y\nx\n", "t.csv")


def test_a_template_is_filled_as_the_server_fills_it() -> None:
    template = "{{a}} {a} {b} {a.b} {"
    assert fields_of(template) == ["a", "b"]
    assert filled(template, {"a": "1"}, 100) == "{a} 1 {b} {a.b} {"


def test_a_filled_template_is_made_no_longer_than_wanted() -> None:
    """A product of occurrences and lengths is what somebody could fill the memory with."""

    class Long(dict[str, str]):
        asked = 0

        def get(self, name: str, default: Any = None) -> Any:
            self.asked += 1
            return "x" * 1_000_000

    values = Long()
    assert filled("{a}" * 100_000, values, 400) == "x" * 400 and values.asked == 1
    for most in range(9):
        assert filled("ab{a}c{{", {"a": "12"}, most) == "ab12c{"[:most]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"," * 201 + b"\n", "x.csv"),
        (b"\t" * 300_000, "x.tsv"),
        (json.dumps(dict.fromkeys(map(str, range(201)), "")).encode(), "x.jsonl"),
        (b"a" * 65 + b",label\nx,y\n", "x.csv"),
    ],
)
def test_a_file_that_no_page_can_show_is_refused(content: bytes, name: str) -> None:
    with pytest.raises(HTTPException, match="columns"):
        data.look(content, name)


def test_what_a_page_sends_back_for_previews_is_short() -> None:
    found = data.look(b"text,label\n" + (b"x" * 100_000 + b",y\n") * 9, "x.csv")
    assert found.rows == 9 and len(json.dumps(found.sample)) < 40_000
    assert data.look(b"text,label\nx,y\nz,w\n", "x.csv").sample == [
        {"text": "x", "label": "y"}, {"text": "z", "label": "w"}
    ]  # fmt: skip


def test_a_large_file_is_looked_at_in_little_memory() -> None:
    content = b"a,label\n" + b"1,2\n" * 200_000
    tracemalloc.start()
    assert data.look(content, "x.csv").rows == 200_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * len(content)


@pytest.mark.parametrize("name", ["", "x.txt", "x.csv", "x.jsonl"])
def test_no_more_rows_are_read_than_are_answered(name: str) -> None:
    line = {"x.jsonl": b'{"a": 1}\n', "x.csv": b"a,b\n"}.get(name, b"one text\n")
    assert len(rows.read(line * 200, name)) in (199, 200)
    with pytest.raises(HTTPException, match="200 rows"):
        rows.read(line * 202, name)
    tracemalloc.start()
    with pytest.raises(HTTPException, match="200 rows"):
        rows.read((content := line * (1_000_000 // len(line))), name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * len(content)
    with pytest.raises(HTTPException, match="1 MiB"):
        rows.read(b"x" * (1 << 21), name)


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_a_line_that_no_parser_follows_is_no_object(deep: str) -> None:
    assert rows.texts_of(deep) is None


def test_rows_of_a_prompt_and_how_alike_they_are() -> None:
    values = array.array("f", [3, 4, 4, 3, 0, 0])
    header = json.dumps({"prompt": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}}).encode()
    found = read_rows(struct.pack("<Q", len(header)) + header + values.tobytes())
    assert [list(row) for row in found] == [[3, 4], [4, 3], [0, 0]]
    assert math.isclose(cosine(found[0], found[1]), 0.96) and cosine(found[0], found[2]) == 0.0
    alike = likeness(found)
    assert alike[0][1] == alike[1][0] and alike[0][0] == 1.0


def test_rows_move_between_prompts_of_one_width_only() -> None:
    here, there = ([array.array("f", row)] for row in ([3, 4], [4, 3]))
    ((angle, distance),) = moves(here, there)
    assert math.isclose(angle, 0.96) and math.isclose(distance, math.sqrt(2))
    with pytest.raises(HTTPException, match="2 numbers, those of the other version 3"):
        moves(here, [array.array("f", [1, 2, 3])])


def test_an_hour_is_drawn_in_few_points() -> None:
    """The sums of what is drawn are those of the ticks, and a whole hour is a small part of a page."""
    hour = [Tick.model_validate(tick(number)) for number in range(360)]
    drawn = {curve["title"]: curve for curve in operations.curves(hour)}
    requests = drawn["Requests a minute"]
    assert requests["x"][0] == -59.3 and requests["x"][-1] == 0 and len(requests["x"]) == 90
    answered = requests["lines"][0]["values"]
    assert sum(answered) * 40 / 60 == pytest.approx(sum(range(360)), rel=0.01)
    assert drawn["Work units that wait"]["lines"][0]["values"][-1] == 3260
    assert drawn["Latency in ms"]["lines"][1]["values"][0] == 700
    assert len(json.dumps(list(drawn.values()))) < 10_000
    few = operations.curves(hour[:2])
    assert [curve["x"] for curve in few] == [[-0.2, 0]] * len(few)
    assert few[1]["lines"][0]["values"] == [None, 200]
    assert operations.curves([]) == []


@pytest.mark.parametrize(
    "text", ["", "//x", "//[", "http://x", "/v1", "/consolex/../..", "javascript:x", "/\\x"]
)
def test_other_places_are_not_gone_to(text: str) -> None:
    assert own_path(text) == "/console"


def test_control_a_page_of_the_console_is() -> None:
    assert own_path("/console/tasks?prefix=a") == "/console/tasks?prefix=a"


def test_a_picture_of_any_prompt_is_small_and_right() -> None:
    """Every row points elsewhere, which is the worst: no square is like the one beside it."""
    rows = [array.array("f", [math.cos(i * i), math.sin(i * i)]) for i in range(48)]
    alike = likeness(rows)
    size, shades = drawn(rows)
    assert size == 48 and sum(len(path) for _, path in shades) < 45_000
    seen = [[0.0] * 48 for _ in rows]
    for opacity, path in shades:
        for x, y, wide in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path):
            seen[int(y)][int(x) : int(x) + int(wide)] = [opacity] * int(wide)
    for y, line in enumerate(alike):
        assert seen[y] == pytest.approx([max(0.0, value) for value in line], abs=0.026)


def audit_rows(count: int) -> list[AuditRow]:
    """A log that is one chain."""
    found: list[AuditRow] = []
    for number in range(1, count + 1):
        facts = {
            "tenant": "acme", "sequence": number,
            "at": f"2026-01-01T00:00:{number:02d}.000000Z", "actor": "ann",
            "address": "", "request_id": "", "action": "key.make", "subject": str(number), "before": None,
            "after": None, "previous": found[-1].hash if found else "0" * 64,
        }  # fmt: skip
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        found.append(AuditRow.model_validate(facts | {"hash": hashlib.sha256(text.encode()).hexdigest()}))
    return found


def test_a_page_of_the_log_is_checked_against_the_one_before() -> None:
    """A log whose first rows were replaced, each with its right hash, is no chain where the pages meet."""
    rows = audit_rows(6)
    before, shown, problems = checked(rows[2:], 3)
    assert (before, shown, problems) == (rows[2], rows[3:], [])
    others = [*audit_rows(6)[:2], rows[2].model_copy(update={"hash": "1" * 64})]
    assert checked([*others[2:], *rows[3:]], 3)[2] == ["row 4 names another hash than row 3 has"]
    assert checked(rows, None)[:2] == (None, rows)
    assert checked(rows[4:], 3)[1] == rows[4:]  # row 3 is no longer kept


def step(number: int) -> dict[str, Any]:
    return happened(number, "step", {"step": number, "steps": 9999, "losses": [1.0]})


def test_a_job_that_is_looked_at_again_sends_only_what_is_new(fake: FakeChorus) -> None:
    with ThreadPoolExecutor() as pool:  # Playwright keeps a loop in the thread of the tests
        pool.submit(lambda: asyncio.run(looked_at_again(fake))).result()


async def looked_at_again(fake: FakeChorus) -> None:
    fake.tuning.script = [step(number) for number in range(2, 1203)]
    async with AsyncClient(transport=httpx2.MockTransport(fake)) as client:
        job = await client.tuning.start("t", train={"path": "/a"})
        request = SimpleNamespace(path_params={"job": job.id})
        visit: Any = SimpleNamespace(client=client, request=request)
        first = (await tuning._followed(visit))[1]
        assert first.step == 1202
        fake.tuning.events[job.id].append(step(1203))
        fake.seen.clear()
        found = await asyncio.gather(*(tuning._followed(visit) for _ in range(3)))
        assert [view.step for _, view in found] == [1203] * 3 and len(first.losses) == 1202
        asked = [r.url.params["after"] for r in fake.seen if "after" in r.url.params]
        assert asked == ["1202", "1203", "1203"]


def test_a_file_of_mistakes_that_was_deleted_is_told_in_its_place(fake: FakeChorus) -> None:
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(lambda: asyncio.run(mistakes_after_the_file(fake))).result()
    assert answer.status_code == 200 and b"was deleted" in answer.body and b"<h2>" not in answer.body


async def mistakes_after_the_file(fake: FakeChorus) -> Response:
    async with AsyncClient(transport=httpx2.MockTransport(fake)) as client:
        job = await client.tuning.start("t", train={"path": "/a"})
        fake.tuning.jobs[job.id]["result"] = {"mistakes": "file-" + "0" * 24}
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"",
                 "headers": [(b"hx-request", b"true")], "path_params": {"job": job.id}}  # fmt: skip
        nobody: Any = None
        return await tuning.mistakes(Visit(Request(scope), lambda *given: client, nobody, nobody))


def test_every_curve_is_thinned() -> None:
    view = JobView()
    for number in range(1, 5001):
        view.losses.append((number, 1.0))
        view.prompt(0).curve.append((number, 0.5))
        view.prompt(1).curve.append((number, 0.6))
    for curve in tuning.curves(view):
        assert len(curve["x"]) <= 400 and curve["x"][-1] == 5000
        assert all(len(line["values"]) == len(curve["x"]) for line in curve["lines"])


def paths_of(model: type[BaseModel], before: str = "") -> set[str]:
    """The path of each number of a model."""
    found: set[str] = set()
    for name, declared in model.model_fields.items():
        kinds = [each for each in get_args(declared.annotation) if isinstance(each, type)]
        inner = next((each for each in kinds if issubclass(each, BaseModel)), None)
        found |= paths_of(inner, f"{before}{name}.") if inner else {before + name}
    return found


@pytest.mark.parametrize(("model", "of_tenant"), [(TenantLimits, True), (KeyLimits, False)])
def test_the_form_has_a_field_for_every_limit_that_there_is(model: type[BaseModel], of_tenant: bool) -> None:
    fields = {path for _, row in limits_form.grid(of_tenant) for _, path in row if path}
    fields |= {f"stored.{name}" for name in limits_form.STORED} if of_tenant else set()
    assert fields == paths_of(model) and len(fields) > 10


def test_limits_go_through_the_form_and_come_back() -> None:
    limits = {"per_minute": {"requests": 0}, "per_month": {"tokens": {"soft": 5, "hard": 1_000_000}}}
    values = limits_form.values_of(limits)
    assert limits_form.document(values) == limits and limits_form.document({}) == {}
    sent = [(f"limit.{path}", f" {int(value):,} ") for path, value in values.items()]
    assert limits_form.given([*sent, ("limit.stored.prompts", " "), ("name", "x")]) == values
    for wrong in ("-1", "1.5", "many", "\u0661", "9" * 17, str(2**53 + 1)):
        with pytest.raises(HTTPException, match="whole number"):
            limits_form.document({"per_minute.requests": wrong})


def test_rows_are_read_from_one_on() -> None:
    values = array.array("f", range(120))
    header = json.dumps({"prompt": {"dtype": "F32", "shape": [60, 2], "data_offsets": [0, 480]}}).encode()
    file = struct.pack("<Q", len(header)) + header + values.tobytes()
    assert len(read_rows(file)) == 48 and list(read_rows(file)[47]) == [94, 95]
    assert [list(row) for row in read_rows(file, 58)] == [[116, 117], [118, 119]]
    assert read_rows(file, 96) == [] and drawn([]) == (0, []) and moves([], read_rows(file)) == []


def test_every_prompt_of_an_ensemble_has_a_curve_and_of_many_the_best() -> None:
    view = JobView()
    for place in range(200):
        prompt = view.prompt(place)
        prompt.curve = [(step, place / 200) for step in range(1, 1001)]
        prompt.best = (place / 200, 1)
    names = [f"prompt {place}" for place in range(200)]
    (curve,) = tuning.curves(view, names)
    assert [line["name"] for line in curve["lines"]] == names[-64:]
    assert len(curve["x"]) * 64 <= 16 * 400 and curve["x"][-1] == 1000
    assert len(json.dumps(curve)) < 70_000  # of the 150 kB of a page


def search(**result: Any) -> Job:
    now = datetime.now(UTC)
    knobs = [{"learning_rate": 0.1}, {"learning_rate": 0.3}, {"learning_rate": 1.0}]
    spec = {"prompts": [{}], "seeds": 2, "sweep": {"trials": knobs}}
    return Job(id="job-1", status="running", created_at=now, spec=spec, result=result)


def test_trials_of_a_search_that_runs_are_those_of_its_prompts_and_of_the_rungs_that_are_over() -> None:
    view = JobView()
    for place, best in ((0, 0.5), (1, 0.7), (2, 0.9)):
        prompt = view.prompt(place)
        prompt.curve, prompt.best = [(10, best)], (best, 10)
    told = {"steps": 20, "metric": {"mean": 0.95, "deviation": 0.01, "count": 2}, "seeds": []}
    view.trials[2] = {"trial": 2, "recipe": {"learning_rate": 1.0}, "kept": False, **told}
    found = trials_of(search(), view)
    assert [(each.number, each.steps, each.ended) for each in found] == [
        (1, 10, ""), (0, 10, ""), (2, 20, "left behind"),
    ]  # fmt: skip
    first, second = (each.metric for each in found[:2])
    assert first == {"mean": 0.9, "deviation": None, "count": 1}
    assert second is not None
    assert (second["mean"], second["deviation"]) == (pytest.approx(0.6), pytest.approx(0.02**0.5))


def test_trials_of_a_search_that_is_over_are_its_results() -> None:
    spread = {"mean": 0.5, "deviation": None, "count": 1}
    one = {"trial": 1, "recipe": {"learning_rate": 0.3}, "steps": 30, "metric": spread}
    (found,) = trials_of(search(trials=[one | {"metrics": {"test_mean": spread}, "seeds": []}]), JobView())
    assert (found.number, found.metric, found.test) == (1, spread, spread)
    alone = search().model_copy(update={"spec": {"prompts": [{}]}})
    assert trials_of(alone, JobView()) == []


def test_a_file_without_answers_is_looked_at_too() -> None:
    assert data.look(b"text\na\nb\n", "x.csv").problems
    found = data.look(b"text\na\nb\n", "x.csv", answered=False)
    assert (found.rows, found.problems, found.target) == (2, [], "")


def test_the_surest_rows_come_first_in_risk_against_coverage() -> None:
    bins = [{"rows": 6, "confidence": 0.6, "accuracy": 0.5}, {"rows": 4, "confidence": 0.9, "accuracy": 1.0}]
    assert risk(bins) == [(0.4, 0.0), (1.0, 0.3)] and risk([]) == []


def test_the_neighbors_of_another_tenants_prompt_are_asked_of_that_tenant() -> None:
    assert interpreting._same("elm/films@2").curl.splitlines()[0] == (
        'curl -s "$CHORUS_URL/v1/tasks/films/versions/2/neighbors?top_k=5&tenant=elm" \\'
    )
