"""What is wrong with a committed report by itself, before anything is compared with it."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from zeronorm import ranking
from zeronorm.report import committed, noise
from zeronorm.report.ranks import ABSENT, Ranks

SHOWN = 5
RESOLUTION = 1e-5  # of a quality as a table is written, six digits of a number up to 1


def require_none(name: str) -> None:
    """Raises ReportError, which names some, if there are faults."""
    found = of(name)
    if found:
        more = f" And {len(found) - SHOWN} more." if len(found) > SHOWN else ""
        raise committed.ReportError(
            f"The report of '{name}' contradicts itself. {' '.join(found[:SHOWN])}{more} Restore"
            f" experiments/{name}, or make the report anew."
        )


def of(name: str) -> list[str]:
    """A sentence each: cells of reported.csv that runs.csv does not give, quality in runs.csv that
    its ranks do not give, or that no repeat has, conclusions that the runs do not bear out."""
    runs, ranks = committed.committed_runs(name), committed.ranks(name)
    found = committed.edited_cells(name)
    if ranks is not None:
        found += _not_of_the_ranks(runs, ranks)
    found += [
        f"conclusions.yaml: '{one.says}' does not hold: {one.found}."
        for one in committed.judged(name)
        if one.holds is False
    ]
    return found + [_said(doubt) for doubt in committed.doubts(name)]


def _not_of_the_ranks(runs: pd.DataFrame, ranks: Ranks) -> Iterator[str]:
    gains = ranking.gains(np.where(ranks.rank == ABSENT, ranking.UNRANKED, ranks.rank))
    texts = (ranks.rank != ABSENT).sum(axis=1)
    keys = committed.keys(runs)
    for metric in noise.SHIFTED:
        follows = gains[metric].sum(axis=1) / np.maximum(texts, 1)
        for (condition, seed), there, here in zip(keys, runs[metric], follows, strict=True):
            if not abs(there - here) <= RESOLUTION and not (np.isnan(there) and here == 0):
                yield (
                    f"{condition} seed {seed}, {metric}: runs.csv says {there:.6g}, its ranks give"
                    f" {here:.6g}."
                )


def _said(doubt: noise.Doubt) -> str:
    if not doubt.condition:
        return (
            f"The mean {doubt.column} over all conditions is {doubt.reported:+.2g} off its repeats,"
            f" tolerance {doubt.tolerance:.2g}."
        )
    return (
        f"{doubt.condition}, {doubt.column}: reported {doubt.reported:.4g}, the mean of its repeats"
        f" {doubt.repeated:.4g}, tolerance {doubt.tolerance:.2g}."
    )
