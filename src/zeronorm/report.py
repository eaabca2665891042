"""The committed report: experiments/<study>/ as data, and the README blocks that are rendered from that data.

A block stands between `<!-- begin KIND STUDY -->` and `<!-- end -->`. `refreshed` renders every block of a text
again from the committed files; the tests hold the READMEs against it, so no number in a block can differ from the data.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from zeronorm import config, figures, study

CURVES = ("train/loss", *(f"norm/{name}" for name in study.WEIGHTS))
POINTS = 40  # of each committed curve


class ReportError(Exception):
    """A report that cannot be written: one sentence."""


def experiments_dir() -> Path:
    """experiments/ of the checkout. Raises ReportError in an installed wheel, which has none."""
    folder = config.conf_dir().parent / "experiments"
    if not folder.is_dir():
        raise ReportError("--report writes to experiments/ of a checkout, and this is an installed package.")
    return folder


def write(
    name: str, children: pd.DataFrame, tags: dict[str, str], seconds: float, curves_of: Callable[[str], pd.DataFrame]
) -> list[Path]:
    """Writes experiments/<name>/ from a sweep and refreshes the READMEs; returns the files written.

    children, tags, seconds: of the sweep, from `tracking`. curves_of: run id -> (step, name, value).
    """
    folder = experiments_dir() / name
    folder.mkdir(exist_ok=True)
    runs = study.runs_table(name, children)
    study.conditions_table(runs).to_csv(folder / "reported.csv", index=False, float_format="%.6g")
    runs.to_csv(folder / "runs.csv", index=False, float_format="%.6g")
    curves = pd.concat([_thinned(curves_of(run["run_id"]), run) for _, run in runs.iterrows()])
    curves.to_csv(folder / "curves.csv", index=False, float_format="%.5g")
    (folder / "provenance.json").write_text(json.dumps(_provenance(runs, tags, seconds), indent=1) + "\n")
    figures.study_norms(_read(name, "runs.csv"), _read(name, "curves.csv"), condition, folder / "norms.png")
    written = [folder / file for file in ("reported.csv", "runs.csv", "curves.csv", "provenance.json", "norms.png")]
    for readme in (experiments_dir().parent / "README.md", folder / "README.md"):
        if readme.exists():
            readme.write_text(refreshed(readme.read_text()))
            written.append(readme)
    return written


def _thinned(curves: pd.DataFrame, run: pd.Series) -> pd.DataFrame:
    kept = curves[curves["name"].isin(CURVES)]
    every = max(1, -(-(int(kept["step"].max()) + 1) // POINTS)) if len(kept) else 1
    deaths = {0, 1, int(kept["step"].max()) if len(kept) else 0}
    kept = kept[(kept["step"] % every == 0) | kept["step"].isin(deaths)]
    return kept.assign(condition=condition(run), seed=run["seed"])[["condition", "seed", "step", "name", "value"]]


def condition(run: Mapping) -> str:
    """The key of a run's curves in curves.csv, besides its seed: the values of its factors."""
    factors = list(run.keys())[1 : list(run.keys()).index("seed")]
    return " ".join(str(run[factor]) for factor in factors)


def _provenance(runs: pd.DataFrame, tags: dict[str, str], seconds: float) -> dict:
    return {
        "date": tags["date"],
        "command": tags["command"],
        "runs": len(runs),
        "seeds": sorted({int(seed) for seed in runs["seed"]}),
        "minutes": round(seconds / 60, 1),
        "hardware": tags["hardware"],
        "versions": tags["versions"],
        "commit": tags.get("git.commit", "unknown")[:12],
        "dirty": tags.get("git.dirty") == "true",
    }


def _read(name: str, file: str) -> pd.DataFrame:
    steps = [f"{who}_nan_{kind}" for who in ("first", "encoder") for kind in ("predicted", "observed")]
    text = dict.fromkeys([*study.FACTORS, *steps, "first_nan_tensor"], str)
    metrics = [zero + metric for zero in ("", "zero_") for metric in study.METRICS]
    # Only in the number columns an empty cell means "no value"; elsewhere it is the empty text it was written from.
    empty = {column: [""] for metric in metrics for column in (metric, f"{metric}_mean", f"{metric}_std")}
    return pd.read_csv(experiments_dir() / name / file, dtype=text, keep_default_na=False, na_values=empty)


def conditions(name: str) -> pd.DataFrame:
    """experiments/<name>/reported.csv, as `study.conditions_table` made it."""
    return _read(name, "reported.csv")


def provenance(name: str) -> dict:
    """experiments/<name>/provenance.json: date, command, cost, hardware, versions, commit."""
    return json.loads((experiments_dir() / name / "provenance.json").read_text())


def _provenance_line(name: str) -> str:
    p = provenance(name)
    seeds = ", ".join(map(str, p["seeds"]))
    dirty = " with uncommitted changes" if p["dirty"] else ""
    return (
        f"{p['runs']} run{'s' if p['runs'] > 1 else ''} in {p['minutes']} minutes, seed{'s' if ',' in seeds else ''} "
        f"{seeds}, {p['date']}, commit {p['commit']}{dirty}; {p['hardware']}; {p['versions']}."
    )


def _quality(name: str) -> str:
    row = conditions(name).iloc[0]
    metrics = [("hits@1", "hits_at_1"), ("hits@10", "hits_at_10"), ("MRR", "mrr"), ("mean rank", "mean_rank")]
    lines = ["| titles | " + " | ".join(label for label, _ in metrics) + " |", "|---|" + "---|" * len(metrics)]
    for label, prefix in (("all", ""), ("those that started as a zero row", "zero_")):
        lines.append(f"| {label} | " + " | ".join(f"{row[f'{prefix}{m}_mean']:.3f}" for _, m in metrics) + " |")
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
    return json.loads((experiments_dir() / "benchmarks" / f"{name}.json").read_text())


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
    dirty = " with uncommitted changes" if found["git.dirty"] == "true" else ""
    where = f"commit {found['git.commit'][:12]}{dirty}; {found['hardware']}; {found['versions']}."
    return f"{rounds}{found['date']}, {where}"


BLOCKS: dict[str, Callable[[str], str]] = {
    "summary": lambda name: study.summary(conditions(name)),
    "table": lambda name: study.markdown(conditions(name)),
    "provenance": _provenance_line,
    "quality": _quality,
    "verdict": lambda name: study.verdict(conditions(name)),
    "benchmark": _benchmark,
    "phases": _phases,
    "measured": _measured,
}


def refreshed(text: str) -> str:
    """`text` with every block `<!-- begin KIND STUDY -->` ... `<!-- end -->` rendered from experiments/STUDY."""

    def render(match: re.Match) -> str:
        kind, name = match["kind"], match["study"]
        return f"<!-- begin {kind} {name} -->\n{BLOCKS[kind](name)}\n<!-- end -->"

    pattern = r"<!-- begin (?P<kind>\w+) (?P<study>\w+) -->\n.*?<!-- end -->"
    return re.sub(pattern, render, text, flags=re.DOTALL)
