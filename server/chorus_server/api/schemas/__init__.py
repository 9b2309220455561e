"""Bodies of requests and answers. Request models refuse unknown fields and coerce nothing."""
