"""Filters: compute statistics, then decide by thresholds."""
