"""A registry with one tiny data set, a server that can misbehave, and no network beyond it."""

import contextlib
import dataclasses
import gzip
import http.server
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from common.data import Data, Split, formats, registry
from common.data.registry import DataSet
from common.data.sources import Address
from common.data.splits import array_digest, content_digest
from common.errors import DataError


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No folder of the user's is read, no cache of theirs written, only 127.0.0.1 reached."""
    monkeypatch.setenv("REFEREE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("REFEREE_DATA", raising=False)
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: tuple[str, int]) -> None:
        assert address[0] == "127.0.0.1", f"a test tried to reach {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)


_ENVIRONMENT = {key: os.environ.get(key) for key in ("REFEREE_DATA", "REFEREE_CACHE")}


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Data]:
    """A real data set if REFEREE_DATA or the user's cache has it; else the test is skipped."""
    for key, value in _ENVIRONMENT.items():
        if value is None:
            monkeypatch.delenv(key, raising=False)
        else:
            monkeypatch.setenv(key, value)

    def load(name: str) -> Data:
        offline = dataclasses.replace(registry.REGISTRY[name], sources=())
        monkeypatch.setitem(registry.REGISTRY, name, offline)
        try:
            return registry.load(name)
        except DataError:
            pytest.skip(f"{name} is not on this machine: set REFEREE_DATA to a folder that holds it")

    return load


def idx_bytes(array: np.ndarray) -> bytes:
    """The idx format of an array of bytes, uncompressed."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


class Tiny:
    """A data set of 12 images of 4 x 4, in two gzipped idx files."""

    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4), np.uint8)
    labels = np.arange(12, dtype=np.uint8)
    files: ClassVar = {
        "images.gz": gzip.compress(idx_bytes(images)),
        "labels.gz": gzip.compress(idx_bytes(labels)),
    }

    @staticmethod
    def assemble(arrays: Mapping[str, np.ndarray]) -> dict[str, Split]:
        x = torch.from_numpy(np.array(arrays["images"])).reshape(12, 1, 4, 4)
        y = torch.from_numpy(arrays["labels"].astype(np.int64))
        cuts = {"train": slice(0, 6), "val": slice(6, 8), "test": slice(8, 12)}
        return {name: Split(x[cut], y[cut]) for name, cut in cuts.items()}

    @classmethod
    def write(cls, folder: Path, **replaced: bytes) -> Path:
        """The files in `folder`; `images=` or `labels=` replaces the content of one."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in cls.files.items():
            (folder / name).write_bytes(replaced.get(name.removesuffix(".gz"), content))
        return folder

    @classmethod
    def entry(cls, *sources: registry.Source) -> DataSet:
        arrays = {"images": cls.images, "labels": cls.labels}
        return DataSet(
            name="tiny",
            folders=("tiny", "Tiny/raw"),
            arrays={name: (array.shape, array_digest(array)) for name, array in arrays.items()},
            layouts=(
                {name: (f"{name}.gz", formats.idx) for name in arrays},
                {name: (name, formats.idx) for name in arrays},
            ),
            assemble=cls.assemble,
            levels=256,
            sha256=content_digest(cls.assemble(arrays)),
            sources=sources,
        )


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> type[Tiny]:
    """The registry knows 'tiny', which no remote source has."""
    monkeypatch.setitem(registry.REGISTRY, "tiny", Tiny.entry())
    return Tiny


class Server:
    """Serves `files`; `cut` bytes of each body are withheld, and each answer waits `wait_s`, and for `may_answer`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.files = dict(Tiny.files)
        self.cut = 0
        self.wait_s = 0.0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.requests: list[str] = []

    def address(self) -> Address:
        return Address({name: f"{self.url}/{name}" for name in self.files})


@pytest.fixture
def server(tiny: type[Tiny], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that has the files of 'tiny', known to the registry as its canonical address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/")
            state.requests.append(name)
            time.sleep(state.wait_s)
            state.may_answer.wait(60)
            content = state.files.get(name)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # who asked may have been killed
                self.wfile.write(content[: len(content) - state.cut])

        def log_message(self, *_: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(httpd.server_address[1])
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setitem(registry.REGISTRY, "tiny", Tiny.entry(state.address()))
    yield state
    state.may_answer.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()
