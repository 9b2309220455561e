"""Multitask prompt tuning (arXiv 2303.02861): rows that several tasks share, and two small matrices a task.

The prompt of task t is `shared * (columns[t] @ rows[t])`, element by element. PEFT computes it in f32 each
time the model runs; here it is computed once, when the file comes in, and gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.artifacts.tensors import StoredTensor, array_of, check_size, to_float32
from prompts_store.artifacts.types import PromptValues
from prompts_store.errors import ArtifactError

# The paper has 1. More only costs time: the largest prompt takes a tenth of a second with 32.
MAX_RANKS = 32
TASK_INDEX = "task_index"

# Values that are computed together, so that they stay in a processor's cache.
_BLOCK_VALUES = 2**16


@dataclass(frozen=True, slots=True)
class TaskFactors:
    """What multiplies the shared rows, for each task.

    Attributes:
        columns: `[T, R, K]`: T tasks, R shared rows, K ranks.
        rows: `[T, K, D]`.
    """

    columns: StoredTensor
    rows: StoredTensor

    def check(self, shared: tuple[int, ...], *, tasks: int | None, ranks: int | None) -> None:
        """Raise ArtifactError unless the shapes and bytes agree with the shared rows and the configuration.

        Args:
            shared: R and D.
            tasks: T, if the configuration gives it.
            ranks: K, if the configuration gives it.

        Raises:
            ArtifactError: `peft_rows`, `truncated` or `trailing_bytes`.
        """
        length, width = shared
        T = self.columns.shape[0] if self.columns.shape else 0
        K = self.rows.shape[1] if len(self.rows.shape) > 1 else 0
        fitting = (self.columns.shape, self.rows.shape) == ((T, length, K), (T, K, width))
        if not fitting or tasks not in (None, T) or ranks not in (None, K):
            raise refusal(
                Reason.PEFT_ROWS,
                "The adapter's prefix_task_cols and prefix_task_rows have other shapes than [tasks, "
                f"{length}, ranks] and [tasks, ranks, {width}], or than num_tasks and num_ranks say.",
            )
        if not 0 < K <= MAX_RANKS or T == 0:
            raise refusal(
                Reason.PEFT_ROWS, f"The adapter has no task, or not 1 to {MAX_RANKS} ranks, which are served."
            )
        check_size(self.columns)
        check_size(self.rows)

    def chosen(self, index: int | None) -> int:
        """The task's index, which need not be given if there is one task.

        Raises:
            ArtifactError: `peft_task` if it is missing, or there is no such task.
        """
        tasks = self.columns.shape[0]
        if index is None and tasks > 1:
            raise refusal(
                Reason.PEFT_TASK,
                f"The adapter holds prompts of {tasks} tasks, and a version is one prompt: choose one by "
                f"{TASK_INDEX}, 0 to {tasks - 1}.",
            )
        if index is not None and not 0 <= index < tasks:
            raise no_such_task(index, tasks)
        return index or 0

    def factor(self, task: int, *, rows: int | None) -> PromptValues:
        """`columns[task] @ rows[task]`, the first `rows` of it: `[P, D]` f32."""
        left = to_float32(array_of(self.columns)[task, :rows], self.columns.dtype)[0].astype(np.float64)
        right = to_float32(array_of(self.rows)[task], self.rows.dtype)[0].astype(np.float64)
        found = np.zeros((left.shape[0], right.shape[1]), np.float32)
        step = max(1, _BLOCK_VALUES // right.shape[1])
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(found), step):
                block = found[start : start + step]
                for rank in range(len(right)):
                    # A fused multiply-add in order of rank, as torch's: a product of two f32 is exact in f64.
                    # A library's matrix product would round differently on another processor, and one file
                    # would have two digests.
                    block[:] = block + left[start : start + step, rank, None] * right[rank]
        return found


def no_such_task(index: int, tasks: int) -> ArtifactError:
    """The error for a task that the file does not have."""
    held = "the prompt of one task: leave task_index out" if tasks == 1 else f"tasks 0 to {tasks - 1}"
    message = f"There is no task {index} in the file; it holds {held}."
    return ArtifactError(message, field=TASK_INDEX, code=Reason.PEFT_TASK.value)
