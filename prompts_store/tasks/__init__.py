"""Tasks and their versions: published, referenced, aliased, listed, tombstoned."""
