"""Run in the clients' environment: TypeSafe's own client asks a server, with the model that it has fixed."""

from __future__ import annotations

import json
import sys

from typesafe_sdk import Choice, Noul, Score, TypeSafeClient
from typesafe_sdk._core.errors import TypeSafeUnprocessableEntityError

with TypeSafeClient(api_key="any", base_url=sys.argv[1]) as client:
    answer = client.system_one(
        state={"review": "it 's a charming and often affecting journey ."},
        questions={
            "praise": Noul(instructions="Does the writer praise it?"),
            "tone": Choice(criteria={"negative": None, "positive": "warm"}),
            "warmth": Score(criteria=["cold", {"label": "hot"}]),
        },
    )
    try:
        client.system_one(state="x", questions={"\uc9c8\ubb38": Choice(criteria={"only": None})})
        refused = None
    except TypeSafeUnprocessableEntityError as error:
        refused = {"message": str(error), "id": error.request_id}
    names = [model.name for model in client.models.list().models]
said = {
    "model": answer.model,
    "noul": answer.nouls["praise"].noul,
    "choice": [answer.choices["tone"].choice, answer.choices["tone"].confidence],
    "score": [answer.scores["warmth"].score, list(answer.scores["warmth"].legend)],
    "usage": answer.usage.input_tokens,
    "refused": refused,
    "models": names,
}
sys.stdout.write(json.dumps(said))
