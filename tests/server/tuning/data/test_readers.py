"""Files to rows: what is read, and what is refused with which row."""

from __future__ import annotations

import csv
import json
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.data.examples import TextRow, make_examples
from chorus_server.tuning.data.order import batch_indices, epoch_of
from chorus_server.tuning.data.readers import ReadOptions, file_digest, read_rows
from chorus_server.tuning.data.splits import check_rows, cut_from_train, load_split, overlap_warnings
from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.document.prompt import PromptDocument
from tests.server.tuning.tuning_tools import RECIPE, VOCABULARY

PROMPT = PromptDocument(template="{text}", target="label")
LABELS = ("bad", "good")


def _write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _jsonl(path: Path, rows: list[Any]) -> Path:
    return _write(path, "".join(json.dumps(row) + "\n" for row in rows))


def _refused(path: Path, prompt: PromptDocument = PROMPT, **more: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as refused:
        load_split("train", path, prompt, **more)
    assert refused.value.field == "data.train"
    return refused.value


def test_the_same_rows_from_every_format(tmp_path: Path) -> None:
    rows = [{"text": 'a "b", c', "label": "good"}, {"text": "ü\u2028x", "label": "bad"}]
    jsonl = _jsonl(tmp_path / "a.jsonl", rows)
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    tsv = _write(tmp_path / "a.tsv", "text\tlabel\n" + "".join(f"{r['text']}\t{r['label']}\n" for r in rows))
    bare = _write(tmp_path / "b.tsv", "".join(f"{r['text']}\t{r['label']}\r\n" for r in rows))
    named = ReadOptions(column_names=("text", "label"))
    for path, options in ((jsonl, None), (tmp_path / "a.csv", None), (tsv, None), (bare, named)):
        assert list(read_rows(path, options)) == [(1, rows[0]), (2, rows[1])], path


def test_csv_rows_may_have_several_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", b'\xef\xbb\xbftext,label\n"one\ntwo",good\nthree,bad\n')
    assert [row for row, _ in read_rows(path)] == [1, 2]
    assert next(read_rows(path))[1] == {"text": "one\ntwo", "label": "good"}


def _parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def test_parquet_rows(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "a.parquet", {"text": ["a", "b"], "label": [0, 1], "all": [["x", "y"], []]})
    assert list(read_rows(path)) == [
        (1, {"text": "a", "label": 0, "all": ["x", "y"]}), (2, {"text": "b", "label": 1, "all": []}),
    ]  # fmt: skip
    many = _parquet(tmp_path / "b.parquet", {"text": [str(n) for n in range(1000)]}, row_group_size=300)
    assert [record["text"] for _, record in read_rows(many)] == [str(n) for n in range(1000)]
    assert "not a readable Parquet file" in _refused(_write(tmp_path / "c.parquet", b"PAR1")).message


@pytest.mark.parametrize("nested", [False, True])
def test_a_parquet_file_that_unpacks_to_gigabytes_costs_little(tmp_path: Path, nested: bool) -> None:
    """One text, many times: 8 MB in each of 1,000 rows, or 1,000 times in one list."""
    pyarrow = pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
    short, long = "a", "x" * (8 << 20)
    places = pyarrow.array([0] + [1] * 1000, pyarrow.int32())
    column = pyarrow.DictionaryArray.from_arrays(places, pyarrow.array([short, long]))
    if nested:
        column = pyarrow.ListArray.from_arrays(pyarrow.array([0, 1, 1001], pyarrow.int32()), column)
    path = _parquet(tmp_path / "a.parquet", {"text": column}, compression="zstd", store_schema=False)
    assert path.stat().st_size < 5_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidInputError, match="row 2: is longer than 1048576 bytes"):
        list(read_rows(path))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 256 << 20


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    error = _refused(_write(tmp_path / "a.parquet", b"PAR1"))
    assert "pip install pyarrow" in error.message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "a", "label": "good"}\n{"text": "b"}\n', "row 2: there is no column 'label'"),
        ("a.jsonl", '{"text": "a", "label": null}\n', "row 1: the column 'label' is empty"),
        ("a.jsonl", '{"text": {"x": 1}, "label": "good"}\n', "row 1: the column 'text' holds dict"),
        ("a.jsonl", '{"text": "a", "label": "good"}\n["b"]\n', "row 2: is not a JSON object"),
        ("a.jsonl", '\n{"text": "a", "label": NaN}\n', "row 2: is not a JSON object: NaN"),
        ("a.jsonl", '{"text": "a", "text": "b"}\n', "row 1: is not a JSON object: a key occurs twice"),
        ("a.jsonl", "[" * 100_000 + "\n", "row 1: is not a JSON object"),
        ("a.jsonl", '{"text": "\\ud800", "label": "good"}\n', "the column 'text' holds a lone surrogate"),
        ("a.jsonl", b'{"text": "a", "label": "good"}\n{"text": "\xe9"}\n', "row 2: is not UTF-8"),
        ("a.jsonl", "\ufeff".encode("utf-16") + "x".encode("utf-16"), "row 1: is not UTF-8"),
        ("a.jsonl", '{"text": "a", "label": "fine"}\n', "row 1: the answer 'fine' is none of the labels"),
        ("a.jsonl", '{"text": "a", "label": []}\n', "row 1: the column 'label' has no answer"),
        ("a.jsonl", "", "the train split has no rows"),
        ("a.csv", "text,label\n", "the train split has no rows"),
        ("a.csv", "", "is empty"),
        ("a.csv", "text,text\na,b\n", "names the column 'text' twice"),
        ("a.csv", "text,label\na,good\nb\n", "row 2: has 1 columns; the header names 2"),
        ("a.csv", 'text,label\n"a"b,good\n', "row 1: has text after a closing quote"),
        ("a.csv", 'text,label\na,good\n"b,good\n', "row 2: has a quoted cell that never ends"),
        ("a.txt", "x", "unknown ending"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_with_the_row(tmp_path: Path, name: str, content: Any, message: str) -> None:
    assert message in _refused(_write(tmp_path / name, content), labels=LABELS).message


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "a.jsonl", [{"text": str(n), "label": "good"} for n in range(5)])
    assert _refused(path, labels=LABELS).code == "one_class"
    assert load_split("validation", path, PROMPT, labels=LABELS).warnings


def test_one_label_is_one_class_and_one_free_answer_is_odd(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "a.jsonl", [{"text": str(n), "label": "good"} for n in range(5)])
    assert _refused(path, labels=("good",)).code == "one_class"
    assert load_split("train", path, PROMPT).warnings == (
        "every row of the train split has the answer 'good'; there is little to learn",
    )


def test_reading_can_be_interrupted_in_the_middle_of_a_file(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "a.jsonl", [{"text": str(n), "label": "good"} for n in range(2_500)])
    looks: list[int] = []

    def interrupt() -> None:
        looks.append(len(looks))
        if len(looks) == 3:
            raise KeyError("cancelled")

    with pytest.raises(KeyError):
        load_split("train", path, PROMPT, interrupt=interrupt)
    assert len(looks) == 3


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in _refused(tmp_path / "a.jsonl").message


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
def test_a_huge_line_is_refused_without_being_held(tmp_path: Path, name: str) -> None:
    """A file with a hole: 2 GB of zeros in one line, that take no disk and must take no memory."""
    path = tmp_path / name
    with path.open("wb") as file:
        file.write({"a.csv": b'text,label\n"', "a.tsv": b"text\tlabel\n"}.get(name, b"{"))
        file.truncate(2 * 1024**3)
    assert "row 1: is longer than 1048576 bytes" in _refused(path).message


def test_a_row_of_many_lines_is_bounded_too(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", 'text,label\na,good\n"' + "short\n" * 1000)
    assert "row 2: is longer than" in _refused(path, options=ReadOptions(max_row_bytes=500)).message
    fine = _write(tmp_path / "b.csv", "text,label\n" + "abcdefgh,good\n" * 1000)
    assert len(list(read_rows(fine, ReadOptions(max_row_bytes=500)))) == 1000
    assert "more than 10 rows" in _refused(fine, options=ReadOptions(max_rows=10)).message
    # 14 bytes a row, and 11 of the header.
    assert len(list(read_rows(fine, ReadOptions(max_bytes=14_011)))) == 1000
    refused = _refused(fine, options=ReadOptions(max_bytes=14_010)).message
    assert "row 1000: up to here the rows have more than 14010 bytes" in refused


def test_columns_templates_and_answers(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "a.jsonl", [{"premise": "p", "hyp": 3, "idx": 0, "label": True}])
    prompt = PromptDocument(
        template="{premise} => {hypothesis}",
        target="label",
        columns={"hypothesis": "hyp"},
        target_texts={"true": "good", "false": "bad"},
    )
    assert load_split("train", path, prompt).rows == (TextRow(1, "p => 3", ("good",)),)
    several = _jsonl(tmp_path / "b.jsonl", [{"text": "q", "label": ["x", "y"]}])
    assert load_split("train", several, PROMPT).rows[0].answers == ("x", "y")
    unknown = _jsonl(tmp_path / "c.jsonl", [{"premise": "p", "hyp": "h", "label": 2}])
    assert "row 1: target_texts does not say how to write '2'" in _refused(unknown, prompt).message
    sent = {"task": "t", "data": {"train": {"file": "file-1"}}}
    with pytest.raises(InvalidInputError, match="no field 'x'") as caught:
        JobDocument.from_json({**sent, "columns": {"x": "y"}})
    assert caught.value.field == "columns"
    with pytest.raises(InvalidInputError) as caught:
        JobDocument.from_json({**sent, "template": "{text"})
    assert caught.value.field == "template"


NESTED = {"context": "c", "answers": {"text": ["x", "y"], "answer_start": [1, 2]}}
LISTED = {"context": "c", "answers": [{"text": "x"}, {"text": "y"}]}


@pytest.mark.parametrize("record", [NESTED, LISTED, {"context": "c", "answers.text": ["x", "y"]}])
def test_a_path_names_a_nested_column(record: dict[str, Any], tmp_path: Path) -> None:
    prompt = PromptDocument(template="{context}", target="answers.text")
    path = _jsonl(tmp_path / "a.jsonl", [record])
    assert load_split("train", path, prompt).rows == (TextRow(1, "c", ("x", "y")),)
    absent = PromptDocument(template="{context}", target="answers.texts")
    assert "row 1: there is no column 'answers.texts'" in _refused(path, absent).message
    if record is NESTED:
        deep = PromptDocument(template="{c}", columns={"c": "answers"}, target="context")
        assert "row 1: the column 'answers' holds dict" in _refused(path, deep).message


def test_a_path_names_a_nested_column_of_parquet(tmp_path: Path) -> None:
    columns = {"context": ["c", "d"], "answers": [NESTED["answers"], {"text": ["z"], "answer_start": [0]}]}
    prompt = PromptDocument(template="{context}", target="answers.text")
    rows = load_split("train", _parquet(tmp_path / "a.parquet", columns), prompt).rows
    assert rows == (TextRow(1, "c", ("x", "y")), TextRow(2, "d", ("z",)))


def test_rows_that_are_measured_have_the_columns_of_metrics(tmp_path: Path) -> None:
    rows = [{"text": str(n), "label": "good", "query": n // 4, "correct": n % 2 == 0} for n in range(40)]
    path = _jsonl(tmp_path / "a.jsonl", rows)
    columns = {"group": "query", "label": "correct"}
    fields = {"metric_columns": columns, "metrics": ["multirc_em", "wsc_referent"]}
    split = {"file": "file-1"}

    def prompt(data: dict[str, Any], **more: Any) -> PromptDocument:
        return JobDocument.from_json({"task": "t", "data": data, **fields, **more}).prompts[0]

    cut, given = prompt({"train": split}), prompt({"train": split, "validation": split})
    assert load_split("validation", path, given).rows[3].columns == {"group": "0", "label": "false"}
    assert load_split("train", path, given).rows[3].columns is None, "nobody measures train"
    kept, taken = cut_from_train(load_split("train", path, cut), 10, seed=1)
    groups = [{(row.columns or {})["group"] for row in each.rows} for each in (kept, taken)]
    assert len(taken.rows) == 12 and not groups[0] & groups[1], "groups stay together"
    examples, _ = make_examples(taken.rows, VOCABULARY, RECIPE)
    assert [each.columns for each in examples] == [row.columns for row in taken.rows]
    bare = _jsonl(tmp_path / "b.jsonl", [{"text": "a", "label": "good"}])
    assert load_split("train", bare, given).rows
    assert "no column 'query'" in _refused(bare, cut).message
    odd = _jsonl(tmp_path / "c.jsonl", [{"text": "a", "label": "good", "query": 1, "correct": "maybe"}])
    assert "row 1: the column 'correct' has 'maybe'; expected true or false" in _refused(odd, cut).message
    for more in ({"metric_columns": {"group": "query"}}, {"metric_columns": {**columns, "groups": "x"}}):
        with pytest.raises(InvalidInputError) as caught:
            prompt({"train": split}, **more)
        assert caught.value.field in ("metrics", "metric_columns")


def _rows(*texts: str, answer: str = "good") -> list[TextRow]:
    return [TextRow(n + 1, text, (answer,)) for n, text in enumerate(texts)]


def test_odd_but_allowed_rows_are_warned_about() -> None:
    rows = [*_rows("a", "b", "a", "c"), TextRow(5, "b", ("bad",))]
    warnings = check_rows("train", rows, ("bad", "good", "odd"))
    assert [
        part in line for part, line in zip(("label odd", "(rows 3)", "(rows 5)"), warnings, strict=True)
    ] == [True] * 3
    assert check_rows("train", [*_rows("a"), TextRow(2, "b", ("bad",))]) == ()
    # One row for each accepted answer contradicts nothing.
    twice = [TextRow(1, "a", ("x", "y")), TextRow(2, "a", ("y", "x"))]
    assert check_rows("train", twice) == ()
    (warning,) = check_rows("train", [*twice, TextRow(3, "a", ("z",))])
    assert "(rows 3)" in warning


def test_a_validation_split_never_shares_content_with_train(tmp_path: Path) -> None:
    rows = [{"text": str(n % 40), "label": "good" if n % 2 else "bad"} for n in range(100)]
    train = load_split("train", _jsonl(tmp_path / "a.jsonl", rows), PROMPT, labels=LABELS)
    kept, taken = cut_from_train(train, 20, seed=1)
    assert len(taken.rows) >= 20 and len(kept.rows) + len(taken.rows) == 100
    assert not {row.text for row in kept.rows} & {row.text for row in taken.rows}
    assert overlap_warnings(kept, [taken]) == ()
    assert cut_from_train(train, 20, seed=1)[1] == taken
    assert cut_from_train(train, 20, seed=2)[1] != taken
    # The control: a split that shares rows is told.
    assert (
        "5 rows of the test split are in train too"
        in overlap_warnings(train, [type(train)("test", train.rows[:5])])[0]
    )
    assert taken.sha256 == file_digest(tmp_path / "a.jsonl")
    for size in (0, 100):
        with pytest.raises(InvalidInputError):
            cut_from_train(train, size, seed=1)


def test_examples_are_cut_ended_and_given_a_sentinel() -> None:
    recipe = RECIPE.from_json({**RECIPE.to_json(), "sentinel_before_target": True})
    room = recipe.max_input_tokens - recipe.prompt_length - 1
    (short, long), warnings = make_examples(_rows("ab", "a" * 50, answer="d"), VOCABULARY, recipe)
    assert short.input_ids == (*VOCABULARY.encode("ab"), 1)
    assert short.target_ids == (VOCABULARY.sentinel(0), *VOCABULARY.encode("d"), 1)
    assert len(long.input_ids) == room + 1 and long.input_ids[-1] == 1
    assert warnings == (f"1 texts have more than {room} tokens and were cut (rows 2)",)
    (beside,), _ = make_examples(_rows("a" * 50, answer="d"), VOCABULARY, recipe.changed(max_text_tokens=31))
    assert len(beside.input_ids) == 31, "the prompt comes on top"
    plain, _ = make_examples(_rows("ab", answer="d"), VOCABULARY, RECIPE)
    assert plain[0].target_ids == (*VOCABULARY.encode("d"), 1)
    with pytest.raises(InvalidInputError, match="row 1: the target has 10 tokens"):
        make_examples(_rows("ab", answer="d" * 9), VOCABULARY, RECIPE)


def test_batches_are_a_pure_function_of_seed_prompt_and_step() -> None:
    steps = [batch_indices(1, 0, step, 4, 10) for step in range(10)]
    assert [batch_indices(1, 0, step, 4, 10) for step in reversed(range(10))][::-1] == steps
    flat = [index for step in steps for index in step]
    for epoch in range(4):
        assert sorted(flat[epoch * 10 : (epoch + 1) * 10]) == list(range(10))
    assert flat[:10] != flat[10:20]
    assert batch_indices(2, 0, 0, 4, 10) != steps[0] and batch_indices(1, 1, 0, 4, 10) != steps[0]
    assert epoch_of(5, 4, 10) == 2.0
    # Golden: an upgrade must not change the order of a job that is resumed.
    assert steps[0] == GOLDEN


GOLDEN = [1, 0, 2, 5]
