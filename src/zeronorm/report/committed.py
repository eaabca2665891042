"""The committed report, experiments/<study>/, as data: read, written and held against itself."""

import csv
import json
from collections.abc import Sequence
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from zeronorm import checkout
from zeronorm.report import noise, tables
from zeronorm.report.conclusions import Conclusion, Judged, judge
from zeronorm.report.conclusions import load as load_conclusions
from zeronorm.report.noise import Spread
from zeronorm.report.ranks import FILE as RANKS
from zeronorm.report.ranks import Ranks
from zeronorm.report.ranks import load as load_ranks
from zeronorm.report.tables import condition

CSV = {"index": False, "float_format": "%.6g"}  # how every table is written


class ReportError(Exception):
    """A report that cannot be written or read: one sentence."""


def experiments_dir() -> Path:
    """experiments/ of the checkout. Raises ReportError in an installed wheel, which has none."""
    folder = checkout.conf_dir().parent / "experiments"
    if not folder.is_dir():
        raise ReportError(
            "The reported numbers lie in experiments/ of a checkout, and this is an installed"
            " package."
        )
    return folder


def save(runs: pd.DataFrame, folder: Path) -> None:
    """runs.csv, and reported.csv from what it says, so that it follows from it to the last
    digit."""
    runs.to_csv(folder / "runs.csv", **CSV)
    tables.conditions_table(read_table(folder / "runs.csv")).to_csv(folder / "reported.csv", **CSV)


def _read(name: str, file: str) -> pd.DataFrame:
    return read_table(existing(name, file))


def existing(name: str, file: str) -> Path:
    path = experiments_dir() / name / file
    if not path.exists():
        known = [one.parent.name for one in experiments_dir().glob("*/runs.csv")]
        close = [] if name in known else get_close_matches(name, known, 1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise ReportError(f"Nothing is reported of '{name}': {path} does not exist.{meant}")
    return path


def read_table(path: Path) -> pd.DataFrame:
    """A table as `save` wrote it: texts as texts, and no value where a number's cell is empty."""
    metrics = [zero + metric for zero in ("", "zero_") for metric in tables.METRICS]
    numbers = [
        column for metric in metrics for column in (metric, f"{metric}_mean", f"{metric}_std")
    ]
    numbers += ["first_touch_mean"]
    # Only in the number columns an empty cell means "no value"; elsewhere it is the empty text it
    # was written from.
    columns = _csv(path, nrows=0).columns
    whole = (
        "seed",
        "seeds",
        "nan_runs",
        "predicted_exactly",
        "nonfinite/words",
        "nonfinite/titles",
        "zero_titles",
        "step",
    )
    text = {name: str for name in columns if name not in (*numbers, *whole, "seconds", "value")}
    return _csv(
        path, dtype=text, keep_default_na=False, na_values={column: [""] for column in numbers}
    )


def _csv(file: Path | StringIO, **options) -> pd.DataFrame:
    try:
        table = pd.read_csv(file, **options)
        text = file.read_text() if isinstance(file, Path) else "\n"
        widths = {len(row) for row in csv.reader(text.splitlines())}
    # also a text where a number should stand
    except (ValueError, OverflowError, csv.Error) as error:
        raise ReportError(f"{file} is no table of a report: {error} Restore the file.") from error
    if not text.endswith("\n") or len(widths) > 1:  # pandas fills up what is not there
        raise ReportError(f"{file} is no table of a report: it is cut. Restore the file.")
    return table


def _json(path: Path, kind: type[dict] | type[list], *needed: str):
    """What a file of a report holds. Raises ReportError if it is not of this kind, or lacks keys
    that are needed."""
    try:
        found = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ReportError(f"{path} cannot be read: {error}. Restore the file.") from error
    if not isinstance(found, kind) or not all(key in found for key in needed):
        raise ReportError(f"{path} is not what a report wrote: restore the file.")
    return found


def conditions(name: str) -> pd.DataFrame:
    """experiments/<name>/reported.csv, as `tables.conditions_table` made it."""
    return _read(name, "reported.csv")


def committed_runs(name: str) -> pd.DataFrame:
    """experiments/<name>/runs.csv, as `tables.runs_table` made it."""
    return _read(name, "runs.csv")


def ranks(name: str) -> Ranks | None:
    """experiments/<name>/ranks.csv.gz, of the runs in the order of runs.csv; None of a study that
    has none. Raises ReportError if they are not of these runs."""
    path = experiments_dir() / name / RANKS
    if not path.exists():
        return None
    try:
        found = load_ranks(path)
    except ValueError as error:
        raise ReportError(
            f"{path} is not what a report wrote: {error}. Restore the file."
        ) from error
    runs = committed_runs(name)
    if list(zip(found.conditions, found.seeds, strict=True)) != keys(runs):
        raise ReportError(f"{path} is not of the runs of its runs.csv: restore the file.")
    return found


def keys(runs: pd.DataFrame) -> list[tuple[str, int]]:
    """(condition, seed) of each run."""
    return [(condition(run), int(run["seed"])) for _, run in runs.iterrows()]


def conclusions(name: str) -> list[Conclusion]:
    """experiments/<name>/conclusions.yaml; none where there is no such file."""
    path = experiments_dir() / name / "conclusions.yaml"
    try:
        return load_conclusions(path)
    except ValueError as error:
        raise ReportError(f"{path}: {error}: correct the file.") from error


def judged(
    name: str, runs: pd.DataFrame | None = None, ranked: Ranks | None = None
) -> list[Judged]:
    """The conclusions of a study, of its report; or of other runs and their ranks."""
    said = conclusions(name)
    if not said:
        return []
    study = committed_runs(name)
    found, own = (study, ranks(name)) if runs is None else (runs, ranked)
    try:
        return judge(said, study, found, own)
    except ValueError as error:
        path = experiments_dir() / name / "conclusions.yaml"
        raise ReportError(f"{path}: {error}: correct the file.") from error


def repeats(name: str) -> list[dict]:
    """experiments/<name>/noise.json: repeat, date, commit, hardware and command of each repeat of
    the study that was made to measure its noise."""
    path = experiments_dir() / name / "noise.json"
    return _json(path, list) if path.exists() else []


def repeated(name: str) -> pd.DataFrame:
    """experiments/<name>/noise.csv: what each run of these repeats measured: repeat, condition,
    seed, and the columns of `noise.MEASURED`."""
    path = experiments_dir() / name / "noise.csv"
    columns = [*noise.KEYS, *noise.MEASURED]
    if not path.exists():
        return pd.DataFrame(columns=columns)
    types = {"repeat": int, "condition": str, "seed": int, **dict.fromkeys(noise.MEASURED, float)}
    found = _csv(path, dtype=types, float_precision="round_trip")
    known = {entry.get("repeat") for entry in repeats(name)}
    if list(found.columns) != columns or set(found["repeat"]) != known:
        raise ReportError(f"{path} is not of the repeats of its noise.json: restore the files.")
    return found


def processor(hardware: str) -> str:
    """What of `provenance.tags` tells processors apart: all but the number of cores."""
    return hardware.partition(", ")[2]


def spread(name: str, reported: pd.DataFrame, elsewhere: bool) -> Spread | None:
    """What to expect of a comparison with the report; None where fewer repeats than it takes were
    made.

    reported: those of its runs that are compared.
    elsewhere: whether on another processor than the report's.
    """
    own, whole = (
        noise.measured(runs, [one for one, _ in keys(runs)])
        for runs in (reported, committed_runs(name))
    )
    home = processor(provenance(name)["hardware"])
    return noise.spread(_by_processor(name), own, home, elsewhere, whole)


def doubts(name: str) -> list[noise.Doubt]:
    """Where the report is not what its repeats on its own processor have."""
    runs, values = committed_runs(name), _by_processor(name)
    own = noise.measured(runs, [one for one, _ in keys(runs)])
    home = processor(provenance(name)["hardware"])
    return noise.doubts(values[values[noise.PROCESSOR] == home], own)


def _by_processor(name: str) -> pd.DataFrame:
    """The repeats, as `noise.spread` takes them."""
    where = {one["repeat"]: processor(one["hardware"]) for one in repeats(name)}
    values = repeated(name)
    return values.assign(**{noise.PROCESSOR: values["repeat"].map(where)})


def reproductions(name: str) -> list[dict]:
    """experiments/<name>/reproductions.json: one entry per logged reproduction."""
    path = experiments_dir() / name / "reproductions.json"
    return _json(path, list) if path.exists() else []


def provenance(name: str) -> dict:
    """experiments/<name>/provenance.json: date, command, cost, hardware, versions, commit."""
    return _json(existing(name, "provenance.json"), dict, "runs")


def require_whole(name: str) -> None:
    """Raises ReportError unless everything that experiments/<name>/ says can be read and no row of
    it is missing."""
    runs, said, counted = committed_runs(name), conditions(name), provenance(name)["runs"]
    repeats(name), repeated(name), reproductions(name), ranks(name), conclusions(name)
    try:
        follows = tables.conditions_table(runs)
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(
            f"{name}/runs.csv is no table of runs ({error}): restore the file."
        ) from error
    for file, rows, wanted, where in (
        ("runs.csv", len(runs), counted, "provenance.json counts"),
        ("reported.csv", len(said), len(follows), "runs.csv gives"),
    ):
        if rows != wanted:
            path = experiments_dir() / name / file
            raise ReportError(f"{path} has {rows} rows, and {where} {wanted}: restore the file.")


def as_read(
    children: pd.DataFrame, name: str, further: Sequence[str] | None = None
) -> pd.DataFrame:
    """The runs of a sweep as they would read from a committed runs.csv.

    children: from `tracking`. further: as `tables.runs_table` takes it.
    """
    if not len(children) or not (children["status"] == "FINISHED").any():
        raise ReportError(f"The sweep of '{name}' has no finished run.")
    return _round_trip(tables.runs_table(name, children, further))


def _round_trip(table: pd.DataFrame) -> pd.DataFrame:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        table.to_csv(path, **CSV)
        return read_table(path)


def edited_cells(name: str) -> list[str]:
    """Sentences: the cells of reported.csv that do not follow from runs.csv, i.e. that no run has
    written."""
    derived = StringIO(tables.conditions_table(committed_runs(name)).to_csv(**CSV))
    texts = [
        _csv(file, dtype=str, keep_default_na=False)
        for file in (existing(name, "reported.csv"), derived)
    ]
    said, follows = texts
    if list(said.columns) != list(follows.columns) or len(said) != len(follows):
        return ["reported.csv has other rows or columns than its runs.csv gives."]
    return [
        f"{condition(said.loc[row])}, {column}: reported.csv says"
        f" {said.loc[row, column] or 'nothing'}, its runs.csv gives"
        f" {follows.loc[row, column] or 'nothing'}."
        for row, place in np.argwhere(said.to_numpy() != follows.to_numpy())
        for column in [said.columns[place]]
    ]
