"""Tuning jobs: their queue, their events, and who runs which."""
