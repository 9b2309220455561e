"""Whoever lost a job publishes nothing of it and moves no name, however late it wakes up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from prompts_store import PromptStore
from prompts_store.errors import LeaseLostError
from prompts_store.jobs.records import Lease
from prompts_store.records import EnsembleMember
from prompts_store.testing import FakeClock, example_prompt

Act = Callable[[PromptStore, Lease | None], object]


def _publish(store: PromptStore, lease: Lease | None) -> object:
    values, manifest = example_prompt(seed=3)
    return store.publish("acme", "sst2", values, manifest, lease=lease)


def _promote(store: PromptStore, lease: Lease | None) -> object:
    return store.set_alias("acme", "sst2", "live", 2, lease=lease)


def _vote(store: PromptStore, lease: Lease | None) -> object:
    members = [EnsembleMember("acme", "sst2", number) for number in (1, 2)]
    return store.publish_ensemble("acme", "five", members, lease=lease)


@pytest.mark.parametrize("act", [_publish, _promote, _vote])
def test_a_lost_lease_publishes_and_promotes_nothing(store: PromptStore, clock: FakeClock, act: Act) -> None:
    for seed in (1, 2):
        store.publish("acme", "sst2", *example_prompt(seed=seed))
    store.create_job("acme", "tuning", {"base_fingerprint": "base"})
    late = store.claim_job("tuning", "late", 10, "base")
    assert late is not None
    clock.advance(60)
    prompt = store.claim_job("tuning", "prompt", 10, "base")
    assert prompt is not None
    with pytest.raises(LeaseLostError):
        act(store, late[1])
    assert store.aliases("acme", "sst2") == {"live": 1}
    assert len(store.list_versions("acme", "sst2").items) == 2 and not store.list_ensembles("acme").items
    # The controls: without a lease nothing is asked, and whoever has it may.
    act(store, prompt[1])
    act(store, None)
    state = (
        store.aliases("acme", "sst2"),
        len(store.list_versions("acme", "sst2").items),
        len(store.list_ensembles("acme").items),
    )
    assert (
        state
        == {_publish: ({"live": 1}, 3, 0), _promote: ({"live": 2}, 2, 0), _vote: ({"live": 1}, 2, 1)}[act]
    )
