"""Deduplicators: keep the first of equal rows."""
