"""Processes that train together, as `torchrun` starts them, for a benchmark to give orders to.

A benchmark's module is its workers' too: `python -m benchmarks.<name>` calls its `worker(order)` for each order, in
every process, and process 0 answers.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from common.training import distributed

ROOT = Path(__file__).resolve().parents[1]


class Together:
    """Processes of one module that wait for orders, asleep.

    Args:
        module: "benchmarks.two_processes".
        count: how many processes.
        threads: each one's threads.
    """

    def __init__(self, module: str, count: int, threads: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {**os.environ, "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        shared |= {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=ROOT,
                env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
                text=True,
            )
            for rank in range(count)
        ]

    def ask(self, order: Any) -> Any:
        """Give an order; wait for the answer."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        assert self.processes[0].stdout is not None
        answer = self.processes[0].stdout.readline()
        if not answer:
            raise SystemExit("a process of the benchmark has ended; what it said stands above.")
        return json.loads(answer)

    def close(self) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes:
            process.wait()


def obey(worker: Callable[[Any], Any]) -> None:
    """In a process that `Together` started: carry out its orders, one after the other."""
    torch.set_flush_denormal(True)
    distributed.start(torch.device("cpu"))
    for line in sys.stdin:
        answer = worker(json.loads(line))
        if distributed.is_main():
            print(json.dumps(answer), flush=True)
