"""Wiring: settings become a store, a model, an engine and an application. Nothing else builds them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import FastAPI

from chorus_server.api.door.entrance import Entrance
from chorus_server.api.http.access import AccessLog
from chorus_server.api.http.offload import Offload
from chorus_server.api.http.traces import Traces
from chorus_server.api.inference.prompt_source import StorePrompts
from chorus_server.api.library.resolve import PromptLibrary
from chorus_server.api.lifecycle import Lifecycle, spare_collections
from chorus_server.api.metrics import Metrics
from chorus_server.api.routes.asgi import build_api
from chorus_server.api.services import BaseModelInfo, Compiled, DeviceStart, Services, Serving
from chorus_server.api.upkeep import Upkeep
from chorus_server.console_wiring import add_console
from chorus_server.embedded import model_source, register_prompts
from chorus_server.engine.config import EngineConfig
from chorus_server.engine.host_prompts import HostPromptTier
from chorus_server.engine.ladder import (
    DEFAULT_PROMPT_ROWS,
    MAX_PROGRAMS,
    build_ladder,
    lists_of,
    program_count,
)
from chorus_server.engine.limits import Limits
from chorus_server.engine.plans import Ladder
from chorus_server.engine.protocols import Executor
from chorus_server.engine.system_fingerprint import system_fingerprint
from chorus_server.engine.thread.engine import Engine
from chorus_server.engine.work import Settled
from chorus_server.errors import EngineDeadError, InvalidInputError, InvalidModelError, NotReadyError
from chorus_server.jobs.feeds import JobFeeds
from chorus_server.jobs_wiring import QueuedJobs, start_engine_jobs
from chorus_server.log import Say
from chorus_server.model.matrix_types import FLOAT_DTYPES, FloatDtype, choose_matrix_dtype, processor_flags
from chorus_server.settings import Settings
from chorus_server.spans import SpanExport
from chorus_server.storage import can_keep, compile_cache
from chorus_server.tenancy.usage import recorder_of
from chorus_server.tenancy_wiring import (
    change_reader,
    make_budgets,
    make_callers,
    make_sessions,
    open_with_keys,
)

if TYPE_CHECKING:
    from chorus_server.engine.executor import CompileWatch, KeptPrograms
    from chorus_server.engine.memory_plan import MemoryPlan
    from chorus_server.model.checkpoints import LoadedModel
    from chorus_server.model.config import T5Config
    from chorus_server.model.mesh import DeviceMesh
    from chorus_server.model.vocabulary import Vocabulary

MAX_COMPILE_SECONDS = 3600.0
"""A start that compiles for longer than this gives up. The compile cache keeps what was compiled."""

_STORE_THREADS = 4
_TEXT_THREADS = 2
_CALLS_WAITING = 512
_WORTH_TELLING_BYTES = 64 << 20
_JOBS_STOP_SECONDS = 10.0
_MOST_INTERVAL_SECONDS = 3600.0  # between collections


@dataclass(frozen=True, slots=True)
class App:
    """What a process runs.

    Attributes:
        api: the ASGI application; answers `/healthz` and `/readyz` from the first moment.
        entrance: looks at requests before the application has them.
        spans: on their way to a collector; None if nothing is recorded.
    """

    settings: Settings
    services: Services
    metrics: Metrics
    api: FastAPI
    entrance: Entrance
    spans: SpanExport | None = None


def build_app(settings: Settings, lost_lines: Callable[[], int] = lambda: 0) -> App:
    """Build everything except the model and the engine. This is quick, so the HTTP server is up while
    programs compile.

    Args:
        lost_lines: how many lines of the log could not be written so far.

    Raises:
        InvalidInputError: a key file or the ladder's settings are not acceptable, or there is no model.
        StoreError: the data folder cannot be used, or the tenant's name is not valid.
    """
    ladder_of(settings)
    model_source(settings.model)
    ring, store = open_with_keys(settings)
    metrics = Metrics()
    metrics.api.log_lines_lost.watch(lost_lines)
    readers = Offload(_STORE_THREADS, _CALLS_WAITING, "prompt store")
    # Separate threads: writers that wait for the database's lock must not take the readers' threads.
    writers = Offload(_STORE_THREADS, _CALLS_WAITING, "prompt store's changes")
    library = PromptLibrary(store, readers, writers)
    lifecycle = Lifecycle()
    callers = make_callers(settings, ring, library, metrics)
    services = Services(
        settings=settings,
        callers=callers,
        sessions=make_sessions(library, callers),
        library=library,
        lifecycle=lifecycle,
        text=Offload(_TEXT_THREADS, _CALLS_WAITING, "text threads"),
        metrics=metrics,
        feeds=JobFeeds(library.store, library.read, lambda: lifecycle.ending),
        changes=change_reader(library, callers),
        usage=recorder_of(store, settings.data_dir, metrics.usage),
        budgets=make_budgets(library, metrics),
        upkeep=Upkeep(
            library,
            metrics.api,
            min(_MOST_INTERVAL_SECONDS, max(1.0, settings.collect_grace_seconds)),
            settings.collect_grace_seconds,
            audit_days=settings.audit_days,
        ),
    )
    services.changes.tell(QueuedJobs(services))
    spans = None
    if settings.traces_url is not None:
        spans = SpanExport(settings.traces_url, metrics.api.spans_lost.inc)
        services.traces = Traces(spans.put, settings.traces_share)
    access = AccessLog(metrics.api, settings.access_log, services.traces)
    entrance = Entrance(services, access)
    api = build_api(services, access)
    keyed = ring.required or store.holds_keys()
    safe = settings.is_loopback or not settings.insecure_bind or keyed
    if safe if settings.console is None else settings.console:
        add_console(api, services)
    return App(settings, services, metrics, api, entrance, spans)


def close_app(app: App) -> bool:
    """Stop jobs, the engine, the threads and the store. Requests still under way fail with `shutting_down`.

    Returns:
        False if a tuning job is still compiling: the process had better end without waiting for it.
    """
    ended = stop_jobs(app)
    if app.services.serving is not None:
        app.services.serving.engine.stop()
    app.services.usage.close()
    app.services.budgets.close()
    app.services.text.close()
    app.services.callers.last_use.write_rest()
    app.services.changes.close()
    app.services.upkeep.close()
    app.services.library.close()
    if app.spans is not None:
        app.spans.close()
    return ended


def stop_jobs(app: App, seconds: float = _JOBS_STOP_SECONDS) -> bool:
    """Save the running jobs and give them back. False if one does not stop within `seconds`, because it still
    compiles."""
    services, until = app.services, time.monotonic() + min(seconds, _JOBS_STOP_SECONDS)
    runners = [runner for runner in (services.tuning, *services.engine_jobs) if runner is not None]
    for runner in runners:
        runner.begin_to_stop()
    ended = [runner.stop(max(0.0, until - time.monotonic())) for runner in runners]  # every one
    return all(ended)


LEAST_LARGEST_TREE = 16
"""Nodes of the largest tree that a server may score labels in."""


def ladder_of(settings: Settings) -> Ladder:
    """The shapes that are compiled; those of a CPU where `auto` has not chosen yet.

    Raises:
        InvalidInputError: a shape is not valid, or there are too many shapes. The error names the setting.
    """
    given = settings.shapes
    try:
        lists = lists_of(**given.lists)
        ladder = build_ladder(*lists)
    except InvalidInputError as error:
        raise InvalidInputError(error.message, field=f"shapes.{error.field}") from None
    if given.score_buckets and max(ladder.tree_sizes) < LEAST_LARGEST_TREE:
        raise InvalidInputError(
            f"score_buckets has no tree of {LEAST_LARGEST_TREE} or more nodes: a bucket is INPUTSxNODES "
            f"(8x{LEAST_LARGEST_TREE}), no longer LABELSxTOKENS. A label has at most as many tokens as the "
            "largest tree has nodes",
            field="shapes.score_buckets",
        )
    count, blocks = program_count(ladder), len(set(ladder.blocks))
    if count > MAX_PROGRAMS:
        raise InvalidInputError(
            f"This asks for {count} compiled programs, the limit is {MAX_PROGRAMS}: "
            f"{len(set(lists.input_lengths))} input_lengths x {len(set(lists.batch_rows))} batch_rows, "
            f"each compiled with {blocks} shapes of blocks and {len(ladder.score_buckets)} score_buckets; "
            "give fewer of these.",
            field="shapes",
        )
    return ladder


def bring_up(
    app: App, say: Say, on_death: Callable[[EngineDeadError], None], *, jobs: bool = True
) -> Compiled:
    """Load the model, compile, start the engine and take requests. Returns when all of that is done.

    Args:
        say: called with one line at a time to report progress.
        on_death: called if the engine dies later.
        jobs: whether this process also takes jobs.

    Raises:
        ChorusError: the model cannot be read, or does not fit.
    """
    from chorus_server.engine.executor import CompileWatch

    settings, services = app.settings, app.services
    kept = keep_programs(settings, say)
    watch = CompileWatch().start()
    app.metrics.compiles.total.watch(watch.counts)
    check_slots(settings, mesh_of(settings))
    loaded = load(settings, say)
    register_prompts(settings, services.library.store, loaded.fingerprint, say)
    services.serving, compiled, plan = start_engine(app, loaded, watch, kept, say, on_death)
    watch.mark_ready()
    if jobs:
        start_tuning(app, loaded, watch, plan)
    spare_collections()
    services.lifecycle.ready()
    if jobs:
        start_engine_jobs(services)
    return compiled


def start_tuning(app: App, loaded: LoadedModel, watch: CompileWatch, plan: MemoryPlan) -> None:
    """Run tuning jobs on the engine's thread, if this process should."""
    from chorus_server.tuning_wiring import serve_tuning

    if not app.settings.tuning_enabled:
        return
    app.services.tuning = serve_tuning(app.services, loaded, watch, plan)


def load(settings: Settings, say: Say) -> LoadedModel:
    """Load the base model. Raises InvalidModelError, also when the model has no vocabulary, and
    InvalidInputError if its weights do not fit the devices."""
    import jax

    from chorus_server.engine.memory_plan import device_limit
    from chorus_server.model.checkpoints import load_model
    from chorus_server.model.fused_attention import choose_attention
    from chorus_server.shapes import Deployment

    dtype, mesh = compute_dtype(settings), mesh_of(settings)
    matrix_dtype, why = matrix_dtype_of(settings)
    shared = f", {mesh} devices" if mesh else ""
    say(f"loading {settings.model} ({dtype}, {settings.layout}{shared}), matrices in {matrix_dtype}: {why}")
    tenths: set[int] = set()

    def progress(what: str, done: int, total: int) -> None:
        tenth = 10 * done // max(1, total) if total >= _WORTH_TELLING_BYTES else 0
        if tenth not in tenths:
            tenths.add(tenth)
            say(f"{what}: {done / 2**20:,.0f} of {total / 2**20:,.0f} MiB")

    def accept(config: T5Config) -> None:
        limit = settings.memory_limit_bytes or device_limit(mesh)
        Deployment(config, jax.default_backend(), limit, dtype, matrix_dtype, mesh).check_weights()

    source = model_source(settings.model)
    loaded = load_model(
        source,
        layout=settings.layout,
        dtype=dtype,
        matrix_dtype=matrix_dtype,
        mesh=mesh,
        progress=progress,
        accept=accept,
    )
    if loaded.vocabulary is None:
        raise InvalidModelError(
            f"{settings.model} has no vocabulary: put its spiece.model into the folder.", field="model"
        )
    devices = mesh.size if mesh else 1
    kind, reason = choose_attention("auto", loaded.model.dtype, devices=devices)
    say(f"attention by {kind}: {reason}")
    return replace(loaded, model=loaded.model.with_attention(kind))


def mesh_of(settings: Settings) -> DeviceMesh | None:
    """The devices that share the model; None means one device.

    Raises:
        InvalidInputError: there are too few devices; names the setting.
    """
    if settings.data_devices * settings.model_devices == 1:
        return None
    from chorus_server.model.mesh import device_mesh

    return device_mesh(settings.data_devices, settings.model_devices)


def check_slots(settings: Settings, mesh: DeviceMesh | None) -> None:
    """Refuse blocks that a server could not divide, before it loads a model. A worker has none.

    Raises:
        InvalidInputError: a block's slots cannot be divided among the devices; names the setting.
    """
    if mesh is None:
        return
    import jax

    from chorus_server.engine.executor.places import Places

    if settings.shapes.preset != "auto" or settings.shapes.blocks or jax.default_backend() == "cpu":
        for shape in set(ladder_of(settings).blocks):  # what `auto` chooses divides
            Places(mesh).state(shape, 0)


def keep_programs(settings: Settings, say: Say) -> KeptPrograms:
    """The folder of this machine's programs; JAX keeps there what else it compiles.

    Raises:
        InvalidInputError: matrix_dtype is none that this machine has.
    """
    from chorus_server.engine.executor import KeptPrograms, programs_folder, use_persistent_cache

    folder = programs_folder(compile_cache(settings), matrix_dtype_of(settings)[0], say)
    kept = KeptPrograms(folder, say)
    if kept.trusted and can_keep(folder):  # else JAX would warn of each program
        use_persistent_cache(str(folder))
    return kept


def start_engine(
    app: App,
    loaded: LoadedModel,
    watch: CompileWatch,
    kept: KeptPrograms,
    say: Say,
    on_death: Callable[[EngineDeadError], None],
) -> tuple[Serving, Compiled, MemoryPlan]:
    """Plan memory, compile, start. Raises InvalidInputError if the plan does not fit the device."""

    def progress(done: int, total: int, seconds: float) -> None:
        app.services.lifecycle.compiling(done, total)
        app.metrics.compiles.seconds.observe(seconds, "startup")

    vocabulary = loaded.vocabulary
    assert vocabulary is not None
    executor, host, settings, plan, compiled = compile_executor(
        app.settings, loaded, watch, kept, say, progress
    )
    base, config = base_info(settings, loaded), engine_config(settings, loaded.model.config.eos_id)
    serving = make_serving(app, executor, host, vocabulary, base, config, on_death)
    serving.engine.start()
    return replace(serving, start=DeviceStart(plan, compiled, watch)), compiled, plan


def compile_executor(
    settings: Settings,
    loaded: LoadedModel,
    watch: CompileWatch,
    kept: KeptPrograms,
    say: Say,
    told: Callable[[int, int, float], None] = lambda done, total, seconds: None,
) -> tuple[Executor, HostPromptTier, Settings, MemoryPlan, Compiled]:
    """Choose shapes, plan memory and compile.

    Args:
        told: called with the programs done, all programs, and the seconds that the last one took.

    Returns:
        What runs steps, the prompts that it reads, the settings with the shapes chosen, the plan, the cost.

    Raises:
        InvalidInputError: the plan does not fit the device.
        NotReadyError: compiling took too long.
    """
    import jax

    from chorus_server.engine.executor import build_executor
    from chorus_server.engine.memory_plan import device_limit
    from chorus_server.shapes import Deployment, cost_table, shapes_of

    model, limit = loaded.model, settings.memory_limit_bytes or device_limit(loaded.model.mesh)
    deployment = Deployment(
        model.config, jax.default_backend(), limit, model.dtype, model.matrix_dtype, model.mesh
    )
    shapes = shapes_of(settings, deployment)
    settings = settings.model_copy(update=shapes.settings)
    ladder, config = ladder_of(settings), engine_config(settings, model.config.eos_id)
    host = HostPromptTier(config.host_prompt_bytes, config.compute_dtype)
    arithmetic = deployment.plan(ladder, shapes.prompt_rows)
    say(cost_table(shapes, arithmetic))
    say("memory plan\n" + arithmetic.table())
    started, compiled = time.monotonic(), Compiled(0, 0, 0.0)

    def progress(done: int, total: int, name: str, seconds: float, cached: bool) -> None:
        nonlocal compiled
        compiled = Compiled(total, compiled.from_cache + cached, time.monotonic() - started)
        told(done, total, seconds)
        say(f"{'read' if cached else 'compiled'} {done}/{total} {name} ({seconds:.1f} s)")
        check_compile_time(compiled, done)

    executor, plan = build_executor(
        model,
        ladder,
        shapes.prompt_rows,
        host,
        memory_limit_bytes=limit,
        watch=watch,
        progress=progress,
        kept=kept,
    )
    say(f"compiled {compiled}; {_mib(plan.total)} of device memory")
    return executor, host, settings, plan, compiled


def make_serving(
    app: App,
    executor: Executor,
    host: HostPromptTier,
    vocabulary: Vocabulary,
    base: BaseModelInfo,
    config: EngineConfig,
    on_death: Callable[[EngineDeadError], None] | None,
) -> Serving:
    """An engine, to be started, of the executor and the app's store, whose usage is recorded from now on.
    `host` is what the executor reads."""
    usage, budgets, traces = app.services.usage, app.services.budgets, app.services.traces

    def settle(settled: Settled) -> None:
        usage.record(settled)
        budgets.settle(settled)
        if traces is not None:
            traces.settled(settled)

    engine = Engine(
        executor,
        StorePrompts(app.services.library.store),
        config=config,
        detokenise=vocabulary.decode,
        metrics=app.metrics.engine,
        host_prompts=host,
        on_death=on_death,
        on_settled=settle,
        on_started=budgets.started,
    )
    usage.start()
    app.metrics.engine.watch(engine.stats, base.row_bytes)
    return Serving(engine, vocabulary, base, Limits(executor.ladder))


def check_compile_time(compiled: Compiled, done: int) -> None:
    """Bound the time of a cold start. Raises NotReadyError if it is used up and programs are left."""
    if compiled.seconds > MAX_COMPILE_SECONDS and done < compiled.programs:
        raise NotReadyError(
            f"{done} of {compiled.programs} programs took {compiled.seconds:.0f} s, the limit is "
            f"{MAX_COMPILE_SECONDS:.0f}: start again, and it goes on from what the compile cache keeps, or "
            "ask for fewer programs with shapes.",
        )


def engine_config(settings: Settings, eos_id: int) -> EngineConfig:
    """The settings that concern the engine."""
    largest = max(rows * length for rows, length in ladder_of(settings).input_buckets)
    tokens = settings.shapes.decode_tokens_per_dispatch or EngineConfig().decode_tokens_per_dispatch
    return EngineConfig(
        max_queued_requests=settings.max_queued_requests,
        # Every compiled shape may run.
        prefill_token_budget=max(EngineConfig().prefill_token_budget, largest),
        decode_tokens_per_dispatch=tokens,
        step_timeout_seconds=settings.step_timeout_seconds or None,
        batch_invariant=settings.batch_invariant,
        background_share=settings.tuning_share,
        host_prompt_bytes=settings.host_prompts_bytes,
        compute_dtype=compute_dtype(settings),
        default_deadline_seconds=settings.default_deadline_seconds,
        journal_path=settings.journal_file,
        eos_id=eos_id,
    )


def compute_dtype(settings: Settings) -> FloatDtype:
    """For `auto`, the platform decides."""
    if settings.compute_dtype != "auto":
        return FLOAT_DTYPES[settings.compute_dtype]
    import jax

    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def matrix_dtype_of(settings: Settings) -> tuple[FloatDtype, str]:
    """The type of the model's matrices, and why; for `auto`, the processor decides."""
    import jax

    return choose_matrix_dtype(
        settings.matrix_dtype, compute_dtype(settings), jax.default_backend(), processor_flags()
    )


def base_info(settings: Settings, loaded: LoadedModel) -> BaseModelInfo:
    """The base model as the API describes it."""
    from chorus_server.model.parameters import parameter_count

    config, dtype, matrix_dtype = loaded.model.config, compute_dtype(settings), loaded.model.matrix_dtype.name
    return BaseModelInfo(
        name=loaded.name,
        fingerprint=loaded.fingerprint,
        vocabulary_digest=loaded.vocabulary_digest or "",
        config=_config_json(asdict(config)),
        parameters=parameter_count(config),
        width=config.d_model,
        compute_dtype=dtype,
        matrix_dtype=matrix_dtype,
        system_fingerprint=system_fingerprint(
            loaded.fingerprint, dtype, matrix_dtype, version("jaxlib"), ladder_of(settings)
        ),
        layout=loaded.model.layout,
        prompt_rows=settings.prompt_rows or DEFAULT_PROMPT_ROWS,
        embeddings=embeddings_of(loaded),
    )


def embeddings_of(loaded: LoadedModel) -> Callable[[], np.ndarray[Any, Any]]:
    """A function that reads the table `[V, D]` to host memory, once, without padding rows. On a CPU the
    result is a view of the weights."""
    return cache(lambda: np.asarray(loaded.model.params["embedding"])[: loaded.model.config.vocab_size])


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"


def _config_json(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if isinstance(value, str | int | float | bool)}
