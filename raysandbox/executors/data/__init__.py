"""General data executors, one file each."""
