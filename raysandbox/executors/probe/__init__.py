"""Model probes, one file each."""
