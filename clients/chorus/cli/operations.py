"""`chorus operations`: what a server does now, and how the last hour went."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from chorus.cli.output import print_facts, print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.types import Operations, StoreCheck, Tick

_STEP = 30
"""Ticks in a line of the table: five minutes."""


@click.command()
@click.option(
    "--minutes",
    type=click.IntRange(0, 60),
    default=60,
    show_default=True,
    help="How much of the last hour to show; 0 for none.",
)
@with_session
def operations(session: Session, minutes: int) -> None:
    """Show what the server does now: batch, queue, jobs, memory, store. Also how the last hour went. It needs
    the scope metrics:read; operators see every tenant.
    """
    with session.client() as client:
        now = client.operations(minutes=minutes)
    if session.as_json:
        print_json(now)
        return
    print_facts(_facts(now))
    if now.queue.tenants:
        click.echo()
        waiting = [[each.tenant, each.requests, each.work_units] for each in now.queue.tenants]
        print_table(["waiting tenant", "#requests", "#work units"], waiting)
    if now.jobs.running:
        click.echo()
        jobs = [[job.id, job.kind, job.tenant, job.attempt, job.started_at] for job in now.jobs.running]
        print_table(["job", "kind", "tenant", "#attempt", "started"], jobs)
    if now.lease_holders:
        click.echo()
        held = [[each.name, each.of, each.leases, "yes" if each.this else ""] for each in now.lease_holders]
        print_table(["process with leases", "of", "#leases", "this one"], held)
    if now.hour:
        click.echo()
        names = [
            "until",
            "#answered",
            "#failed",
            "#refused",
            "#median ms",
            "#p99 ms",
            "#waiting units",
            "#slots",
        ]
        print_table(names, [_line(now.hour[at : at + _STEP]) for at in range(0, len(now.hour), _STEP)])


def _facts(now: Operations) -> dict[str, object]:
    rows, last, others = now.prompt_rows, now.batch.last_prefill, now.batch.others
    on_device = [f"{each.task or 'the base model'} {each.requests}" for each in now.batch.tasks]
    if others.tasks:
        on_device.append(f"{others.tasks} other tasks {others.requests}")
    facts: dict[str, object] = {"process": now.process, "status": now.status}
    facts |= {name: f"{count:,}" for name, count in now.requests}
    facts |= {
        "slots": f"{now.slots.in_use:,} of {now.slots.total:,}",
        "prompt rows": f"{rows.resident:,} of {rows.capacity:,} hold {rows.prompts:,} prompts",
        "on the device": on_device or "nothing",
    }
    if last is not None:
        facts["last prefill"] = (
            f"{last.requests} requests of {last.tasks} tasks, {100 * last.padding:.0f} % padding, "
            f"{last.seconds_ago:.1f} s ago"
        )
    if now.queue.others.tenants:
        facts["waiting, others"] = f"{now.queue.others.requests:,} of {now.queue.others.tenants:,} tenants"
    if now.jobs.others:
        facts["jobs of others"] = now.jobs.others
    if now.compiles is not None:
        made, causes = now.compiles, now.compiles.by_cause
        facts["programs"] = f"{made.programs} in {made.seconds:.1f} s, {made.from_cache} from the cache"
        facts["compiles"] = causes or "none"
    if now.memory is not None:
        facts["memory plan"] = f"{now.memory.total / 2**20:,.0f} of {now.memory.limit / 2**20:,.0f} MiB"
    store = now.store
    facts["store"] = "works" if store.trouble is None else f"{store.trouble.status}: {store.trouble.message}"
    if store.last_collection is not None:
        facts["last collection"] = (
            f"{store.last_collection.at:%Y-%m-%d %H:%M} {store.last_collection.outcome}"
        )
    facts["collection due"] = store.collection_due_at
    if store.check is not None:
        facts["store check"] = _checked(store.check)
    return facts


def _checked(check: StoreCheck) -> str:
    if check.ended_at is None:
        return f"under way since {check.started_at:%Y-%m-%d %H:%M}"
    at = f"{check.ended_at:%Y-%m-%d %H:%M}"
    if check.clean is None:
        return f"{at} failed: {check.message}"
    found = ", ".join(f"{each.kind} {each.count}" for each in check.problems) or "nothing is wrong"
    return f"{at} {found}"


def _line(ticks: Sequence[Tick]) -> list[object]:
    """Some ticks as one; times are the worst of them."""

    def worst(value: Callable[[Tick], float | None]) -> str:
        known = [seconds for tick in ticks if (seconds := value(tick)) is not None]
        return f"{1000 * max(known):.0f}" if known else "-"

    return [
        ticks[-1].ended,
        sum(tick.answered for tick in ticks),
        sum(tick.failed for tick in ticks),
        sum(tick.refused for tick in ticks),
        worst(lambda tick: tick.median_seconds),
        worst(lambda tick: tick.p99_seconds),
        max(tick.queued_units for tick in ticks),
        max(tick.slots_in_use for tick in ticks),
    ]
