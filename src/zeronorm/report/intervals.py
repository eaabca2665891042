"""MRR, hits@1 and hits@10 with 95 % intervals, and the difference of two conditions, from ranks.

The texts are windows of articles, and those of one article resemble each other: not they but the
titles are the sample. So an interval is the percentile bootstrap's (Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993, chapter 13) over the titles, each with all of its texts. Where
there are several seeds these are drawn anew as well, apart from the titles: Owen, "The pigeonhole
bootstrap", Annals of Applied Statistics 1 (2007). The draws are the same at each call, and for the
two sides of a difference.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from zeronorm import ranking
from zeronorm.report.ranks import ABSENT, Ranks

METRICS = ("mrr", "hits_at_1", "hits_at_10")
ZERO = "zero_"  # before a metric: over the titles that started as a zero or deadly row
LEVEL = 0.95
RESAMPLES = 9999
BATCH = 1000  # of them at once, in memory


class Interval(NamedTuple):
    """A mean and the ends of its 95 % interval; three NaN where there is no text."""

    mean: float
    low: float
    high: float


def quality(ranks: Ranks) -> pd.DataFrame:
    """One row per condition, by its name, with metric_mean, metric_low and metric_high of METRICS
    and of those over the zero rows."""
    by = pd.Series(range(len(ranks.conditions))).groupby(ranks.conditions, sort=False)
    rows = {str(name): ranks.take(own.to_numpy()) for name, own in by}
    found: dict[str, dict[str, float]] = {name: {} for name in rows}
    for metric in [zero + metric for zero in ("", ZERO) for metric in METRICS]:
        # those with equally many seeds share one set of draws
        for seeds in {len(own.seeds) for own in rows.values()}:
            names = [name for name, own in rows.items() if len(own.seeds) == seeds]
            parts = np.array([_by_title(rows[name], metric) for name in names])
            gains, counts = parts.swapaxes(0, 1)
            intervals = _bootstrapped(gains, counts, lambda means: means)
            for name, interval in zip(names, intervals, strict=True):
                ends = zip(Interval._fields, interval, strict=True)
                found[name] |= {f"{metric}_{end}": value for end, value in ends}
    return pd.DataFrame.from_dict(found, orient="index")


def difference(left: Ranks, right: Ranks, metric: str) -> Interval:
    """How much higher a metric of METRICS, or of those with ZERO before it, is on the left.

    left, right: runs of one study, of the same seeds: of several conditions their mean is taken.
    Raises ValueError if the seeds are not the same.
    """
    if set(left.seeds) != set(right.seeds) or left.titles != right.titles:
        raise ValueError("the two sides have other seeds or titles")
    gains, counts = np.array([_by_title(side, metric) for side in (left, right)]).swapaxes(0, 1)
    [found] = _bootstrapped(gains, counts, lambda means: means[:1] - means[1:])
    return found


def _by_title(ranks: Ranks, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """(the sum of what the texts gain, how many there are), each float64 [seeds, titles], over all
    runs of a seed."""
    evaluated = ranks.rank != ABSENT
    if metric.startswith(ZERO):
        evaluated &= ranks.zero[:, ranks.title]
    gains = ranking.gains(np.where(evaluated, ranks.rank, ranking.UNRANKED))
    gained = gains[metric.removeprefix(ZERO)] * evaluated
    seeds, place = np.unique(ranks.seeds, return_inverse=True)
    of_seed = (place == np.arange(len(seeds))[:, None]).astype(float)
    of_title = (ranks.title[:, None] == np.arange(len(ranks.titles))).astype(float)
    return of_seed @ gained @ of_title, of_seed @ evaluated @ of_title


def _bootstrapped(
    gains: np.ndarray, counts: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
) -> list[Interval]:
    """The intervals of a statistic of the groups' means.

    gains, counts: float64 [groups, seeds, titles].
    statistic: float64 [groups, n] -> [k, n].
    """
    # half a second to import, which a command that bootstraps nothing need not take
    from scipy.stats import DegenerateDataWarning, bootstrap

    _, seeds, titles = gains.shape

    def of(parts: np.ndarray, drawn: list[np.ndarray]) -> np.ndarray:
        by_seed = np.einsum("gst,nt->gsn", parts, drawn[0], optimize=True)
        return (by_seed * drawn[1].T).sum(axis=1) if len(drawn) > 1 else by_seed.sum(axis=1)

    def means(*drawn: np.ndarray, axis: int) -> np.ndarray:
        times = [
            _times(which, number) for which, number in zip(drawn, (titles, seeds), strict=False)
        ]
        total, number = of(gains, times), of(counts, times)
        return statistic(
            np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
        )

    # one seed alone cannot be drawn otherwise
    sample = (np.arange(titles), np.arange(seeds))[: 2 if seeds > 1 else 1]
    at_hand = means(*(one[None] for one in sample), axis=-1)[:, 0]
    if titles < 2:
        return [Interval(float(mean), np.nan, np.nan) for mean in at_hand]
    options = {"n_resamples": RESAMPLES, "batch": BATCH, "confidence_level": LEVEL}
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        # of a mean over no text
        warnings.simplefilter("ignore", DegenerateDataWarning)
        drawn = bootstrap(sample, means, method="percentile", vectorized=True, rng=rng, **options)
    ends = np.full((2, len(at_hand)), np.nan)
    known = ~np.isnan(at_hand)
    # not of the few resamples that hold no title that started as a zero row
    shares = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    ends[:, known] = np.nanpercentile(drawn.bootstrap_distribution[known], shares, axis=-1)
    return [Interval(*map(float, row)) for row in zip(at_hand, *ends, strict=True)]


def _times(drawn: np.ndarray, number: int) -> np.ndarray:
    """How often each of `number` was drawn, float64 [resamples, number]. drawn: int [resamples,
    number]."""
    rows = len(drawn)
    places = (drawn + number * np.arange(rows)[:, None]).ravel()
    return np.bincount(places, minlength=rows * number).reshape(rows, number).astype(float)
