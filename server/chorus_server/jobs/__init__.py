"""What jobs of every kind share: a lease, slices of the device, downloads, and events that are followed."""
