"""A job on the engine's own thread and weights, while requests are served: neither knows of the other."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from chorus_server.api.inference.prepare import answer_start, label_targets
from chorus_server.api.inference.prompt_source import StorePrompts
from chorus_server.engine.config import EngineConfig
from chorus_server.engine.executor import CompileWatch
from chorus_server.engine.executor.testing import MemoryPrompts, tiny_executor
from chorus_server.engine.handle import RequestHandle
from chorus_server.engine.host_prompts import HostPromptTier
from chorus_server.engine.plans import BlockShape, Ladder
from chorus_server.engine.requests import GenerateRequest, Origin, PromptHandle, ScoreRequest
from chorus_server.engine.sampling import Sampling
from chorus_server.engine.thread.engine import Engine
from chorus_server.tuning.data.examples import make_examples
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.jobs.worker.service import TuningService
from chorus_server.tuning.training.answering import label_scores
from chorus_server.tuning.training.packing import pack_training_targets
from chorus_server.tuning_wiring import run_beside
from prompts_store.store import PromptStore
from tests.server.api.api_harness import eventually
from tests.server.tuning.jobs.service_tools import (
    TENANT,
    Watcher,
    base,
    config,
    document,
    done,
    finished,
    jsonl,
    submit,
    upload,
)
from tests.server.tuning.tuning_tools import LABELS, VOCABULARY, letters_task, model

_numbers = count()
# One shape an input: at another one, the last bits of an answer may differ, whether a job runs or not.
LADDER = Ladder(((4, 24),), (BlockShape(24, 8, 4),), ((2, 4),))


_LABEL_SCORES = jax.jit(label_scores, static_argnums=0)


def origin() -> Origin:
    return Origin(f"r{next(_numbers)}", TENANT)


class Tier(MemoryPrompts):
    """The engine's host tier, as the executor reads it."""

    def __init__(self, host: HostPromptTier) -> None:
        super().__init__()
        self._host = host

    def values(self, digest: str) -> Any:
        return self._host.values(digest)

    def __bool__(self) -> bool:
        return True


class Served:
    """An engine on the tiny model with a tuning service in it."""

    def __init__(self, folder: Path, share: float = 0.0) -> None:
        self.store = PromptStore.open(folder)
        self.watch = CompileWatch().start()
        host = HostPromptTier(1 << 20)
        executor = tiny_executor(LADDER, Tier(host), model=model(), watch=self.watch)
        self.engine = Engine(
            executor,
            StorePrompts(self.store),
            config=EngineConfig(check_integrity=True, background_share=share),
            detokenise=VOCABULARY.decode,
            host_prompts=host,
        )
        self.watcher = Watcher()
        self.service = TuningService(
            self.store, base(), config(folder), metrics=self.watcher, because=self.watch.because,
            alive=lambda: self.engine.dead is None,
        )  # fmt: skip

    def __enter__(self) -> Served:
        self.engine.start()
        self.watch.mark_ready()
        run_beside(self.engine, self.service)
        return self

    def __exit__(self, *_: object) -> None:
        self.service.stop(300)
        self.engine.stop()
        self.watch.close()
        assert self.engine.dead is None

    def answers(self) -> list[Any]:
        """What some requests say: tokens and log probabilities, with a prompt and without."""
        return self.told(self.asked())

    def asked(self) -> list[RequestHandle]:
        """The requests, under way."""
        version = self.store.resolve("served", tenant=TENANT).manifest
        prompt = PromptHandle(version.digest, version.length)
        targets = tuple(label_targets(VOCABULARY, LABELS, 4, "labels"))  # type: ignore[arg-type]
        handles = []
        for n, row in enumerate(letters_task(12, 5)):
            ids = (*VOCABULARY.encode(row.text), 1)
            parts = (prompt, ids) if n % 2 else (ids,)
            handles.append(self.engine.submit(ScoreRequest(origin(), parts, targets)))
            handles.append(self.engine.submit(GenerateRequest(origin(), parts, Sampling(max_new_tokens=8))))
        return handles

    def told(self, handles: list[RequestHandle]) -> list[Any]:
        """What they say once they are answered."""
        found: list[Any] = [handle.wait(300) for handle in handles]
        return [
            each.log_probabilities if hasattr(each, "log_probabilities")
            else [(sequence.tokens, sequence.score) for sequence in each.sequences]
            for each in found
        ]  # fmt: skip


def weights_digest() -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(model().params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, compile_cache: Path) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served")) as made:
        first = submit(made.store, document(upload(made.store, jsonl()), task="served"))
        assert finished(made.store, first).status == "succeeded"
        yield made


def test_requests_and_a_job_do_not_change_each_other(served: Served, tmp_path: Path) -> None:
    weights, alone = weights_digest(), served.answers()
    recipe = {"steps": 60, "evaluate_every_steps": 20, "checkpoint_every_steps": 10}
    file = upload(served.store, jsonl())
    watcher, made = served.watcher, served.watcher.made
    watcher.hold_after = watcher.slices + 60  # a step is 2 slices: in the middle of the job
    job = submit(served.store, document(file, task="beside", recipe=recipe))
    assert watcher.reached.wait(300)
    asked = served.asked()
    eventually(lambda: watcher.made > made)
    assert watcher.made - made < 60
    held, watcher.release = watcher.release, threading.Event()
    watcher.hold_after += 40  # and once more before its end
    held.set()
    beside = [served.told(asked)]  # answered between its steps
    watcher.release.set()
    while served.store.get_job(TENANT, job.id).finished_at is None:
        beside.append(served.answers())
    over = served.store.get_job(TENANT, job.id)
    assert over.status == "succeeded", over.error
    assert all(each == alone for each in beside), "bit for bit"
    assert weights_digest() == weights
    assert served.watch.caused_by("request") == 0 and served.watch.caused_by("tuning") > 0
    quiet_store = PromptStore.open(tmp_path)
    quiet = done(quiet_store, tmp_path, document(upload(quiet_store, jsonl()), recipe=recipe))
    assert quiet.result["prompts"][0]["digest"] == over.result["prompts"][0]["digest"]
    # The control: a request with other values in its prompt does say something else.
    assert alone[0] != alone[2]


def test_a_share_lets_a_job_end_under_endless_load(tmp_path: Path, compile_cache: Path) -> None:
    with Served(tmp_path, share=0.5) as served:
        file = upload(served.store, jsonl())
        assert (
            finished(served.store, submit(served.store, document(file, task="served"))).status == "succeeded"
        )
        job = submit(served.store, document(file, task="loaded"))
        ids = (*VOCABULARY.encode("abab"), 1)
        sampling = Sampling(max_new_tokens=8, min_new_tokens=8)
        waiting = [served.engine.submit(GenerateRequest(origin(), (ids,), sampling)) for _ in range(8)]
        while served.store.get_job(TENANT, job.id).finished_at is None:
            waiting.append(served.engine.submit(GenerateRequest(origin(), (ids,), sampling)))
            waiting.pop(0).wait(300)
        assert served.store.get_job(TENANT, job.id).status == "succeeded"
        for handle in waiting:
            handle.wait(300)


@pytest.mark.parametrize("sentinel", [True, False])
def test_serving_ranks_labels_as_the_job_did(served: Served, sentinel: bool) -> None:
    """The served scores of a tuned version are the tuning library's own, with a sentinel and without."""
    recipe = {"sentinel_before_target": sentinel}
    file, task = upload(served.store, jsonl()), f"sentinel-{sentinel}".lower()
    job = finished(served.store, submit(served.store, document(file, task=task, recipe=recipe)))
    assert job.status == "succeeded", job.error
    version = served.store.resolve(task, tenant=TENANT)
    assert version.manifest.settings.get("sentinel_before_target", False) is sentinel
    values = served.store.values(version.manifest.digest)
    texts = letters_task(4, 77)
    full = Recipe(**{**version.lineage["recipe"]})
    examples, _ = make_examples(texts, VOCABULARY, full)
    start = answer_start(VOCABULARY, version)  # type: ignore[arg-type]
    targets = tuple(label_targets(VOCABULARY, LABELS, 4, "labels", start))  # type: ignore[arg-type]
    prompt = PromptHandle(version.manifest.digest, version.manifest.length)
    handles = [
        served.engine.submit(ScoreRequest(origin(), (prompt, example.input_ids), targets))
        for example in examples
    ]
    found = np.array([handle.wait(300).log_probabilities for handle in handles])
    ours = _library_scores(values, [example.input_ids for example in examples], sentinel)
    np.testing.assert_allclose(found, ours, rtol=2e-5, atol=2e-5)
    # The control: the scores of the labels without (or with) the sentinel are others.
    others = _library_scores(values, [example.input_ids for example in examples], not sentinel)
    assert np.abs(found - others).max() > 0.1


def _library_scores(values: Any, inputs: list[tuple[int, ...]], sentinel: bool) -> Any:
    tiny, rows = model(), len(inputs)
    first = tiny.config.padded_vocab_size
    ids, lengths = np.zeros((rows, 24), np.int32), np.zeros(rows, np.int32)
    for n, text in enumerate(inputs):
        lengths[n] = len(values) + len(text)
        ids[n, : lengths[n]] = [*range(first, first + len(values)), *text]
    start = (VOCABULARY.sentinel(0),) if sentinel else ()
    packed, each = pack_training_targets([(*start, *VOCABULARY.encode(label), 1) for label in LABELS], 4)
    labels = np.broadcast_to(packed, (rows, *packed.shape))
    label_lengths = np.broadcast_to(each, (rows, len(each)))
    arrays = (values[None], ids, lengths, labels, label_lengths)
    return np.asarray(_LABEL_SCORES(tiny.functions, tiny.params, *arrays))
