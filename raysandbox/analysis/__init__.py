"""Statistics summarised: numbers, correlations, tables, plots."""
