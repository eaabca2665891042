"""A sweep's runs -> the table: as data, on the terminal, as markdown."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

FACTORS = {  # column of the table: MLflow parameter
    "trainable": "params.trainable",
    "init": "params.init.name",
    "similarity": "params.similarity.name",
    "epsilon": "params.similarity.epsilon",
    "numerics": "params.numerics.name",
    "optimizer": "params.optimizer.name",
}
EMBEDDINGS = {"true": "trainable", "false": "frozen"}  # how the table says `trainable`
METRICS = ("mrr", "hits_at_1", "hits_at_10", "mean_rank")
WEIGHTS = ("words", "titles", "convolution/kernel", "convolution/bias", "dense/kernel", "dense/bias")


def runs_table(study: str, children: pd.DataFrame) -> pd.DataFrame:
    """One row per finished run: the factors that vary, seed, what was predicted and seen, quality, norms.

    children: from `tracking.children`. A value that is not there (no NaN, a weight whose norm is not finite) is empty.
    """
    finished = children[children["status"] == "FINISHED"].reset_index(drop=True)
    table = pd.DataFrame({"study": [study] * len(finished)})
    for factor, param in FACTORS.items():
        table[factor] = finished[param].replace({"True": "true", "False": "false", "None": ""})
    for column in further_factors(finished):
        table[column.removeprefix("params.")] = finished[column]
    table["seed"] = finished["params.seed"].astype(int)
    tags = {
        "outcome": "outcome",
        "first_nan_predicted": "nan.predicted_step",
        "first_nan_observed": "nan.first_step",
        "first_nan_tensor": "nan.first_tensor",
        "encoder_nan_predicted": "nan.predicted_encoder_step",
        "encoder_nan_observed": "nan.encoder_step",
        "last_finite_loss": "loss.last_finite",
    }
    for column, tag in tags.items():
        table[column] = finished.get(f"tags.{tag}", "")
    for prefix, group in (("", "eval"), ("zero_", "eval_zero_rows")):
        for metric in METRICS:
            table[prefix + metric] = finished.get(f"metrics.{group}/{metric}", np.nan)
    for name in WEIGHTS:
        ends = finished[f"tags.norm.{name}"].str.split(" -> ", expand=True)
        table[f"norm/{name}_start"], table[f"norm/{name}_end"] = ends[0], ends[1].replace("nan", "")
    table["seconds"] = finished["seconds"].round(1)
    table["run_id"] = finished["run_id"]
    return table.fillna({column: "" for column in table.columns if not pd.api.types.is_numeric_dtype(table[column])})


def further_factors(children: pd.DataFrame) -> list[str]:
    """The parameters, besides FACTORS and the seed, that tell the runs apart; not those that follow from a choice."""
    found = []
    for column in children.columns:
        group = column.removeprefix("params.").split(".")[0]
        if not column.startswith("params.") or column in FACTORS.values() or group in ("seed", "tracking", "home"):
            continue
        choice = f"params.{group}.name"
        if column != choice and choice in children:
            varies = (children.groupby(choice)[column].nunique(dropna=False) > 1).any()
        else:
            varies = children[column].nunique(dropna=False) > 1
        if varies:
            found.append(column)
    return found


def conditions_table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per condition, seeds pooled: how many went to NaN, the steps of the first seed, mean and deviation."""
    after = list(runs.columns).index("seed")
    factors = list(runs.columns[:after])
    rows = []
    for values, group in runs.groupby(factors, sort=False, dropna=False):
        first = group.sort_values("seed").iloc[0]
        row = dict(zip(factors, values, strict=True))
        row |= {"seeds": len(group), "nan_runs": int((group["outcome"] == "nan").sum())}
        for column in (
            "first_nan_predicted",
            "first_nan_observed",
            "first_nan_tensor",
            "encoder_nan_predicted",
            "encoder_nan_observed",
            "last_finite_loss",
        ):
            row[column] = first[column]
        for column in [prefix + name for prefix in ("", "zero_") for name in METRICS]:
            row[f"{column}_mean"], row[f"{column}_std"] = group[column].mean(), group[column].std()
        for name in WEIGHTS:
            for end in ("start", "end"):
                row[f"norm/{name}_{end}"] = first[f"norm/{name}_{end}"]
        rows.append(row)
    return pd.DataFrame(rows)


HEADERS = {  # column: width on the terminal
    "similarity": 14,
    "numerics": 8,
    "outcome": 7,
    "NaN step, pred.": 6,
    "NaN step, seen": 6,
    "first in": 6,
    "last loss": 5,
    "norm of titles": 9,
    "norm of conv.": 9,
    "MRR": 4,
    "hits @10": 4,
    "zero MRR": 4,
    "zero @10": 4,
}
NORMS = ("norm of titles", "norm of conv.")
CAPTION = (
    "NaN step: of the first weight, of the encoder's kernels; predicted before training, and seen. last loss: the last "
    "finite one. norm: at the start > at the end. zero: MRR and hits@10 over the titles that started as a zero row."
)


def nan_steps(condition: Mapping, kind: str) -> str:
    """'0, 1': the steps in which the first weight and the encoder went to NaN; '-': none. kind: predicted, observed."""
    pair = [str(condition[f"{who}_nan_{kind}"]) for who in ("first", "encoder")]
    return ", ".join(step for step in pair if step) or "-"


def cells(condition: Mapping) -> list[str]:
    """The cells of one condition under HEADERS, as text."""

    def norms(name: str) -> str:
        start, end = condition[f"norm/{name}_start"], condition[f"norm/{name}_end"]
        return f"{_short(start)}>{'NaN' if end == '' else _short(end)}"

    def mean(name: str) -> str:
        value = condition[f"{name}_mean"]
        return "" if pd.isna(value) else f"{value:.3f}".removeprefix("0")[:4]

    nan, seeds = condition["nan_runs"], condition["seeds"]
    outcome = ("NaN" if nan else "finite") if seeds == 1 else (f"NaN {nan}/{seeds}" if nan else "finite")
    return [
        str(condition["similarity"]),
        str(condition["numerics"]),
        outcome,
        nan_steps(condition, "predicted"),
        nan_steps(condition, "observed"),
        {"": "-", "convolution/kernel": "conv."}.get(condition["first_nan_tensor"], condition["first_nan_tensor"]),
        _short(condition["last_finite_loss"]),
        norms("titles"),
        norms("convolution/kernel"),
        mean("mrr"),
        mean("hits_at_10"),
        mean("zero_mrr"),
        mean("zero_hits_at_10"),
    ]


def _short(value) -> str:
    return "" if value in ("", None) or pd.isna(value) else f"{float(value):.3g}"


def groups(conditions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(heading, conditions) for each trainable x init and each value of what else varies, in the sweep's order."""
    factors = list(conditions.columns[: list(conditions.columns).index("seeds")])
    others = [name for name in factors if name not in (*FACTORS, "study")]
    if conditions["optimizer"].nunique() > 1:
        others.append("optimizer")
    if (conditions.groupby("similarity")["epsilon"].nunique() > 1).any():
        others.append("epsilon")
    for (trainable, init, *rest), group in conditions.groupby(["trainable", "init", *others], sort=False):
        more = "".join(f", {name}={value}" for name, value in zip(others, rest, strict=True))
        yield f"{EMBEDDINGS.get(trainable, trainable)} embeddings, {init} vectors{more}", group


def print_table(conditions: pd.DataFrame, console: Console) -> None:
    """The table on the terminal: 100 columns wide, or 80 without the norms where the terminal is narrower.

    conditions: from `conditions_table`, here and below.
    """
    narrow = console.is_terminal and console.width < 100
    kept = [name for name in HEADERS if not (narrow and name in NORMS)]
    out = Console(file=console.file, width=80 if narrow else 100, force_terminal=console.is_terminal, highlight=False)
    for heading, group in groups(conditions):
        table = Table(
            box=SIMPLE_HEAD, padding=0, pad_edge=False, title=heading, title_justify="left", title_style="bold"
        )
        for name in kept:
            table.add_column(
                name, width=HEADERS[name], justify="left" if name in ("similarity", "numerics", "outcome") else "right"
            )
        for _, condition in group.iterrows():
            row = dict(zip(HEADERS, cells(condition), strict=True))
            table.add_row(*(row[name] for name in kept), style="red" if condition["nan_runs"] else None)
        out.print(table, "")
    out.print(CAPTION if not narrow else CAPTION.replace("norm: at the start > at the end. ", ""))
    out.print(verdict(conditions), style="bold")


def markdown(conditions: pd.DataFrame) -> str:
    """The whole table, one section per group."""
    lines = []
    for heading, group in groups(conditions):
        lines += [f"**{heading}**", "", "| " + " | ".join(HEADERS) + " |", "|" + "---|" * len(HEADERS)]
        lines += ["| " + " | ".join(cells(condition)) + " |" for _, condition in group.iterrows()]
        lines.append("")
    return "\n".join([*lines, CAPTION])


def summary(conditions: pd.DataFrame) -> str:
    """The table folded to one row per trainable x init x similarity and one column per numerics, as markdown."""
    columns = list(dict.fromkeys(conditions["numerics"]))
    lines = [
        "| embeddings | vectors | similarity | " + " | ".join(columns) + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for (trainable, init, similarity), group in conditions.groupby(["trainable", "init", "similarity"], sort=False):
        found = []
        for numerics in columns:
            condition = group[group["numerics"] == numerics].iloc[0]
            if condition["nan_runs"]:
                seen, predicted = (nan_steps(condition, kind) for kind in ("observed", "predicted"))
                found.append(f"**NaN** at steps {seen} (predicted {predicted})")
            else:
                found.append(f"finite, hits@10 {condition['hits_at_10_mean']:.3f}")
        lines.append(f"| {EMBEDDINGS.get(trainable, trainable)} | {init} | {similarity} | " + " | ".join(found) + " |")
    return "\n".join(lines)


def verdict(conditions: pd.DataFrame) -> str:
    """Which conditions died, and whether the prediction held, in two sentences."""
    named: dict[str, list[str]] = {}
    for _, row in conditions[conditions["nan_runs"] > 0].iterrows():
        who = f"{EMBEDDINGS.get(row['trainable'], row['trainable'])} {row['init']} {row['similarity']}"
        named.setdefault(who, []).append(row["numerics"])
    dead = "; ".join(f"{who} under {' and '.join(dict.fromkeys(numerics))}" for who, numerics in named.items())
    exact = (conditions["first_nan_predicted"] == conditions["first_nan_observed"]) & (
        conditions["encoder_nan_predicted"] == conditions["encoder_nan_observed"]
    )
    return (
        f"{(conditions['nan_runs'] > 0).sum()} of {len(conditions)} conditions end in NaN: {dead or 'none'}. "
        f"In {exact.sum()} of {len(conditions)} the prediction, made before training, is exact: no NaN, or both steps."
    )
