"""The committed report: experiments/<study>/ as data, and the README blocks that are rendered from that data.

A block stands between `<!-- begin KIND STUDY -->` and `<!-- end -->`. `refreshed` renders every block of a text
again from the committed files; the tests hold the READMEs against it, so no number in a block can differ from the data.
"""

import csv
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from zeronorm import claims, config, figures, reproduction, study

CURVES = ("train/loss", *(f"norm/{name}" for name in study.WEIGHTS))
POINTS = 20  # of each committed curve
MOST_FACTORS = 5  # that vary in a study whose conditions a figure can still label
MOST_CONDITIONS = 300  # of such a study; of a larger one only the curves that a figure draws are committed
CSV = {"index": False, "float_format": "%.6g"}  # how every table is written
FILES = ("reported.csv", "runs.csv", "curves.csv", "provenance.json")


class ReportError(Exception):
    """A report that cannot be written or read: one sentence."""


def experiments_dir() -> Path:
    """experiments/ of the checkout. Raises ReportError in an installed wheel, which has none."""
    folder = config.conf_dir().parent / "experiments"
    if not folder.is_dir():
        raise ReportError("The reported numbers lie in experiments/ of a checkout, and this is an installed package.")
    return folder


def write(
    name: str,
    children: pd.DataFrame,
    sweep_id: str,
    tags: dict[str, str],
    seconds: float,
    curves_of: Callable[[str], pd.DataFrame],
) -> list[Path]:
    """Writes experiments/<name>/ from a sweep and refreshes the READMEs, whole or not at all.

    Returns the files written.
    children, sweep_id, tags, seconds: of the sweep, from `tracking`. curves_of: run id -> (step, name, value).
    """
    folder = experiments_dir() / name
    with TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        if folder.exists():
            shutil.copytree(folder, new)
        new.mkdir(exist_ok=True)
        runs = study.runs_table(name, children)
        save(runs, new)
        first = runs[runs["seed"] == runs["seed"].min()]
        first = figures.drawn_runs(first) if len(first) > MOST_CONDITIONS else first
        curves = pd.concat([_thinned(curves_of(run["run_id"]), run) for _, run in first.iterrows()])
        curves.to_csv(new / "curves.csv", index=False, float_format="%.5g")
        (new / "provenance.json").write_text(
            json.dumps(_provenance(runs, children, sweep_id, tags, seconds), indent=1) + "\n"
        )
        drawn = draw(new)
        try:
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
            changed = refresh_readmes()
        except BaseException:
            if folder.exists():
                folder.rename(new)
            if old.exists():
                old.rename(folder)
            raise
    return [folder / file for file in (*FILES, *drawn)] + changed


def require_complete(name: str, sweep, children: pd.DataFrame, wanted: Sequence[str]) -> None:
    """Raises ReportError unless a sweep is the whole of its study and all its runs have finished.

    sweep, children: from `tracking`. wanted: the identities of the study's runs.
    """
    who = f"Nothing is written: sweep {sweep.info.run_id} of '{name}'"
    todo = f"zeronorm train study={name} --only-missing makes what is missing."
    unfinished = int((children["status"] != "FINISHED").sum())
    if sweep.info.status != "FINISHED" or unfinished:
        raise ReportError(f"{who} is {sweep.info.status}, and {unfinished} of its runs have not finished. {todo}")
    found = set(children["tags.config.sha"])
    missing, others = len(set(wanted) - found), len(found - set(wanted))
    if missing or others:
        raise ReportError(
            f"{who} is not that study as its file says it: {missing} of its {len(set(wanted))} runs are missing, and "
            f"{others} have other options or data. {todo}"
        )


def save(runs: pd.DataFrame, folder: Path) -> None:
    """runs.csv, and reported.csv from what it says, so that it follows from it to the last digit."""
    runs.to_csv(folder / "runs.csv", **CSV)
    study.conditions_table(read_table(folder / "runs.csv")).to_csv(folder / "reported.csv", **CSV)


def draw(folder: Path) -> list[str]:
    """The study's figures, from the tables in `folder`; their names."""
    runs, table, curves = (read_table(folder / f"{file}.csv") for file in ("runs", "reported", "curves"))
    drawn = {"norms.png": lambda path: figures.study_norms(runs, curves, condition, path)}
    readable = len(study.varying(table)) <= MOST_FACTORS and len(table) <= MOST_CONDITIONS
    if readable:
        drawn["outcome.png"] = lambda path: figures.outcome(table, path)
    if "vectors.zero_share" in table and table["vectors.zero_share"].nunique() > 2:
        drawn["dose_response.png"] = lambda path: figures.dose_response(runs, path)
    if "vectors.planted_norm" in table:
        drawn["row_norms.png"] = lambda path: figures.row_norms(table, path)
    if readable and table["similarity"].nunique() > 1:
        drawn["quality.png"] = lambda path: figures.quality(table, path)
    for file, picture in drawn.items():
        picture(folder / file)
    return list(drawn)


def refresh_readmes() -> list[Path]:
    """Renders the blocks of every README again; those that have changed. Nothing is written if one
    cannot be."""
    readmes = [experiments_dir().parent / "README.md", *sorted(experiments_dir().glob("[!.]*/README.md"))]
    before = {readme: readme.read_text() for readme in readmes}
    new = {readme: refreshed(text) for readme, text in before.items()}
    changed = [readme for readme in readmes if new[readme] != before[readme]]
    for readme in changed:
        _put(readme, new[readme])
    return changed


def _put(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)


def _thinned(curves: pd.DataFrame, run: pd.Series) -> pd.DataFrame:
    kept = curves[curves["name"].isin(CURVES)]
    every = max(1, -(-(int(kept["step"].max()) + 1) // POINTS)) if len(kept) else 1
    deaths = {0, 1, int(kept["step"].max()) if len(kept) else 0}
    kept = kept[(kept["step"] % every == 0) | kept["step"].isin(deaths)]
    return kept.assign(condition=condition(run), seed=run["seed"])[["condition", "seed", "step", "name", "value"]]


def condition(run: Mapping) -> str:
    """The values of the factors of a run, or of a condition: the key of its curves in curves.csv, besides the seed."""
    names = list(run.keys())
    factors = names[1 : names.index("seed" if "seed" in names else "seeds")]
    return " ".join(str(run[factor]) for factor in factors)


def _provenance(
    runs: pd.DataFrame, children: pd.DataFrame, sweep_id: str, tags: dict[str, str], seconds: float
) -> dict:
    commits = sorted(set(children.get("tags.git.commit", pd.Series("unknown")).str[:12]))
    return {
        "date": tags["date"],
        "command": tags["command"],
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
    found = {metric: children.get(f"metrics.eval_tfidf/{metric}") for metric in study.METRICS}
    if any(values is None for values in found.values()):
        return {}
    return {"tfidf_centroid": {metric: float(f"{values.dropna().iloc[0]:.6g}") for metric, values in found.items()}}


def _read(name: str, file: str) -> pd.DataFrame:
    return read_table(_existing(name, file))


def _existing(name: str, file: str) -> Path:
    path = experiments_dir() / name / file
    if not path.exists():
        raise ReportError(f"Nothing is reported of '{name}': {path} does not exist.")
    return path


def read_table(path: Path) -> pd.DataFrame:
    """A table as `save` wrote it: texts as texts, and no value where a number's cell is empty."""
    metrics = [zero + metric for zero in ("", "zero_") for metric in study.METRICS]
    numbers = [column for metric in metrics for column in (metric, f"{metric}_mean", f"{metric}_std")]
    numbers += ["first_touch_mean"]
    # Only in the number columns an empty cell means "no value"; elsewhere it is the empty text it was written from.
    columns = _csv(path, nrows=0).columns
    whole = ("seed", "seeds", "nan_runs", "predicted_exactly", "nonfinite/words", "nonfinite/titles")
    whole += ("zero_titles", "step")
    text = {name: str for name in columns if name not in (*numbers, *whole, "seconds", "value")}
    return _csv(path, dtype=text, keep_default_na=False, na_values={column: [""] for column in numbers})


def _csv(file: Path | StringIO, **options) -> pd.DataFrame:
    try:
        table = pd.read_csv(file, **options)
        text = file.read_text() if isinstance(file, Path) else "\n"
        widths = {len(row) for row in csv.reader(text.splitlines())}
    except (ValueError, OverflowError, csv.Error) as error:  # also a text where a number should stand
        raise ReportError(f"{file} is no table of a report: {error} Restore the file.") from error
    if not text.endswith("\n") or len(widths) > 1:  # pandas fills up what is not there
        raise ReportError(f"{file} is no table of a report: it is cut. Restore the file.")
    return table


def _json(path: Path, kind: type, *needed: str):
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
    """experiments/<name>/reported.csv, as `study.conditions_table` made it."""
    return _read(name, "reported.csv")


def committed_runs(name: str) -> pd.DataFrame:
    """experiments/<name>/runs.csv, as `study.runs_table` made it."""
    return _read(name, "runs.csv")


def noise(name: str) -> dict:
    """experiments/<name>/noise.json: `columns`, {column: largest difference between two runs of one config}, and how it
    was measured; empty where it was not."""
    path = experiments_dir() / name / "noise.json"
    return _json(path, dict, "columns", "measurements") if path.exists() else {}


def reproductions(name: str) -> list[dict]:
    """experiments/<name>/reproductions.json: one entry per logged reproduction."""
    path = experiments_dir() / name / "reproductions.json"
    return _json(path, list) if path.exists() else []


def require_whole(name: str) -> None:
    """Raises ReportError unless everything that experiments/<name>/ says can be read and no row of
    it is missing."""
    runs, said, counted = committed_runs(name), conditions(name), provenance(name)["runs"]
    noise(name), reproductions(name)
    try:
        follows = study.conditions_table(runs)
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{name}/runs.csv is no table of runs ({error}): restore the file.") from error
    for file, rows, wanted, where in (
        ("runs.csv", len(runs), counted, "provenance.json counts"),
        ("reported.csv", len(said), len(follows), "runs.csv gives"),
    ):
        if rows != wanted:
            path = experiments_dir() / name / file
            raise ReportError(f"{path} has {rows} rows, and {where} {wanted}: restore the file.")


def as_read(children: pd.DataFrame, name: str) -> pd.DataFrame:
    """The runs of a sweep as they would read from a committed runs.csv. children: from `tracking`."""
    if not len(children) or not (children["status"] == "FINISHED").any():
        raise ReportError(f"The sweep of '{name}' has no finished run.")
    return _round_trip(study.runs_table(name, children))


def _round_trip(table: pd.DataFrame) -> pd.DataFrame:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        table.to_csv(path, **CSV)
        return read_table(path)


def _pooled(runs: pd.DataFrame) -> pd.DataFrame:
    return _round_trip(study.conditions_table(runs))


def edited_cells(name: str) -> list[str]:
    """Sentences: the cells of reported.csv that do not follow from runs.csv, i.e. that no run has written."""
    derived = StringIO(study.conditions_table(committed_runs(name)).to_csv(**CSV))
    texts = [_csv(file, dtype=str, keep_default_na=False) for file in (_existing(name, "reported.csv"), derived)]
    said, follows = texts
    if list(said.columns) != list(follows.columns) or len(said) != len(follows):
        return ["reported.csv has other rows or columns than its runs.csv gives."]
    return [
        f"{condition(said.loc[row])}, {column}: reported.csv says {said.loc[row, column] or 'nothing'}, its runs.csv "
        f"gives {follows.loc[row, column] or 'nothing'}."
        for row in said.index
        for column in said.columns
        if said.loc[row, column] != follows.loc[row, column]
    ]


def compare(name: str, reported: pd.DataFrame, children: pd.DataFrame, narrowed: bool) -> pd.DataFrame:
    """The cells of a new sweep against the report; see `reproduction.compare`.

    reported: experiments/<name>/runs.csv. narrowed: whether only a part of the study was asked for; else every reported
    run is expected. Raises ReportError if none of the runs that finished is part of the report.
    """
    found = as_read(children, name)
    if narrowed:
        reported = reported[reported["config_sha"].isin(found["config_sha"])]
        if not len(reported):
            raise ReportError(f"None of the {len(found)} runs that finished is one of the report's.")
    # a factor that the part does not vary is a column that its own table lacks: take it from the report, by config
    factors = ["study", *study.factors_of(reported)]
    known = reported.drop_duplicates("config_sha").set_index("config_sha")[factors]
    found = found.drop(columns=[*study.factors_of(found), "study"])
    found = found.join(known, on="config_sha").fillna({factor: "not reported" for factor in factors})
    return reproduction.compare(
        _pooled(reported),
        _pooled(found[[*factors, *found.columns.difference(factors, False)]]),
        noise(name).get("columns", {}),
    )


def write_noise(name: str, cells: pd.DataFrame, command: list[str], tags: dict[str, str]) -> None:
    """experiments/<name>/noise.json from a comparison with another run of the same configs; what was measured before
    stays where it is larger."""
    before, found = noise(name), reproduction.noise_of(cells)
    known = before.get("columns", {})
    largest = {column: max(found.get(column, 0), known.get(column, 0)) for column in [*known, *found]}
    found = {"columns": largest, "measurements": [*before.get("measurements", []), _entry(command, tags)]}
    _put(experiments_dir() / name / "noise.json", json.dumps(found, indent=1) + "\n")
    refresh_readmes()


def log_reproduction(name: str, cells: pd.DataFrame, command: list[str], tags: dict[str, str], runs: int) -> None:
    """Adds an entry to experiments/<name>/reproductions.json."""
    entries = [*reproductions(name), {**_entry(command, tags), "runs": runs, **reproduction.counts(cells)}]
    _put(experiments_dir() / name / "reproductions.json", json.dumps(entries, indent=1) + "\n")
    refresh_readmes()


NUMERICAL = ("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "XLA_FLAGS")  # environment that changes the arithmetic


def _entry(command: list[str], tags: dict[str, str]) -> dict[str, str]:
    environment = [f"{name}={os.environ[name]}" for name in NUMERICAL if name in os.environ]
    return {
        "date": tags["date"],
        "commit": tags.get("git.commit", "unknown")[:12],
        "hardware": tags["hardware"],
        "command": " ".join([*environment, "zeronorm", *command]),
    }


def provenance(name: str) -> dict:
    """experiments/<name>/provenance.json: date, command, cost, hardware, versions, commit."""
    return _json(_existing(name, "provenance.json"), dict, "runs")


def _provenance_line(name: str) -> str:
    p = provenance(name)
    seeds = ", ".join(map(str, p["seeds"]))
    dirty = " with uncommitted changes" if p["dirty"] else ""
    over = f", {p['taken_over']} of them taken over from an earlier sweep" if p["taken_over"] else ""
    plural = ["s" if p["runs"] > 1 else "", "s" if "," in seeds else ""]
    return (
        f"{p['runs']} run{plural[0]} in {p['minutes']} minutes{over}, seed{plural[1]} {seeds}, {p['date']}, commit "
        f"{p['commit']}{dirty}; {p['hardware']}; {p['versions']}."
    )


METRIC_LABELS = {"hits_at_1": "hits@1", "hits_at_10": "hits@10", "mrr": "MRR", "mean_rank": "mean rank"}


def _peers(name: str) -> str:
    """The study's conditions beside what others reach on the same task: TF-IDF, measured in the study itself, and the
    systems of peers.csv."""
    table = conditions(name)
    factors = study.varying(table)
    tfidf = provenance(name)["tfidf_centroid"]
    peers = pd.read_csv(experiments_dir() / name / "peers.csv")
    rows = [(tfidf["mrr"], "TF-IDF nearest centroid (scikit-learn), in this study", tfidf, {})]
    rows += [(peer["mrr"], f"{peer['system']} ¹", peer, {}) for _, peer in peers.iterrows()]
    for _, row in table.iterrows():
        who = ", ".join(study.said(factor, row[factor]) for factor in factors if row[factor] != "")
        means, deviations = ({m: row[f"{m}_{part}"] for m in METRIC_LABELS} for part in ("mean", "std"))
        rows.append((means["mrr"], f"**the question's network: {who}**", means, deviations))
    lines = ["| system | " + " | ".join(METRIC_LABELS.values()) + " |", "|---|" + "---|" * len(METRIC_LABELS)]
    for _, who, means, deviations in sorted(rows, key=lambda row: -row[0]):
        cells = []
        for metric in METRIC_LABELS:
            digits = 2 if metric == "mean_rank" else 3
            deviation = f" ± {deviations[metric]:.{digits}f}" if metric in deviations else ""
            cells.append(f"{means[metric]:.{digits}f}{deviation}")
        lines.append(f"| {who} | " + " | ".join(cells) + " |")
    note = "¹ Measured apart from this repository on the same recipe and split, one seed, one core."
    return "\n".join([*lines, "", note])


def _studies(_: str) -> str:
    """Every study of conf/study that is reported: its question, its cost, how it came out."""
    lines = ["| study | question | runs, minutes | NaN | predicted exactly |", "|---|---|---|---|---|"]
    for path in sorted((config.conf_dir() / "study").glob("*.yaml")):
        question = re.search(r"^# Question: +(.+)$", path.read_text(), re.MULTILINE)[1]
        table, found = conditions(path.stem), provenance(path.stem)
        dead = f"{(table['nan_runs'] > 0).sum()} of {len(table)} conditions"
        exact = f"{table['predicted_exactly'].sum()} of {table['seeds'].sum()} runs"
        link = f"[{path.stem}](experiments/{path.stem}/README.md)"
        lines.append(f"| {link} | {question} | {found['runs']}, {found['minutes']:.0f} | {dead} | {exact} |")
    return "\n".join(lines)


MEASURES = {  # of the benchmarks' rows: what the column says, and how
    "ms": ("ms a step", "{:.1f}"),
    "ms_small": ("ms a step, 10,000 rows", "{:.1f}"),
    "ms_large": ("ms a step, 1,000,000 rows", "{:.1f}"),
    "growth": ("growth", "{:.2f}"),
    "speed": ("times as fast", "{:.2f}"),
    "speed_large": ("times as fast as Keras there", "{:.0f}"),
    "cost": ("cost", "{:.0%}"),
    "share": ("share of the training", "{:.1%}"),
    "training_s": ("training, s", "{:.2f}"),
    "mlflow_s": ("MLflow, s", "{:.3f}"),
    "minutes": ("minutes", "{:.1f}"),
    "ratio": ("times this project's minutes", "{:.2f}"),
}


def benchmark(name: str) -> dict:
    """experiments/benchmarks/<name>.json, as the benchmark wrote it."""
    return json.loads(_existing("benchmarks", f"{name}.json").read_text())


def _benchmark(name: str) -> str:
    """The benchmark's rows as a table: medians, with quartiles where there are any."""
    rows = benchmark(name)["rows"]
    columns = [key for key in rows[0] if not key.endswith(("_low", "_high"))]

    def cell(row: dict, key: str) -> str:
        if key not in MEASURES:
            return str(row[key])
        text = MEASURES[key][1].format(row[key])
        if f"{key}_low" in row and row[f"{key}_low"] != row[f"{key}_high"]:
            text += " ({} to {})".format(*(MEASURES[key][1].format(row[f"{key}_{end}"]) for end in ("low", "high")))
        return text

    labels = [MEASURES[key][0] if key in MEASURES else key for key in columns]
    lines = ["| " + " | ".join(labels) + " |", "|---" * len(labels) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cell(row, key) for key in columns) + " |" for row in rows)])


def _phases(name: str) -> str:
    """Where the seconds of the benchmark's naive runs went, on average."""
    phases = sorted(benchmark(name)["naive_phases"].items(), key=lambda item: -item[1])
    total = sum(seconds for _, seconds in phases)
    lines = [f"| {phase} | {seconds:.1f} | {seconds / total:.0%} |" for phase, seconds in phases]
    return "\n".join(["| phase | seconds a run | share |", "|---|---|---|", *lines])


def _measured(name: str) -> str:
    found = benchmark(name)
    rounds = f"{found['rounds']} rounds, " if "rounds" in found else f"{found['naive_runs']} naive runs, "
    return rounds + _where(found)


def _where(found: dict) -> str:
    """Date, commit, hardware and versions of what a script measured."""
    dirty = " with uncommitted changes" if found["git.dirty"] == "true" else ""
    return f"{found['date']}, commit {found['git.commit'][:12]}{dirty}; {found['hardware']}; {found['versions']}."


def _suite(name: str) -> str:
    """experiments/<name>/suite.json as a table: each case under three ways to watch a training."""
    lines = ["| case | cause | zeronorm.Autopsy | enable_check_numerics | TerminateOnNaN |", "|---|---|---|---|---|"]
    for row in suite(name)["rows"]:
        mode = ", XLA" if row["jit_compile"] else ""
        cause = (
            f"{row['birth']}{', ' + row['operation'] if row['operation'] else ''}" if row["birth"] else "none: healthy"
        )
        checked, stopped = row["check_numerics"]["says"], row["terminate_on_nan"]["says"]
        if isinstance(checked, dict):
            checked = f"{checked['operation']}{', the line' if checked['line'] == 'marked' else ''}"
        if isinstance(stopped, dict):
            stopped = f"stops after step {stopped['step']}, {stopped['lost'] or 'no'} values lost"
        cells = [f"[{row['case'].replace('_', ' ')}]({row['thread']})", cause + mode, _suite_cell(row)]
        lines.append("| " + " | ".join([*cells, str(checked), str(stopped)]) + " |")
    return "\n".join(lines)


def _suite_cell(row: dict) -> str:
    found = row["autopsy"]
    if "right" not in found:
        return str(found["says"])
    said, wrong = found["says"], [what for what, right in found["right"].items() if not right]
    line = ", the line" if said["line"] == "marked" else ""
    return f"step {said['step']}, {said['operation']}{line}" + (f"; **wrong: {', '.join(wrong)}**" if wrong else "")


def suite(name: str) -> dict:
    """experiments/<name>/suite.json, as suite.py wrote it."""
    return json.loads(_existing(name, "suite.json").read_text())


def _suite_verdict(name: str) -> str:
    """The suite's table in sentences."""
    bugs = [row for row in suite(name)["rows"] if row["birth"]]
    healthy = [row for row in suite(name)["rows"] if not row["birth"]]
    right = sum(all(row["autopsy"].get("right", {"": False}).values()) for row in bugs)
    named = [row for row in bugs if isinstance(row["check_numerics"]["says"], dict)]
    lined = [row for row in named if row["check_numerics"]["says"]["line"] == "marked"]
    gradients = sum(row["birth"] == "gradient" for row in bugs)
    found = sum(row["birth"] == "gradient" for row in lined)
    stopped = [row for row in bugs if isinstance(row["terminate_on_nan"]["says"], dict)]
    late = sum(row["terminate_on_nan"]["says"]["lost"] > 0 for row in stopped)
    ways = ("autopsy", "check_numerics", "terminate_on_nan")
    alarms = {way: sum(row[way]["alarm"] for row in healthy) for way in ways}
    uncompiled = sum(row["check_numerics"]["says"] == "does not compile under XLA" for row in suite(name)["rows"])
    births = Counter(row["birth"] for row in bugs)
    return (
        f"{len(bugs)} bugs ({', '.join(f'{number} {birth}' for birth, number in births.items())}) and {len(healthy)} "
        f"healthy look-alikes. `zeronorm.Autopsy` is right in {right} of {len(bugs)}, in step, birth, operation, line, "
        f"examples, rows and in what each compiler makes of the step, with {alarms['autopsy']} false alarms. "
        f"`enable_check_numerics` names an operation in {len(named)}, with the user's line among its frames in "
        f"{len(lined)}, {found} of the {gradients} births in a gradient among them; it cannot compile in {uncompiled} "
        f"of all, and raises {alarms['check_numerics']} false alarms. `TerminateOnNaN` stops {len(stopped)} trainings, "
        f"{late} of them after weights were lost, and raises {alarms['terminate_on_nan']}."
    )


def _watching(name: str) -> str:
    """How long an autopsy of the question's full model takes, from a benchmark."""
    seconds = benchmark(name)["autopsy_seconds"]
    return ", ".join(f"{key} {value:.0f} s" for key, value in seconds.items())


def _noise(name: str) -> str:
    """The tolerance of the quality columns, and where it comes from."""
    found = noise(name)
    if not found:
        return "Not measured for this study: `zeronorm reproduce` then accepts no difference that a table would show."
    columns = [f"{metric}_mean" for metric in study.METRICS]
    labels = {"mrr": "MRR", "hits_at_1": "hits@1", "hits_at_10": "hits@10", "mean_rank": "mean rank"}
    ways = [f"`{m['command']}` ({m['date']}, commit {m['commit']}, {m['hardware']})" for m in found["measurements"]]
    largest = ", ".join(f"{labels[m]} {found['columns'].get(c, 0):.3g}" for m, c in zip(labels, columns, strict=True))
    return (
        f"Largest difference of a condition between two runs of the same configs: {largest}. `zeronorm reproduce` "
        f"tolerates twice that. Measured by {'; '.join(ways)}."
    )


FAILED = (
    "A FAIL here is a measured number that moved by more than twice the noise known at the time; the noise above now "
    "counts it."
)


def _reproductions(name: str) -> str:
    """The reproduction log as a table."""
    lines = ["| date | commit | machine | command | runs | OK | OKish | FAIL |", "|" + "---|" * 8]
    for entry in reproductions(name):
        keys = ("date", "commit", "hardware", "command", "runs", "OK", "OKish", "FAIL")
        lines.append("| " + " | ".join(str(entry[key]) for key in keys) + " |")
    if any(entry["FAIL"] for entry in reproductions(name)):
        lines += ["", FAILED]
    return "\n".join(lines) if len(lines) > 2 else "None logged yet."


def _listed(columns: str) -> list[str]:
    return [column.strip() for column in columns.split(",") if column.strip()]


BLOCKS: dict[str, Callable[[str, str], str]] = {  # (study, what stands after the colon) -> text
    "dead_zones": lambda name, _: study.zones_markdown(conditions(name)),
    "summary": lambda name, rows: study.summary(conditions(name), *([_listed(rows)] if rows else [])),
    "table": lambda name, columns: study.markdown(conditions(name), _listed(columns)),
    "provenance": lambda name, _: _provenance_line(name),
    "peers": lambda name, _: _peers(name),
    "studies": lambda name, _: _studies(name),
    "verdict": lambda name, _: study.verdict(conditions(name)),
    "noise": lambda name, _: _noise(name),
    "reproductions": lambda name, _: _reproductions(name),
    "claims": lambda name, _: claims.markdown(claims.judged(committed_runs(name))),
    "verdicts": lambda name, _: claims.verdicts_markdown(claims.judged(committed_runs(name))),
    "steps": lambda name, _: claims.steps_markdown(claims.steps(committed_runs(name))),
    "benchmark": lambda name, _: _benchmark(name),
    "phases": lambda name, _: _phases(name),
    "measured": lambda name, _: _measured(name),
    "suite": lambda name, _: _suite(name),
    "suite_verdict": lambda name, _: _suite_verdict(name),
    "suite_measured": lambda name, _: _where(suite(name)),
    "watching": lambda name, _: _watching(name),
    "example": lambda name, _: f"```text\n{_existing(name, 'example.txt').read_text().strip()}\n```",
}


def refreshed(text: str) -> str:
    """`text` with every block `<!-- begin KIND STUDY -->` ... `<!-- end -->` rendered from experiments/STUDY.

    What stands after a colon, `<!-- begin table STUDY: similarity, outcome -->`, is the block's columns. The block of a
    study that is not reported stays as it is.
    """

    def render(match: re.Match) -> str:
        kind, name, more = match["kind"], match["study"], match["more"] or ""
        try:
            text = BLOCKS[kind](name, more.lstrip(": "))
        except ReportError:  # its study is not reported yet
            return match[0]
        return f"<!-- begin {kind} {name}{more} -->\n{text}\n<!-- end -->"

    pattern = r"<!-- begin (?P<kind>\w+) (?P<study>\w+)(?P<more>:[^>]*?)? -->\n.*?<!-- end -->"
    return re.sub(pattern, render, text, flags=re.DOTALL)
