"""Search: many trials of one experiment, driven by Ray Tune, that share what they compute."""
