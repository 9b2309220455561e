"""The routes that OpenAI's clients call: names of models, errors, and the native items behind each body."""
