"""Jobs from the store, run: claimed under a lease, prepared, trained in slices, published."""
