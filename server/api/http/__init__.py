"""What every route stands behind: request ids, keys, strict bodies, one error shape, leaving callers."""
