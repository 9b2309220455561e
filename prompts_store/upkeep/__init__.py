"""Looking after a store: collecting, checking, and whether the database and the folders fit."""
