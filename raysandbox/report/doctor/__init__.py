"""What `raysandbox doctor` found, judged: facts become green, yellow and red lines."""
