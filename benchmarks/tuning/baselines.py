"""What a tuned prompt is compared with: an instruction, examples in the input, the majority class."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from benchmarks.tuning.base import Base
from benchmarks.tuning.measuring import Answers, answers_on
from benchmarks.tuning.prompts import trained_prompts
from benchmarks.tuning.results import DATA
from benchmarks.tuning.rows import Rows, load_rows
from chorus_server.tuning.data.examples import TextRow

LONGEST = 480


def run_baseline(base: Base, run: dict[str, Any], say: Any) -> dict[str, Any]:
    """`zero_shot`, `calibrated` (zero-shot), `few_shot` or `majority` on the report split or a part.

    Labels are scored, also where tuned prompts must write them; `ranked` asks the prompts of `source` so too.
    """
    rows = load_rows(run["task"], DATA)
    wall, cpu = time.perf_counter(), time.process_time()
    if run["kind"] == "majority":
        answers = majority_class(rows)
    elif run["kind"] == "ranked":
        prompts, some = trained_prompts(run["source"]), rows.report[: run.get("rows")]
        answers = answers_on(base, rows, some, prompts, greedy=False)
    elif run["kind"] in ("zero_shot", "calibrated"):
        some = rows.instructed[: run.get("rows")]
        answers = answers_on(
            base, rows, some, longest=LONGEST, greedy=False, calibrated=run["kind"] == "calibrated"
        )
    else:
        answers = answers_on(base, rows, with_shots(rows)[: run.get("rows")], longest=LONGEST, greedy=False)
    document = answers.document()
    say(f"  {document['report']}")
    spent = {
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }
    return {"base": base.name, "fingerprint": base.fingerprint, "data": rows.digests, **spent, **document}


def majority_class(rows: Rows) -> Answers:
    """The commonest label of train, always."""
    commonest = Counter(row.answers[0] for row in rows.train.rows).most_common(1)[0][0]
    truth = [rows.task.labels.index(row.answers[0]) for row in rows.report]
    said = [[rows.task.labels.index(commonest)] * len(truth)]
    return Answers(rows.task.labels, rows.task.metrics, truth, said, None)


def with_shots(rows: Rows) -> list[TextRow]:
    """Solved train rows, then the row: the paper's prompt design."""
    shots = "".join(f"{row.text}\nAnswer: {row.answers[0]}\n\n" for row in rows.shots)
    return [TextRow(row.row, f"{shots}{row.text}\nAnswer:", row.answers) for row in rows.instructed]
