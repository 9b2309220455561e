"""The process that holds the frozen model. Not a public API: `chorus` is."""
