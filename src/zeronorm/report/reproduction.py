"""A repeated study against its report, cell by cell: OK, OKish (inside the measured noise) or
FAIL."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from zeronorm.report import tables

OK, OKISH, FAIL = "OK", "OKish", "FAIL"
DIGITS = 3  # significant digits of a measured number that a table prints
# the tolerance, in units of the largest difference that was measured between two runs of one config
ALLOWANCE = 2.0


def measured(column: str) -> bool:
    """Whether a column holds a floating-point result, which another machine or number of threads
    changes a little. The others (outcomes, steps, counts) follow from the batch order alone and
    must match exactly."""
    if column.startswith("norm/") or column in (
        "last_finite_loss",
        "derivative",
        "gradient",
        "gradient_tiny",
    ):
        return True
    return (
        column.startswith("score_")
        or column.removeprefix("zero_").removesuffix("_mean").removesuffix("_std") in tables.METRICS
    )


def compare(
    reported: pd.DataFrame, found: pd.DataFrame, noise: Mapping[str, float]
) -> pd.DataFrame:
    """One row per cell: condition, column, reported, found, difference, tolerance, verdict.

    reported, found: from `tables.conditions_table`, both read back from csv.
    noise: {column: the largest difference measured between two runs of one config}; a column
        without one has tolerance 0. A reported condition that was not found is one FAIL; so is one
        found that is not reported.
    """
    factors = tables.factors_of(reported)
    if factors != tables.factors_of(found):
        raise ValueError(
            f"The report's factors are {factors}, the runs' {tables.factors_of(found)}."
        )
    theirs, ours = (
        {
            " ".join(str(row[name]) for name in factors if row[name] != ""): row
            for _, row in table.iterrows()
        }
        for table in (reported, found)
    )
    cells = []
    for condition in dict.fromkeys([*theirs, *ours]):
        if condition not in ours or condition not in theirs:
            there, here = ("", "present") if condition in ours else ("present", "")
            cells.append((condition, "(condition)", there, here, np.nan, 0.0, FAIL))
            continue
        for column in reported.columns:
            if column in ("study", *factors):
                continue
            there, here = theirs[condition][column], ours[condition].get(column, "")
            # what shifts every seed's value by so much shifts their deviation by no more
            known = noise.get(column, noise.get(column.replace("_std", "_mean"), 0.0))
            tolerance = ALLOWANCE * known if measured(column) else 0.0
            cells.append(
                (
                    condition,
                    column,
                    there,
                    here,
                    *_verdict(there, here, tolerance, measured(column)),
                )
            )
    names = ["condition", "column", "reported", "found", "difference", "tolerance", "verdict"]
    return pd.DataFrame(cells, columns=names)


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
    return "" if isinstance(value, float) and np.isnan(value) else str(value)


def noise_of(cells: pd.DataFrame) -> dict[str, float]:
    """{column: largest difference} of the measured columns of a comparison."""
    kept = cells[[measured(column) for column in cells["column"]]]
    largest = kept.groupby("column", sort=False)["difference"].max()
    return {column: float(f"{value:.3g}") for column, value in largest.items() if value > 0}


def counts(cells: pd.DataFrame) -> dict[str, int]:
    """{OK: n, OKish: n, FAIL: n}."""
    return {verdict: int((cells["verdict"] == verdict).sum()) for verdict in (OK, OKISH, FAIL)}


def print_comparison(cells: pd.DataFrame, edited: Sequence[str], console: Console) -> None:
    """Per column that differs anywhere how many cells agree, then every cell that fails.

    edited: sentences on the cells of the report that its own runs do not give.
    """
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for name, width in (
        ("column", 31),
        ("OK", 5),
        ("OKish", 5),
        ("FAIL", 5),
        ("largest difference", 10),
    ):
        table.add_column(name, width=width, justify="left" if name == "column" else "right")
    table.add_column("tolerance", width=10, justify="right")
    for column, group in cells.groupby("column", sort=False):
        found, largest = counts(group), group["difference"].max()
        if found[OK] == len(group) and not largest > 0:
            continue
        numbers = ["" if pd.isna(x) else f"{x:.3g}" for x in (largest, group["tolerance"].max())]
        table.add_row(
            column, *map(str, found.values()), *numbers, style="red" if found[FAIL] else None
        )
    if table.row_count:
        console.print(table)
    for _, cell in cells[cells["verdict"] == FAIL].iterrows():
        console.print(
            f"FAIL {cell['condition']}, {cell['column']}: reported"
            f" {_shown(cell['reported']) or 'nothing'}, found {_shown(cell['found']) or 'nothing'},"
            f" tolerance {cell['tolerance']:.3g}.",
            style="red",
        )
    for sentence in edited:
        console.print(f"FAIL {sentence}", style="red")
    console.print(
        ", ".join(f"{number} {verdict}" for verdict, number in counts(cells).items()) + "."
    )
    if edited:
        console.print(
            f"And {len(edited)} FAIL in reported.csv itself, which does not follow from its"
            " runs.csv."
        )
