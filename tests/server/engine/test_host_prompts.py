"""The host tier: a byte budget that never drops what somebody waits for, and values checked on the way in."""

from __future__ import annotations

import numpy as np
import pytest

from chorus_server.engine.fake_executor import TINY_LADDER
from chorus_server.engine.handle import RequestHandle
from chorus_server.engine.host_prompts import HostPromptTier, to_compute_dtype
from chorus_server.engine.requests import PromptHandle
from chorus_server.engine.scheduler.fitting import Fitter
from chorus_server.engine.scheduler.loading import Loading
from chorus_server.engine.scheduler.tickets import Ticket
from chorus_server.errors import InternalError, InvalidInputError
from tests.server.engine.engine_tools import generate

ROWS = np.ones((2, 4), np.float32)


def test_the_least_recently_used_goes_first_and_the_held_stay() -> None:
    tier = HostPromptTier(budget_bytes=3 * ROWS.nbytes)
    for name in "abc":
        tier.put(name, ROWS)
    tier.values("a")
    tier.hold("b")
    tier.put("d", ROWS)
    assert ["a" in tier, "b" in tier, "c" in tier, "d" in tier] == [True, True, False, True]
    assert tier.size_bytes == 3 * ROWS.nbytes and tier.held_bytes == ROWS.nbytes
    tier.release("b")
    assert tier.held_bytes == 0


def test_held_prompts_may_exceed_the_budget_until_released() -> None:
    tier = HostPromptTier(budget_bytes=0)
    for name in "ab":
        tier.hold(name)
        tier.put(name, ROWS)
    assert tier.size_bytes == tier.held_bytes == 2 * ROWS.nbytes
    for name in "ab":
        tier.release(name)
    assert tier.size_bytes == tier.held_bytes == len(tier) == 0


def test_an_absent_prompt_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        HostPromptTier(100).values("nothing")


def test_values_are_cast_once_and_cannot_be_changed() -> None:
    tier = HostPromptTier(100, "bfloat16")
    cast = to_compute_dtype(PromptHandle("p", 2), ROWS * 750.3, tier.dtype)
    assert cast.dtype == tier.dtype and cast.nbytes == ROWS.nbytes // 2
    with pytest.raises(ValueError, match="read-only"):
        cast[0, 0] = 1


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.4e38])
def test_what_is_not_finite_after_the_cast_is_refused(value: float) -> None:
    values = ROWS.copy()
    values[1, 2] = value
    with pytest.raises(InvalidInputError) as refused:
        to_compute_dtype(PromptHandle("p", 2), values, HostPromptTier(0, "bfloat16").dtype)
    assert refused.value.code == "prompt_not_finite"


@pytest.mark.parametrize("shape", [(3, 4), (2,), (1, 2, 4)])
def test_another_shape_than_promised_is_a_defect(shape: tuple[int, ...]) -> None:
    with pytest.raises(InternalError, match="expected 2 rows"):
        to_compute_dtype(PromptHandle("p", 2), np.ones(shape, np.float32), np.dtype(np.float32))


def test_what_a_ticket_holds_itself_never_keeps_it_from_loading() -> None:
    """Its other prompt was evicted while it waited; the one it holds fills a tier without a budget."""
    host = HostPromptTier(0)
    fetched: list[str] = []
    fitter = Fitter(TINY_LADDER, 1000, 40)
    request = generate(PromptHandle("here", 2), PromptHandle("evicted", 3), (4, 1))
    ticket = Ticket(request, fitter.fit(request), RequestHandle("r", lambda error: None), 0, 0.0, None)
    host.hold("here")
    ticket.holds.append("here")
    host.put("here", np.zeros((2, 3), np.float32))
    ready: list[Ticket] = []
    loading = Loading(host, lambda prompt: fetched.append(prompt.digest), 2, ready.append)
    loading.begin(ticket)
    assert set(fetched) == {"here", "evicted"}
    for digest in tuple(fetched):
        loading.loaded(digest, np.zeros((2, 3), np.float32))
    assert ready == [ticket] and sorted(ticket.holds) == ["evicted", "here"]
