"""The store as the routes use it: on threads, with a short memory of what references meant."""
