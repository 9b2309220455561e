"""Data files: what tenants upload to tune on."""
