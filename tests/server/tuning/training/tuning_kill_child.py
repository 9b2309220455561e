"""A process that trains until it is killed: python tuning_kill_child.py FOLDER step K | write K

`step K` kills itself with SIGKILL when step K is done; `write K` inside a checkpoint, at its K-th file call.
"""

from __future__ import annotations

import sys
from pathlib import Path

from chorus_server.tuning.training import checkpoint
from chorus_server.tuning.training.events import StepFinished
from chorus_server.tuning.training.loop import TuningLoop
from chorus_server.tuning.training.run import TrainingRun
from prompts_store.blobs.files import Files
from tests.server.tuning.killing_files import KillingFiles, kill
from tests.server.tuning.tuning_tools import VOCABULARY, programs, task

JOB = TrainingRun(11, (task(0), task(1)))


def main(folder: Path, how: str, k: int) -> None:
    files = KillingFiles(k) if how == "write" else Files()
    loop = TuningLoop(
        JOB,
        programs(JOB),
        VOCABULARY.decode,
        checkpoint.read_state(folder, JOB),
        lambda state: checkpoint.write_state(folder, JOB, state, files=files),
    )
    while not loop.done:
        for event in loop.run_slice(1):
            if how == "step" and isinstance(event, StepFinished) and event.step == k:
                kill()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
