"""Versioned soft prompts: names are pointers, content is named by its digest, and nothing is ever
overwritten.

This is a library over SQL and a place for blobs. It needs neither JAX nor the server.
"""

from prompts_store.store import PromptStore
from prompts_store.tasks.references import format_reference, parse_reference
from prompts_store.upkeep.check_report import CheckReport, Problem
from prompts_store.upkeep.collector import CollectReport

__all__ = ["CheckReport", "CollectReport", "Problem", "PromptStore", "format_reference", "parse_reference"]
