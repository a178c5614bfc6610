"""Operators over batches of rows: one file each, named as in a recipe."""
