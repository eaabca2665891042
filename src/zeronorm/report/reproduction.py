"""A repeated study against its report: outcomes and steps exactly, measured numbers within a
tolerance that was fixed before, the mean over the conditions, and the conclusions."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from zeronorm.report import noise, tables
from zeronorm.report.conclusions import Judged
from zeronorm.report.noise import Spread

OK, OKISH, FAIL = "OK", "OKish", "FAIL"
DIGITS = 3  # significant digits of a measured number that a table prints
# what a cell is about, in the order in which they are told
OUTCOMES, STEPS, FACTS, QUALITY, NORMS, STARTS, MEANS = (
    "outcomes",
    "steps",
    "facts",
    "quality within tolerance",
    "norms within tolerance",
    "starts",
    "means",
)
STEP_COLUMNS = (
    "first_nan_predicted",
    "first_nan_observed",
    "first_nan_tensor",
    "encoder_nan_predicted",
    "encoder_nan_observed",
)
FACT_COLUMNS = ("nonfinite/words", "nonfinite/titles", "zero_titles", *tables.FURTHER_TAGS)
# floating-point numbers that no training has touched; the others must be the same to the last digit
PROBED = ("derivative", "gradient", "gradient_tiny", "score_1e-3", "score_1e-6")
COLUMNS = [
    "kind",
    "condition",
    "column",
    "reported",
    "found",
    "difference",
    "tolerance",
    "verdict",
    "counts",
]


@dataclass(frozen=True)
class Runs:
    """A table as read from a runs.csv, with the name of each run's condition."""

    table: pd.DataFrame
    conditions: list[str]

    @property
    def keys(self) -> list[tuple[str, int]]:
        """(condition, seed) of each."""
        return list(zip(self.conditions, map(int, self.table["seed"]), strict=True))

    def rows(self) -> dict[tuple[str, int], dict]:
        return dict(zip(self.keys, self.table.to_dict("records"), strict=True))


def compare(
    reported: Runs, found: Runs, spread: Spread | None, study: Runs | None = None
) -> pd.DataFrame:
    """One row per cell: COLUMNS. `counts`: whether it can differ: it is not empty, nor the same in
    the whole study, nor a start.

    study: all that is reported, where `reported` is a part of it.
    spread: what to expect; None: no difference that a table would show.

    last_finite_loss is not compared: it is the loss of one batch of ten, whose largest difference
    between two runs was four times its median. Nor are the deviations of the seeds, which follow
    from the runs.
    """
    study = study or reported
    theirs, ours = reported.rows(), found.rows()
    varying = {column for column in FACT_COLUMNS if study.table[column].nunique() > 1}
    cells: list[tuple] = []
    for condition, seed in dict.fromkeys([*theirs, *ours]):
        key = (condition, seed)
        name = f"{condition} seed {seed}"
        if key not in ours or key not in theirs:
            there, here = ("", "present") if key in ours else ("present", "")
            cells.append((OUTCOMES, name, "(run)", there, here, np.nan, 0.0, FAIL, True))
        else:
            cells += _exact(name, theirs[key], ours[key], varying)
    both = [key for key in theirs if key in ours]
    there_mean, here_mean = _means(reported, both), _means(found, both)
    all_means = _means(study, study.keys)
    cells += _measured(there_mean, here_mean, spread, all_means.nunique() > 1)
    cells += _shifted(there_mean, here_mean, spread)
    return pd.DataFrame(cells, columns=COLUMNS)


def _exact(name: str, there: dict, here: dict, varying: Collection[str]) -> Iterator[tuple]:
    """The cells of a run that follow from the order of its batches alone.

    varying: those of FACT_COLUMNS that differ within the study.
    """
    verdict = OK if there["outcome"] == here["outcome"] else FAIL
    yield OUTCOMES, name, "outcome", there["outcome"], here["outcome"], np.nan, 0.0, verdict, True
    for kind, columns in ((STEPS, STEP_COLUMNS), (FACTS, FACT_COLUMNS)):
        for column in columns:
            a, b = there[column], here[column]
            found = _verdict(a, b, 0.0, column in PROBED)
            empty = _shown(a) == _shown(b) == ""
            counts = not empty and (kind == STEPS or column in varying)
            yield kind, name, column, a, b, *found, counts


def _means(runs: Runs, kept: Sequence[tuple[str, int]]) -> pd.DataFrame:
    """Of the runs kept, what is measured of each condition: the mean of its seeds, NaN where there
    is none."""
    measured = noise.measured(runs.table, runs.conditions)
    keys = pd.MultiIndex.from_frame(measured[["condition", "seed"]])
    own = measured[keys.isin(kept)].drop(columns="seed")
    return own.groupby("condition", sort=False).mean()


def _measured(
    there: pd.DataFrame, here: pd.DataFrame, spread: Spread | None, varies: pd.Series
) -> Iterator[tuple]:
    """The cells of a condition that another machine or number of threads changes a little.

    varies: bool by column, whether the study has different values in it.
    """
    found, columns = here.to_dict("index"), list(there.columns)
    for condition, means in there.to_dict("index").items():
        for column in columns:
            a, b = means[column], found[condition][column]
            if np.isnan(a) or np.isnan(b):  # one of the two died, which its outcome says
                continue
            tolerance = spread.tolerance(condition, column) if spread else 0.0
            kind, counts = QUALITY, bool(varies[column])
            if column in noise.NORMS:
                start = column.removesuffix("_end") + "_start"
                frozen = column.endswith("_end") and a == means.get(start)
                kind = STARTS if frozen or column.endswith("_start") else NORMS
            elif column in noise.LAST:
                kind = STARTS
            counts &= kind != STARTS
            verdict = _verdict(a, b, tolerance, True)
            yield kind, condition, column, a, b, *verdict, counts


def _shifted(there: pd.DataFrame, here: pd.DataFrame, spread: Spread | None) -> Iterator[tuple]:
    """What all conditions share: a change of the evaluation moves each by too little to be seen in
    it."""
    if spread is None:
        return
    for metric in noise.SHIFTED:
        differences = (here[metric] - there[metric]).dropna()
        if len(differences):
            moved = noise.shift_of(differences.to_dict(), spread.scale[metric])
            tolerance = noise.SHIFT * spread.shift[metric]
            verdict = OK if abs(moved) <= tolerance else FAIL
            yield MEANS, "all", metric, 0.0, moved, abs(moved), tolerance, verdict, True


def _number(value) -> float | None:
    try:
        return None if value == "" or pd.isna(value) else float(value)
    except ValueError:
        return None


def _verdict(there, here, tolerance: float, is_measured: bool) -> tuple[float, float, str]:
    """(difference, tolerance, verdict) of two cells."""
    a, b = _number(there), _number(here)
    if a is None or b is None:
        same = a is None and b is None and _shown(there) == _shown(here)
        return np.nan, tolerance, OK if same else FAIL
    difference = abs(a - b)
    if f"{a:.{DIGITS}g}" == f"{b:.{DIGITS}g}" if is_measured else a == b:
        return difference, tolerance, OK
    return difference, tolerance, OKISH if is_measured and difference <= tolerance else FAIL


def _shown(value) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return str(value)


def counts(cells: pd.DataFrame, judged: Sequence[Judged]) -> dict[str, tuple[int, int]]:
    """{what: (how many agree, of how many)}, of the cells that can differ and of the conclusions
    that could be judged."""
    found = {}
    for kind in (OUTCOMES, STEPS, FACTS, QUALITY, NORMS, MEANS):
        own = cells[cells["counts"] & (cells["kind"] == kind)]
        if len(own):
            found[kind] = (int((own["verdict"] != FAIL).sum()), len(own))
    known = [one for one in judged if one.holds is not None]
    if known:
        found["conclusions"] = (sum(bool(one.holds) for one in known), len(known))
    return found


def said(found: Mapping[str, Sequence[int]]) -> str:
    """'outcomes 48/48, steps 20/20, ...'. found: from `counts`."""
    return ", ".join(f"{what} {agree}/{number}" for what, (agree, number) in found.items())


def failures(cells: pd.DataFrame, judged: Sequence[Judged]) -> list[str]:
    """A sentence for each cell that differs, also of those that are not counted, and for each
    conclusion that no longer holds."""
    lines = []
    for _, cell in cells[cells["verdict"] == FAIL].iterrows():
        where = f"{cell['condition']}, {cell['column']}"
        if cell["kind"] == MEANS:
            lines.append(
                f"The mean {cell['column']} over all conditions moved by {cell['found']:+.2g},"
                f" tolerance {cell['tolerance']:.2g}."
            )
        else:
            lines.append(
                f"{where}: reported {_shown(cell['reported']) or 'nothing'}, found"
                f" {_shown(cell['found']) or 'nothing'}, tolerance {cell['tolerance']:.3g}."
            )
    lines += [
        f"No longer true: {one.says} Computed: {one.found}." for one in judged if one.holds is False
    ]
    return lines


def print_comparison(cells: pd.DataFrame, judged: Sequence[Judged], console: Console) -> None:
    """Per measured column that differs anywhere how many cells agree and which differs most, then
    everything that fails, and how much agrees."""
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for name, width in (("column", 31), ("same", 5), ("within", 6), ("FAIL", 5)):
        table.add_column(name, width=width, justify="left" if name == "column" else "right")
    table.add_column("largest difference", width=10, justify="right")
    table.add_column("its tolerance", width=10, justify="right")
    for (kind, column), group in cells[cells["counts"]].groupby(["kind", "column"], sort=False):
        shown = [int((group["verdict"] == verdict).sum()) for verdict in (OK, OKISH, FAIL)]
        if not group["difference"].max() > 0:
            continue
        failing = group[group["verdict"] == FAIL]
        worst = (failing if len(failing) else group).loc[:, ["difference", "tolerance"]]
        numbers = [f"{x:.3g}" for x in worst.loc[worst["difference"].idxmax()]]
        name = f"mean {column}" if kind == MEANS else str(column)
        table.add_row(name, *map(str, shown), *numbers, style="red" if shown[2] else None)
    if table.row_count:
        console.print(table)
    for sentence in failures(cells, judged):
        console.print(f"FAIL {sentence}", style="red", markup=False)
    console.print(f"{said(counts(cells, judged))}.", markup=False)
    if unjudged := sum(one.holds is None for one in judged):
        console.print(
            f"Not judged, for want of their runs: {unjudged} of {len(judged)} conclusions."
        )
