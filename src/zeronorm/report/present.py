"""A study's conditions for eyes: on the terminal, as markdown, LaTeX and JSON."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from zeronorm.report import intervals
from zeronorm.report.ranks import Ranks
from zeronorm.report.tables import (
    EMBEDDINGS,
    FACTORS,
    dead_zones,
    factors_of,
    named,
    said,
    varying,
)
from zeronorm.report.tables import condition as name_of

DEAD = "#D55E00"  # as in the figures


@dataclass(frozen=True)
class Column:
    """A column of the table: its header, its width on the terminal, and a condition's cell."""

    header: str
    width: int
    cell: Callable[[Mapping], str]


def _short(value) -> str:
    if value in ("", None) or (isinstance(value, float) and np.isnan(value)):
        return ""
    try:
        text = f"{float(value):.3g}"
    except ValueError:
        return str(value)
    return text.replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def _text(name: str) -> Callable[[Mapping], str]:
    return lambda condition: str(condition[name]) or "-"


def _value(name: str) -> Callable[[Mapping], str]:
    return lambda condition: _short(condition[name]) or "-"


def _norms(name: str) -> Callable[[Mapping], str]:
    def cell(condition: Mapping) -> str:
        start, end = condition[f"norm/{name}_start"], condition[f"norm/{name}_end"]
        return f"{_short(start)}>{'NaN' if end == '' else _short(end)}"

    return cell


def _pooled(name: str, digits: int = 3) -> Callable[[Mapping], str]:
    """Mean of the seeds, with its 95 % interval where there is one, or else with ± their standard
    deviation where there are several; '-' of a condition that died."""

    def short(value: float) -> str:
        text = f"{value:.{digits}f}"
        return text.removeprefix("0") if digits == 3 else text

    def cell(condition: Mapping) -> str:
        mean, deviation = condition[f"{name}_mean"], condition[f"{name}_std"]
        low, high = (condition.get(f"{name}_{end}", np.nan) for end in ("low", "high"))
        if pd.isna(mean):
            return ""
        if condition["nan_runs"] == condition["seeds"]:
            return "-"
        if not pd.isna(low):
            return f"{short(mean)} [{short(low)}, {short(high)}]"
        return "±".join([short(mean)] + ([] if pd.isna(deviation) else [short(deviation)]))

    return cell


def spread(condition: Mapping, metric: str) -> str:
    """' [0.484, 0.652]', the 95 % interval of a metric, or, where there is none, ' ± ', the
    deviation of the seeds; empty of one seed."""
    low, high = (condition.get(f"{metric}_{end}", np.nan) for end in ("low", "high"))
    if not pd.isna(low):
        return f" [{low:.3f}, {high:.3f}]"
    deviation = condition[f"{metric}_std"]
    digits = 2 if metric == "mean_rank" else 3
    return "" if pd.isna(deviation) else f" ± {deviation:.{digits}f}"


def with_intervals(conditions: pd.DataFrame, ranks: Ranks | None) -> pd.DataFrame:
    """The conditions with the columns metric_low and metric_high of `intervals.quality`.

    ranks: of their runs; None where the report has none.
    """
    if ranks is None:
        return conditions
    found = intervals.quality(ranks).filter(regex="_(low|high)$")
    names = [name_of(row) for _, row in conditions.iterrows()]
    ends = found.reindex(names).set_index(conditions.index)
    return pd.concat([conditions, ends], axis=1)


def _outcome(condition: Mapping) -> str:
    nan, seeds = condition["nan_runs"], condition["seeds"]
    return ("NaN" if nan else "finite") + (f" {nan}/{seeds}" if nan and seeds > 1 else "")


def nan_steps(condition: Mapping, kind: str) -> str:
    """'0, 1' or '1-18, 5-23': the steps, over the seeds, in which the first weight and the encoder
    went to NaN; '-': none.

    kind: predicted, observed.
    """
    pair = [str(condition[f"{who}_nan_{kind}"]) for who in ("first", "encoder")]
    return ", ".join(step for step in pair if step) or "-"


def _tensor(condition: Mapping) -> str:
    return {"": "-", "convolution/kernel": "conv."}.get(
        condition["first_nan_tensor"], condition["first_nan_tensor"]
    )


COLUMNS = {
    "embeddings": Column(
        "embeddings", 10, lambda c: EMBEDDINGS.get(c["trainable"], c["trainable"])
    ),
    "init": Column("vectors", 10, _text("init")),
    "similarity": Column("similarity", 15, _text("similarity")),
    "epsilon": Column("epsilon", 7, _value("epsilon")),
    "numerics": Column("numerics", 8, _text("numerics")),
    "numerics_ran": Column("what ran", 8, _text("numerics_ran")),
    "optimizer": Column("optimizer", 9, _text("optimizer")),
    "outcome": Column("outcome", 7, _outcome),
    "predicted": Column("NaN step, pred.", 6, lambda c: nan_steps(c, "predicted")),
    "observed": Column("NaN step, seen", 6, lambda c: nan_steps(c, "observed")),
    "seeds": Column("seeds", 5, lambda c: str(c["seeds"])),
    "exact": Column("predicted exactly", 9, lambda c: f"{c['predicted_exactly']}/{c['seeds']}"),
    "tensor": Column("first in", 6, _tensor),
    "loss": Column("last loss", 5, _value("last_finite_loss")),
    "titles": Column("norm of titles", 9, _norms("titles")),
    "convolution": Column("norm of conv.", 9, _norms("convolution/kernel")),
    "mrr": Column("MRR", 9, _pooled("mrr")),
    "hits1": Column("hits @1", 9, _pooled("hits_at_1")),
    "hits10": Column("hits @10", 9, _pooled("hits_at_10")),
    "mean_rank": Column("mean rank", 9, _pooled("mean_rank", 1)),
    "zero_mrr": Column("zero MRR", 9, _pooled("zero_mrr")),
    "zero_hits1": Column("zero @1", 9, _pooled("zero_hits_at_1")),
    "zero_hits10": Column("zero @10", 9, _pooled("zero_hits_at_10")),
    "derivative": Column("derivative", 10, _value("derivative")),
    "gradient": Column("gradient", 10, _value("gradient")),
    "gradient_tiny": Column("gradient at 1e-20", 10, _value("gradient_tiny")),
    "score_1e-3": Column("score at 1e-3", 8, _value("score_1e-3")),
    "score_1e-6": Column("score at 1e-6", 8, _value("score_1e-6")),
    "touch": Column("chance of a touch in the first batch", 8, _value("touch_probability")),
    "first_touch": Column("first touch, mean", 8, _value("first_touch_mean")),
    "first_touch_expected": Column("first touch, expected", 8, _value("first_touch_expected")),
}
QUALITY = ("hits1", "mrr", "hits10", "mean_rank", "zero_mrr", "zero_hits1", "zero_hits10")
WIDE = (
    "similarity",
    "numerics",
    "outcome",
    "predicted",
    "observed",
    "tensor",
    "loss",
    "titles",
    "convolution",
    "hits1",
    "mrr",
    "hits10",
    "zero_mrr",
    "zero_hits10",
)
# what a reader of experiments/ needs; the rest is in reported.csv
REPORTED = tuple(
    name for name in WIDE if name not in ("tensor", "loss", "titles", "convolution", "zero_mrr")
)
# what the terminal has no room for: (narrow, several seeds): columns; "±" needs much
LEFT_OUT = {
    (False, False): ("hits1", "zero_mrr"),
    (False, True): ("loss", "mrr", "hits1", "zero_mrr"),
    (True, False): ("titles", "convolution", "hits1", "zero_mrr"),
    (True, True): ("titles", "convolution", "loss", "mrr", "hits1", "zero_mrr"),
}
SINGLE = dict.fromkeys(("mrr", "hits10", "zero_hits10"), 4)  # widths without a "±"
LEFT = ("embeddings", "init", "similarity", "numerics", "outcome")
CAPTION = {  # column: what its header leaves open
    "observed": (
        "NaN step: of the first weight, of the encoder; predicted before training, and seen{seeds}."
    ),
    "loss": "last loss: the last finite one.",
    "titles": "norm: at the start > at the end.",
    "zero_hits10": "zero: over the titles that started as a zero row.",
}


def caption(conditions: pd.DataFrame, columns: Sequence[str]) -> str:
    several = int(conditions["seeds"].max()) > 1
    judged = [name for name in QUALITY if name in columns]
    seeds = ", over the seeds" if several else ""
    parts = [text.format(seeds=seeds) for n, text in CAPTION.items() if n in columns]
    parts += [] if "epsilon" in columns else _epsilons(conditions)
    number = _and([str(n) for n in sorted(conditions["seeds"].unique())])
    if judged and "mrr_low" in conditions:
        seeds = f"the mean of {number} seeds" if several else "one seed"
        drawn = "titles and seeds" if several else "titles"
        parts.append(f"Quality: {seeds} [95 % interval by bootstrap over {drawn}].")
        if several and "mean_rank" in columns:
            parts.append("Mean rank: ± standard deviation of the seeds.")
    elif judged and several:
        parts.append(f"Quality: mean ± standard deviation of {number} seeds.")
    return " ".join(parts)


def _epsilons(conditions: pd.DataFrame) -> list[str]:
    """['Epsilon: 1e-07 in ..., 1e-12 in ....'] where it is not a heading (see `groups`) and there
    is one."""
    guarded = conditions[conditions["epsilon"] != ""]
    by = {
        epsilon: list(group["similarity"])
        for epsilon, group in guarded.groupby("epsilon", sort=False)
    }
    if not by or (guarded.groupby("similarity")["epsilon"].nunique() > 1).any():
        return []
    return [
        f"Epsilon: {', '.join(f'{epsilon} in {_and(names)}' for epsilon, names in by.items())}."
    ]


def cells(condition: Mapping, columns: Sequence[str]) -> list[str]:
    """The cells of one condition, as text. columns: names in COLUMNS, or factors of the study."""
    return [_column(name).cell(condition) for name in columns]


def _column(name: str) -> Column:
    if name in COLUMNS:
        return COLUMNS[name]
    return Column(named(name), 10, _text(name))


def groups(conditions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(heading, conditions) for each trainable x init and each value of what else varies, in the
    sweep's order."""
    others = [name for name in factors_of(conditions) if name not in FACTORS]
    if conditions["optimizer"].nunique() > 1:
        others.append("optimizer")
    if (conditions.groupby("similarity")["epsilon"].nunique() > 1).any():
        others.append("epsilon")
    for (trainable, init, *rest), group in conditions.groupby(
        ["trainable", "init", *others], sort=False
    ):
        more = "".join(
            f", {name}={value}" for name, value in zip(others, rest, strict=True) if value != ""
        )
        yield f"{EMBEDDINGS.get(trainable, trainable)} embeddings, {init} vectors{more}", group


def print_table(conditions: pd.DataFrame, console: Console) -> None:
    """The table on the terminal: 100 columns wide, or 80 without the norms where the terminal is
    narrower.

    conditions: from `conditions_table`, here and below.
    """
    narrow = console.is_terminal and console.width < 100
    several = int(conditions["seeds"].max()) > 1
    kept = [name for name in WIDE if name not in LEFT_OUT[narrow, several]]
    out = Console(
        file=console.file,
        width=80 if narrow else 100,
        force_terminal=console.is_terminal,
        highlight=False,
    )
    # the dead last: what stands at the end is read first
    parts = sorted(groups(conditions), key=lambda part: bool(part[1]["nan_runs"].any()))
    for heading, group in parts:
        table = Table(
            box=SIMPLE_HEAD,
            padding=0,
            pad_edge=False,
            title=heading,
            title_justify="left",
            title_style="bold",
        )
        for name in kept:
            column = _column(name)
            width = column.width if several else SINGLE.get(name, column.width)
            table.add_column(
                column.header, width=width, justify="left" if name in LEFT else "right"
            )
        for _, condition in group.iterrows():
            table.add_row(*cells(condition, kept), style=DEAD if condition["nan_runs"] else None)
        out.print(table, "")
    out.print(caption(conditions, kept))
    out.print(verdict(conditions), style="bold")


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _captioned(grid: str, said: str) -> str:
    return f"{grid}\n\n{said}" if said else grid


def _telling(conditions: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """The columns whose cells are not all alike."""
    shown = [cells(condition, columns) for _, condition in conditions.iterrows()]
    return [
        name
        for name, values in zip(columns, zip(*shown, strict=True), strict=True)
        if len(set(values)) > 1 or len(shown) == 1
    ]


def markdown(conditions: pd.DataFrame, columns: Sequence[str] = ()) -> str:
    """The table, one section per group, without the columns that say nothing in it; or, with
    columns, those of these that tell conditions apart, in one."""
    if columns:
        columns = _telling(conditions, columns)
        rows = [cells(condition, columns) for _, condition in conditions.iterrows()]
        return _captioned(
            _grid([_column(name).header for name in columns], rows), caption(conditions, columns)
        )
    sections = []
    for heading, group in groups(conditions):
        shown = [cells(condition, REPORTED) for _, condition in group.iterrows()]
        kept = [not {"", "-"}.issuperset(column) for column in zip(*shown, strict=True)]
        header, *rows = (
            list(compress(row, kept))
            for row in ([_column(name).header for name in REPORTED], *shown)
        )
        sections.append(f"**{heading}**\n\n{_grid(header, rows)}\n")
    return "\n".join([*sections, caption(conditions, REPORTED)])


def latex(conditions: pd.DataFrame) -> str:
    """The whole table as a LaTeX tabular (booktabs), with the factors that vary as its first
    columns."""
    columns = dict.fromkeys(
        [
            *varying(conditions),
            "numerics",
            "outcome",
            "predicted",
            "observed",
            "hits1",
            "mrr",
            "hits10",
            "zero_hits10",
        ]
    )
    rows = [cells(condition, list(columns)) for _, condition in conditions.iterrows()]
    table = pd.DataFrame(rows, columns=[_column(name).header for name in columns])
    escapes = {"_": r"\_", "±": r"$\pm$", "%": r"\%", ">": r"$>$"}
    for old, new in escapes.items():
        table = table.map(lambda text, old=old, new=new: text.replace(old, new))
        table.columns = [name.replace(old, new) for name in table.columns]
    lines = [" & ".join(row) + r" \\" for row in [list(table.columns), *table.values.tolist()]]
    body = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}", *body, r"\end{tabular}"])


def _plain(value):
    """For JSON: a number that was kept as the text it was written as, and null for an empty
    cell."""
    try:
        return None if value == "" else float(value) if isinstance(value, str) else value
    except ValueError:
        return value


FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {
    "md": markdown,
    "csv": lambda conditions: conditions.to_csv(index=False, float_format="%.6g"),
    "tex": latex,
    "json": (
        lambda conditions: conditions.map(_plain).to_json(
            orient="records", indent=1, force_ascii=False
        )
    ),
}


def summary(
    conditions: pd.DataFrame, rows: Sequence[str] = ("trainable", "init", "similarity")
) -> str:
    """The table folded to one row per value of `rows` and one column per numerics, as markdown; a
    column for all numerics that come out alike."""
    labels: list[list[str]] = []
    found: dict[str, list[str]] = {name: [] for name in dict.fromkeys(conditions["numerics"])}
    for values, group in conditions.groupby(list(rows), sort=False):
        labels.append(
            [
                str(EMBEDDINGS.get(value, value)) if name == "trainable" else str(value)
                for name, value in zip(rows, values, strict=True)
            ]
        )
        for numerics, cells in found.items():
            cells.append(_folded(group[group["numerics"] == numerics].iloc[0]))
    alike: dict[tuple[str, ...], list[str]] = {}
    for numerics, cells in found.items():
        alike.setdefault(tuple(cells), []).append(numerics)
    lines = [[*of, *cells] for of, *cells in zip(labels, *alike, strict=True)]
    names = {"trainable": "embeddings", "init": "vectors"}
    header = [names.get(name, named(name)) for name in rows] + list(map(_and, alike.values()))
    said = [f"Where training stays finite: {QUALITY_SAID}{_interval_said(conditions)}."]
    return _captioned(
        _grid(header, lines), " ".join(said + ([] if "epsilon" in rows else _epsilons(conditions)))
    )


QUALITY_SAID = "hits@1 / MRR / hits@10"


def _interval_said(conditions: pd.DataFrame) -> str:
    if "hits_at_10_low" in conditions:
        return ", with the 95 % interval of the last"
    return ", ± the deviation of the last over the seeds" if conditions["seeds"].max() > 1 else ""


def _quality(means: Mapping, digits: int) -> str:
    """As QUALITY_SAID."""
    values = [means[f"{metric}_mean"] for metric in ("hits_at_1", "mrr", "hits_at_10")]
    return " / ".join(f"{value:.{digits}f}".removeprefix("0") for value in values)


def _folded(condition: Mapping) -> str:
    """What became of a condition, in a cell."""
    if not condition["nan_runs"]:
        return _quality(condition, 3) + spread(condition, "hits_at_10").replace("0.", ".")
    seen, predicted = (nan_steps(condition, kind) for kind in ("observed", "predicted"))
    of = f" {condition['nan_runs']}/{condition['seeds']}" if condition["seeds"] > 1 else ""
    as_said = "as predicted" if seen == predicted else f"predicted {predicted}"
    return f"**NaN**{of} in steps {seen}, {as_said}"


def outcomes(conditions: pd.DataFrame) -> str:
    """The table folded to a row for each start and kind of embeddings; where the placements of one
    come out differently, a row for each kind of outcome."""
    columns = list(dict.fromkeys(conditions["numerics"]))
    lines = []
    for (trainable, init), group in conditions.groupby(["trainable", "init"], sort=False):
        alike: dict[tuple, list[str]] = {}
        for similarity, own in group.groupby("similarity", sort=False):
            steps = own.set_index("numerics").apply(_death, axis=1)
            alike.setdefault(tuple(steps[columns]), []).append(str(similarity))
        for steps, names in alike.items():
            own = group[group["similarity"].isin(names)].groupby("numerics", sort=False)
            means = own[["hits_at_1_mean", "mrr_mean", "hits_at_10_mean"]].mean()
            cells = [
                step or f"trains: {_quality(means.loc[name], 2)}"
                for step, name in zip(steps, columns, strict=True)
            ]
            which = _and([f"`{name}`" for name in names]) if len(alike) > 1 else "any"
            lines.append([f"{EMBEDDINGS.get(trainable, trainable)}, {init}", which, *cells])
    return _grid(["embeddings", "similarity", *columns], lines)


def _death(condition: pd.Series) -> str:
    """'**NaN** in step 0', or empty where nothing died."""
    if not condition["nan_runs"]:
        return ""
    steps = condition["first_nan_observed"]
    return f"**NaN** in step{'s' if '-' in steps else ''} {steps}"


def zones_markdown(conditions: pd.DataFrame) -> str:
    """The dead zones as a table: one row per placement and one column per numerics."""
    zones, columns = dead_zones(conditions), list(dict.fromkeys(conditions["numerics"]))
    top = conditions["vectors.planted_norm"].astype(float).max()

    def cell(similarity: str, numerics: str) -> str:
        own = zones[(zones["similarity"] == similarity) & (zones["numerics"] == numerics)]
        said = [
            (
                f"from {_short(low)}"
                if high == top
                else f"{_short(low)} to {_short(high)}"
                if high > low
                else _short(low)
            )
            for low, high in zip(own["low"], own["high"], strict=True)
        ]
        return ", ".join(said) or "none"

    names = list(dict.fromkeys(conditions["similarity"]))
    lines = [[name, *(cell(name, numerics) for numerics in columns)] for name in names]
    said = f"Norms of the planted rows at which weights go to NaN, of {_norms_tried(conditions)}."
    return _captioned(
        _grid(["similarity", *columns], lines), " ".join([said, *_epsilons(conditions)])
    )


def _norms_tried(conditions: pd.DataFrame) -> str:
    tried = sorted(set(conditions["vectors.planted_norm"].astype(float)))
    return f"{len(tried)} tried: {', '.join(_short(norm) or '0' for norm in tried)}"


def verdict(conditions: pd.DataFrame) -> str:
    """Which conditions died, and whether the prediction held, in two sentences."""
    seeds = int(conditions["seeds"].sum())
    dead = conditions[conditions["nan_runs"] > 0]
    factors = varying(conditions)
    named: dict[str, list[str]] = {}
    for _, row in dead.iterrows():
        who = " ".join(said(name, row[name]) for name in factors if row[name] != "")
        named.setdefault(who, []).append(row["numerics"])
    which = ": " + "; ".join(
        f"{who} under {_and(numerics)}".strip() for who, numerics in named.items()
    )
    if len(named) > 8:
        which = f", under {_and(list(dead['numerics']))}"
    return (
        f"{len(dead)} of {len(conditions)} conditions end in NaN{which if len(dead) else ''}. In"
        f" {int(conditions['predicted_exactly'].sum())} of {seeds} runs the prediction, made before"
        " training, is exact: no NaN, or the step of the row and the step of the weights."
    )


def _and(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
