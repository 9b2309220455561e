"""One file a resource: the routes of docs/rest.md."""
