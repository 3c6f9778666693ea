"""python -m benchmarks.conformance [fd kid …] [--check]

Without a name all rows are worked out and kept; with names, those rows are shown. --check says whether the kept table
belongs to the code as it is, and needs no peers.
"""

import argparse
import sys
import warnings

from benchmarks.conformance import table
from benchmarks.conformance.metrics import METRICS
from benchmarks.conformance.table import Row, Table
from common.errors import nearest

SIGNS = {"holds": "✓", "differs": "≠", "fails": "✗", "not run": "–"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformance", description=__doc__)
    parser.add_argument("metrics", nargs="*", metavar="metric", help=f"{', '.join(METRICS)} (all)")
    parser.add_argument("--check", action="store_true", help="is the kept table that of this code?")
    asked = parser.parse_args()
    for name in asked.metrics:
        if name not in METRICS:
            parser.error(f"there is no metric '{name}'.{nearest(name, METRICS)}")
    if asked.check:
        return check()
    warnings.simplefilter("ignore")  # what peers have to say of their own dependencies
    code = table.digests()  # before it is imported: somebody may change it meanwhile
    rows = []
    for case in table.cases(asked.metrics):
        rows.append(table.work_out(case))
        show(rows[-1])
    made = table.make(rows, code)
    if not asked.metrics:
        made.save()
        print(f"\n{len(rows)} rows kept in {table.KEPT.relative_to(table.ROOT)}")
    wrong = [row for row in rows if row.outcome == "fails"]
    print(f"{len(wrong)} of {len(rows)} do not hold" if wrong else f"all that ran hold ({tally(made)})")
    return 1 if wrong else 0


def show(row: Row) -> None:
    """A row on two lines."""
    by = f"{row.package} {row.version}: {row.reference}" if row.package else f"{row.kind}: {row.reference}"
    print(f"{SIGNS[row.outcome]} {row.metric}: {row.case}\n    {by}")
    if row.ours is None or row.value is None:
        print(f"    not run: {row.package} is not installed here; '{table.COMMAND}' installs it")
    else:
        print(f"    {row.ours:.9g} here, {row.value:.9g} there: {_apart(row)}", flush=True)


def _apart(row: Row) -> str:
    allowed = "not meant to agree" if row.outcome == "differs" else f"{row.allowed:g} allowed"
    return f"{row.difference:.2g} ({row.measure}) apart, {allowed}"


def tally(made: Table) -> str:
    """'12 hold, 1 differs by definition'."""
    words = {"holds": "hold", "differs": "differ by definition", "fails": "fail", "not run": "not run"}
    counts = {outcome: sum(row.outcome == outcome for row in made.rows) for outcome in words}
    return ", ".join(f"{n} {words[outcome]}" for outcome, n in counts.items() if n)


def check() -> int:
    """Whether the kept table is complete, holds, and is of this code."""
    shown = table.KEPT.relative_to(table.ROOT)
    if not table.KEPT.is_file():
        print(f"{shown}: there is no conformance table; run '{table.COMMAND}'.", file=sys.stderr)
        return 1
    found = list(table.complaints(Table.load(), table.digests()))
    for complaint in found:
        print(f"{shown}: {complaint}; run '{table.COMMAND}'.", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
