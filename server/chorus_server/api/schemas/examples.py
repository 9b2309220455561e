"""Examples in the OpenAPI document. A test posts each of them to a running server that has the tasks
`TASKS`."""

from __future__ import annotations

from typing import Any

TASKS: dict[str, dict[str, Any]] = {
    "sst2": {"labels": ["negative", "positive"], "settings": {"max_new_tokens": 4}},
    "sst2-b": {"labels": ["negative", "positive"], "settings": {"max_new_tokens": 4}},
    "rte": {
        "template": "hypothesis: {hypothesis} premise: {premise}",
        "labels": ["entailment", "not_entailment"],
    },
}
"""Tasks that the examples use, and what their versions carry."""

GENERATE: list[dict[str, Any]] = [
    {"task": "sst2", "input": "a gripping, funny and moving film"},
    {"task": None, "input": "translate English to German: Good morning.", "max_new_tokens": 8},
    {
        "task": "rte",
        "inputs": [{"hypothesis": "It rains.", "premise": "Water falls from the sky."}],
        "num_beams": 4,
        "max_new_tokens": 8,
    },
    {
        "requests": [
            {"task": "sst2", "input": "a waste of two hours", "temperature": 0.7, "seed": 1, "n": 2},
            {"task": "rte@live", "input": {"hypothesis": "He sleeps.", "premise": "He is awake."}},
        ],
        "max_new_tokens": 4,
        "logprobs": True,
    },
    {"task": "sst2@1", "input": "surprisingly good", "stream": True, "stop": ["."]},
]

CLASSIFY: list[dict[str, Any]] = [
    {"task": "sst2", "input": "a gripping, funny and moving film"},
    {"task": None, "inputs": ["Is it warm in summer?"], "labels": ["yes", "no"]},
]

ENSEMBLE: list[dict[str, Any]] = [
    {"tasks": ["sst2", "sst2-b"], "input": "a gripping, funny and moving film", "weights": [2.0, 1.0]},
]

ENSEMBLE_VERSION: list[dict[str, Any]] = [{"tasks": ["sst2", "sst2-b"], "vote": "majority"}]

PACK_VERSION: list[dict[str, Any]] = [
    {
        "questions": {
            "happy": {"task": "sst2", "values": {"true": "positive", "false": "negative"}},
            "mood": {"task": "sst2-b"},
        },
        "unknown_questions": "base",
    }
]

DECISIONS: list[dict[str, Any]] = [
    {
        "model": "sst2",
        "input": "a gripping, funny and moving film",
        "questions": [
            {
                "type": "choice",
                "name": "mood",
                "instructions": "How does the writer feel about it?",
                "choices": [{"value": "positive"}, {"value": "negative"}],
            }
        ],
    }
]

COMPLETIONS: list[dict[str, Any]] = [
    {"model": "sst2", "prompt": ["a gripping, funny and moving film", "two hours of rain"], "logprobs": 1}
]

CHAT: list[dict[str, Any]] = [
    {"model": "sst2", "messages": [{"role": "user", "content": "a gripping, funny and moving film"}]},
    {
        "model": "sst2",
        "messages": [{"role": "user", "content": "a gripping, funny and moving film"}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "mood",
                "schema": {
                    "type": "object",
                    "properties": {"label": {"type": "string", "enum": ["positive", "negative"]}},
                    "required": ["label"],
                },
            },
        },
    },
]

RESPONSES: list[dict[str, Any]] = [{"model": "sst2", "input": "a gripping, funny and moving film"}]

SYSTEM_ONE: list[dict[str, Any]] = [
    {
        "model": "sst2",
        "state": "a gripping, funny and moving film",
        "questions": {
            "mood": {
                "type": "choice",
                "instructions": "How does the writer feel about it?",
                "criteria": {"positive": None, "negative": None},
            },
            "warmth": {"type": "score", "criteria": ["cold", "warm", "hot"]},
        },
    }
]

ALIAS: list[dict[str, Any]] = [{"version": 1}, {"version": 1, "expected": 1}]

GRANT: list[dict[str, Any]] = [{"rights": ["infer"]}, {"rights": ["infer", "read"]}]

ROLLBACK: list[dict[str, Any]] = [{"alias": "live"}]

TENANT: list[dict[str, Any]] = [
    {"name": "acme", "display_name": "Acme Corporation", "weight": 2.0},
    {"name": "birch", "limits": {"per_minute": {"requests": 600}, "stored": {"prompts": 100}}},
]

TENANT_CHANGES: list[dict[str, Any]] = [
    {"weight": 3.0},
    {"limits": {"per_month": {"tokens": {"soft": 800_000, "hard": 1_000_000}}}},
    {"retention": {"usage_days": 90}},
]

KEY_CHANGES: list[dict[str, Any]] = [{"limits": {"per_minute": {"requests": 60}}}, {"limits": {}}]

KEY: list[dict[str, Any]] = [
    {"name": "website", "scopes": ["infer", "prompts:read"], "tasks": ["sst2*"]},
    {"name": "rollout", "scopes": ["prompts:read", "prompts:write"], "expires_at": "2100-01-01T00:00:00Z"},
]

FILES: dict[str, str] = {
    "file-0123456789abcdef01234567": "sentence\tlabel\na gripping film\t1\na waste of two hours\t0\n",
}
"""Files that the examples name, as TSV."""

EVALUATION: list[dict[str, Any]] = [
    {
        "subjects": [{"task": "sst2"}, {"base": {"instruction": "Is the review positive or negative?"}}],
        "file": "file-0123456789abcdef01234567",
        "format": "tsv",
        "columns": {"text": "sentence"},
        "target_texts": {"0": "negative", "1": "positive"},
        "labels": ["negative", "positive"],
    },
]

BATCH: list[dict[str, Any]] = [
    {"file": "file-0123456789abcdef01234567", "endpoint": "/v1/classify", "metadata": {"run": "nightly"}},
]

OPENAI_BATCH: list[dict[str, Any]] = [
    {
        "input_file_id": "file-0123456789abcdef01234567",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    },
]

TUNING_JOB: list[dict[str, Any]] = [
    {
        "task": "sst2",
        "data": {"train": {"file": "file-0123456789abcdef01234567"}, "format": "tsv"},
        "template": "{sentence}",
        "target": "label",
        "target_texts": {"0": "negative", "1": "positive"},
        "labels": ["negative", "positive"],
        "recipe": {"prompt_length": 20, "steps": 1000, "batch_size": 32},
        "ensemble": 5,
    },
    {
        "data": {"train": {"file": "file-0123456789abcdef01234567"}, "format": "tsv"},
        "template": "{sentence}",
        "target_texts": {"0": "negative", "1": "positive"},
        "labels": ["negative", "positive"],
        "recipe": {"prompt_length": 20, "steps": 1000},
        "prompts": [
            {"task": "sst2"},
            {"task": "sst2-b", "recipe": {"learning_rate": 0.1}},
        ],
    },
]

FINE_TUNING: list[dict[str, Any]] = [
    {
        "model": "base",
        "training_file": "file-0123456789abcdef01234567",
        "suffix": "desk",
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
        "metadata": {"project": "desk"},
        "chorus": {"recipe": {"prompt_length": 50}},
    },
]

CALIBRATION: list[dict[str, Any]] = [
    {
        "file": "file-0123456789abcdef01234567",
        "format": "tsv",
        "columns": {"text": "sentence"},
        "target_texts": {"0": "negative", "1": "positive"},
    },
]
