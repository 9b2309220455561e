"""Run in either environment: the strict client asks for a list whose fields are not OpenAI's.

Arguments: a URL of such a list, a key.
"""

from __future__ import annotations

import json
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], _strict_response_validation=True)
try:
    client.files.list()
    found = False
except openai.APIResponseValidationError:
    found = True
sys.stdout.write(json.dumps({"found": found}))
