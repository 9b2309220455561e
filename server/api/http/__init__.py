"""What every route relies on: request ids, keys, strict bodies, one error shape, callers who leave."""
