"""The reviewer's checklist: `checklist.yaml`, by family of models."""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from referee.documents import Tree, parse_yaml
from referee.schema import Part, Slug, Text

CHECKLIST_FILE = Path(__file__).with_name("checklist.yaml")


class Item(Part):
    """One thing to look at."""

    id: Slug
    text: Text
    """A statement that holds when all is well."""
    first: Literal["machine", "person"]
    """Who answers first."""
    good: Text
    acceptable: Text
    not_acceptable: Text
    checks: tuple[str, ...] = ()
    """Rules that answer first; all must be satisfied."""
    probes: Literal["all"] | None = None
    """Whether the probes that the project declares answer first."""
    not_for: tuple[Slug, ...] = ()
    """Families to which it does not apply."""


class Group(Part):
    """Items about one subject."""

    id: Slug
    title: Text
    items: Annotated[list[Item], Field(min_length=1)]


class Checklist(Part):
    """`checklist.yaml`."""

    families: dict[Slug, Text]
    groups: Annotated[list[Group], Field(min_length=1)]

    @property
    def items(self) -> dict[str, Item]:
        """All items by id, in order."""
        return {item.id: item for group in self.groups for item in group.items}

    def for_family(self, family: str) -> dict[str, Item]:
        """The items that apply to a family, by id; all of them when the family is not known."""
        return {name: item for name, item in self.items.items() if family not in item.not_for}


@cache
def load_checklist() -> Checklist:
    """The checklist that comes with this package."""
    text = CHECKLIST_FILE.read_text(encoding="utf-8")
    return parse_yaml(text, Checklist, rules="CHK", shown=CHECKLIST_FILE.name, also=_contradictions)


def _contradictions(data: dict[str, Any], tree: Tree) -> None:
    """Ids used twice, machines that have nothing to answer with, families that do not exist."""
    seen: set[str] = set()
    for g, group in enumerate(data["groups"]):
        for i, item in enumerate(group["items"]):
            path = ("groups", g, "items", i)
            if item["id"] in seen:
                tree.problem(path, "010", f"the item '{item['id']}' stands twice.")
            seen.add(item["id"])
            if (item["first"] == "machine") != bool(item.get("checks") or item.get("probes")):
                tree.problem(
                    path, "011", f"item '{item['id']}': a machine answers first where it has checks or probes."
                )
            for family in item.get("not_for", []):
                if family not in data["families"]:
                    tree.problem((*path, "not_for"), "009", f"item '{item['id']}': unknown family '{family}'.")
