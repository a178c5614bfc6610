"""A run's folder as tables, plots and a report."""
