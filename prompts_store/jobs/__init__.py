"""Jobs of every kind: their queue, their events, and which process runs which."""
