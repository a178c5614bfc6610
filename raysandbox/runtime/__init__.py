"""Ray: session, placement, workers, the watcher's actor, signals."""
