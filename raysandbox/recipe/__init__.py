"""Data recipes: schema, readers, the fused engine, writers, analysis, scoring."""
