"""What every stage uses: the attempt, its settings, the base model."""
