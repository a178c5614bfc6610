"""VBench as its users call it, in one process: OUTPUT gets its results; runs in VBench's environment.

Usage: vbench_directly.py WEIGHTS VIDEOS MODE INFO OUTPUT DIMENSION…
"""

import sys

from raysandbox.evaluators._vbench.worker import ShardWork

if __name__ == "__main__":
    weights, videos, mode, info, output, *dimensions = sys.argv[1:]
    ShardWork(weights).load("cpu")  # lets torchvision be imported beside a CPU build of torch
    import torch
    from vbench import VBench

    VBench(torch.device("cpu"), info, output).evaluate(
        videos, "direct", dimension_list=dimensions, local=True, mode=mode
    )
