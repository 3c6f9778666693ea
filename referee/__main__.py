"""`python -m referee` is `referee`; it is also what `torchrun -m referee run ...` starts."""

import sys

from referee.cli import main

sys.exit(main())
