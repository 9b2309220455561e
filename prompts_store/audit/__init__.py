"""The audit log: who changed what, in a chain of rows a tenant that only grows."""
