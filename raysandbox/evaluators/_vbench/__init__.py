"""What `vbench_video_evaluator` is made of. `worker` and `dimensions` also run in VBench's own environment."""
