"""Public datasets from their official files: rows in T5's text forms, and a job document.

from chorus.datasets import prepare

prepare("superglue/boolq", "SuperGLUE/BoolQ", "boolq")    # boolq/train.jsonl, dev.jsonl, job.json, ...
"""

from chorus.datasets.prepare import Prepared, PreparedSplit, prepare
from chorus.datasets.registry import DATASETS

__all__ = ["DATASETS", "Prepared", "PreparedSplit", "prepare"]
