"""The store as the routes see it: on threads, with what references meant a moment ago."""
