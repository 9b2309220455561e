"""The routes of docs/rest.md, one file for each resource; `asgi` makes an application of them."""
