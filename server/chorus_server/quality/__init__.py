"""How good answers are: metrics, what was got wrong, votes. Pure arithmetic."""
