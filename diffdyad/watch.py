"""When the loss leaps: whether a run still learns, judged by its recent losses."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

WINDOW = 100
"""So many good losses make the median that new ones are held against."""
_FEWEST = 20  # before that, no judgement: the first losses fall fast


class SpikeWatch:
    """Counts steps on end whose loss exceeds `factor` x the running median; 0: never."""

    def __init__(self, factor: float, steps: int, recent: Sequence[float] = ()):
        self.factor, self.steps = factor, steps
        self.recent = list(recent)[-WINDOW:]
        self.streak = 0

    def saw(self, loss: float) -> bool:
        """Takes note of a step's loss; True where the streak is long enough to stop."""
        known = len(self.recent) >= _FEWEST
        if self.factor and known and loss > self.factor * median(self.recent):
            self.streak += 1
        else:
            self.streak = 0
            self.recent = [*self.recent, loss][-WINDOW:]
        return self.streak >= self.steps
