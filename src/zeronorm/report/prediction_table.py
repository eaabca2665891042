"""How strong the evidence for the prediction is: by what is varied, beside a guess that knows who
dies but not when; and thousands of batch orders against the expected first touch."""

import json
from collections.abc import Sequence

import pandas as pd

from zeronorm.report import committed, tables

STRATA = {  # what is varied: the columns of runs.csv, the first that differ from the usual decide
    "corpora": ("corpus.name",),
    "encoders": ("encoder.name",),
    "losses": ("loss.name",),
    "tied rows": ("model.tied",),
    "row norms": ("vectors.planted_norm",),
    "optimizers": ("optimizer", "optimizer.keras._target_"),
    "clipping and other options": ("optimizer.keras.",),
    "frozen halves": ("trainable",),
    "few examples, several epochs": ("examples",),
    "rare zero rows": ("vectors.source.min_count", "training.epochs"),
}
REST = "batches and compilers"
# what decides a batch order; of several epochs the first are those of fewer
ORDER = ("corpus.name", "seed", "examples", "training.batch", "training.negatives", "in_batch")
IN_BATCH = "in_batch_softmax"  # the loss that takes no negatives but the batch's other titles
GUESS = ("0", "1")  # the steps of the first weight and of the encoder


def strata(runs: pd.DataFrame) -> pd.Series:
    """What is varied in each run: the first of STRATA in which it differs from most runs."""
    factors = tables.factors_of(runs)
    found = pd.Series(REST, index=runs.index)
    for name, prefixes in reversed(STRATA.items()):
        for factor in factors:
            own = any(
                factor == prefix or (prefix.endswith(".") and factor.startswith(prefix))
                for prefix in prefixes
            )
            if own:
                values = runs[factor].astype(str)
                found[values != values.mode()[0]] = name
    return found


def summed(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each stratum, and for all: runs, those that die, exact, those that the guess has
    right when it is told who dies; distinct (first, encoder) steps of deaths as predicted; batch
    orders behind these."""
    runs = runs.assign(stratum=strata(runs), exact=tables.exact(runs))
    steps = ["first_nan_observed", "encoder_nan_observed"]
    dies = runs["outcome"] == "nan"
    guessed = ~dies | ((runs[steps[0]] == GUESS[0]) & (runs[steps[1]] == GUESS[1]))
    runs = runs.assign(dies=dies, guessed=guessed)
    runs = runs.assign(in_batch=runs["loss.name"] == IN_BATCH if "loss.name" in runs else False)
    order = [name for name in ORDER if name in runs]
    groups = [(name, runs[runs["stratum"] == name]) for name in (*STRATA, REST)]
    rows = []
    for name, group in [*groups, ("all", runs)]:
        dead = group[group["dies"]]
        rows.append(
            {
                "varied": name,
                "runs": len(group),
                "die": len(dead),
                "exact": int(group["exact"].sum()),
                "guessed": int(group["guessed"].sum()),
                "pairs": len(
                    dead[["first_nan_predicted", "encoder_nan_predicted"]].drop_duplicates()
                ),
                "orders": len(dead[order].drop_duplicates()),
            }
        )
    return pd.DataFrame(rows)


def table(name: str) -> str:
    """`summed` of a study in markdown."""
    lines = [
        "| varied | runs | die | predicted exactly | always (0, 1) | distinct steps | orders |",
        "|" + "---|" * 7,
    ]
    for row in summed(committed.committed_runs(name)).to_dict("records"):
        if row["runs"]:
            cells = (
                row["varied"],
                row["runs"],
                row["die"],
                f"{row['exact']} of {row['runs']}",
                f"{row['guessed']} of {row['runs']}",
                row["pairs"],
                row["orders"],
            )
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def misses(name: str) -> str:
    """The runs that were not predicted exactly, a line each."""
    runs = committed.committed_runs(name)
    missed = runs[~tables.exact(runs)]
    if missed.empty:
        return f"None of {len(runs)} runs differs from its prediction."
    usual = {factor: runs[factor].astype(str).mode()[0] for factor in tables.factors_of(runs)}
    lines = ["| run | predicted | seen |", "|---|---|---|"]
    for run in missed.to_dict("records"):
        own = [f"{key}={run[key]}" for key, value in usual.items() if str(run[key]) != value]
        steps = [
            f"{run[f'first_nan_{which}'] or '-'}, {run[f'encoder_nan_{which}'] or '-'}"
            for which in ("predicted", "observed")
        ]
        lines.append(f"| {' '.join([*own, 'seed=' + str(run['seed'])])} | {' | '.join(steps)} |")
    return "\n".join(lines)


def orders(name: str, only: Sequence[str] = ()) -> str:
    """The drawn batch orders against `prediction.chance`, as orders.json has them.

    only: a corpus, a batch size, or both: the lines of these alone.
    """
    found = json.loads(committed.existing(name, "orders.json").read_text())
    lines_of = [row for row in found["rows"] if {*only} <= {row["corpus"], str(row["batch"])}]
    lines = [
        "| corpus | zero titles | batch | first batch touches one | drawn | any does | drawn"
        " | first touch, expected | drawn |",
        "|" + "---|" * 9,
    ]
    for row in lines_of:
        chances = [row[key] for key in ("first_batch", "first_batch_drawn", "ever", "ever_drawn")]
        cells = [
            row["corpus"],
            f"{row['zero_titles']} of {row['titles']}",
            str(row["batch"]),
            *(f"{chance:.4f}" for chance in chances),
            f"{row['step']:.3f}",
            f"{row['step_drawn']:.3f} ± {row['step_error']:.3f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    note = (
        f"{found['orders']:,} orders a line, each of 200 examples with 10 negatives; drawn: in"
        f" these orders; ±: the standard error of the mean. {found['date']}."
    )
    return "\n".join([*lines, "", note])
