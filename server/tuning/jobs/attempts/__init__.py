"""What every stage stands on: the attempt, its settings, the base model."""
