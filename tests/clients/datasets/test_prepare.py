"""Rows and documents of prepared datasets, in the text that tuning makes of them, against T5's own examples
(`tests/fixtures/datasets/make_expected.py`)."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from chorus.datasets import DATASETS, Prepared, prepare
from chorus.datasets.questions import pad_punctuation
from chorus.errors import InvalidArgumentError
from chorus_server.api.schemas.documents.evaluation import EvaluationDocument
from chorus_server.quality.column_metrics import columns_of
from chorus_server.quality.metrics import measure
from chorus_server.tuning.data.columns import text_row
from chorus_server.tuning.data.normalizers import NORMALIZERS
from chorus_server.tuning.data.readers import read_rows
from chorus_server.tuning.data.splits import load_split
from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.document.prompt import PromptDocument
from tests.places import FIXTURES, ROOT, SHARED

SAMPLES = FIXTURES / "datasets"
EXPECTED: Mapping[str, Mapping[str, list[dict[str, Any]]]] = json.loads(
    (SAMPLES / "expected.json").read_text()
)
SPLITS = {"val": "dev", "dev_matched": "dev", "dev_mismatched": "mismatched"}
"""Ours, where T5's examples have the file's name."""


WSC_ROW = (
    '{"text": "Ann said she won.", "label": true, "target": {"span1_index": %d, "span1_text": "%s", '
    '"span2_index": 2, "span2_text": "she"}}\n'
)


def source(name: str) -> Path:
    group, _, inner = name.partition("/")
    return SAMPLES / "official" / group if inner else SAMPLES / "official" / name


def prepared(name: str, folder: Path) -> Prepared:
    return prepare(name, source(name), folder / "made")


def document(made: Prepared) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made.folder / "job.json").read_text())
    return found


def lines(made: Prepared, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (made.folder / f"{split}.jsonl").read_text().splitlines()]


def texts(made: Prepared, split: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What tuning and evaluation read."""
    known = DATASETS[made.dataset].document
    prompt = PromptDocument(template=known["template"], settings=known.get("settings", {}))
    for number, row in read_rows(made.folder / f"{split}.jsonl"):
        found = text_row(prompt, number, row, field="data")
        yield found.text, found.answers


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "superglue/record"])
def test_texts_and_answers_are_those_of_t5(name: str, tmp_path: Path) -> None:
    made = prepared(name, tmp_path)
    for split, examples in EXPECTED[name].items():
        ours = SPLITS.get(split, split)
        found = list(texts(made, ours))
        several = "answers" in examples[0] and ours != "train"
        assert [text for text, _ in found] == [each["inputs"] for each in examples]
        assert [answers if several else answers[:1] for _, answers in found] == [
            tuple(each["answers"]) if several else (each["targets"],) for each in examples
        ]
        if name == "superglue/multirc":
            assert [row["question_id"] for row in lines(made, ours)] == [
                str(each["idx/question"]) for each in examples
            ]
        if name == "superglue/wsc":
            assert [row["correct"] for row in lines(made, ours)] == [each["label"] == 1 for each in examples]


def test_record_is_trained_on_each_answer_and_evaluated_on_each_query(tmp_path: Path) -> None:
    made = prepared("superglue/record", tmp_path)
    train, dev = EXPECTED["superglue/record"]["train"], EXPECTED["superglue/record"]["val"]
    found = list(texts(made, "train"))
    assert [(text, answers[0]) for text, answers in found] == [
        (each["inputs"], each["targets"]) for each in train
    ]
    assert [sorted(answers) for _, answers in found] == [sorted(set(each["answers"])) for each in train]
    queries = {each["idx/query"]: (each["inputs"], tuple(each["answers"])) for each in dev}
    assert list(texts(made, "dev")) == [*queries.values()] and len(queries) < len(dev)
    assert [row["query_id"] for row in lines(made, "dev")] == [str(query) for query in queries]


@pytest.mark.parametrize("name", ["superglue/record", "mrqa", "squad"])
def test_rows_cut_from_train_accept_every_answer(name: str, tmp_path: Path) -> None:
    """A validation split is cut from train, and chooses the checkpoint by the set's own metrics."""
    official = tmp_path / "official"
    shutil.copytree(source(name), official)
    if name == "mrqa":
        (official / "train").mkdir()
        (official / "BioASQ.jsonl").rename(official / "train" / "BioASQ.jsonl")
    if name == "squad":
        shutil.copy(official / "dev-v1.1.json", official / "train-v1.1.json")
    made = prepare(name, official, tmp_path / "made")
    (prompt,) = JobDocument.from_json({**document(made), "data": {"train": {"path": "train.jsonl"}}}).prompts
    train = load_split("train", made.folder / "train.jsonl", prompt)
    assert not any("another answer" in warning for warning in train.warnings), train.warnings
    answers = [row.answers for row in train.rows]
    others = [list(dict.fromkeys(known))[-1] for known in answers]
    assert others != [known[0] for known in answers], "the control: a row has several answers"
    measured = measure(prompt.metrics, others, answers, (), columns_of(train.rows))
    assert measured["mean"] == 1.0


def test_trec_has_words_for_its_classes(tmp_path: Path) -> None:
    made = prepared("trec", tmp_path)
    assert list(texts(made, "train")) == [
        ("How did it begin ?", ("description",)),
        ("What films won ?", ("entity",)),
        ("What does NASA mean ?", ("abbreviation",)),
        ("Who wrote \x93 Emma \x94 ?", ("human",)),
    ]
    assert list(texts(made, "dev")) == [
        ("Where is Z\u00fcrich ?", ("location",)),
        ("How far is it ?", ("number",)),
    ]


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "mrqa"])
def test_the_documents_are_a_jobs(name: str, tmp_path: Path) -> None:
    made = prepared(name, tmp_path)
    asked = document(made)
    assert asked["data"] == {"train": "train.jsonl", "test": "dev.jsonl"}
    asked["data"] = {split: {"path": file} for split, file in asked["data"].items()}
    (prompt,) = JobDocument.from_json(asked).prompts
    assert prompt.task == made.task == name.replace("/", "-")
    assert set(prompt.labels) == set(DATASETS[name].labels) and prompt.metrics == tuple(
        DATASETS[name].metrics
    )
    assert (prompt.recipe.initialiser == "words") == (name in ("superglue/record", "superglue/wsc"))
    evaluation = json.loads((made.folder / "evaluation.json").read_text())
    asked_base = EvaluationDocument.read({**evaluation, "file": "file-1"})
    asked_base.check()
    completed = asked_base.completed(())
    assert completed.metrics == prompt.metrics and set(completed.labels) == set(prompt.labels)
    (base,) = (each.base for each in completed.subjects)
    assert base is not None and base.template == prompt.template
    assert base.normalizer == prompt.settings.get("normalizer")
    if prompt.labels:
        assert {row["label"] for row in lines(made, "train")} <= set(prompt.labels)


def test_rows_are_counted_before_they_are_chosen(tmp_path: Path) -> None:
    train, dev = prepared("superglue/wsc", tmp_path).splits
    assert (train.rows, train.examples, train.labels) == (4, 3, {"False": 1, "True": 3})
    assert (dev.rows, dev.examples, dev.labels) == (4, 4, {"False": 1, "True": 3})
    train, _ = prepare("superglue/record", source("superglue/record"), tmp_path / "record").splits
    assert (train.rows, train.examples, train.labels) == (2, 3, {})


def test_incomplete_rows_are_left_out_and_told(tmp_path: Path) -> None:
    made = prepared("glue/qqp", tmp_path)
    assert made.splits[0].examples == 2
    assert made.warnings == ["train.tsv: 1 incomplete rows were left out, as T5 does"]


def test_mrqa_has_a_file_for_each_set_and_trains_on_those_that_are_for_it(tmp_path: Path) -> None:
    official = tmp_path / "mrqa"
    (official / "train").mkdir(parents=True)
    content = gzip.compress((source("mrqa") / "BioASQ.jsonl").read_bytes())
    for path in (
        official / "BioASQ.jsonl.gz",
        official / "DROP.jsonl.gz",
        official / "train" / "SQuAD.jsonl.gz",
    ):
        path.write_bytes(content)
    made = prepare("mrqa", official, tmp_path / "made")
    assert [split.name for split in made.splits] == ["train", "BioASQ", "DROP"]
    expected = EXPECTED["mrqa"]["BioASQ"]
    trained = [row["label"] for row in lines(made, "train")]
    assert [answers[0] for answers in trained] == [each["targets"] for each in expected]
    for answers, each in zip(trained, expected, strict=True):
        assert len(answers) == len(set(answers)) and set(answers) == {each["targets"], *each["answers"]}
    assert [row["label"] for row in lines(made, "DROP")] == [each["answers"] for each in expected]
    assert document(made)["data"] == {"train": "train.jsonl"}
    shutil.rmtree(official / "train")
    made = prepare("mrqa", official, tmp_path / "evaluated")
    assert not (made.folder / "job.json").exists() and (made.folder / "evaluation.json").is_file()


def test_a_zip_is_read_as_a_folder_is(tmp_path: Path) -> None:
    archive = tmp_path / "BoolQ.zip"
    with zipfile.ZipFile(archive, "w") as written:
        for file in (source("superglue/boolq") / "BoolQ").iterdir():
            written.write(file, f"BoolQ/{file.name}")
    made = prepare("superglue/boolq", archive, tmp_path / "made")
    inner = prepare("superglue/boolq", source("superglue/boolq") / "BoolQ", tmp_path / "other")
    assert lines(made, "train") == lines(inner, "train")
    (tmp_path / "made" / "train.jsonl").write_text("kept")
    with pytest.raises(InvalidArgumentError, match="exists already"):
        prepare("superglue/boolq", archive, tmp_path / "made")
    assert (tmp_path / "made" / "train.jsonl").read_text() == "kept"


@pytest.mark.parametrize(
    ("name", "broken", "content", "said"),
    [
        ("superglue/cb", "val.jsonl", None, "in a folder CB there.; it has train.jsonl"),
        ("superglue/cb", "val.jsonl", '{"premise": "a", "idx": 1}\n', "row 1: there is no 'hypothesis'"),
        ("superglue/cb", "val.jsonl", '{"premise": "a", "hypothesis": "b"}\n', "test sets have no labels"),
        ("superglue/cb", "val.jsonl", '{"premise": "a", "hypothesis": "b", "label": 7}\n', "label 7 is none"),
        ("superglue/cb", "val.jsonl", '{"premise": 3, "hypothesis": "b", "label": 1}\n', "'premise' is int"),
        ("superglue/cb", "val.jsonl", "premise\tb\n", "row 1: it is not JSON"),
        ("superglue/cb", "val.jsonl", "", "no row could be read"),
        ("superglue/wsc", "val.jsonl", '{"text": "a b", "label": true, "target": {}}\n', "no 'span1_index'"),
        ("superglue/wsc", "val.jsonl", WSC_ROW % (70, "ann"), "row 1: the index of a span is beyond"),
        ("superglue/wsc", "val.jsonl", WSC_ROW % (0, "Bob"), "row 1: the text has no 'Bob'"),
        ("glue/mnli", "dev_matched.tsv", "index\tsentence1\tsentence2\n", "no column 'gold_label'"),
        ("glue/rte", "dev.tsv", "sentence1\tsentence2\tlabel\na\tb\t2\n", "'label' is '2', and the set has"),
        ("glue/stsb", "dev.tsv", "sentence1\tsentence2\tscore\na\tb\thigh\n", "'high', which is no number"),
        ("squad", "dev-v1.1.json", "[]", "not an object with 'data'"),
        ("squad", "dev-v1.1.json", None, "rajpurkar.github.io/SQuAD-explorer"),
        ("trec", "TREC_10.label", "OTHER:x Why ?\n", "row 1: it is not as in"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_and_nothing_is_written(
    name: str, broken: str, content: str | None, said: str, tmp_path: Path
) -> None:
    official = tmp_path / "official"
    shutil.copytree(source(name) / DATASETS[name].folder, official)
    prepare(name, official, tmp_path / "whole")  # the control
    if content is None:
        (official / broken).unlink()
    else:
        (official / broken).write_text(content)
    with pytest.raises(InvalidArgumentError, match=said):
        prepare(name, official, tmp_path / "made")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["official", "whole"]


def test_a_wrong_source_and_a_wrong_name_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"is not there.*super\.gluebenchmark"):
        prepare("superglue/cb", tmp_path / "nowhere", tmp_path / "made")
    with pytest.raises(InvalidArgumentError, match="is not a zip file"):
        prepare("superglue/cb", SAMPLES / "expected.json", tmp_path / "made")
    with pytest.raises(
        InvalidArgumentError, match="There is no dataset 'glue/wnli'; there are superglue/boolq"
    ):
        prepare("glue/wnli", tmp_path, tmp_path / "made")


def test_answers_are_padded_as_the_normaliser_pads_questions() -> None:
    for text, padded in json.loads((SAMPLES / "punctuation.json").read_text()).items():
        assert pad_punctuation(text) == NORMALIZERS["t5_punctuation"].rewrite(text) == padded


def test_the_page_says_what_each_form_is() -> None:
    lines = (ROOT / "docs" / "datasets.md").read_text().splitlines()
    for name, dataset in DATASETS.items():
        told = [line for line in lines if line.startswith("|") and f"`{name}`" in line]
        assert len(told) == 1 and (f"`{dataset.template}`" in told[0] or name == "mrqa"), name


@pytest.mark.shared
@pytest.mark.parametrize("name", ["boolq", "cb", "copa", "rte"])
def test_the_official_files_are_read_whole(name: str, tmp_path: Path) -> None:
    if not (SHARED / "data" / "superglue").is_dir():
        pytest.skip(f"{SHARED / 'data'} is not here")
    made = prepare(f"superglue/{name}", SHARED / "data" / "superglue", tmp_path / "made")
    known = {"boolq": (9_427, 3_270), "cb": (250, 56), "copa": (400, 100), "rte": (2_490, 277)}
    assert tuple(split.examples for split in made.splits) == known[name] and not made.warnings
