"""Run in the clients' environment: OpenAI's own client asks a server, as its documentation shows."""

from __future__ import annotations

import json
import sys

import openai

client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="any", max_retries=0)
decision = client.decisions.create(
    model="jev-latest",
    input=[{"role": "user", "content": "it 's a charming and often affecting journey ."}],
    questions=[
        {"type": "predicate", "name": "praise", "instructions": "Does the writer praise it?"},
        {
            "type": "choice",
            "instructions": "How does it sound?",
            "choices": [{"value": "negative"}, {"value": "positive", "description": "warm"}, {"value": True}],
        },
        {"type": "score", "instructions": "How warm?", "levels": [{"label": "cold"}, {"label": "hot"}]},
    ],
)
predicate, choice, score = decision.answers
try:
    client.decisions.create(
        model="jev-latest", input="x", questions=[{"type": "choice", "name": "bad", "instructions": "?"}]
    )
    refused = None
except openai.BadRequestError as error:
    refused = {"message": error.message, "param": error.param, "type": error.type, "id": error.request_id}
try:
    client.decisions.create(model="nobody", input="x", questions=[{"type": "predicate", "instructions": "?"}])
    missing = None
except openai.NotFoundError as error:
    missing = error.code
said = {
    "model": decision.model,
    "predicate": [predicate.type, predicate.name, predicate.probability],
    "choice": [choice.type, choice.name, choice.choice, choice.confidence],
    "values": [each.value for each in choice.probabilities],
    "score": [score.type, score.score, score.confidence, [each.label for each in score.probabilities]],
    "usage": decision.usage.total_tokens,
    "request_id": decision._request_id,
    "refused": refused,
    "missing": missing,
    "models": [model.id for model in client.models.list()],
}
sys.stdout.write(json.dumps(said))
