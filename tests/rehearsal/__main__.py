"""`python -m tests.rehearsal`: play the semester; with --write FILE, write the tutorial."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.rehearsal.semester import play
from tests.rehearsal.stage import tutorial

options = argparse.ArgumentParser(prog="python -m tests.rehearsal", description=__doc__)
options.add_argument("--write", type=Path, metavar="FILE", help="write the tutorial there")
options.add_argument("--keep", type=Path, metavar="DIR", help="play in this new folder, and leave it")
given = options.parse_args()
with tempfile.TemporaryDirectory() as folder:
    stage = play(given.keep or Path(folder))
if given.write:
    given.write.write_text(tutorial(stage), encoding="utf-8")
print(f"refused, as it must be: {', '.join(stage.refused)}", file=sys.stderr)
