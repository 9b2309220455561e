"""One file a resource: the routes of docs/rest.md; `asgi` makes one application of them."""
