"""The `chorus` command."""

from chorus.cli.root import main

__all__ = ["main"]
