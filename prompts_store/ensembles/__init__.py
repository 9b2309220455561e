"""Ensembles: ordered lists of versions and a vote, themselves versioned and addressed like a task."""
