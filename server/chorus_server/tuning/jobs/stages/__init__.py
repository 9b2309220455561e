"""The stages of an attempt: validate, compile, train, publish, and what each is made of."""
