"""What papers say of how samples are drawn: for every configuration, and another thing where it decides."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest

from referee.project import paper_names

ROOT = Path(__file__).parents[2]
SAYING = [
    name for name in paper_names(ROOT) if "\ndef sampling(" in (ROOT / f"projects/{name}/__init__.py").read_text()
]


def said(name: str, config: Any) -> str:
    return str(importlib.import_module(f"projects.{name}").sampling(config))


@pytest.mark.parametrize("name", SAYING)
def test_a_few_words_for_every_configuration(name: str) -> None:
    paper = importlib.import_module(f"projects.{name}.{name}")
    for runs in paper.PRESETS.values():
        for config in runs.values():
            assert len(said(name, config)) < 60
            assert set("\n;").isdisjoint(said(name, config))  # parts of a protocol are told apart by ';'


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ddpm", {"sample_steps": 7}),
        ("ddpm", {"T": 2000}),
        ("ddpm", {"variance": "beta_tilde"}),
        ("ddim", {"S": 7}),
        ("ddim", {"eta": 0.25}),
        ("ddim", {"spacing": "linear"}),
        ("ddim", {"eta": 1.0, "larger": True}),
        ("pixelcnn", {"conditional": True}),
    ],
)
def test_it_is_another_where_samples_come_out_otherwise(name: str, changes: dict[str, Any]) -> None:
    made = {"pixelcnn": {"model": "gated", "dataset": "fashion_mnist"}}.get(name, {})
    config = importlib.import_module(f"projects.{name}.{name}").Config(**made)
    assert said(name, dataclasses.replace(config, **changes)) != said(name, config)
    assert said(name, dataclasses.replace(config, seed=9)) == said(name, config)
    if "larger" in changes:
        assert said(name, dataclasses.replace(config, eta=1.0)) != said(name, dataclasses.replace(config, **changes))
