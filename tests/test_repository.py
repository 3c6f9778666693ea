"""The repository keeps its own promises: pins agree, nothing is pickled, nobody's machine is named."""

import dataclasses
import importlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_hooks_use_the_locked_versions():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    pins = locked()
    for hook in (hook for repo in config["repos"] for hook in repo["hooks"]):
        for requirement in hook.get("additional_dependencies", []):
            name, version = re.fullmatch(r"([\w-]+)(?:\[\w+\])?==([\w.]+)", requirement).groups()
            assert pins[name] == version, f"{hook['id']}: {requirement}, but the lock has {pins[name]}"


def test_every_dependency_is_locked_and_torch_is_exact():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = project["optional-dependencies"]
    for extra in ("fid", "lpips"):  # for those who want them: their torchvision pulls another torch with it
        groups.pop(extra)
    wanted = [*project["dependencies"], *(r for group in groups.values() for r in group)]
    pins = locked()
    for requirement in wanted:
        name = re.match(r"[\w.-]+", requirement)[0]
        assert re.sub(r"[-_.]+", "-", name).lower() in pins, f"{name} is not in requirements.lock: run 'make lock'"
    assert f"torch=={pins['torch']}" in project["dependencies"]


def test_nothing_is_pickled_and_nothing_is_large():
    for path in tracked():
        assert path.suffix not in {".pt", ".pth", ".pkl", ".pickle", ".ckpt"}, path
        assert path.stat().st_size < 5_000_000, path


def test_nobodys_home_is_named():
    for path in tracked():
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".json", ".jsonl", ".ipynb", ".cff", ""}:
            text = path.read_text(encoding="utf-8")
            found = re.search(r"(?<![\w.])/(?:home|Users|root|work)/\w+", text)
            assert path == Path(__file__) or not found, f"{path}: {found and found[0]}"


def test_recipes_of_the_readme_exist():
    recipes = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    for name in ("README.md", "CONTRIBUTING.md"):
        for recipe in re.findall(r"\bmake ([a-z]+)\b(?=[`\s])", (ROOT / name).read_text()):
            if f"`make {recipe}" in (ROOT / name).read_text() or f"\nmake {recipe}" in (ROOT / name).read_text():
                assert recipe in recipes, f"{name} names 'make {recipe}'"


@pytest.mark.parametrize("paper", sorted(path.parent.name for path in ROOT.glob("projects/*/results")))
def test_published_records_hold_the_configuration_of_their_preset(paper):
    """Presets are no part of the code digest: this is what notices a preset that moved away from its results."""
    presets = importlib.import_module(f"projects.{paper}.{paper}").PRESETS
    for path in ROOT.glob(f"projects/{paper}/results/*/*/**/record.json"):
        record = json.loads(path.read_text())
        config = json.loads(json.dumps(dataclasses.asdict(presets[record["preset"]][record["run"]])))
        if path.parent.name != record["run"]:  # another seed than the preset's own
            assert path.parent.name == f"seed-{record['seed']}"
            config["seed"] = record["seed"]
        assert record["config"] == config, path.relative_to(ROOT)
