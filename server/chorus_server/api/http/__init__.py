"""HTTP for every route: request ids, strict bodies and their memory, one error shape."""
