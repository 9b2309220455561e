"""Settings that were removed, and what happens now instead of each. A start that is given one reports
this."""

from __future__ import annotations

from collections.abc import Mapping

REMOVED: Mapping[str, str] = {
    "alias_staleness_ms": "a move of an alias by another process is seen within a second",
    "attention": "attention is cuDNN's where that works, else XLA's",
    "batch_rows": "write it in shapes, as in shapes='medium batch_rows=1,4'",
    "blob_allow_http": "write it in blob_url, as in s3://BUCKET/PREFIX?endpoint=http://HOST&allow_http=true",
    "blob_endpoint": "write it in blob_url, as in s3://BUCKET/PREFIX?endpoint=https://HOST",
    "blob_path_style": "write it in blob_url, as in s3://BUCKET/PREFIX?path_style=false",
    "blob_region": "write it in blob_url, as in s3://BUCKET/PREFIX?region=eu-west-1",
    "blocks": "write it in shapes, as in shapes='medium blocks=256x64x16'",
    "collect_interval_seconds": "a collection is due as often as collect_grace_seconds says, but at least "
    "once an hour",
    "decode_tokens_per_dispatch": "write it in shapes, as in shapes='medium decode_tokens_per_dispatch=8'",
    "default_deadline_seconds": "a request without a deadline gets a tenth of max_deadline_seconds, but at "
    "least a minute",
    "default_max_new_tokens": "a request has 32 new tokens where neither it nor the version sets a number",
    "demo_prompts": "the base that ships registers no prompts if model names its folder",
    "input_lengths": "write it in shapes, as in shapes='medium input_lengths=64,256'",
    "loader_threads": "the store is asked for two prompts at once",
    "long_text_characters": "requests with more than 20,000 characters are tokenised off the event loop",
    "max_batch_rows": "a request has at most 1,024 inputs",
    "max_compile_seconds": "a start gives up after compiling for an hour, and the next one goes on from "
    "there",
    "max_labels": "a classification has at most 256 labels",
    "max_members": "an ensemble has at most 64 members",
    "max_programs": "a start compiles at most 256 programs",
    "max_prompt_rows": "the longest prompt is as long as prompt_rows and the longest input, less two tokens, "
    "allow",
    "max_queued_per_tenant": "the queue is bounded by max_queued_requests alone",
    "max_text_characters": "an input has at most a million characters",
    "metrics_task_series": "two hundred tasks have metric series of their own",
    "metrics_tenant_series": "fifty tenants have metric series of their own",
    "prefill_token_budget": "a prefill step is as large as batch_rows and input_lengths allow",
    "protect_decode_rounds": "a quiet tenant decodes four rounds before a busy one's prefill step",
    "reserved_slots": "one slot of each block shape is kept free for tenants below their share",
    "score_buckets": "write it in shapes, as in shapes='medium score_buckets=1x16,8x16'",
    "store_threads": "four threads read the store, and four others change it",
    "text_threads": "two threads tokenise long texts",
    "tuning_keep_days": "a failed or cancelled job can be resumed for 14 days",
    "tuning_lease_seconds": "if a process is silent for 30 seconds, another one goes on with its job",
    "tuning_max_followers": "256 connections may follow tuning jobs",
    "tuning_max_followers_per_tenant": "32 connections of a tenant may follow tuning jobs",
    "tuning_max_row_bytes": "a row of training data has at most 1 MiB",
    "tuning_max_unfinished_jobs": "a tenant may have 16 unfinished jobs of a kind, or what its limit "
    "stored.unfinished_jobs says",
}


def removal(name: str) -> str | None:
    """What became of a removed setting, as a clause; None if no setting of this name was removed."""
    return f"{name} is not a setting any more: {REMOVED[name]}" if name in REMOVED else None
