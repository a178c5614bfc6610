"""Model executors: what trains and what generates."""
