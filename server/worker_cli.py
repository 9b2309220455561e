"""`chorus worker`: a process of its own that tunes prompts. Its options are settings of `chorus serve`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prompts_store.errors import StoreError
from server.cli import option_of, set_log_levels
from server.errors import ChorusError, InvalidInputError, startup_message
from server.settings import Settings, load_settings

if TYPE_CHECKING:
    from server.model.checkpoints import LoadedModel
    from server.tuning.service.config import TuningBase

NAMES = (
    "model",
    "compute_dtype",
    "matrix_dtype",
    "layout",
    "attention",
    "data_dir",
    "database_url",
    "compile_cache_dir",
    "memory_limit_bytes",
    "prompt_rows",
    "max_prompt_rows",
    "input_lengths",
    "score_buckets",
    "tuning_slice_ms",
    "tuning_lease_seconds",
    "tuning_keep_days",
    "tuning_max_file_bytes",
    "tuning_max_row_bytes",
    "tuning_data_paths",
    "tuning_data_urls",
    "log_level",
)
"""Settings that a worker reads."""

SLICE_MS = 1_000
"""Where no setting says so: nobody waits for a worker's device, and larger dispatches are faster."""

_STOP_SECONDS = 20.0
_HELP = """Tune prompts in a process of its own, with its own copy of the weights.

Takes tuning jobs from the same store as the servers: give it their data folder (and database), and the same
model. It needs the memory of one more model. On SIGTERM it saves the job at hand and gives it back, so that
another worker or a server goes on with it.

Each option is also an environment variable (in brackets) and a name in the TOML file that --config names.
"""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for name in reversed(NAMES):
        command = option_of(name)(command)
    return command


@click.command(help=_HELP)
@click.option("--config", type=click.Path(path_type=Path), default=None, help="TOML file. [CHORUS_CONFIG]")
@_options
def worker(config: Path | None, **flags: Any) -> None:
    started = time.monotonic()

    def say(line: str) -> None:
        click.echo(f"chorus worker [{time.monotonic() - started:7.1f} s] {line}", err=True)

    try:
        settings = load_settings(flags, config, listening=False)
        logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        set_log_levels(settings.log_level)
        run(settings, say)
    except (ChorusError, StoreError, OSError) as error:
        raise click.ClickException(startup_message(error)) from None


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Work until a signal. Ends the process where a compile does not end in time.

    Raises:
        ChorusError, StoreError: the model or the store cannot be used.
    """
    from server.app import ladder_of, load
    from server.embedded import model_source
    from server.engine.executor import use_persistent_cache
    from server.storage import compile_cache, open_storage
    from server.tuning.service.service import TuningService
    from server.tuning.service.slices import SliceThread
    from server.tuning_wiring import service_config

    model_source(settings.model)
    ladder_of(settings)
    store = open_storage(settings)
    use_persistent_cache(str(compile_cache(settings)))
    base = worker_base(settings, load(settings, say))
    service = TuningService(store, base, service_config(settings, slice_seconds(settings)), say=say)
    device = SliceThread(service.work)
    wait = signals()  # until here a signal ends the process: there is nothing to save
    device.start()
    service.start()
    say("waiting for jobs")
    wait()
    say("stopping: the job at hand is saved and given back")
    if not service.stop(_STOP_SECONDS):
        from server.process import exit_now

        exit_now(0)
    device.stop(_STOP_SECONDS)
    store.close()


def signals() -> Callable[[], None]:
    """From now on SIGTERM and SIGINT are kept; the function returned waits for one.

    By a pipe: a handler that sets an event would wait for itself if it came while the event's lock is held.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        os.read(read_end, 1)

    return wait


def slice_seconds(settings: Settings) -> float:
    """Longest dispatch: as the setting says where it was given."""
    given = "tuning_slice_ms" in settings.model_fields_set
    return (settings.tuning_slice_ms if given else SLICE_MS) / 1000


def worker_base(settings: Settings, loaded: LoadedModel) -> TuningBase:
    """The model as jobs train against it; the device holds nothing else.

    Raises:
        InvalidInputError: the weights alone are more than the device holds.
    """
    from server.api.inference.limits import Limits
    from server.api.services import longest_prompt
    from server.app import embeddings_of, ladder_of
    from server.engine.memory_plan import device_limit
    from server.tuning_wiring import tuning_base

    if loaded.model.mesh is not None:
        raise InvalidInputError(
            "A worker trains on one device: leave out model_devices and data_devices.", field="model_devices"
        )
    limit = settings.memory_limit_bytes or device_limit()
    room = limit - weight_bytes(loaded)
    if room <= 0:
        raise InvalidInputError(
            f"The weights take {weight_bytes(loaded)} bytes, and {limit} may be used.",
            field="memory_limit_bytes",
            code="memory_plan",
        )
    limits = Limits(ladder_of(settings))
    return tuning_base(
        loaded,
        embeddings_of(loaded),
        memory_room=room,
        max_prompt_rows=longest_prompt(settings, limits),
        max_label_tokens=limits.max_target_tokens,
    )


def weight_bytes(loaded: LoadedModel) -> int:
    """Device bytes of the model."""
    import jax

    return sum(leaf.nbytes for leaf in jax.tree.leaves(loaded.model.params))
