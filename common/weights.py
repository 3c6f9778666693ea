"""Published weights of one project, for another to build on: found by address, believed by digest.

Projects do not import each other. One that begins where another ended names the other's weights in its configuration,
so that its records show what they rest on:

    weights = "ddpm/laptop/eps-simple"      project / preset / run
    weights_sha256 = "9f86d081…"            of the file weights.safetensors
"""

import hashlib
import re
from pathlib import Path

from common.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = re.compile(r"([a-z][a-z0-9_]*)/([a-z]+)/([A-Za-z0-9][A-Za-z0-9_.-]*)")


def find(address: str, sha256: str, *, root: Path = ROOT) -> Path:
    """The safetensors file of these weights, its content verified.

    Looked for among what the project has published, then among the runs made on this machine: weights too large for a
    repository are only there, and the digest says whether they are the ones that are meant.

    Args:
        address: "project/preset/run".
        sha256: of the file, 64 hexadecimal digits.
        root: the repository.

    Raises:
        CheckpointError: the address or the digest is none, nothing lies there, or something else does.
    """
    parts = ADDRESS.fullmatch(address)
    if not parts:
        raise CheckpointError(f"weights '{address}': an address is project/preset/run, like ddpm/laptop/eps-simple.")
    project, preset, run = parts.groups()
    make = f"referee run {project} --preset {preset} --only {run}"
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        said = f"'{sha256}' is no SHA-256" if sha256 else "no SHA-256 is given"
        raise CheckpointError(
            f"weights {address}: {said}, so nothing can be trusted to be them. Make them ('{make}'), then give "
            "--weights_sha256 with what 'sha256sum' says of their weights.safetensors."
        )
    places = [root / "projects" / project / "results", root / "runs" / project]
    found = ""
    for place in places:
        path = place / preset / run / "weights.safetensors"
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest == sha256:
                return path
            found += f" {path.relative_to(root)} has {digest[:12]}…"
    if found:
        raise CheckpointError(
            f"weights {address}: wanted is SHA-256 {sha256[:12]}…, but{found}. They were made anew, or changed: get "
            "them back with 'git checkout', or put the new digest in the preset and run everything again."
        )
    raise CheckpointError(
        f"weights {address}: there are none in projects/{project}/results or runs/{project}. Make them: '{make}'."
    )
