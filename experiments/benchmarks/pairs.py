"""Paired timing: variants take turns in one process, so that a drift of the machine's speed meets
all of them."""

import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)


def small_run(folder: Path) -> list[str]:
    """Overrides of a run that takes a second, on a corpus of 12 titles that is written to
    `folder`."""
    file, rng = folder / "pairs.tsv", np.random.default_rng(0)
    words = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "klmn"]
    lines = [
        f"{' '.join(rng.choice(words, 20))}\t{title}" for title in words[:12] for _ in range(10)
    ]
    file.write_text("\n".join(lines) + "\n")
    corpus = ["corpus=pairs", f"corpus.reader.path={file}", "corpus.window=20"]
    return [
        *corpus,
        "vectors.source.dim=8",
        "vectors.source.min_count=1",
        "examples=20",
        "model.filters=4",
    ]


def interleaved(
    variants: Mapping[Key, Callable[[], tuple[int, float]]], rounds: int
) -> dict[Key, list[float]]:
    """{variant: ms per step of each round}. A variant is called once to warm up and once a round;
    it returns how many steps it took and in how many seconds."""
    for variant in variants.values():
        variant()
    found: dict[Key, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        order = list(variants.items())
        for name, variant in order if number % 2 else reversed(order):
            steps, seconds = variant()
            found[name].append(1000 * seconds / steps)
    return found


def timed(turn: Callable[[], int]) -> Callable[[], tuple[int, float]]:
    """A variant that is timed as a whole. turn: returns how many steps it took."""

    def variant() -> tuple[int, float]:
        start = time.perf_counter()
        steps = turn()
        return steps, time.perf_counter() - start

    return variant


def summary(times: dict[str, list[float]], baseline: str) -> list[dict]:
    """A row per variant: the median and the quartiles of its times and of the ratio, round by
    round, of the baseline's time to its own."""
    rows = []
    for name, values in times.items():
        speed = np.array(times[baseline]) / np.array(values)
        low, middle, high = np.percentile(values, [25, 50, 75])
        slow, typical, fast = np.percentile(speed, [25, 50, 75])
        row = {"variant": name, "ms": middle, "ms_low": low, "ms_high": high}
        rows.append(row | {"speed": typical, "speed_low": slow, "speed_high": fast})
    return rows
