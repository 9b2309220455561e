"""Tasks and their versions: published, referred to, aliased, listed, tombstoned."""
