"""What jobs of every kind share: who holds one under a lease, and how its events are followed."""
