"""Weights of another project: found by address, believed by digest."""

import hashlib

import pytest

from common.errors import CheckpointError
from common.weights import find


def put(root, content, *, place="projects/ddpm/results", run="laptop/eps-simple"):
    path = root / place / run / "weights.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def digest(content):
    return hashlib.sha256(content).hexdigest()


def test_published_weights_are_found(tmp_path):
    path = put(tmp_path, b"right")
    assert find("ddpm/laptop/eps-simple", digest(b"right"), root=tmp_path) == path


def test_so_are_those_of_a_run_that_was_not_published(tmp_path):
    put(tmp_path, b"of an earlier version")
    path = put(tmp_path, b"right", place="runs/ddpm")
    assert find("ddpm/laptop/eps-simple", digest(b"right"), root=tmp_path) == path


def test_other_content_is_refused_and_both_digests_are_named(tmp_path):
    put(tmp_path, b"wrong")
    with pytest.raises(CheckpointError) as error:
        find("ddpm/laptop/eps-simple", digest(b"right"), root=tmp_path)
    for said in (digest(b"right")[:12], digest(b"wrong")[:12], "projects/ddpm/results/laptop/eps-simple"):
        assert said in str(error.value)


def test_missing_weights_are_told_how_to_be_made(tmp_path):
    with pytest.raises(CheckpointError, match="'referee run ddpm --preset laptop --only eps-simple'"):
        find("ddpm/laptop/eps-simple", digest(b"right"), root=tmp_path)


@pytest.mark.parametrize("sha256", ["", "9f86d081", digest(b"right").upper()])
def test_nothing_is_taken_on_trust(tmp_path, sha256):
    put(tmp_path, b"right")
    with pytest.raises(CheckpointError, match="SHA-256"):
        find("ddpm/laptop/eps-simple", sha256, root=tmp_path)


@pytest.mark.parametrize(
    "address", ["", "ddpm", "ddpm/laptop", "../ddpm/laptop/x", "ddpm/laptop/..", "ddpm/laptop/a/b"]
)
def test_an_address_leads_nowhere_else(tmp_path, address):
    with pytest.raises(CheckpointError, match="an address is project/preset/run"):
        find(address, digest(b"right"), root=tmp_path)
