"""Files as people have them: spreadsheets, old line ends, blank cells, targets that cannot be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.model.vocabulary import Side, Vocabulary
from chorus_server.tuning.data.cutting import Truncation
from chorus_server.tuning.data.examples import TextRow, make_examples
from chorus_server.tuning.data.readers import ReadOptions, read_rows
from chorus_server.tuning.data.splits import Split, load_split
from chorus_server.tuning.document.prompt import PromptDocument
from prompts_store.tasks.template import parse_template
from tests.server.api.api_harness import train_vocabulary
from tests.server.tuning.tuning_tools import RECIPE

PROMPT = PromptDocument(template="{text}", target="label")


def load(path: Path, content: str | bytes, **options: Any) -> Split:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_split("train", path, PROMPT, options=ReadOptions(**options))


def pairs(split: Split) -> list[tuple[int, str, str]]:
    return [(row.row, row.text, row.answers[0]) for row in split.rows]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("", "good"), "row 2: the column 'text' is empty"),
        ((" \u3000 ", "good"), "row 2: the column 'text' is empty"),
        (("b", ""), "row 2: the column 'label' is empty"),
        (("b\0c", "good"), "row 2: the column 'text' holds a NUL character"),
    ],
)
def test_blank_cells_and_nul_are_refused_with_their_row(
    tmp_path: Path, name: str, row: tuple[str, str], message: str
) -> None:
    path, rows = tmp_path / name, [("a", "bad"), row, ("c", "good")]
    if name == "a.parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(
            pyarrow.table({"text": [r[0] for r in rows], "label": [r[1] for r in rows]}), path
        )
    elif name == "a.jsonl":
        path.write_text("".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in rows))
    else:
        cut = "," if name == "a.csv" else "\t"
        path.write_text("\n".join(cut.join(r) for r in [("text", "label"), *rows]) + "\n")
    with pytest.raises(InvalidInputError) as refused:
        load_split("train", path, PROMPT)
    assert message in refused.value.message and refused.value.field == "data.train"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_every_line_end_and_a_leading_blank_line(tmp_path: Path, name: str, end: str) -> None:
    cut = "," if name == "a.csv" else "\t"
    lines = ["", f"text{cut}label", f"one{cut}good", "", f"two{cut}bad"]
    if name == "a.jsonl":
        lines = ['{"text": "one", "label": "good"}', '{"text": "two", "label": "bad"}']
    split = load(tmp_path / name, "\ufeff" + end.join(lines))
    assert pairs(split) == [(1, "one", "good"), (2, "two", "bad")]


def test_a_carriage_return_in_a_cell(tmp_path: Path) -> None:
    tsv = load(tmp_path / "a.tsv", "text\tlabel\nab\rcd\tgood\nb\tbad\n")
    assert pairs(tsv)[0] == (1, "ab\rcd", "good")
    quoted = load(tmp_path / "a.csv", 'text,label\n"ab\rcd",good\nb,bad\n')
    assert pairs(quoted)[0] == (1, "ab\rcd", "good")
    with pytest.raises(InvalidInputError, match="row 1: has a carriage return outside quotes"):
        load(tmp_path / "b.csv", "text,label\nab\rcd,good\nb,bad\n")


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_the_one_bound_of_a_row_is_its_own(tmp_path: Path, end: str) -> None:
    """Python's csv module would stop at 131,072 characters."""
    content = end.join(["text,label", "x" * 300_000 + ",good", "y,bad", ""])
    assert len(load(tmp_path / "a.csv", content).rows[0].text) == 300_000
    with pytest.raises(InvalidInputError, match="row 1: is longer than 200000 bytes"):
        load(tmp_path / "a.csv", content, max_row_bytes=200_000)


def test_columns_of_a_spreadsheet_without_a_name_are_left_out_and_said(tmp_path: Path) -> None:
    split = load(tmp_path / "a.csv", "text,label,, \na,good,,\nb,bad,x,\nc,good,,,,\n")
    assert pairs(split) == [(1, "a", "good"), (2, "b", "bad"), (3, "c", "good")]
    assert split.warnings == ("a.csv: columns without a name are left out (number 3, 4)",)
    assert next(read_rows(tmp_path / "a.csv"))[1] == {"text": "a", "label": "good"}
    with pytest.raises(InvalidInputError, match="row 1: has 3 columns; the header names 2"):
        load(tmp_path / "b.csv", "text,label\na,good,more\n")


def test_names_are_quoted_and_the_one_at_fault_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no column 'label'; the row has 'text', '  label'"):
        load(tmp_path / "a.csv", "text,  label\na,good\n")
    with pytest.raises(InvalidInputError, match="names the column 'label' twice"):
        load(tmp_path / "a.csv", "label,text,label\na,b,c\n")


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """Latin letters and a few signs; no byte pieces, as T5's own has none."""
    return Vocabulary.load(train_vocabulary(tmp_path_factory.mktemp("vocabulary")))


def said(vocabulary: Vocabulary, *targets: str, text: str = "a film") -> tuple[str, ...]:
    rows = [TextRow(number, text, (target,)) for number, target in enumerate(targets, 1)]
    return make_examples(rows, vocabulary, RECIPE)[1]


def test_targets_that_the_vocabulary_cannot_write_are_named(vocabulary: Vocabulary) -> None:
    assert said(vocabulary, "good", "bad  film", "ｇｏｏｄ") == (), (
        "forms that SentencePiece evens out are no loss"
    )
    (warning,) = said(vocabulary, "good", "\u6b63", "a \u6b63", "good")
    assert "2 targets cannot be written" in warning and r"'\u6b63'" in warning and "rows 2, 3" in warning


def test_two_targets_that_become_one_are_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(InvalidInputError, match=r"row 2: .* same tokens as '\\u6b63' of row 1") as refused:
        said(vocabulary, "\u6b63", "\u8d1f")
    assert refused.value.code == "same_target"


def test_names_of_control_tokens_get_a_note(vocabulary: Vocabulary) -> None:
    rows = [TextRow(1, "see <extra_id_0> there", ("good",)), TextRow(2, "a < b", ("bad",))]
    warning = make_examples(rows, vocabulary, RECIPE)[1][-1]
    assert warning.startswith("1 texts, or their template, name a control token") and "(rows 1)" in warning
    warnings = said(vocabulary, "x</s>")
    assert any("1 targets name a control token" in w and "sentinel_before_target" in w for w in warnings)


def test_texts_and_targets_may_hold_sentinels(vocabulary: Vocabulary) -> None:
    recipe = RECIPE.from_json({**RECIPE.to_json(), "special_tokens": True})
    (example,), warnings = make_examples(
        [TextRow(1, "a <extra_id_0> b", ("<extra_id_0> d",))], vocabulary, recipe
    )
    sentinel = vocabulary.sentinel(0)
    assert example.input_ids == (*vocabulary.encode("a"), sentinel, *vocabulary.encode("b"), 1)
    assert example.target_ids == (sentinel, *vocabulary.encode("d"), 1) and warnings == ()
    (warning,) = make_examples([TextRow(1, "a </s> <extra_id_0>", ("d",))], vocabulary, recipe)[1]
    assert "name a control token" in warning  # </s> stays text
    with pytest.raises(InvalidInputError, match="special_tokens"):
        RECIPE.from_json({**recipe.to_json(), "sentinel_before_target": True})


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_field_is_cut_as_serving_will_cut_it(vocabulary: Vocabulary, side: Side) -> None:
    template = parse_template("{first} b {last}")
    values = {"first": "a " * 60, "last": "d d d"}
    text = template.render(values)
    row = TextRow(1, text, ("d",), (Truncation("first", side), template, values))
    ((example,), warnings) = make_examples([row], vocabulary, RECIPE)
    room = RECIPE.max_input_tokens - RECIPE.prompt_length - 1
    end = vocabulary.encode("b d d d")
    assert len(example.input_ids) == room + 1 and list(example.input_ids[-len(end) - 1 : -1]) == end
    assert warnings == (f"1 texts have more than {room} tokens and were cut (rows 1)",)
    cut = make_examples([TextRow(1, text, ("d",))], vocabulary, RECIPE)[0][0]
    assert list(cut.input_ids[-len(end) - 1 : -1]) != end  # the control: without a truncation
