"""Who asks and what they may do: principals, scopes and keys."""
