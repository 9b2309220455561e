"""`chorus worker`: a separate process that tunes prompts. Its options are settings of `chorus serve`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from chorus_server.cli import SettingsCommand, command_log, config_options, importing, readable_errors
from chorus_server.errors import InvalidInputError
from chorus_server.kept_memory import keep_freed_memory
from chorus_server.log import Say
from chorus_server.settings import STORE_SETTINGS, Settings, load_settings
from chorus_server.signals import ending_signals

if TYPE_CHECKING:
    from chorus_server.model.checkpoints import LoadedModel
    from chorus_server.tuning.jobs.attempts.config import TuningBase

WORKER_SETTINGS = (
    "model",
    "compute_dtype",
    "matrix_dtype",
    "layout",
    "model_devices",
    "data_devices",
    *STORE_SETTINGS,
    "compile_cache_dir",
    "memory_limit_bytes",
    "prompt_rows",
    "shapes",
    "tuning_slice_ms",
    "tuning_max_file_bytes",
    "tuning_data_paths",
    "tuning_data_urls",
    "drain_seconds",
    "log_level",
    "log_format",
)
"""Settings that a worker reads."""

SLICE_MS = 1_000
"""The default slice of a worker: nobody waits for its device, and larger dispatches are faster."""

_CLOSE_SECONDS = 3.0
_HELP = """Tune prompts in a separate process, with its own copy of the weights.

The worker takes tuning jobs from the same store as the servers: give it their data folder (and database), and
the same model. It needs memory for one more model. On SIGTERM, SIGINT or SIGHUP it saves the running job and
gives it back within `drain_seconds`, so that another worker or a server goes on with it.

Each option is also an environment variable (in brackets) and, under the heading shown here, a name in the
TOML file that --config names.
"""


@click.command(cls=SettingsCommand, help=_HELP)
@config_options(*WORKER_SETTINGS)
def worker(config: Path | None, **flags: Any) -> None:
    keep_freed_memory(one_heap=True)
    with readable_errors():
        settings = load_settings(flags, config, listening=False)
        with command_log("chorus worker", settings) as log:
            with importing():
                from chorus_server.process import end_with

            end_with(lambda: run(settings, log.say))


def run(settings: Settings, say: Say) -> int:
    """Work until a signal comes. Ends the process if something does not end in time.

    Returns:
        The exit code.

    Raises:
        ChorusError, StoreError: the model or the store cannot be used.
    """
    from chorus_server.api.metrics import Metrics
    from chorus_server.app import keep_programs, ladder_of, load
    from chorus_server.embedded import model_source
    from chorus_server.jobs.slices import SliceThread
    from chorus_server.process import exit_now
    from chorus_server.storage import open_storage
    from chorus_server.tuning.jobs.worker.service import TuningService
    from chorus_server.tuning_wiring import service_config

    model_source(settings.model)
    ladder_of(settings)
    store = open_storage(settings)
    keep_programs(settings, say)
    base = worker_base(settings, load(settings, say))
    service = TuningService(
        store, base, service_config(settings, slice_seconds(settings)), metrics=Metrics().tuning, say=say
    )
    device = SliceThread(service.work)
    wait = signals(exit_now)  # before this, a signal ends the process: there is nothing to save
    device.start()
    service.start()
    say("waiting for jobs")
    wait()
    say("stopping: saving the running job and giving it back")
    seconds = max(_CLOSE_SECONDS, settings.drain_seconds)
    late = threading.Timer(seconds, exit_now, (1,))
    late.daemon = True
    late.start()
    if not service.stop(seconds - _CLOSE_SECONDS):
        exit_now(0)
    device.stop(_CLOSE_SECONDS)
    store.close()
    return 0


def signals(end: Callable[[int], object]) -> Callable[[], None]:
    """From now on, remember the first signal that asks for an end. The returned function waits for it.

    This uses a pipe: a handler that sets an event would wait for itself if it came while the event's lock is
    held.

    Args:
        end: called with the exit code at a second signal.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    asked: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if asked:
            end(128 + number)
        asked.append(number)

    for number in ending_signals():
        signal.signal(number, on_signal)

    def wait() -> None:
        os.read(read_end, 1)

    return wait


def slice_seconds(settings: Settings) -> float:
    """Longest dispatch, in seconds; the setting decides if it was given."""
    given = "tuning_slice_ms" in settings.model_fields_set
    return (settings.tuning_slice_ms if given else SLICE_MS) / 1000


def worker_base(settings: Settings, loaded: LoadedModel) -> TuningBase:
    """The model in the form that jobs train against. The devices hold nothing else.

    Raises:
        InvalidInputError: the weights alone do not fit a device.
    """
    from chorus_server.api.services import longest_prompt
    from chorus_server.app import embeddings_of, ladder_of
    from chorus_server.engine.ladder import DEFAULT_PROMPT_ROWS
    from chorus_server.engine.limits import Limits
    from chorus_server.engine.memory_plan import device_limit
    from chorus_server.tuning_wiring import tuning_base

    limit, taken = settings.memory_limit_bytes or device_limit(loaded.model.mesh), loaded_weight_bytes(loaded)
    room = limit - taken
    if room <= 0:
        raise InvalidInputError(
            f"The weights take {taken} bytes of each device, but only {limit} may be used.",
            field="memory_limit_bytes",
            code="memory_plan",
        )
    limits = Limits(ladder_of(settings))
    return tuning_base(
        loaded,
        embeddings_of(loaded),
        memory_room=room,
        max_prompt_rows=longest_prompt(settings.prompt_rows or DEFAULT_PROMPT_ROWS, limits),
        max_label_tokens=limits.max_target_tokens,
    )


def loaded_weight_bytes(loaded: LoadedModel) -> int:
    """Bytes that the model takes of each device."""
    from chorus_server.engine.executor.sizes import tree_bytes

    return tree_bytes(loaded.model.params)
