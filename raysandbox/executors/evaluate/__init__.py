"""Model evaluators, one file each."""
