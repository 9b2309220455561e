"""The REST API: a request is validated, authorised, resolved, tokenised, submitted and answered."""
