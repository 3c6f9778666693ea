"""The progress bar of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from common.training import distributed
from common.training.step import batch_size


class Progress:
    """Examples done of all, time spent over all sessions and left, examples per second, and the latest metrics.

    Args:
        start, steps: updates done before, and in the end.
        wall_s: seconds spent before.
        shown: whether to show anything.
    """

    def __init__(self, start: int, steps: int, wall_s: float, shown: bool) -> None:
        self.bar = tqdm(
            total=steps,
            initial=start,
            disable=not shown,
            unit=" examples",
            # A file or a CI log keeps every refresh as text: few of them there.
            mininterval=0.5 if sys.stderr.isatty() else 10.0,
            miniters=1,
            smoothing=0.1,
            dynamic_ncols=True,
            delay=1e-9,  # not before the first batch, which says how many examples a step has
        )
        self.scaled = False
        if shown:
            self.bar.start_t -= wall_s

    def update(self, batch: Any) -> None:
        """One more step, on `batch`."""
        if not self.scaled:
            self._scale(batch)
        self.bar.update()

    def _scale(self, batch: Any) -> None:
        """Count examples: as many a step as in the first batch of this session."""
        self.scaled = True
        if not self.bar.disable:
            self.bar.unit_scale = batch_size(batch) * distributed.world_size()

    def show(self, metrics: Mapping[str, float]) -> None:
        """Put the first few metrics beside the bar."""
        if not self.bar.disable:
            few = list(metrics.items())[:3]
            self.bar.set_postfix_str(", ".join(f"{k}={v:.4g}" for k, v in few), refresh=False)

    def close(self) -> None:
        """The bar stays as it was last; nothing stays if there was no step."""
        self.bar.leave = self.scaled
        self.bar.close()
