"""Open this package for the statements of the paper, and the identities of our own that belong to its algebra."""
