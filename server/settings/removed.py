"""Settings that are gone, and what became of each: a start that is still given one says so."""

from __future__ import annotations

from collections.abc import Mapping

REMOVED: Mapping[str, str] = {
    "alias_staleness_ms": "an alias that another process moved is seen after half a second",
    "demo_prompts": "the base that ships registers no prompts where model names its folder",
    "loader_threads": "two prompts are fetched from the store at once",
    "long_text_characters": "requests with more than 20,000 characters are tokenised off the event loop",
    "max_compile_seconds": "a start that compiles for an hour gives up, and the next goes on from there",
    "max_members": "an ensemble has at most 64 members",
    "max_prompt_rows": "the longest prompt fits into prompt_rows, and with two tokens into an input",
    "max_queued_per_tenant": "the queue has one bound, max_queued_requests",
    "max_text_characters": "an input has at most a million characters",
    "metrics_tenant_series": "fifty tenants have metric series of their own",
    "prefill_token_budget": "a prefill step is as large as batch_rows and input_lengths allow",
    "protect_decode_rounds": "a quiet tenant decodes four rounds after a busy one's full prefill step",
    "reserved_slots": "one slot of each block shape is kept for tenants below their share",
    "store_threads": "four threads read the store, and four others change it",
    "text_threads": "two threads tokenise long texts",
    "tuning_lease_seconds": "after 30 seconds of silence another process goes on with a job",
    "tuning_max_followers": "256 connections may follow tuning jobs",
    "tuning_max_followers_per_tenant": "32 connections of a tenant may follow tuning jobs",
    "tuning_max_row_bytes": "a row of training data has at most 1 MiB",
}


def removal(name: str) -> str | None:
    """What became of a setting that is gone, as a clause; None where there was none of this name."""
    return f"{name} is no setting any more: {REMOVED[name]}" if name in REMOVED else None
