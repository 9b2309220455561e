"""Run in either environment: the whole story as OpenAI's documentation tells it. Upload, fine-tune, follow
events, complete, chat, stream, ask for structure, batch, delete.

Arguments: the server's URL, a key, a JSONL of conversations, a suffix.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

import openai
from pydantic import BaseModel

url, key, rows, suffix = sys.argv[1:]
LABELS = ["card", "transfer", "cash"]
ASKED, OTHER = "When will you send me my card?", "My transfer has not arrived yet"
OVER = ("completed", "failed", "expired", "cancelled")
said: dict[str, Any] = {"openai": openai.__version__}
base_url = f"{url}/openai/v1"
http = importlib.import_module("httpx2" if openai.__version__.startswith("3.") else "httpx")
"""What the client speaks through."""
lost: list[str] = []


def lose(response: Any) -> None:
    """The network loses the first answer to each kind of creation; the client asks again, by itself."""
    what = response.url.path.rpartition("/")[2]
    if response.request.method == "POST" and what in ("files", "jobs", "batches") and what not in lost:
        lost.append(what)
        raise http.ReadError("lost", request=response.request)


client = openai.OpenAI(
    base_url=base_url,
    api_key=key,
    _strict_response_validation=True,
    http_client=openai.DefaultHttpxClient(event_hooks={"response": [lose]}),
)
lenient = openai.OpenAI(base_url=base_url, api_key=key)
"""For streams of completions, whose chunks OpenAI's own server would not get through the strict check."""


class Ticket(BaseModel):
    """What a message to a bank is about."""

    about: Literal["card", "transfer", "cash"]


def finished(what: Any, retrieve: Any, states: tuple[str, ...]) -> Any:
    """The job or batch in one of these states: there is nothing to wait on but asking again."""
    while what.status not in states:
        time.sleep(0.1)
        what = retrieve(what.id)
    return what


# Upload and fine-tune.
file = client.files.create(file=Path(rows), purpose="fine-tune")
job = client.fine_tuning.jobs.create(
    model="base",
    training_file=file.id,
    suffix=suffix,
    seed=1,
    method={
        "type": "supervised",
        "supervised": {
            "hyperparameters": {"n_epochs": 6, "batch_size": 16, "learning_rate_multiplier": 1},
        },
    },
    metadata={"for": "tickets"},
    extra_body={"chorus": {"recipe": {"micro_batch_size": 16, "evaluate_every_steps": 7}}},
)
said["file"] = [file.object, file.bytes, file.filename, file.purpose, file.status]
said["files"] = [each.id for each in client.files.list(purpose="fine-tune")] == [file.id]
said["content"] = client.files.content(file.id).content.decode()
said["created"] = [job.object, job.model, job.training_file == file.id, job.seed, job.metadata]
job = finished(job, client.fine_tuning.jobs.retrieve, ("succeeded", "failed", "cancelled"))
model = job.fine_tuned_model
said["job"] = {
    "id": job.id,
    "status": job.status,
    "error": job.error and job.error.message,
    "model": model,
    "trained_tokens": job.trained_tokens,
    "times": [job.created_at, job.finished_at],
    "listed": [each.id for each in client.fine_tuning.jobs.list(limit=1)],
}
events = list(client.fine_tuning.jobs.list_events(job.id, limit=5))  # page after page
said["events"] = [[event.type, event.level, event.message, event.data] for event in events]
said["event_ids"] = len({event.id for event in events}) == len(events)
checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id).data
said["checkpoints"] = [
    [each.fine_tuned_model_checkpoint, each.step_number, each.fine_tuning_job_id == job.id]
    for each in checkpoints
]

# Complete and chat, whole and streamed.
assert model is not None, job
messages = [{"role": "user", "content": ASKED}]
known = client.models.retrieve(model)
listed = {each.id for each in client.models.list()}
said["known"] = [known.id, known.object, suffix in listed, "base" in listed]
whole = client.completions.create(model=model, prompt=ASKED, logprobs=2)
choice = whole.choices[0]
assert choice.logprobs is not None and whole.usage is not None
said["completion"] = {
    "text": choice.text,
    "finish_reason": choice.finish_reason,
    "tokens": choice.logprobs.tokens,
    "token_logprobs": choice.logprobs.token_logprobs,
    "text_offset": choice.logprobs.text_offset,
    "usage": whole.usage.model_dump(exclude_none=True),
    "model": whole.model,
    "request_id": whole._request_id,
}
two = client.completions.create(model=model, prompt=[ASKED, OTHER])
said["two"] = [[each.index, each.text] for each in two.choices]
pieces = list(
    lenient.completions.create(model=model, prompt=ASKED, stream=True, stream_options={"include_usage": True})
)
said["completion_stream"] = {
    "text": "".join(each.choices[0].text for each in pieces if each.choices),
    "finish_reason": [each.choices[0].finish_reason for each in pieces if each.choices][-1],
    "usage": pieces[-1].usage and pieces[-1].usage.model_dump(exclude_none=True),
    "ids": len({each.id for each in pieces}),
}
chat = client.chat.completions.create(model=model, messages=messages, logprobs=True, top_logprobs=2)
answer = chat.choices[0]
assert answer.logprobs is not None and answer.logprobs.content is not None and chat.usage is not None
said["chat"] = {
    "text": answer.message.content,
    "role": answer.message.role,
    "finish_reason": answer.finish_reason,
    "token_logprobs": [each.logprob for each in answer.logprobs.content],
    "bytes": [bytes(each.bytes or ()).decode() for each in answer.logprobs.content],
    "tops": [len(each.top_logprobs) for each in answer.logprobs.content],
    "usage": chat.usage.model_dump(exclude_none=True),
}
chunks = list(
    client.chat.completions.create(
        model=model, messages=messages, stream=True, stream_options={"include_usage": True}
    )
)
said["chat_stream"] = {
    "text": "".join(each.choices[0].delta.content or "" for each in chunks if each.choices),
    "role": chunks[0].choices[0].delta.role,
    "finish_reason": [each.choices[0].finish_reason for each in chunks if each.choices][-1],
    "usage": chunks[-1].usage and chunks[-1].usage.model_dump(exclude_none=True),
    "last": chunks[-1].choices,
}
with client.chat.completions.stream(model=model, messages=messages) as stream:
    said["chat_helper"] = stream.get_final_completion().choices[0].message.content
parsed = client.chat.completions.parse(model=model, messages=messages, response_format=Ticket)
said["parsed"] = parsed.choices[0].message.parsed and parsed.choices[0].message.parsed.about
called = client.chat.completions.create(
    model=model,
    messages=messages,
    tools=[openai.pydantic_function_tool(Ticket)],
    tool_choice="required",
)
calls: Any = called.choices[0].message.tool_calls
said["called"] = [
    called.choices[0].finish_reason,
    called.choices[0].message.content,
    [[each.type, each.function.name, json.loads(each.function.arguments)] for each in calls],
]
response = client.responses.create(model=model, input=ASKED)
said["response"] = {
    "text": response.output_text,
    "status": response.status,
    "usage": response.usage and [response.usage.input_tokens, response.usage.output_tokens],
}
typed = client.responses.parse(model=model, input=ASKED, text_format=Ticket)
said["typed"] = typed.output_parsed and typed.output_parsed.about

# What the server's own routes say to the same, asked with the same client.
native = openai.OpenAI(base_url=f"{url}/v1", api_key=key)
both: Any = {"task": model, "inputs": [ASKED, OTHER]}
said["generated"] = native.post("/generate", cast_to=object, body={**both, "top_logprobs": 2})
said["classified"] = native.post("/classify", cast_to=object, body={**both, "labels": LABELS})

# A batch with a line that fails.
lines = [
    {
        "custom_id": f"line-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": name, "messages": messages},
    }
    for number, name in enumerate([model, model, "nobody"])
]
asked = client.files.create(file=("asked.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
batch = client.batches.create(
    input_file_id=asked.id,
    endpoint="/v1/chat/completions",
    completion_window="24h",
    metadata={"for": "tickets"},
)
batch = finished(batch, client.batches.retrieve, OVER)
said["batch"] = {
    "status": batch.status,
    "counts": batch.request_counts and batch.request_counts.model_dump(),
    "metadata": batch.metadata,
    "listed": [each.id for each in client.batches.list()] == [batch.id],
    "files": {each.id for each in client.files.list(purpose="batch_output")}
    == {batch.output_file_id, batch.error_file_id},
    "output": [json.loads(line) for line in client.files.content(str(batch.output_file_id)).iter_lines()],
    "errors": [json.loads(line) for line in client.files.content(str(batch.error_file_id)).iter_lines()],
}

# What is over cannot be cancelled, and asking again would not help.
try:
    client.fine_tuning.jobs.cancel(job.id)
except openai.ConflictError as error:
    said["over"] = error.code

# Nothing was made twice, though three answers were lost. A key says so for a day.
said["lost"] = lost
same: Any = {"input_file_id": asked.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
keyed = [client.batches.create(**same, extra_headers={"Idempotency-Key": "again"}).id for _ in range(2)]
said["keyed"] = [len(set(keyed)), keyed[0] == batch.id]
finished(client.batches.retrieve(keyed[0]), client.batches.retrieve, OVER)
try:
    client.batches.create(**{**same, "input_file_id": file.id}, extra_headers={"Idempotency-Key": "again"})
except openai.UnprocessableEntityError as error:
    said["reused"] = error.code

# Delete.
said["deleted"] = [client.models.delete(model).deleted, client.files.delete(asked.id).deleted]
said["gone"] = []
for look in (lambda: client.models.retrieve(model), lambda: client.files.retrieve(asked.id)):
    try:
        look()
    except openai.NotFoundError as error:
        said["gone"].append([error.code, error.type])
sys.stdout.write(json.dumps(said))
