"""Chorus on clusters that others run: datasets of Ray Data."""
