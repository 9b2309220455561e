"""Ensembles: ordered lists of versions and a vote. They are versioned and addressed like tasks."""
