"""A page per project: what was claimed, what came out, whether to believe it, how to run it."""

from collections.abc import Iterable

from referee.show import summary
from referee.site.model import Page, Site
from referee.site.writing import md
from referee.standing import Standing
from referee.tables import claims_table


def pages(site: Site) -> Iterable[Page]:
    """`projects/<paper>.md` of every project."""
    for s in site.standings:
        yield Page(f"projects/{s.project.name}.md", _text(s))


def _text(s: Standing) -> str:
    return f"# {md(s.file.paper.title)}\n\n{summary(s.verdicts)}\n\n{claims_table(s)}"
