"""The ten tasks: where their rows are, how a row becomes text, what an answer is called.

`template` is what a tuned prompt stands in front of: the row's fields and nothing that describes the task.
`instruction` is the zero-shot baseline's input: the same fields in a plain English instruction. Both are
scored over the same labels. Nothing was searched per task: one wording each, written before it was measured.
CB, RTE and MRPC have T5's text forms; the others were worded before `chorus datasets prepare` had those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from chorus.datasets import DATASETS


@dataclass(frozen=True)
class Source:
    """One file of a task.

    Attributes:
        path: under the data folder.
        kind: `tsv`, `csv` and `jsonl` go through the library's own readers; `numbered` is a digit, a space
            and a Latin-1 text a line, as TREC and Subj are published.
        columns: names for a file without a header.
    """

    path: str
    kind: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: in plans and results.
        train, report: files. A `report` of None takes `report_rows` out of train, by seed and content.
        target: the column of the answer.
        answers: what the file says -> the label.
        template, instruction: see above; fields are columns, renamed by `columns`.
        columns: template field -> column.
        text_tokens: longest text that is trained on, without prompt and `</s>`; longer ones are cut.
        long_text_tokens: the same for the report, which is cut later than training is.
        metrics: of the published benchmark; the mean chooses the checkpoint.
        selection_rows, report_rows: how many; 0 reports on all.
        few_shot: examples in the few-shot baseline's input.
        greedy: answers are compared as greedy text (77 labels are too many to score for each row).
    """

    name: str
    train: Source
    report: Source | None
    target: str
    answers: Mapping[str, str]
    template: str
    instruction: str
    columns: Mapping[str, str] = field(default_factory=dict)
    text_tokens: int = 40
    long_text_tokens: int = 96
    metrics: tuple[str, ...] = ("accuracy",)
    selection_rows: int = 120
    report_rows: int = 0
    few_shot: int = 4
    greedy: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of `answers`."""
        return tuple(dict.fromkeys(self.answers.values()))


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="sst2",
            train=Source("glue/SST-2/train.tsv", "tsv"),
            report=Source("glue/SST-2/dev.tsv", "tsv"),
            target="label",
            answers={"0": "negative", "1": "positive"},
            template="{sentence}",
            instruction="Review: {sentence}\nIs this movie review negative or positive?",
            text_tokens=35,
            selection_rows=200,
        ),
        Task(
            name="trec",
            train=Source("classification/TREC.train.all", "numbered"),
            report=Source("classification/TREC.test.all", "numbered"),
            target="label",
            answers={
                "0": "description", "1": "entity", "2": "abbreviation", "3": "human", "4": "location",
                "5": "number",
            },
            template="{text}",
            instruction=(
                "Question: {text}\nIs this question asking about a description, an entity, an abbreviation, "
                "a human, a location or a number?"
            ),
            text_tokens=27,
            long_text_tokens=64,
        ),
        Task(
            name="subj",
            train=Source("classification/subj.all", "numbered"),
            report=None,
            target="label",
            answers={"0": "opinion", "1": "fact"},
            template="{text}",
            instruction="Sentence: {text}\nIs this sentence an opinion or a fact?",
            text_tokens=43,
            report_rows=600,
        ),
        Task(
            name="ag_news",
            train=Source("classification/ag_news/alps_dev.tsv", "tsv", ("text", "label")),
            report=Source("classification/ag_news/alps_test.tsv", "tsv", ("text", "label")),
            target="label",
            answers={"World": "World", "Sports": "Sports", "Business": "Business", "Sci/Tech": "Technology"},
            template="{text}",
            instruction="Article: {text}\nIs this article about World, Sports, Business or Technology?",
            text_tokens=51,
            report_rows=600,
        ),
        Task(
            name="cb",
            train=Source("superglue/CB/train.jsonl", "jsonl"),
            report=Source("superglue/CB/val.jsonl", "jsonl"),
            target="label",
            answers={"entailment": "yes", "contradiction": "no", "neutral": "maybe"},
            template=DATASETS["superglue/cb"].template,
            instruction=(
                "Hypothesis: {hypothesis}\nPremise: {premise}\nDoes the premise entail the "
                "hypothesis, yes, no or maybe?"
            ),
            text_tokens=91,
            long_text_tokens=256,
            metrics=("accuracy", "f1_macro"),
            selection_rows=60,
            few_shot=3,
        ),
        Task(
            name="rte",
            train=Source("superglue/RTE/train.jsonl", "jsonl"),
            report=Source("superglue/RTE/val.jsonl", "jsonl"),
            target="label",
            answers={"entailment": "yes", "not_entailment": "no"},
            template=DATASETS["superglue/rte"].template,
            instruction=(
                "Hypothesis: {hypothesis}\nPremise: {premise}\nDoes the premise entail the "
                "hypothesis, yes or no?"
            ),
            text_tokens=75,
            long_text_tokens=256,
            few_shot=2,
        ),
        Task(
            name="mrpc",
            train=Source("glue/MRPC/train.tsv", "tsv"),
            report=Source("glue/MRPC/dev.tsv", "tsv"),
            target="Quality",
            answers={"0": "no", "1": "yes"},
            template=DATASETS["glue/mrpc"].template,
            columns={"sentence1": "#1 String", "sentence2": "#2 String"},
            instruction=(
                "Sentence 1: {sentence1}\nSentence 2: {sentence2}\nDo these two sentences mean the same, "
                "yes or no?"
            ),
            text_tokens=75,
            long_text_tokens=128,
            metrics=("accuracy", "f1_binary"),
            few_shot=4,
        ),
        Task(
            name="boolq",
            train=Source("superglue/BoolQ/train.jsonl", "jsonl"),
            report=Source("superglue/BoolQ/val.jsonl", "jsonl"),
            target="label",
            answers={"false": "no", "true": "yes"},
            template="question: {question} passage: {passage}",
            instruction="Question: {question}? Answer yes or no.\nPassage: {passage}",
            text_tokens=107,
            long_text_tokens=256,
            report_rows=600,
            few_shot=2,
        ),
        Task(
            name="copa",
            train=Source("superglue/COPA/train.jsonl", "jsonl"),
            report=Source("superglue/COPA/val.jsonl", "jsonl"),
            target="label",
            answers={"0": "choice1", "1": "choice2"},
            template="{question} of: {premise} choice1: {choice1} choice2: {choice2}",
            instruction=(
                "Premise: {premise}\nChoice1: {choice1}\nChoice2: {choice2}\nWhich is the {question} of the "
                "premise, choice1 or choice2?"
            ),
            text_tokens=43,
        ),
        Task(
            name="banking77",
            train=Source("classification/banking77/train.csv", "csv"),
            report=Source("classification/banking77/test.csv", "csv"),
            target="category",
            answers={},
            template="{text}",
            instruction="Customer: {text}\nWhat is this customer's request about?",
            text_tokens=27,
            report_rows=600,
            metrics=("exact_match",),
            greedy=True,
        ),
    )
}  # fmt: skip
