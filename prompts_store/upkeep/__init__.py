"""Looking after a store: what is collected, what is checked, and whether database and folders fit."""
