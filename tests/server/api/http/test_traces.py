"""Spans of real requests, as a real collector gets them; and one that is away or slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chorus_server.api.http.traces import RequestTrace, Traces
from chorus_server.errors import InvalidInputError
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.settings import Settings, load_settings
from chorus_server.spans import _MAX_SPANS, Span
from tests.server.api.api_harness import ApiServer, counted, eventually
from tests.server.collector import Collector, attributes, collecting

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{PARENT}-01"
CANARY = "zzcanaryzz"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture
def patient_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """No span is lost because a busy machine's collector is slow."""
    monkeypatch.setattr("chorus_server.spans._TIMEOUT_SECONDS", 300.0)


@pytest.fixture
def traced(
    tmp_path: Path, vocabulary: Vocabulary, collector: Collector, patient_export: None
) -> Iterator[ApiServer]:
    with ApiServer(tmp_path, vocabulary, traces_url=collector.url) as server:
        server.push("sst2", labels=["yes", "no"])
        sent(server, collector, "POST /v1/tasks/{task}/versions")
        collector.bodies.clear()
        yield server


def sent(server: ApiServer, collector: Collector, name: str = "") -> list[Any]:
    """The spans that the collector has once this one is among them: it is made after the answer is read."""
    spans = server._app.spans
    assert spans is not None

    def there() -> bool:
        return spans.flush(300) and (not name or name in [span.name for span in collector.spans])

    eventually(there)
    return collector.spans


def ask(server: ApiServer, path: str, traceparent: str | None, **body: Any) -> None:
    headers = {} if traceparent is None else {"traceparent": traceparent}
    answer = server.http.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text


def test_a_generation_has_its_phases_below_the_callers_span(traced: ApiServer, collector: Collector) -> None:
    ask(traced, "/v1/generate", GIVEN, task="sst2", input=f"good {CANARY}", max_new_tokens=4)
    spans = {span.name: span for span in sent(traced, collector, "door")}
    assert list(spans) == ["queue", "prefill", "decode", "POST /v1/generate", "door"]
    top = spans.pop("POST /v1/generate")
    assert (top.trace_id.hex(), top.parent_span_id.hex(), top.kind) == (TRACE, PARENT, 2)
    asked = {"chorus.tenant": "default", "chorus.task": "default/sst2", "chorus.version": 1}
    found = attributes(top)
    assert found["http.route"] == "/v1/generate" and found["http.response.status_code"] == 200
    assert asked.items() <= found.items()
    for span in spans.values():
        assert (span.trace_id, span.parent_span_id) == (top.trace_id, top.span_id)
        assert top.start_time_unix_nano - 10**6 <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= top.end_time_unix_nano + 10**6
    assert spans["door"].start_time_unix_nano == top.start_time_unix_nano
    for before, after in (("queue", "prefill"), ("prefill", "decode")):
        assert spans[before].end_time_unix_nano == spans[after].start_time_unix_nano
        assert asked.items() <= attributes(spans[after]).items()
    spent = attributes(spans["decode"])
    assert spent["chorus.tokens_in"] > 3 and 1 <= spent["chorus.tokens_out"] <= 4
    assert len({span.span_id for span in (top, *spans.values())}) == 5
    assert collector.services == {"chorus"}
    assert not any(CANARY.encode() in body for body in collector.bodies)
    assert any(b"default/sst2" in body for body in collector.bodies)  # the control


def test_a_classification_is_scored(traced: ApiServer, collector: Collector) -> None:
    ask(traced, "/v1/classify", None, task="sst2", inputs=["good", "bad"])
    names = [span.name for span in sent(traced, collector, "door")]
    assert sorted(names) == ["POST /v1/classify", "door", "queue", "queue", "score", "score"]
    (top,) = [span for span in collector.spans if span.name == "POST /v1/classify"]
    assert not top.parent_span_id and top.trace_id.hex() != TRACE
    assert {attributes(span)["chorus.item"] for span in collector.spans if span.name == "score"} == {0, 1}


def test_probes_and_what_a_caller_does_not_record_have_none(traced: ApiServer, collector: Collector) -> None:
    """The control is the request after them."""
    for path in ("/healthz", "/readyz", "/metrics"):
        assert traced.http.get(path, headers={"traceparent": GIVEN}).status_code == 200
    ask(traced, "/v1/generate", GIVEN[:-1] + "0", task="sst2", input="good", max_new_tokens=4)
    assert not sent(traced, collector)
    assert traced.http.get("/v1/model", headers={"traceparent": GIVEN}).status_code == 200
    assert [span.name for span in sent(traced, collector, "GET /v1/model")] == ["GET /v1/model"]


MALFORMED = (
    "",
    "x",
    GIVEN.upper(),
    GIVEN[:-1],
    GIVEN + "0",
    GIVEN + "-x",
    f"ff-{TRACE}-{PARENT}-01",
    f"00-{'0' * 32}-{PARENT}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE[:-1]}g-{PARENT}-01",
    f" {GIVEN}",
    GIVEN.replace("-", "_"),
    f"00-{TRACE}-{PARENT}",
)


@pytest.mark.parametrize("given", [[], [GIVEN, GIVEN], *([each] for each in MALFORMED)])
def test_a_malformed_traceparent_is_ignored(given: list[str]) -> None:
    kept: list[Span] = []
    made = Traces(kept.append).begin(given)
    assert made is not None and not made.parent_id and made.trace_id not in ("0" * 32, TRACE)
    assert Traces(kept.append, share=0.0).begin(given) is None


@pytest.mark.parametrize("given", [GIVEN, f"00-{TRACE}-{PARENT}-03", f"cc-{TRACE}-{PARENT}-01-later"])
def test_a_good_one_is_taken_over(given: str) -> None:
    """The control of the test above: whatever the share is."""
    made = Traces(lambda span: None, share=0.0).begin([given])
    assert isinstance(made, RequestTrace) and (made.trace_id, made.parent_id) == (TRACE, PARENT)
    assert made.traceparent == f"00-{TRACE}-{made.span_id}-01"


@pytest.mark.usefixtures("patient_export")
@pytest.mark.parametrize("away", [True, False], ids=["away", "there, the control"])
def test_a_collector_that_is_away_changes_nothing(
    tmp_path: Path, vocabulary: Vocabulary, collector: Collector, away: bool, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400 if away else 200
    with ApiServer(tmp_path, vocabulary, traces_url=collector.url) as server:
        server.push("sst2")
        for _ in range(20):
            ask(server, "/v1/generate", GIVEN, task="sst2", input="good", max_new_tokens=4)
        spans = server._app.spans
        assert spans is not None and spans.flush(300)
        lost, told = counted(server, "chorus_spans_lost_total"), "does not take them" in caplog.text
        assert (lost > 0, told) == (away, away)
        assert counted(server, "chorus_requests_total", kind="generate", outcome="ok") == 20


def test_one_that_nobody_listens_at_or_that_hangs_changes_nothing(
    tmp_path: Path, vocabulary: Vocabulary, collector: Collector
) -> None:
    """Answers come while spans wait; beyond a bound they are dropped and counted; the end waits a moment."""
    collector.taking.clear()
    for number, url in enumerate((collector.url, "http://127.0.0.1:9/v1/traces")):
        with ApiServer(tmp_path / str(number), vocabulary, traces_url=url) as server:
            spans = server._app.spans
            assert spans is not None
            ask(server, "/v1/generate", GIVEN, task=None, input="good", max_new_tokens=4)
            eventually(lambda waiting=spans: len(waiting._outbox) < 5)  # type: ignore[misc]

            def dropped(server: ApiServer = server, put: Callable[[Span], None] = spans.put) -> bool:
                for _ in range(_MAX_SPANS + 10):  # once more, if the exporter has taken some meanwhile
                    put(Span("x", TRACE, PARENT, "", 0, 1, {}))
                return counted(server, "chorus_spans_lost_total") >= 1

            eventually(dropped)
            ask(server, "/v1/generate", GIVEN, task=None, input="good", max_new_tokens=4)


def test_without_the_setting_nothing_is_made(tmp_path: Path, vocabulary: Vocabulary) -> None:
    with ApiServer(tmp_path, vocabulary) as server:
        ask(server, "/v1/generate", GIVEN, task=None, input="good", max_new_tokens=4)
        assert server._app.spans is None
        assert counted(server, "chorus_requests_total", kind="generate", outcome="ok") == 1


def test_the_settings_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("collector:4318", "http://user:canary@host/", "http://ho st/"):
        with pytest.raises(InvalidInputError, match="traces_url") as caught:
            load_settings({"model": "embedded", "traces_url": wrong})
        assert "canary" not in str(caught.value)
    assert Settings(model="embedded").traces_url is None
