"""Settings that were removed, and what happens now instead of each. A start that is given one reports
this."""

from __future__ import annotations

from collections.abc import Mapping

REMOVED: Mapping[str, str] = {
    "alias_staleness_ms": "a move of an alias by another process is seen within a second",
    "demo_prompts": "the base that ships registers no prompts if model names its folder",
    "loader_threads": "the store is asked for two prompts at once",
    "long_text_characters": "requests with more than 20,000 characters are tokenised off the event loop",
    "max_compile_seconds": "a start gives up after compiling for an hour, and the next one goes on from "
    "there",
    "max_members": "an ensemble has at most 64 members",
    "max_prompt_rows": "the longest prompt is as long as prompt_rows and the longest input, less two "
    "tokens, allow",
    "max_queued_per_tenant": "the queue is bounded by max_queued_requests alone",
    "max_text_characters": "an input has at most a million characters",
    "metrics_task_series": "two hundred tasks have metric series of their own",
    "metrics_tenant_series": "fifty tenants have metric series of their own",
    "prefill_token_budget": "a prefill step is as large as batch_rows and input_lengths allow",
    "protect_decode_rounds": "a quiet tenant decodes four rounds after a busy one's full prefill step",
    "reserved_slots": "one slot of each block shape is kept free for tenants below their share",
    "store_threads": "four threads read the store, and four others change it",
    "text_threads": "two threads tokenise long texts",
    "tuning_lease_seconds": "if a process is silent for 30 seconds, another one goes on with its job",
    "tuning_max_followers": "256 connections may follow tuning jobs",
    "tuning_max_followers_per_tenant": "32 connections of a tenant may follow tuning jobs",
    "tuning_max_row_bytes": "a row of training data has at most 1 MiB",
}


def removal(name: str) -> str | None:
    """What became of a removed setting, as a clause; None if no setting of this name was removed."""
    return f"{name} is not a setting any more: {REMOVED[name]}" if name in REMOVED else None
