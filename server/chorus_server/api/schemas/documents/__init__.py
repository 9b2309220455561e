"""Documents of jobs that ask the engine: the bodies of their routes, kept in the store as they are."""
