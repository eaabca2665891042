"""How far rounding alone moves the results of a study, and the tolerance that follows.

A repeat is the study, or a part of it, with every initial weight of the kernels rounded otherwise
(`rounding=1`, `rounding=2`, ...): another run by its identity, which no report and no comparison
takes. experiments/STUDY/noise.csv has what each run of each repeat measured, noise.json when, where
and by which command. At least REPEATS are needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from zeronorm.report import tables

REPEATS = 3  # fewer have no tolerance
# The tolerance of a condition, and of the mean over the conditions, in standard deviations of the
# difference between two makings. Of 40 simulated studies of 24 or 48 conditions with three seeds,
# without any change, of one seed of which there are 3 repeats, some quality is further off in one,
# and a mean in one (a test), also where the noisiest condition is forty times as noisy as the
# quietest.
CELL, SHIFT = 6.0, 3.0
SHIFTED = ("mrr", "hits_at_1", "hits_at_10")  # whose mean over the conditions is tested
QUALITY = tuple(zero + metric for zero in ("", "zero_") for metric in tables.METRICS)
NORMS = tuple(f"norm/{name}_{end}" for name in tables.WEIGHTS for end in ("start", "end"))
LAST = tuple(f"norm/{name}_last_finite" for name in tables.WEIGHTS)
MEASURED = (*QUALITY, *NORMS, *LAST)
KEYS = ["repeat", "condition", "seed"]
PROCESSOR = "processor"
PRIOR = 4.0  # degrees of freedom that the pooled variance has beside a condition's own
LEAST = 1e-6  # what the sixth digit of a table may hide


@dataclass(frozen=True)
class Spread:
    """Of the difference between a study's report and another making of it.

    repeats: how many it was measured from.
    elsewhere: whether on other processors than the report's.
    scale: standard deviation of the difference of a condition's means, float [conditions, columns
        of MEASURED], by condition; of a condition that no repeat has, the pooled one.
    shift: {metric of SHIFTED: that of its mean over the conditions, as `shift_of` takes it}.
    """

    repeats: int
    elsewhere: bool
    scale: pd.DataFrame
    shift: dict[str, float]

    def tolerance(self, condition: str, column: str) -> float:
        """Of the mean of a condition's runs."""
        found = self.scale[column].get(condition, np.nan)
        return 0.0 if np.isnan(found) else CELL * found


def measured(runs: pd.DataFrame, named: Sequence[str]) -> pd.DataFrame:
    """What of runs is measured: condition, seed, and MEASURED as float64; quality and norms at the
    end are NaN of a run that died, the last finite norms of one that did not.

    runs: as read from a runs.csv. named: their conditions.
    """
    found = runs.reindex(columns=list(MEASURED)).apply(pd.to_numeric, errors="coerce")
    dead = np.asarray(runs["outcome"] == "nan")
    ends = [name for name in NORMS if name.endswith("_end")]
    found.loc[dead, [*QUALITY, *ends]] = np.nan
    found.loc[~dead, list(LAST)] = np.nan
    keys = pd.DataFrame({"condition": list(named), "seed": runs["seed"].to_numpy()})
    return pd.concat([keys, found.reset_index(drop=True)], axis=1)


def spread(
    repeats: pd.DataFrame,
    report: pd.DataFrame,
    processor: str,
    elsewhere: bool,
    whole: pd.DataFrame | None = None,
) -> Spread | None:
    """What to expect of a comparison; None where no processor has REPEATS repeats.

    repeats: all that were made, with PROCESSOR, KEYS and MEASURED; those of the report's processor
        count alone where they are REPEATS, for the others may differ from it by more than rounding.
    report: from `measured`, of those of its runs that are compared. Its start is one rounding more,
        and may be the odd one out, so it counts beside the repeats; what it is compared with never
        does.
    processor: the report's.
    elsewhere: whether the comparison was made on another one. The repeats on others then say how
        far those move the results, if there are REPEATS.
    whole: of all runs of the report, where those are a part: they show how little can move.
    """
    whole = report if whole is None else whole
    made = repeats.groupby(PROCESSOR)["repeat"].nunique()
    if not (made >= REPEATS).any():
        return None
    is_own = repeats[PROCESSOR] == processor
    there = int(made.drop(processor, errors="ignore").sum())
    counted = repeats[is_own] if made.get(processor, 0) >= REPEATS else repeats
    keys = pd.MultiIndex.from_frame(report[["condition", "seed"]])
    seeds = report.groupby("condition", sort=False)["seed"].nunique()
    again = keys.isin(pd.MultiIndex.from_frame(repeats[["condition", "seed"]]))
    start = _within(report[again], counted, whole).assign(repeat=0)
    values = pd.concat([counted.drop(columns=PROCESSOR), start]).set_index(KEYS)
    runs = values.groupby(["condition", "seed"], sort=False)
    moved = values - runs.transform("mean")
    number = free = counted["repeat"].nunique()
    rounding = _deviation(moved, runs.size() - 1, pd.concat([counted, whole]))
    rounding = rounding.reindex(seeds.index)
    rounding = rounding.fillna(_pooled(rounding)).div(np.sqrt(seeds), axis=0)
    scale = np.sqrt(2) * rounding
    elsewhere = elsewhere and there >= REPEATS
    if elsewhere:
        start = report.set_index(["condition", "seed"])
        centre = runs.mean() if is_own.any() else start
        moved = _foreign(repeats[~is_own], centre)
        number = free = there
        scale = np.sqrt(_alike(moved, seeds) ** 2 + rounding**2)
    moved = moved[moved.index.droplevel("repeat").isin(keys)]
    # Of a difference: how often what is in `moved` is in it, one making or both; and which share of
    # it, for seeds that no repeat has are rounded each by itself, but on another processor alike.
    had = values.reset_index().groupby("condition")["seed"].nunique()
    parts = 1.0 if elsewhere else 2 * float((had / seeds).max())
    ends = report.groupby("condition", sort=False)[list(SHIFTED)].mean()
    shift = {
        metric: _shift(moved[metric], scale[metric][ends[metric].notna()], free, parts)
        for metric in SHIFTED
    }
    return Spread(number, elsewhere, scale, shift)


def _foreign(repeats: pd.DataFrame, centre: pd.DataFrame) -> pd.DataFrame:
    """How far repeats on other processors are from the report's own, indexed by KEYS.

    centre: by (condition, seed).
    """
    values = repeats.drop(columns=PROCESSOR).set_index(KEYS)
    moved = values - centre.reindex(values.index.droplevel("repeat")).to_numpy()
    return moved.dropna(how="all")


def _alike(moved: pd.DataFrame, seeds: pd.Series) -> pd.DataFrame:
    """How far the mean of a condition may move on another processor, where vectors rounded
    otherwise may move every seed alike: no mean over seeds makes that smaller."""
    apart = moved.groupby(["condition", "repeat"], sort=False).mean()
    size = np.sqrt((apart**2).groupby("condition", sort=False).mean()).reindex(seeds.index)
    return size.fillna(0).clip(lower=_pooled(size), axis=1)


@dataclass(frozen=True)
class Doubt:
    """That a report is further from its own repeats than rounding moves it.

    condition: empty of the mean over all. column: of QUALITY.
    reported, repeated: of the mean the difference, and 0.
    tolerance: how far apart they may be.
    """

    condition: str
    column: str
    reported: float
    repeated: float
    tolerance: float


def doubts(repeats: pd.DataFrame, report: pd.DataFrame) -> list[Doubt]:
    """Where the quality of a report is not what its repeats have; none if they are fewer than
    REPEATS.

    repeats, report: as `spread` takes them, the repeats of the report's processor alone.
    """
    if (number := repeats["repeat"].nunique()) < REPEATS:
        return []
    values = repeats.set_index(KEYS)[list(QUALITY)]
    centre, rounding = _rounding(values, report)
    own = report.set_index(["condition", "seed"])[list(QUALITY)].reindex(centre.index)
    seeds = own.groupby("condition", sort=False).size()
    apart = (own - centre).groupby("condition", sort=False).mean()
    there, here = (one.groupby("condition", sort=False).mean() for one in (own, centre))
    scale = rounding.div(np.sqrt(seeds / (1 + 1 / number)), axis=0)
    found = []
    for column in QUALITY:
        for condition, reach in (CELL * scale[column]).items():
            pair = float(there.loc[condition, column]), float(here.loc[condition, column])
            if abs(apart.loc[condition, column]) > max(reach, LEAST):
                found.append(Doubt(str(condition), column, *pair, reach))
    moved = values - values.groupby(["condition", "seed"], sort=False).transform("mean")
    for metric in SHIFTED:
        known = scale[metric][apart[metric].notna()]
        difference = _mean(apart[metric].dropna(), _weights(known))
        reach = SHIFT * _shift(moved[metric], known, number - 1, 1 + 1 / number)
        if abs(difference) > max(reach, LEAST):
            found.append(Doubt("", metric, difference, 0.0, reach))
    return found


def _rounding(values: pd.DataFrame, report: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of repeats alone, indexed by KEYS: their mean by (condition, seed), a run's standard
    deviation by condition."""
    runs = values.groupby(["condition", "seed"], sort=False)
    seen = pd.concat([values, report])
    return runs.mean(), _deviation(values - runs.transform("mean"), runs.size() - 1, seen)


def _within(report: pd.DataFrame, repeats: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """The report's runs, kept as near to their repeats as rounding may move them, so that a report
    that is wrong does not widen the tolerance by which it is judged."""
    if (number := repeats["repeat"].nunique()) < REPEATS:
        return report
    centre, rounding = _rounding(repeats.set_index(KEYS)[list(MEASURED)], whole)
    reach = CELL * np.sqrt(1 + 1 / number) * rounding.reindex(centre.index, level="condition")
    own = report.set_index(["condition", "seed"])
    low, high = ((centre + sign * reach).reindex(own.index) for sign in (-1, 1))
    return own.clip(low, high).reset_index()


def _deviation(residuals: pd.DataFrame, free: pd.Series, seen: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation of a run, float [conditions, columns]: of each condition, drawn towards
    the pooled one where that is larger, and at least the column's resolution.

    From k repeats a condition's own has k - 1 degrees of freedom and is far too small by chance in
    some of many; so the pooled variance counts beside it, as PRIOR degrees of freedom (Smyth,
    "Linear models and empirical Bayes methods", Statistical Applications in Genetics and Molecular
    Biology 3, 2004). Chaotic conditions keep their own. The resolution is the least distance of two
    values in `seen`: of hits@k one text, which a few repeats need not show to move; of MRR one
    that moves between the first place and the second.
    """
    own = free.groupby("condition", sort=False).sum()
    squares = (residuals**2).groupby("condition", sort=False).sum(min_count=1)
    variance = squares.div(own, axis=0)
    pooled = variance.mean().fillna(0)
    drawn = (squares + PRIOR * pooled).div(own + PRIOR, axis=0)
    steps = {name: np.diff(np.unique(seen[name].dropna())) for name in residuals}
    resolution = pd.Series({name: float(min(step, default=0.0)) for name, step in steps.items()})
    for zero in ("", "zero_"):
        if {f"{zero}mrr", f"{zero}hits_at_1"} <= set(resolution.index):
            resolution[f"{zero}mrr"] = resolution[f"{zero}hits_at_1"] / 2
    return np.sqrt(variance.clip(lower=drawn).clip(lower=resolution**2, axis=1))


def _pooled(deviations: pd.DataFrame) -> pd.Series:
    return np.sqrt((deviations**2).mean())


def _shift(moved: pd.Series, scale: pd.Series, free: int, parts: float) -> float:
    """Standard deviation of the weighted mean difference: as the repeats themselves moved, which
    counts in what conditions have in common, and at least as if they had nothing.

    scale: of the conditions that are compared. free: degrees of freedom of `moved`.
    parts: variance of a difference, in that of `moved`.
    """
    known = moved.dropna().groupby(["repeat", "condition"], sort=False).mean()
    alone = 1 / np.sqrt(_weights(scale).sum()) if (scale > 0).any() else 0.0
    weights = _weights(scale[scale.index.isin(known.index.unique("condition"))])
    means = known.groupby("repeat", sort=False).apply(lambda own: _mean(own.droplevel(0), weights))
    if not len(means):
        return float(alone)
    return float(max(alone, np.sqrt(parts * (means**2).sum() / max(free, 1))))


def _weights(scale: pd.Series) -> pd.Series:
    """Inverse variances; a condition that nothing moves weighs as the quietest that moves."""
    known, least = scale.dropna(), scale[scale > 0].min()
    return known * 0 + 1 if np.isnan(least) else 1 / known.clip(lower=least) ** 2


def _mean(values: pd.Series, weights: pd.Series) -> float:
    own = weights.reindex(values.index).fillna(0)
    return float((values * own).sum() / own.sum()) if own.sum() > 0 else 0.0


def shift_of(differences: Mapping[str, float], scale: pd.Series) -> float:
    """The mean difference over conditions, each weighed by how little rounding moves it.

    differences: {condition: of its means}. scale: as in `Spread`, of the metric.
    """
    return _mean(pd.Series(differences, dtype=float), _weights(scale))
