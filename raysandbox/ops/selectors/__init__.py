"""Selectors: keep rows by rank, range or chance."""
