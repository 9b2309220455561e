"""What HTTP takes, whatever the route: request ids, strict bodies and their memory, one error shape."""
