"""What the client makes is made once, though the answer is lost on its way and the client asks again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from chorus import AsyncClient, Client
from tests.clients.lossy import lossy
from tests.server.api.api_harness import ApiServer

ROWS = b"text\tlabel\ngood\tyes\nbad\tno\n"


def push(client: Client, place: str) -> object:
    return client.files.push(ROWS, name=f"{place}.tsv")


def start(client: Client, place: str) -> object:
    recipe = {"prompt_length": 3, "steps": 4}
    return client.tuning.start(place, train=client.files.list()[0], labels=["no", "yes"], recipe=recipe)


def evaluate(client: Client, place: str) -> object:
    return client.evaluations.start("asked@1", client.files.list()[0], seed=len(place))


def calibrate(client: Client, place: str) -> object:
    return client.tasks.calibrate("asked@1", client.files.list()[0])


def count(api: ApiServer) -> int:
    jobs = sum(
        len(api.store.list_jobs("default", kind, limit=500).items)
        for kind in ("tuning", "evaluation", "calibration")
    )
    return len(api.store.list_files("default", limit=500).items) + jobs


@pytest.fixture
def asked(api: ApiServer) -> ApiServer:
    api.push("asked", labels=["no", "yes"], template="{text}")
    with Client(api.url) as client:
        client.files.push(ROWS, name="first.tsv")
    return api


@pytest.mark.parametrize("keys", [True, False], ids=["keyed", "control"])
@pytest.mark.parametrize("make", [push, start, evaluate, calibrate])
def test_a_lost_answer_makes_nothing_twice(
    asked: ApiServer, make: Callable[[Client, str], object], keys: bool
) -> None:
    before = count(asked)
    with lossy(asked, keys=keys) as way, Client(way.url, sleep=lambda seconds: None) as client:
        make(client, f"{make.__name__}-{keys}".lower())
        assert way.lost == 1 and way.posted == 2
    assert count(asked) == before + (1 if keys else 2)


def test_nor_does_the_awaiting_client(asked: ApiServer) -> None:
    async def pushed(url: str) -> str:
        async with AsyncClient(url) as client:
            return (await client.files.push(ROWS, name="awaited.tsv")).id

    before = count(asked)
    with lossy(asked) as way:
        made = asyncio.run(pushed(way.url))
    assert (way.lost, count(asked)) == (1, before + 1)
    assert asked.store.list_files("default").items[0].id == made


def test_two_calls_make_two_things(asked: ApiServer) -> None:
    before = count(asked)
    with Client(asked.url) as client:
        assert client.files.push(ROWS, name="a.tsv").id != client.files.push(ROWS, name="a.tsv").id
    assert count(asked) == before + 2
