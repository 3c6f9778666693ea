"""Processes that train together, as torchrun starts them, but forked from one that has done the imports.

`FORK=4 python script.py ...` is to a script that calls `start` what `torchrun --nproc-per-node 4 script.py ...` is.
"""

import importlib
import os
import socket
import sys
from collections.abc import Callable


def start(work: Callable[[], None]) -> None:
    """Do the work: in as many processes as FORK says, or in this one, which torchrun may have started."""
    processes = int(os.environ.get("FORK", "0"))
    if not processes:
        work()
        return
    importlib.import_module("torch._dynamo")  # an optimiser's first step does, in each process: longer than the tests

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            work()
            return
        children.append(child)
    ends = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(ends))
