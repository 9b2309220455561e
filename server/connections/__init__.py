"""Connections of the HTTP server: how many, how long each may take, what is refused before any route."""
