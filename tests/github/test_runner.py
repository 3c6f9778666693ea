"""The machine that runs the gpu workflow's jobs: what its image, its start and its way out may be, and may not.

Nothing here builds an image or starts a container: the Dockerfile is read, the start script runs with a stand-in for
docker that notes how it was called.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / ".github" / "runner"
DOCKERFILE = (RUNNER / "Dockerfile").read_text()
PROXY = (RUNNER / "proxy.conf").read_text()
CONFIG = "eyJ" + "QUJD" * 20 + "=="


# -- The image ---------------------------------------------------------------------------------------------------------


def instructions(text: str) -> list[tuple[str, str]]:
    """A Dockerfile as (instruction, arguments), continued lines joined, comments left out."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def problems(text: str) -> Iterator[str]:
    """What is wrong with a Dockerfile for a machine that runs a stranger's code."""
    steps = instructions(text)
    bases = [rest for word, rest in steps if word == "FROM"]
    if len(bases) != 1 or not re.fullmatch(
        r"ghcr\.io/actions/actions-runner:\d+\.\d+\.\d+@sha256:[0-9a-f]{64}", bases[0]
    ):
        yield "base: GitHub's own runner, by version and digest"
    if ([rest for word, rest in steps if word == "USER"] or ["root"])[-1].split(":")[0] in ("root", "0"):
        yield "user: ends as root"
    for word, rest in steps:
        if word == "ADD" or (word == "COPY" and "--from" not in rest):
            yield f"{word}: nothing of ours is in it, nothing comes from an address"
        if word in ("ENV", "ARG", "LABEL") and re.search(r"token|secret|passw|_key|credential|jitconfig", rest, re.I):
            yield f"{word}: a secret"
        if word == "RUN" and re.search(r"\b(curl|wget|git clone|pip install|npm)\b", rest):
            yield "RUN: fetches what no digest is known of"
        careful = "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists" in rest
        if word == "RUN" and "apt-get install" in rest and not careful:
            yield "RUN: leaves what is not needed"
        if word in ("VOLUME", "EXPOSE"):
            yield f"{word}: nothing is shared"
        if "docker.sock" in rest:
            yield "the docker of the host"
    groups = " ".join(rest for word, rest in steps if word == "RUN")
    for group in ("sudo", "docker"):
        if f"gpasswd --delete runner {group}" not in groups:
            yield f"user: may become root by the group {group}"


def test_the_image_keeps_the_rules() -> None:
    assert list(problems(DOCKERFILE)) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (re.compile(r"@sha256:\w+"), "", "base"),
        (re.compile(r"2\.\d+\.\d+@"), "latest@", "base"),
        ("ghcr.io/actions/", "docker.io/somebody/", "base"),
        ("USER runner\n", "", "ends as root"),
        ("USER runner\n", "USER 0:0\n", "ends as root"),
        ("USER runner\n", "ADD https://example.org/x /x\nUSER runner\n", "ADD"),
        ("USER runner\n", "COPY . .\nUSER runner\n", "COPY"),
        ("ENV REFEREE_CACHE", "ENV GITHUB_TOKEN=x REFEREE_CACHE", "ENV: a secret"),
        ("USER runner\n", "USER runner\nARG RUNNER_SECRET\n", "ARG: a secret"),
        ("gpasswd --delete runner sudo", "true", "group sudo"),
        ("gpasswd --delete runner docker", "true", "group docker"),
        ("rm -rf /var/lib/apt/lists/*", "curl https://example.org | sh", "no digest"),
        ("--no-install-recommends ", "", "leaves"),
        ("CMD [", "VOLUME /var/run/docker.sock\nCMD [", "the docker of the host"),
    ],
)
def test_a_broken_rule_is_noticed(old: str | re.Pattern[str], new: str, says: str) -> None:
    changed = old.sub(new, DOCKERFILE, count=1) if isinstance(old, re.Pattern) else DOCKERFILE.replace(old, new, 1)
    assert changed != DOCKERFILE
    assert any(says in problem for problem in problems(changed)), list(problems(changed))


def test_the_image_looks_for_data_where_the_start_mounts_them() -> None:
    (environment,) = (rest for word, rest in instructions(DOCKERFILE) if word == "ENV")
    settings = dict(setting.split("=") for setting in environment.split())
    assert settings["REFEREE_CACHE"] == "/cache"
    assert settings["REFEREE_OFFLINE"] == "1"
    assert "target=/cache,readonly" in (RUNNER / "start.sh").read_text()


# -- The start ---------------------------------------------------------------------------------------------------------

DOCKER = """#!/bin/sh
case "$1 $2" in
"network inspect") test -n "$FAKE_INTERNAL" || exit 1; echo "$FAKE_INTERNAL" ;;
*) for word; do echo "$word"; done > "$FAKE_NOTES/arguments"; env > "$FAKE_NOTES/environment"; exit "$FAKE_STATUS" ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with a stand-in for docker and a cache."""
    for name in ("bin", "cache", "notes"):
        (tmp_path / name).mkdir()
    path = tmp_path / "bin" / "docker"
    path.write_text(DOCKER)
    path.chmod(0o755)
    return tmp_path


def start(machine: Path, config: str = CONFIG, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{machine / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "REFEREE_CACHE": str(machine / "cache"),
        "FAKE_INTERNAL": "true",
        "FAKE_NOTES": str(machine / "notes"),
        "FAKE_STATUS": "0",
        **settings,
    }
    return subprocess.run(
        ["bash", str(RUNNER / "start.sh")], input=config, env=environment, capture_output=True, text=True, timeout=60
    )


def test_a_job_gets_one_gpu_a_cache_it_cannot_write_and_little_else(machine: Path) -> None:
    done = start(machine, RUNNER_GPU="3", FAKE_STATUS="7")
    assert done.returncode == 7, done.stderr  # docker's own
    arguments = (machine / "notes" / "arguments").read_text().splitlines()
    assert arguments[0] == "run"
    assert arguments[-1] == "gpu-runner"
    pairs = [f"{option} {value}" for option, value in pairwise(arguments)]
    for wanted in (
        "--gpus device=3",
        f"--mount type=bind,source={machine / 'cache'},target=/cache,readonly",
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
        "--network gpu-runner",
        "--pull never",
        "--env https_proxy=http://172.30.0.1:3128",
        "--env no_proxy=localhost,127.0.0.1",
        "--memory 32g",
        "--pids-limit 4096",
    ):
        assert wanted in pairs
    assert "--rm" in arguments
    assert arguments.count("--mount") == 1
    assert not re.search(r"docker\.sock|--privileged|--volume|-v\b|--device|--pid |[ =]host\b", " ".join(arguments))


def test_a_machine_can_be_tried_without_a_gpu(machine: Path) -> None:
    assert start(machine, RUNNER_GPU="none").returncode == 0
    assert "--gpus" not in (machine / "notes" / "arguments").read_text()


def test_the_configuration_is_in_no_list_of_processes(machine: Path) -> None:
    assert start(machine).returncode == 0
    assert CONFIG not in (machine / "notes" / "arguments").read_text()
    assert f"ACTIONS_RUNNER_INPUT_JITCONFIG={CONFIG}" in (machine / "notes" / "environment").read_text().splitlines()
    assert "--env\nACTIONS_RUNNER_INPUT_JITCONFIG\n" in (machine / "notes" / "arguments").read_text()


@pytest.mark.parametrize(
    ("settings", "config", "says"),
    [
        ({"REFEREE_CACHE": ""}, CONFIG, "REFEREE_CACHE must be the full path"),
        ({"REFEREE_CACHE": "cache"}, CONFIG, "it is 'cache'"),
        ({"REFEREE_CACHE": "/nowhere"}, CONFIG, "it is '/nowhere'"),
        ({"FAKE_INTERNAL": "false"}, CONFIG, "has a way out past the proxy"),
        ({"FAKE_INTERNAL": ""}, CONFIG, "there is no network 'gpu-runner'"),
        ({}, "", "no just-in-time configuration"),
        ({}, '{"message": "Not Found"}', "no just-in-time configuration"),
        ({}, "null", "no just-in-time configuration"),
        ({"PATH": "/nowhere"}, CONFIG, "docker is not installed"),
    ],
)
def test_it_starts_nothing_else(machine: Path, settings: dict[str, str], config: str, says: str) -> None:
    if "PATH" in settings:
        (machine / "bin" / "docker").unlink()
        settings = {"PATH": str(machine / "bin")}
        (machine / "bin" / "bash").symlink_to("/bin/bash")
    done = start(machine, config, **settings)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (machine / "notes" / "arguments").exists()


def test_the_shell_is_content(tool) -> None:
    done = tool("shellcheck", RUNNER / "start.sh")
    assert done.returncode == 0, done.stdout


# -- The way out -------------------------------------------------------------------------------------------------------


def test_the_proxy_lets_through_a_list_and_no_more() -> None:
    lines = [line for line in PROXY.splitlines() if line and not line.startswith("#")]
    rules = [line.split(maxsplit=1)[1] for line in lines if line.startswith("http_access")]
    assert rules == ["allow CONNECT runner encrypted allowed", "deny all"]
    hosts = [host for line in lines if line.startswith("acl allowed dstdomain ") for host in line.split()[3:]]
    assert all(host.count(".") >= 1 and host not in (".com", ".org", ".net") for host in hosts)
    assert {"github.com", "pypi.org", ".actions.githubusercontent.com"} <= set(hosts)
    assert "acl encrypted port 443" in lines


def test_the_proxys_address_is_where_the_start_looks_for_it() -> None:
    (port,) = re.findall(r"^http_port (\S+)$", PROXY, re.MULTILINE)
    assert f"http://{port}" in (RUNNER / "start.sh").read_text()
    guide = (ROOT / "docs" / "gpu_runner.md").read_text()
    assert port.split(":")[0] in guide


def test_labels_are_those_that_the_workflow_asks_for() -> None:
    wanted = yaml.safe_load((ROOT / ".github" / "workflows" / "gpu.yml").read_text())["jobs"]["gpu"]["runs-on"]
    guide = (ROOT / "docs" / "gpu_runner.md").read_text()
    assert re.findall(r"labels\[\]=([\w-]+)", guide) == wanted
