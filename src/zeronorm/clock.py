"""Where a run's time goes, by phase."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Clock:
    """Adds up the wall time of phases. Within a phase of another name the outer one's time
    stands still, so that the phases add up to what they cover.

    seconds: {phase: seconds}.
    begun: seconds since the epoch.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.begun = time.time()
        self._within: list[float] = []  # of each phase under way, what phases inside it have taken

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        self._within.append(0.0)
        try:
            yield
        finally:
            whole, inside = time.perf_counter() - start, self._within.pop()
            self.seconds[phase] = self.seconds.get(phase, 0.0) + whole - inside
            if self._within:
                self._within[-1] += whole

    def move(self, seconds: float, phase: str, to: str) -> None:
        """Counts for one phase what another has been told to count."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) - seconds
        self.seconds[to] = self.seconds.get(to, 0.0) + seconds

    def write(self, path: Path) -> None:
        """The phases, and when they began and ended, in seconds since the epoch, as JSON."""
        known = {"begun": self.begun, "ended": time.time(), "seconds": self.seconds}
        path.write_text(json.dumps(known, indent=1) + "\n")
