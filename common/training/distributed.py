"""Many processes, one training run: what `torchrun` needs and nothing more.

Every function also works in a single process, where it does nothing, so that a project's file is the same for one CPU,
one GPU or many. Gradients are averaged explicitly (`common.training.step`) instead of by a wrapper around the
module: any method of a module may be the loss, and any number of optimisers may share a model.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.errors import DeviceError, ProcessError
from common.training.stop import Interrupted

T = TypeVar("T")

PATIENCE = timedelta(days=2)
"""How long a process waits for another that is alive, as while it evaluates. One that dies is noticed at once."""

_peers: list[tuple[str, int]] = []  # of every process: its machine, and its number there


def start(device: torch.device) -> torch.device:
    """Join the processes that `torchrun` started; return the device of this one.

    Outside `torchrun` nothing happens and `device` comes back. Tensors on the CPU travel by gloo and tensors on a GPU
    by NCCL, so that small decisions are shared without waiting for a GPU.

    Raises:
        DeviceError: there are more processes on this machine than GPUs.
        ProcessError: one of them ended before they met.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or dist.is_initialized():
        return device
    backend = "gloo"
    if device.type == "cuda":
        local, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= found:
            raise DeviceError(
                f"Process {local} on this machine has no GPU of its own: there are {found}. "
                f"Start torchrun with --nproc-per-node {max(found, 1)}."
            )
        device, backend = torch.device("cuda", local), "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
        atexit.register(_stop)
        _peers[:] = gather((socket.gethostname(), os.getpid()))
    except RuntimeError as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ProcessError(f"the processes did not find each other; give the same command again. {reason}") from error
    return device


def _stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def lost() -> list[int]:
    """The processes on this machine, by rank, that were started with this one and have ended."""
    here = socket.gethostname()
    return [rank for rank, (machine, process) in enumerate(_peers) if machine == here and not _alive(process)]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except OSError:  # no /proc on this system
        return True
    return state not in "ZX"  # ended, and its parent has not looked yet


@contextmanager
def together(directory: Path) -> Iterator[None]:
    """What the processes do with one another: when one of them dies, the others end with a message instead of waiting.

    Args:
        directory: where the run keeps what it takes to continue, for the message.

    Raises:
        ProcessError: another process has ended.
        Interrupted: SIGTERM came while nobody else listened for it (`common.training.stop`).
    """
    if world_size() == 1:
        yield
        return
    kept = f"What was saved is in {directory}: the same command continues from there."

    def gone(wait_s: float) -> ProcessError | None:
        until = time.monotonic() + wait_s  # its connections may close before it has ended
        while not (ended := lost()) and time.monotonic() < until:
            time.sleep(0.05)
        if not ended:
            return None
        which = f"process{'es' * (len(ended) > 1)} {', '.join(map(str, ended))} of {world_size()}"
        return ProcessError(f"{which} ended before the run did: killed, out of memory, or for what it said. {kept}")

    def terminated(number: int, frame: FrameType | None) -> None:  # torchrun sends it to those that are left
        raise gone(0.0) or Interrupted(f"Stopped by {signal.Signals(number).name}. {kept}")

    listening = threading.current_thread() is threading.main_thread()
    listening = listening and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if listening:
        signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    except RuntimeError as error:
        unreachable = any(sign in str(error) for sign in ("gloo", "NCCL", "by peer", "Broken pipe"))
        if (ended := gone(2.0 if unreachable else 0.0)) is not None:
            raise ended from error
        if unreachable:
            message = f"a process of this run on another machine ended, or cannot be reached. {kept}"
            raise ProcessError(message) from error
        raise
    finally:
        if listening:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def alone() -> Iterator[None]:
    """What this process does while the others wait for it somewhere else: meanwhile it counts as the only one.

    What is dealt out among the processes elsewhere (`common.evaluation.shards`) it then does by itself, with the same
    values, instead of waiting for those who wait for it.
    """
    if world_size() == 1:
        yield
        return
    group, dist.GroupMember.WORLD = dist.GroupMember.WORLD, None
    try:
        yield
    finally:
        dist.GroupMember.WORLD = group


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the one process that writes files and shows progress."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        all_sum(torch.zeros(1))  # a sum over CPU tensors: dist.barrier() would occupy a GPU


def all_sum(tensor: Tensor) -> Tensor:
    """Sum over the processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def agree(decision: int) -> int:
    """The largest of all processes' decisions: the same number everywhere, so that all act at the same step."""
    if world_size() == 1:
        return decision
    shared = torch.tensor(decision)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return int(shared)


def gather(value: T) -> list[T]:
    """Every process's value, by rank. Values may differ in size; keep them small."""
    if world_size() == 1:
        return [value]
    values: list[T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def average(tensors: Sequence[Tensor], share: float) -> None:
    """Replace each tensor, in place, by the sum over processes of `share` times its value there.

    Shares must sum to one over the processes. Tensors of one type and device travel in one message.
    """
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for group in groups.values():
        message = torch.cat([tensor.reshape(-1) for tensor in group]).mul_(share)
        dist.all_reduce(message)
        pieces = message.split([tensor.numel() for tensor in group])  # type: ignore[no-untyped-call]
        for tensor, piece in zip(group, pieces, strict=True):
            tensor.copy_(piece.view(tensor.shape))


@torch.no_grad()
def broadcast(modules: Iterable[nn.Module]) -> None:
    """Give every process the parameters and buffers of process 0."""
    if world_size() == 1:
        return
    for module in modules:
        for tensor in [*module.parameters(), *module.buffers()]:
            contiguous = tensor.detach().contiguous()
            dist.broadcast(contiguous, src=0)
            tensor.copy_(contiguous)
