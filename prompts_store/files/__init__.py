"""Data files: uploaded by tenants to tune on."""
