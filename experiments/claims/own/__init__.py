"""Open this package for hypotheses and findings of our own that the paper does not state."""
