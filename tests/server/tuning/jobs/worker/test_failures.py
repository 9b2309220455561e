"""What a job's record tells of its end: nothing of the machine, and never a failure for want of room."""

from __future__ import annotations

import pytest

from chorus_server.tuning.jobs.stages.lineage import fitting
from chorus_server.tuning.jobs.worker.failures import tuning_failure_of
from prompts_store.checks import check_object
from prompts_store.errors import InvalidError

LINEAGE = {
    "job": "job-1",
    "recipe": {"steps": 6, "initialiser_text": "я" * 16_000},
    "columns": {"a": "b"},
    "target_texts": {str(n): "y" * 200 for n in range(300)},
    "evaluations": [{"step": 1}],
}


@pytest.mark.parametrize(
    "error", [ValueError("no /srv/secret/folder"), OSError(5, "Input/output error", "/srv/secret")]
)
def test_a_defect_does_not_say_where_the_server_keeps_what(error: Exception) -> None:
    told = tuning_failure_of(error)
    assert "secret" not in str(told) and told["message"]
    assert told["code"] == ("disk_failed" if isinstance(error, OSError) else "internal")


def test_a_lineage_fits_into_a_version() -> None:
    assert fitting(LINEAGE, 1_000_000) == LINEAGE
    some = fitting(LINEAGE, 60_000)
    assert some["left_out"] == ["target_texts", "columns", "recipe"][: len(some["left_out"])]
    assert some["target_texts"] is None and some["job"] == "job-1" and some["recipe"]["steps"] == 6
    check_object(some, field="lineage", limit_bytes=60_000)
    least = fitting(LINEAGE, 100)
    assert least["left_out"] == ["target_texts", "columns", "recipe", "evaluations"]
    # The control: the whole of it is refused.
    with pytest.raises(InvalidError):
        check_object(LINEAGE, field="lineage", limit_bytes=60_000)
