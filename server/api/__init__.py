"""REST: a request is validated, authorised, resolved, tokenised, submitted and answered."""
