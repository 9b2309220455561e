"""Versioned soft prompts: names are pointers, content is its digest, nothing is ever overwritten.

No JAX in here, and nothing of the server: a library over SQL and a place for blobs.
"""

from prompts_store.check_report import CheckReport, Problem
from prompts_store.collector import CollectReport
from prompts_store.references import format_reference, parse_reference
from prompts_store.store import PromptStore

__all__ = ["CheckReport", "CollectReport", "Problem", "PromptStore", "format_reference", "parse_reference"]
