"""Connections of the HTTP server: how many there may be, how long each may take, what is refused before any
route."""
