"""Jobs of every kind: their queue, their events, and who runs which."""
