"""deduplicators."""
