"""REST: one file a resource;

a request is validated, authorised, resolved, tokenised, submitted and answered.
"""
