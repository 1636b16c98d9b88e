"""Open this package to quote a verdict elsewhere: what a ledger.json is, what it rests on, whether it follows."""
