"""Bodies and answers in the fields of OpenAI's API."""
