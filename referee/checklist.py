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
    commands: bool = False
    """Whether the evidence that is asked for is what a command of the reviewer's own printed."""
    not_for: tuple[Slug, ...] = ()
    """Families to which it does not apply."""
    since: Annotated[int, Field(ge=1)] = 1
    """The first version of the checklist that holds it."""
    until: Annotated[int, Field(ge=1)] | None = None
    """The last version that held it; None while it is asked."""

    def asked(self, version: int) -> bool:
        """Whether a version of the checklist holds it."""
        return self.since <= version and (self.until is None or version <= self.until)


class Group(Part):
    """Items about one subject."""

    id: Slug
    title: Text
    items: Annotated[list[Item], Field(min_length=1)]


class Checklist(Part):
    """`checklist.yaml`: every item that was ever asked, and in which versions."""

    version: Annotated[int, Field(ge=1)]
    """The present one; a review says which it answers."""
    families: dict[Slug, Text]
    groups: Annotated[list[Group], Field(min_length=1)]

    @property
    def items(self) -> dict[str, Item]:
        """All items by id, in order, those of other versions too."""
        return {item.id: item for group in self.groups for item in group.items}

    def for_family(self, family: str, version: int | None = None) -> dict[str, Item]:
        """The items that apply to a family, by id; those for all families when the family is not known.

        Args:
            version: of the checklist; the present one when not given.
        """
        version = self.version if version is None else version
        return {name: i for name, i in self.items.items() if family not in i.not_for and i.asked(version)}


@cache
def load_checklist() -> Checklist:
    """The checklist that comes with this package."""
    text = CHECKLIST_FILE.read_text(encoding="utf-8")
    return parse_yaml(text, Checklist, rules="CHK", shown=CHECKLIST_FILE.name, also=_contradictions)


def _contradictions(data: dict[str, Any], tree: Tree) -> None:
    """Ids used twice, machines that have nothing to answer with, families and versions that do not exist."""
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
            first, last = item.get("since", 1), item.get("until", data["version"])
            if not first <= last <= data["version"]:
                message = f"item '{item['id']}': asked from version {first} to {last} of {data['version']}."
                tree.problem(path, "011", message)
            for family in item.get("not_for", []):
                if family not in data["families"]:
                    tree.problem((*path, "not_for"), "009", f"item '{item['id']}': unknown family '{family}'.")
