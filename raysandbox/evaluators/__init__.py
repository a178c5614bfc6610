"""Data evaluators: one file each, named as the `type` in a configuration."""
