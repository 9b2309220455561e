"""Run in the clients' environment: OpenAI's own client makes one thing, over a way that loses an answer."""

from __future__ import annotations

import json
import sys

import openai

url, what, file = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/openai/v1", api_key="any")
if what == "file":
    made = client.files.create(file=("rows.jsonl", b"{}\n" * 3), purpose="batch").id
elif what == "job":
    made = client.fine_tuning.jobs.create(model="base", training_file=file, suffix="again").id
else:
    made = client.batches.create(
        input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h"
    ).id
sys.stdout.write(json.dumps(made))
