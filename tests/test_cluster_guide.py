"""The guides to clusters and GPU machines keep their promises: their commands can be typed as they stand."""

import re
import shlex
from pathlib import Path

import pytest

from referee.cli import parser
from referee.project import UsageError
from referee.runs.planning import parse_seeds
from referee.runs.scheduling import parse_minutes

ROOT = Path(__file__).parents[1]
GUIDES = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("cluster", "gpu_runner")}


def typed(text: str) -> list[str]:
    """Every command of referee's in a guide: in blocks for a shell, and in a line's code."""
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, flags=re.M | re.S)).replace("\\\n", " ")
    lines = [*blocks.splitlines(), *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if re.search(r"(?<![\w./-])referee [a-z]", part) and "…" not in part]


COMMANDS = sorted({command for text in GUIDES.values() for command in typed(text)})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_can_be_typed(command: str) -> None:
    words = shlex.split(command, comments=True)
    at = words.index("referee")
    before = [word for word in words[:at] if not re.fullmatch(r"[A-Z_]+=\S+", word)]
    assert before[:1] in ([], ["torchrun"], ["srun"]), command
    try:
        options, rest = parser().parse_known_args(words[at + 1 :])
    except UsageError as error:
        if "are required" in str(error) and not any(word.startswith("-") for word in words):
            return  # a command that is only named
        raise
    assert rest == []
    if getattr(options, "seeds", None):
        parse_seeds(options.seeds)
    if getattr(options, "time", None):
        parse_minutes(options.time)


def test_the_way_from_a_laptop_to_a_cluster_is_shown() -> None:
    """Three blocks to copy, in this order: a laptop, a machine with several GPUs, a cluster."""
    laptop, several, cluster = re.findall(r"^```sh\n(.*?)^```$", GUIDES["cluster"], flags=re.M | re.S)
    assert "referee run iwae --preset laptop\n" in laptop
    assert re.search(r"^torchrun --standalone --nproc-per-node \d+ -m referee run iwae ", several, re.M)
    order = ["referee fetch", "referee cost", "referee run iwae", "referee runs\n", "referee runs collect"]
    places = [re.sub(r" +#.*", "", cluster).find(command) for command in order]
    assert places == sorted(places)
    assert -1 not in places
    assert "--seeds 0-4 --on slurm" in cluster


def test_settings_that_a_guide_names_are_those_of_the_start_script() -> None:
    start = (ROOT / ".github" / "runner" / "start.sh").read_text()
    named = set(re.findall(r"RUNNER_[A-Z]+", GUIDES["gpu_runner"]))
    assert named
    assert named <= set(re.findall(r"\$\{(RUNNER_[A-Z]+):-", start))
