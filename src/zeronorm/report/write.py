"""A sweep -> experiments/<study>/, whole or not at all; and what a reproduction adds to it."""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from zeronorm.report import (
    claims,
    committed,
    figures,
    mechanism,
    noise,
    present,
    quality,
    releases,
    reproduction,
    single_steps,
    tables,
)
from zeronorm.report.blocks import put, refresh_readmes
from zeronorm.report.committed import ReportError, condition, read_table, reproductions, save
from zeronorm.report.conclusions import Judged
from zeronorm.report.noise import Spread
from zeronorm.report.ranks import FILE as RANKS
from zeronorm.report.ranks import Ranks, of_runs
from zeronorm.report.ranks import load as load_ranks
from zeronorm.report.ranks import save as save_ranks

CURVES = ("train/loss", *(f"norm/{name}" for name in tables.WEIGHTS))
POINTS = 20  # of each committed curve
MOST_FACTORS = 5  # that vary in a study whose conditions a figure can still label
# of such a study; of a larger one only the curves that a figure draws are committed
MOST_CONDITIONS = 300
FILES = ("reported.csv", "runs.csv", "curves.csv", "provenance.json")
PREDICTED = "predicted.png"  # in experiments/ itself
LOG = "reproductions.json"
NOISE = ("noise.csv", "noise.json")
# environment that changes the arithmetic
NUMERICAL = ("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "XLA_FLAGS")


def write(
    name: str,
    children: pd.DataFrame,
    sweep_id: str,
    tags: dict[str, str],
    seconds: float,
    curves_of: Callable[[str], pd.DataFrame],
    ranks_of: Callable[[str], pd.DataFrame],
) -> list[Path]:
    """Writes experiments/<name>/ from a sweep and refreshes the READMEs, whole or not at all.

    Returns the files written. The noise and the log of reproductions are those of the report which
    it replaces, and go with it.
    children, sweep_id, tags, seconds: of the sweep, from `tracking`.
    curves_of: run id -> (step, name, value).
    ranks_of: run id -> (title, zero, rank).
    """
    folder = committed.experiments_dir() / name
    with TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        if folder.exists():
            shutil.copytree(folder, new)
        new.mkdir(exist_ok=True)
        runs = tables.runs_table(name, children)
        save_tables(runs, new, curves_of)
        ranked = _save_ranks(runs, new / RANKS, ranks_of)
        for file in (*NOISE, LOG):
            (new / file).unlink(missing_ok=True)
        (new / "provenance.json").write_text(
            json.dumps(_provenance(runs, children, sweep_id, tags, seconds), indent=1) + "\n"
        )
        drawn = draw(new)
        try:
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
            overall = draw_predicted(Path(beside, PREDICTED))
            changed = [*refresh_readmes(), overall.rename(folder.parent / PREDICTED)]
        except BaseException:
            if folder.exists():
                folder.rename(new)
            if old.exists():
                old.rename(folder)
            raise
    return [folder / file for file in (*FILES, *ranked, *drawn)] + changed


def _save_ranks(
    runs: pd.DataFrame, path: Path, ranks_of: Callable[[str], pd.DataFrame]
) -> list[str]:
    """Writes the ranks, but of a study with so many conditions that it reports no quality; the
    files written."""
    path.unlink(missing_ok=True)
    if runs.groupby(tables.factors_of(runs)).ngroups > MOST_CONDITIONS:
        return []
    save_ranks(of_runs(runs, condition, ranks_of), path)
    return [path.name]


def save_tables(runs: pd.DataFrame, folder: Path, curves_of: Callable[[str], pd.DataFrame]) -> None:
    """The tables that `draw` reads: runs, conditions, and the curves of the first seed's runs.

    runs: from `tables.runs_table`.
    curves_of: as `write` has it.
    """
    save(runs, folder)
    first = runs[runs["seed"] == runs["seed"].min()]
    first = figures.drawn_runs(first) if len(first) > MOST_CONDITIONS else first
    curves = pd.concat([_thinned(curves_of(run["run_id"]), run) for _, run in first.iterrows()])
    curves.to_csv(folder / "curves.csv", index=False, float_format="%.5g")


def require_complete(name: str, sweep, children: pd.DataFrame, wanted: Sequence[str]) -> None:
    """Raises ReportError unless a sweep is the whole of its study and all its runs have finished.

    Nor is a report made from a reproduction, which would then be compared with itself.

    sweep, children: from `tracking`. wanted: the identities of the study's runs.
    """
    if sweep.data.tags.get("command", "").startswith("zeronorm reproduce"):
        raise ReportError(
            f"Nothing is written: sweep {sweep.info.run_id} of '{name}' is a reproduction of its"
            f" report. zeronorm train study={name} makes runs for a report."
        )
    who = f"Nothing is written: sweep {sweep.info.run_id} of '{name}'"
    todo = f"zeronorm train study={name} --only-missing makes what is missing."
    unfinished = int((children["status"] != "FINISHED").sum())
    if sweep.info.status != "FINISHED" or unfinished:
        raise ReportError(
            f"{who} is {sweep.info.status}, and {unfinished} of its runs have not finished. {todo}"
        )
    found = set(children["tags.config.sha"])
    missing, others = len(set(wanted) - found), len(found - set(wanted))
    if missing or others:
        raise ReportError(
            f"{who} is not that study as its file says it: {missing} of its {len(set(wanted))} runs"
            f" are missing, and {others} have other options or data. {todo}"
        )


def draw(folder: Path) -> list[str]:
    """The study's figures, from the tables and the ranks in `folder`; their names."""
    runs, table, curves = (
        read_table(folder / f"{file}.csv") for file in ("runs", "reported", "curves")
    )
    if (folder / RANKS).exists():
        table = present.with_intervals(table, load_ranks(folder / RANKS))
    drawn = {"norms.png": lambda path: figures.study_norms(runs, curves, condition, path)}
    readable = len(tables.varying(table)) <= MOST_FACTORS and len(table) <= MOST_CONDITIONS
    if readable:
        drawn["outcome.png"] = lambda path: quality.outcome(table, path)
    # a factor that every condition has: only then is it the axis of a figure
    planted = {name for name in tables.varying(table) if (table[name] != "").all()}
    if "vectors.zero_share" in planted and table["vectors.zero_share"].nunique() > 2:
        drawn["dose_response.png"] = lambda path: figures.dose_response(runs, path)
    if "vectors.planted_norm" in planted:
        drawn["row_norms.png"] = lambda path: figures.row_norms(table, path)
    if readable and table["similarity"].nunique() > 1:
        drawn["quality.png"] = lambda path: quality.quality(table, path)
    for file, picture in drawn.items():
        picture(folder / file)
    return list(drawn)


def draw_predicted(path: Path) -> Path:
    """The figure of the committed runs of every study, at `path`."""
    tables_of = sorted(committed.experiments_dir().glob("*/runs.csv"))
    figures.predicted(pd.concat(map(read_table, tables_of)), path)
    return path


def redraw() -> list[Path]:
    """Draws every committed figure again, from the committed tables; returns the files written."""
    folder = committed.experiments_dir()
    drawn = [
        table.parent / file
        for table in sorted(folder.glob("*/reported.csv"))
        for file in draw(table.parent)
    ]
    bands = folder / "releases" / "releases.png"
    figures.release_bands(releases.data("releases")["rows"], releases.wheels("releases"), bands)
    mechanism.draw(folder / "mechanism.png")
    return [*drawn, bands, folder / "mechanism.png", draw_predicted(folder / PREDICTED)]


def _thinned(curves: pd.DataFrame, run: pd.Series) -> pd.DataFrame:
    kept = curves[curves["name"].isin(CURVES)]
    every = max(1, -(-(int(kept["step"].max()) + 1) // POINTS)) if len(kept) else 1
    deaths = {0, 1, int(kept["step"].max()) if len(kept) else 0}
    kept = kept[(kept["step"] % every == 0) | kept["step"].isin(deaths)]
    return kept.assign(condition=condition(run), seed=run["seed"])[
        ["condition", "seed", "step", "name", "value"]
    ]


def _provenance(
    runs: pd.DataFrame, children: pd.DataFrame, sweep_id: str, tags: dict[str, str], seconds: float
) -> dict:
    commits = sorted(set(children.get("tags.git.commit", pd.Series("unknown")).str[:12]))
    return {
        "date": tags["date"],
        "command": _without_home(tags["command"]),
        "runs": len(runs),
        "taken_over": len(children) - int((children["tags.mlflow.parentRunId"] == sweep_id).sum()),
        "seeds": sorted({int(seed) for seed in runs["seed"]}),
        "minutes": round(seconds / 60, 1),
        "hardware": tags["hardware"],
        "versions": tags["versions"],
        "commit": ", ".join(commits),
        **_baseline(children),
        "dirty": "true" in {tags.get("git.dirty"), *children.get("tags.git.dirty", [])},
    }


def _baseline(children: pd.DataFrame) -> dict:
    """{"tfidf_centroid": {metric: value}}, where the sweep's runs logged it."""
    found = {metric: children.get(f"metrics.eval_tfidf/{metric}") for metric in tables.METRICS}
    if any(values is None for values in found.values()):
        return {}
    return {
        "tfidf_centroid": {
            metric: float(f"{values.dropna().iloc[0]:.6g}") for metric, values in found.items()
        }
    }


@dataclass(frozen=True)
class Compared:
    """A new making of a study, or of a part of it, against its report.

    cells: from `reproduction.compare`.
    judged: the conclusions, of the new runs.
    repeats: from how many the tolerance was measured; 0: there is none.
    tolerance: in a sentence, which was applied.
    """

    cells: pd.DataFrame
    judged: list[Judged]
    repeats: int
    tolerance: str

    @property
    def failed(self) -> bool:
        return bool(reproduction.failures(self.cells, self.judged))


def compare(
    name: str,
    reported: pd.DataFrame,
    children: pd.DataFrame,
    narrowed: bool,
    ranks_of: Callable[[str], pd.DataFrame],
    elsewhere: bool = False,
) -> Compared:
    """A new sweep against the report; see `reproduction.compare` and `conclusions.judge`.

    reported: experiments/<name>/runs.csv.
    narrowed: whether only a part of the study was asked for; else every reported run is expected.
    ranks_of: as `write` has it.
    elsewhere: whether it ran on another processor than the report's.
    Raises ReportError if none of the runs that finished is part of the report, or one is a run of
    the report itself.
    """
    found = committed.as_read(children, name, further_factors(reported))
    own = int(found["run_id"].isin(reported["run_id"]).sum())
    if own:
        raise ReportError(
            f"{own} of the {len(found)} runs are those that the report was made from, and would be"
            " compared with themselves: drop --only-missing."
        )
    study = reported
    if narrowed:
        reported = reported[reported["config_sha"].isin(found["config_sha"])]
        if not len(reported):
            raise ReportError(
                f"None of the {len(found)} runs that finished is one of the report's."
            )
    there, here, whole = (
        reproduction.Runs(table, [key for key, _ in committed.keys(table)])
        for table in (reported, found, study)
    )
    spread = committed.spread(name, reported, elsewhere)
    cells = reproduction.compare(there, here, spread, whole)
    ranks: Ranks | None = None
    if (committed.experiments_dir() / name / RANKS).exists() and committed.conclusions(name):
        ranks = of_runs(found, condition, ranks_of)
    judged = committed.judged(name, found, ranks)
    if name == claims.STUDY and set(there.keys) == set(here.keys) and not narrowed:
        judged += claims.held(reported, found, single_steps.shown("single_steps"))
    repeats = spread.repeats if spread else 0
    return Compared(cells, judged, repeats, _tolerance(name, spread, elsewhere))


def _tolerance(name: str, spread: Spread | None, elsewhere: bool) -> str:
    """Which tolerance a comparison has, in a sentence."""
    if spread is None:
        return (
            f"{name} has fewer than {noise.REPEATS} repeats, so no difference that a table shows is"
            " accepted."
        )
    made = f"The tolerance is that of {spread.repeats} repeats"
    if spread.elsewhere:
        return f"{made} on processors other than the report's."
    if elsewhere:
        return f"{made} on the report's processor: what another moves is not allowed for."
    return f"{made}."


def further_factors(reported: pd.DataFrame) -> list[str]:
    """The factors of a report's table besides those that every table has."""
    return [name for name in tables.factors_of(reported) if name not in tables.FACTORS]


def is_elsewhere(name: str, tags: Mapping[str, str]) -> bool:
    """Whether a sweep ran on another processor than the report's. tags: of the sweep."""
    hardware = committed.provenance(name)["hardware"]
    return committed.processor(hardware) != committed.processor(tags["hardware"])


def elsewhere(name: str, tags: Mapping[str, str]) -> str:
    """What tells a sweep's machine from the report's, in a sentence; empty where nothing does.

    tags: of the sweep.
    """
    reported = committed.provenance(name)
    parts = [
        f"{what} {reported[what]} there, {tags[what]} here"
        for what in ("hardware", "versions")
        if reported.get(what) != tags[what]
    ]
    if not parts:
        return ""
    return (
        f"Not the machine of the report: {'; '.join(parts)}. Steps and outcomes must be the same"
        " all the same; measured numbers may differ within the tolerance."
    )


def next_repeat(name: str, elsewhere: bool) -> int:
    """The number of the next repeat for the noise. Raises ReportError once a comparison with this
    report is logged: the tolerance is fixed before the first, on each kind of machine."""
    if any(bool(entry["elsewhere"]) == elsewhere for entry in reproductions(name)):
        where = "on another processor" if elsewhere else "on the report's processor"
        raise ReportError(
            f"A reproduction of '{name}' {where} is logged, and what it is compared with stays as"
            " it is: noise is measured before."
        )
    return max((entry["repeat"] for entry in committed.repeats(name)), default=0) + 1


def write_noise(
    name: str, repeat: int, children: pd.DataFrame, command: list[str], tags: dict[str, str]
) -> int:
    """Adds a repeat to experiments/<name>/noise.csv and noise.json. Returns how many there are.

    children, tags: of the sweep that made it, from `tracking`. Runs of conditions that are not
    reported are left out; raises ReportError if no other is there.
    """
    reported = committed.committed_runs(name)
    found = committed.as_read(children, name, further_factors(reported))
    known = committed.keys(reported)
    found = found[[key in known for key in committed.keys(found)]]
    if not len(found):
        raise ReportError("None of the runs that finished is of a condition of the report.")
    rows = noise.measured(found, [one for one, _ in committed.keys(found)])
    rows.insert(0, "repeat", repeat)
    before, entries = committed.repeated(name), committed.repeats(name)
    values = pd.concat([before, rows]) if len(before) else rows
    entries = [*entries, {"repeat": repeat, **_entry(command, tags), "runs": len(rows)}]
    folder = committed.experiments_dir() / name
    put(folder / "noise.csv", values.to_csv(**committed.CSV))
    put(folder / "noise.json", json.dumps(entries, indent=1) + "\n")
    refresh_readmes()
    return len(entries)


def log_reproduction(
    name: str,
    compared: Compared,
    command: list[str],
    tags: dict[str, str],
    runs: int,
    seconds: float,
) -> None:
    """Adds an entry to experiments/<name>/reproductions.json.

    command, tags, seconds: of the sweep; runs: how many it has.
    """
    entry = {
        **_entry(command, tags),
        "elsewhere": is_elsewhere(name, tags),
        "runs": runs,
        "minutes": round(seconds / 60, 1),
        "repeats": compared.repeats,
        "agree": reproduction.counts(compared.cells, compared.judged),
        "FAIL": len(reproduction.failures(compared.cells, compared.judged)),
    }
    path = committed.experiments_dir() / name / LOG
    put(path, json.dumps([*reproductions(name), entry], indent=1) + "\n")
    refresh_readmes()


def _entry(command: list[str], tags: dict[str, str]) -> dict[str, str]:
    environment = [f"{name}={os.environ[name]}" for name in NUMERICAL if name in os.environ]
    return {
        "date": tags["date"],
        "commit": tags.get("git.commit", "unknown")[:12],
        "hardware": tags["hardware"],
        "command": _without_home(" ".join([*environment, "zeronorm", *command])),
    }


def _without_home(command: str) -> str:
    """A command without where its store lies, which changes no number: up to the next override or
    option, since a folder's name may hold blanks."""
    return re.sub(r" home=.*?(?= [\w.~+@/]+=| --|$)", "", command)
