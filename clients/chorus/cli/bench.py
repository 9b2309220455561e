"""`chorus bench load`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from chorus.cli.output import print_facts, print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.cli.values import JsonObject
from chorus.client import AsyncClient
from chorus.config import is_loopback, parse_url
from chorus.load import LoadSpec, Report, report_of, run_load
from chorus.load.inputs import SENTENCES, read_inputs
from chorus.load.outcomes import Recorder
from chorus.load.spec import MAX_REQUESTS


@click.group()
def bench() -> None:
    """Measure a running server."""


@bench.command()
@click.option(
    "--task", "tasks", multiple=True, help="Task to ask; repeat, most popular first. [default: every task]"
)
@click.option("--base-model", is_flag=True, help="Ask the base model instead of tasks.")
@click.option(
    "--route", type=click.Choice(["generate", "stream", "classify"]), default="generate", show_default=True
)
@click.option(
    "--arrivals",
    type=click.Choice(["open", "closed"]),
    default="closed",
    show_default=True,
    help="open: at random (Poisson) times, whatever the server does; closed: --concurrency clients that "
    "wait.",
)
@click.option(
    "--rate", type=float, default=10.0, show_default=True, help="Requests a second, if arrivals are open."
)
@click.option(
    "--concurrency",
    type=int,
    default=8,
    show_default=True,
    help="Requests in flight; at most so many if arrivals are open.",
)
@click.option(
    "--mix",
    type=click.Choice(["uniform", "zipf"]),
    default="uniform",
    show_default=True,
    help="How often each task is asked: all alike, or the first far more often than the last.",
)
@click.option("--zipf-exponent", type=float, default=1.0, show_default=True, help="Of --mix zipf.")
@click.option(
    "--inputs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a text on each line; in .jsonl a text or an object of fields. [default: built-in "
    "sentences]",
)
@click.option(
    "--settings", type=JsonObject(), help='Settings to send with each request: {"max_new_tokens": 8}.'
)
@click.option("--duration-seconds", type=float, default=10.0, show_default=True)
@click.option("--requests", type=int, default=MAX_REQUESTS, show_default=True, help="Most requests to send.")
@click.option(
    "--drain-seconds",
    type=float,
    default=30.0,
    show_default=True,
    help="How long to wait for the last answers.",
)
@click.option("--goal-ms", type=float, help="Answers within this time count for goodput. [default: all]")
@click.option(
    "--retries",
    type=click.IntRange(0, 10),
    default=3,
    show_default=True,
    help="Retries of each request, as in the Python client.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@with_session
def load(
    session: Session,
    tasks: tuple[str, ...],
    base_model: bool,
    inputs: Path | None,
    settings: dict[str, Any] | None,
    rate: float,
    retries: int,
    **rest: Any,
) -> None:
    """Send many requests and report what clients would notice. If you interrupt it, it reports what it
    has."""
    url = parse_url(session.url)
    if not is_loopback(url):
        click.echo(
            f"chorus: warning: {url.host} is not this machine, so the load goes over a network.",
            err=True,
        )
    spec = LoadSpec(
        tasks=_find_tasks(session, tasks, base_model),
        inputs=SENTENCES if inputs is None else read_inputs(inputs),
        settings=settings or {},
        rate_per_second=rate,
        **rest,
    )
    recorder = Recorder()
    client = session.async_client(retries=retries, max_connections=spec.concurrency)
    interrupted = False
    try:
        asyncio.run(_run(session, client, spec, recorder))
    except KeyboardInterrupt:
        interrupted = True
    report = report_of(spec, recorder, client.statistics)
    _tell(session, spec, report, interrupted)
    if report.succeeded == 0:
        raise SystemExit(1)


def _find_tasks(session: Session, tasks: tuple[str, ...], base_model: bool) -> tuple[str | None, ...]:
    if base_model:
        if tasks:
            raise click.UsageError("Give either --task or --base-model.")
        return (None,)
    if tasks:
        return tasks
    with session.client() as client:
        return tuple(task.task for task in client.tasks.list() if "live" in task.aliases)


async def _run(session: Session, client: AsyncClient, spec: LoadSpec, recorder: Recorder) -> None:
    async with client:
        running = asyncio.create_task(run_load(client, spec, recorder))
        console = Console(stderr=True)
        if session.as_json or not console.is_terminal:
            await running
            return
        started = time.monotonic()
        with Live(console=console, transient=True, refresh_per_second=4) as live:
            while not running.done():
                live.update(_progress(spec, recorder, time.monotonic() - started))
                await asyncio.wait({running}, timeout=0.25)
        await running


def _progress(spec: LoadSpec, recorder: Recorder, elapsed: float) -> Table:
    table = Table.grid(padding=(0, 3))
    answered = len(recorder.outcomes) - recorder.errors.total()
    table.add_row(
        f"{min(elapsed, spec.duration_seconds):.0f} of {spec.duration_seconds:g} s",
        f"{recorder.sent} sent",
        f"{answered} answered",
        f"{recorder.in_flight} in flight",
        f"{recorder.errors.total()} failed",
        f"{answered / elapsed:.1f} a second" if elapsed > 0 else "",
    )
    return table


def _tell(session: Session, spec: LoadSpec, report: Report, interrupted: bool) -> None:
    if session.as_json:
        print_json({"load": _spec_json(spec), "interrupted": interrupted, **report.as_json()})
        return
    ending = " (interrupted)" if interrupted else ""
    goal = "" if spec.goal_ms is None else f" within {spec.goal_ms:g} ms"
    print_facts(
        {
            "sent": f"{report.sent} in {report.elapsed_seconds:.1f} s{ending}",
            "answered": report.succeeded,
            "throughput": f"{report.throughput_per_second:.2f} a second",
            "goodput": f"{report.goodput_per_second:.2f} a second{goal}",
            "output tokens": f"{report.output_tokens_per_second:.1f} a second",
            "retries": f"{report.retries} ({report.retries_refused_by_budget} more refused by the budget)",
            "late": f"{report.late} waited for a connection, {report.unsent} never got one",
        }
    )
    quantiles = {"latency": report.latency, "first token": report.first_token}
    rows = [(name, q.p50, q.p90, q.p99, q.mean, q.max) for name, q in quantiles.items() if q is not None]
    print_table(("ms", "#p50", "#p90", "#p99", "#mean", "#max"), rows, empty="Nothing was answered.")
    print_table(("error", "#count"), report.errors.items(), empty="No errors.")


def _spec_json(spec: LoadSpec) -> dict[str, Any]:
    names = ("route", "arrivals", "concurrency", "mix", "duration_seconds", "requests", "goal_ms", "seed")
    told: dict[str, Any] = {name: getattr(spec, name) for name in names}
    told["settings"] = dict(spec.settings)
    told["tasks"], told["inputs"] = len(spec.tasks), len(spec.inputs)
    if spec.arrivals == "open":
        told["rate_per_second"] = spec.rate_per_second
    if spec.mix == "zipf":
        told["zipf_exponent"] = spec.zipf_exponent
    return told
