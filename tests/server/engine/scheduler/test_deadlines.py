"""Deadlines: who is out of time, and that nothing of an answered request stays."""

from __future__ import annotations

import random

from chorus_server.engine.scheduler.deadlines import Deadlines
from chorus_server.engine.scheduler.tickets import Ticket
from tests.server.engine.engine_tools import generate
from tests.server.engine.virtual_time import Simulation


def test_an_answered_request_is_forgotten_long_before_its_deadline() -> None:
    sim = Simulation()
    sim.run([(number / 100, generate((3, 1), deadline_seconds=60.0)) for number in range(100)], until=10.0)
    assert len(sim.served) == 100
    assert _watched(sim.deadlines) == []
    assert sim.deadlines.next() is None


def test_a_cancelled_request_is_forgotten_too() -> None:
    sim = Simulation()
    ticket = sim.submit(generate((3, 1), deadline_seconds=60.0))
    assert _watched(sim.deadlines) == [ticket]
    sim.give_up(ticket)
    assert _watched(sim.deadlines) == []


def test_numbers_of_answered_requests_do_not_pile_up() -> None:
    """Whatever is answered first: as many tickets stay as are watched, and not many more numbers."""
    chance = random.Random(7)
    sim = Simulation()
    deadlines, watched = sim.deadlines, []
    for _ in range(2_000):
        # An engine that never plans: only cancelling settles a request.
        watched.append(sim.submit(generate((3, 1), deadline_seconds=chance.uniform(1, 100))))
        if len(watched) > 40:
            sim.give_up(watched.pop(chance.randrange(40)))
        assert len(_watched(deadlines)) == len(watched)
        assert len(deadlines._heap) <= 2 * len(watched) + 257
    assert deadlines.next() == min(ticket.deadline for ticket in watched)
    late = [ticket for ticket in watched if ticket.deadline <= 50.0 + sim.clock()]
    assert set(deadlines.expired(50.0 + sim.clock())) == set(late)
    assert deadlines.expired(50.0 + sim.clock()) == []


def _watched(deadlines: Deadlines) -> list[Ticket]:
    return list(deadlines._tickets.values())
