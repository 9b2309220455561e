"""From a document to examples: data is read once and held as little as can be."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chorus_server.jobs.leased import JobCancelledError
from chorus_server.tuning.data.examples import TextRow, make_examples
from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.jobs.stages import validate as stage
from chorus_server.tuning.jobs.stages.validate import Validated, validate
from chorus_server.tuning.training.run import TrainingRun
from prompts_store.store import PromptStore
from tests.server.tuning.jobs.service_tools import FINGERPRINT, attempt, base, document, jsonl, upload


def _validated(store: PromptStore, folder: Path, sent: dict[str, Any]) -> Validated:
    return validate(attempt(store, folder), JobDocument.from_json(sent).for_base(FINGERPRINT))


def _texts() -> int:
    """How many rows of any dataset are in memory."""
    gc.collect()
    return sum(isinstance(each, TextRow) for each in gc.get_objects())


def test_prompts_that_learn_from_the_same_data_share_its_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, read = PromptStore.open(tmp_path), []
    load = stage.load_dataset
    monkeypatch.setattr(stage, "load_dataset", lambda *a: read.append(a[-1]) or load(*a))
    rates = [{"recipe": {"learning_rate": rate}} for rate in (0.1, 0.3, 0.5)]
    other = {"data": {"train": {"file": upload(store, jsonl(40, 2))}, "validation_rows": 10}}
    sent = document(upload(store, jsonl()), prompts=[*rates, other, {"target_texts": {"n": "n", "y": "y"}}])
    held = _texts()
    validated = _validated(store, tmp_path, sent)
    one, two, three, fourth, fifth = validated.tasks
    assert one.train is two.train is three.train and one.validation is three.validation
    assert fourth.train != one.train and fifth.train is not one.train and fifth.train == one.train
    assert read == ["prompts.0.data", "prompts.3.data", "prompts.4.data"]
    assert _texts() == held, "texts are let go"
    assert [each["data"]["train"]["rows"] for each in validated.lineages] == [30, 30, 30, 29, 30]
    run = validated.run(4)
    # Shared or not, the run's digest is of what is in the splits.
    apart = [replace(each, train=(*each.train,)) for each in run.tasks]
    assert TrainingRun(run.seed, tuple(apart)).digest == run.digest
    apart[1] = replace(apart[1], train=apart[1].train[1:])
    assert TrainingRun(run.seed, tuple(apart)).digest != run.digest


def test_equal_ids_are_one_object(tmp_path: Path) -> None:
    store = PromptStore.open(tmp_path)

    class Fresh(type(base().vocabulary)):  # type: ignore[misc]
        def encode(self, text: str, *, allow_sentinels: bool = False) -> list[int]:
            return [each + 1000 for each in super().encode(text)]

    rows = [TextRow(n, "ab", ("y",)) for n in range(2)]
    recipe = _validated(store, tmp_path, document(upload(store, jsonl()))).tasks[0].recipe
    (first, second), _ = make_examples(rows, Fresh(), recipe)
    assert first.input_ids[0] is second.input_ids[0] and first.target_ids is second.target_ids


def test_a_cancellation_is_seen_while_a_file_is_read(tmp_path: Path) -> None:
    store = PromptStore.open(tmp_path)
    sent = JobDocument.from_json(document(upload(store, jsonl()))).for_base(FINGERPRINT)
    looks = iter([None, None])

    def interrupt() -> None:
        """Passes as the stage and its prompt begin."""
        if next(looks, "over") == "over":
            raise JobCancelledError

    with pytest.raises(JobCancelledError) as caught:
        validate(attempt(store, tmp_path, interrupt=interrupt), sent)
    assert "load_split" in [entry.name for entry in caught.traceback]


def test_labels_that_get_no_row_are_told(tmp_path: Path) -> None:
    store = PromptStore.open(tmp_path)
    file = upload(store, jsonl())

    def warned(**recipe: Any) -> list[str]:
        found = _validated(store, tmp_path, document(file, recipe=recipe)).warnings
        return [each for each in found if "prompt_length" in each]

    (one,) = warned(prompt_length=1)
    assert "2 labels for a prompt_length of 1: labels from number 1 on" in one
    assert warned(prompt_length=2) == [], "the control: a row for each"
    assert warned(prompt_length=1, initialiser="sampled_vocabulary") == []
    (text,) = warned(prompt_length=2, initialiser="text", initialiser_text="abc")
    assert "3 tokens, and only the first 2" in text
    assert warned(prompt_length=3, initialiser="text", initialiser_text="abc") == []
    (words,) = warned(prompt_length=1, initialiser_words=["ab", "c"])
    assert "2 initialiser_words, and only the first 1" in words
    assert warned(prompt_length=2, initialiser_words=["ab", "c"]) == []
