"""Versioned soft prompts: names are pointers, content is its digest, nothing is ever overwritten.

No JAX in here, and nothing of the server: a library over SQL and a place for blobs.
"""

from prompts_store.store import PromptStore
from prompts_store.tasks.references import format_reference, parse_reference
from prompts_store.upkeep.check_report import CheckReport, Problem
from prompts_store.upkeep.collector import CollectReport

__all__ = ["CheckReport", "CollectReport", "Problem", "PromptStore", "format_reference", "parse_reference"]
