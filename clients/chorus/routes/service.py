"""The server itself: its model, its state, its metrics, and how it sees the caller."""

from __future__ import annotations

from chorus.methods import Method
from chorus.types import Health, Me, ModelInfo, Operations, Readiness, StoreCheck
from chorus.wire import Answer, Call, Request, model_of, query_of


def model() -> Call[ModelInfo]:
    """The base model that answers."""
    return Call(Request("GET", "/v1/model", repeatable=True), model_of(ModelInfo))


def health() -> Call[Health]:
    """Whether the process is alive. A server whose engine died answers with an error."""
    return Call(Request("GET", "/healthz", repeatable=True), model_of(Health))


def ready() -> Call[Readiness]:
    """Whether the server takes requests. A server that compiles or drains says so; that is not an error."""
    request = Request("GET", "/readyz", repeatable=True, also_answers=frozenset({503}))
    return Call(request, model_of(Readiness))


def me() -> Call[Me]:
    """Who asks: the tenant, the key, its scopes and the limits of a request."""
    return Call(Request("GET", "/v1/me", repeatable=True), model_of(Me))


def metrics(*, scrape_token: str | None = None) -> Call[str]:
    """The metrics as Prometheus text.

    Args:
        scrape_token: sent in place of the client's key, if the server has a token for `/metrics`.
    """
    return Call(Request("GET", "/metrics", repeatable=True, token=scrape_token), _text)


def operations(*, minutes: int = 60) -> Call[Operations]:
    """What the process that answers does now, and did in the last hour.

    Args:
        minutes: how much of the hour; 0 for none of it.
    """
    request = Request("GET", "/v1/operations", query_of(minutes=minutes), repeatable=True)
    return Call(request, model_of(Operations))


def check_store() -> Call[StoreCheck]:
    """Begin to read the whole store back, in the process that answers; `operations().store.check` of the same
    one says what came of it. For operators."""
    return Call(Request("POST", "/v1/store/check", repeatable=True), model_of(StoreCheck))


def _text(answer: Answer) -> str:
    return answer.content.decode("utf-8", errors="replace")


class ServiceMethods:
    """The methods of the client itself that ask about the server, and about the caller."""

    model = Method(model)
    me = Method(me)
    health = Method(health)
    ready = Method(ready)
    metrics = Method(metrics)
    operations = Method(operations)
    check_store = Method(check_store)
