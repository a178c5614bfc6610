"""Data-model co-development experiments on Ray: probe, refine, process, train, evaluate."""
