"""Mappers: change rows."""
