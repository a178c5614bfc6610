"""One experiment: plan, jobs by content, iterations, status."""
