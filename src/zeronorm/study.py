"""A sweep's runs -> the table: as data, on the terminal, as markdown, LaTeX and JSON."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

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
STEPS = ("first_nan_predicted", "first_nan_observed", "encoder_nan_predicted", "encoder_nan_observed")
TAGS = {  # column: tag of the run
    "outcome": "outcome",
    "first_nan_predicted": "nan.predicted_step",
    "first_nan_observed": "nan.first_step",
    "first_nan_tensor": "nan.first_tensor",
    "encoder_nan_predicted": "nan.predicted_encoder_step",
    "encoder_nan_observed": "nan.encoder_step",
    "last_finite_loss": "loss.last_finite",
}
FURTHER_TAGS = {
    "loss_nonfinite_steps": "loss.nonfinite_steps",
    "numerics_ran": "numerics",
    "titles": "titles",
    "zero_texts": "zero_texts",
    "first_touch": "touch.first",
    "first_touch_expected": "touch.expected",
    "touch_probability": "touch.probability",
    "derivative": "zero_row.derivative",
    "gradient": "zero_row.gradient",
    "gradient_tiny": "zero_row.gradient_tiny",
    "score_1e-3": "small_row.score_0.001",
    "score_1e-6": "small_row.score_1e-06",
}
WORDS = {"nan": "not finite", "inf": "infinite"}  # what a measured gradient says instead of a number


def runs_table(study: str, children: pd.DataFrame) -> pd.DataFrame:
    """One row per finished run: the factors that vary, seed, what was predicted and seen, quality, norms.

    children: from `tracking.children`. A value that is not there (no NaN, a weight whose norm is not finite) is empty.
    """
    finished = children[children["status"] == "FINISHED"].reset_index(drop=True)
    columns: dict[str, object] = {"study": [study] * len(finished)}
    for factor, param in FACTORS.items():
        columns[factor] = finished[param].replace({"True": "true", "False": "false", "None": ""})
    for column in further_factors(finished):
        columns[column.removeprefix("params.")] = finished[column].replace({"None": ""})
    columns["seed"] = finished["params.seed"].astype(int)
    empty = pd.Series([""] * len(finished), dtype=object)
    columns |= {column: finished.get(f"tags.{tag}", empty) for column, tag in TAGS.items()}
    for prefix, group in (("", "eval"), ("zero_", "eval_zero_rows")):
        for metric in METRICS:
            columns[prefix + metric] = finished.get(f"metrics.{group}/{metric}", np.nan)
    for name in WEIGHTS:
        ends = finished[f"tags.norm.{name}"].str.split(" -> ", expand=True)
        columns[f"norm/{name}_start"], columns[f"norm/{name}_end"] = ends[0], ends[1].replace("nan", "")
        last = finished.get(f"metrics.norm/{name}", pd.Series(np.nan, finished.index))
        columns[f"norm/{name}_last_finite"] = last.map(lambda value: "" if pd.isna(value) else f"{value:.6g}")
    for name in ("words", "titles"):
        dead = finished.get(f"metrics.nonfinite/{name}", pd.Series(0, finished.index)).fillna(0)
        columns[f"nonfinite/{name}"] = dead.astype(int)
    columns["zero_titles"] = finished.get("metrics.zero_rows/titles", pd.Series(0, finished.index)).astype(int)
    columns |= {column: finished.get(f"tags.{tag}", empty).replace(WORDS) for column, tag in FURTHER_TAGS.items()}
    columns["seconds"] = finished["seconds"].round(1)
    columns["config_sha"] = finished["tags.config.sha"].str[:16]
    columns["run_id"] = finished["run_id"]
    table = pd.DataFrame(columns)
    return table.fillna({column: "" for column in table.columns if not pd.api.types.is_numeric_dtype(table[column])})


def further_factors(children: pd.DataFrame) -> list[str]:
    """The parameters, besides FACTORS and the seed, that tell the runs apart; not those that follow from a choice, but
    for those that a run sets itself."""
    overrides = " ".join(map(str, children.get("tags.overrides", []))).split()
    set_by_a_run = {override.split("=")[0] for override in overrides}
    found = []
    for column in children.columns:
        group = column.removeprefix("params.").split(".")[0]
        if not column.startswith("params.") or column in FACTORS.values() or group in ("seed", "tracking", "home"):
            continue
        choice = f"params.{group}.name"
        if column != choice and choice in children and column.removeprefix("params.") not in set_by_a_run:
            varies = (children.groupby(choice)[column].nunique(dropna=False) > 1).any()
        else:
            varies = children[column].nunique(dropna=False) > 1
        if varies:
            found.append(column)
    return found


def factors_of(table: pd.DataFrame) -> list[str]:
    """The factor columns of a table of runs or of conditions."""
    end = "seed" if "seed" in table.columns else "seeds"
    return [name for name in table.columns[: list(table.columns).index(end)] if name != "study"]


def conditions_table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per condition, seeds pooled: how many went to NaN, the steps of the first seed that did, or else of the
    first, mean and deviation."""
    factors = ["study", *factors_of(runs)]
    rows = []
    for values, group in runs.groupby(factors, sort=False, dropna=False):
        group = group.sort_values("seed")
        dead = group["outcome"] == "nan"
        first = group[dead].iloc[0] if dead.any() else group.iloc[0]
        row = dict(zip(factors, values, strict=True))
        row |= {"seeds": len(group), "nan_runs": int(dead.sum())}
        row |= {column: first[column] for column in TAGS if column != "outcome"}
        for column in [prefix + name for prefix in ("", "zero_") for name in METRICS]:
            row[f"{column}_mean"], row[f"{column}_std"] = group[column].mean(), group[column].std()
        for name in WEIGHTS:
            for end in ("start", "end", "last_finite"):
                row[f"norm/{name}_{end}"] = first[f"norm/{name}_{end}"]
        row["predicted_exactly"] = int(exact(group).sum())
        row["first_touch_mean"] = pd.to_numeric(group["first_touch"]).mean()
        row |= {name: first[name] for name in ("nonfinite/words", "nonfinite/titles", "zero_titles", *FURTHER_TAGS)}
        rows.append(row)
    return pd.DataFrame(rows)


def exact(runs: pd.DataFrame) -> pd.Series:
    """bool: whether what was predicted before training is what happened: no NaN, or both steps."""
    return (runs["first_nan_predicted"] == runs["first_nan_observed"]) & (
        runs["encoder_nan_predicted"] == runs["encoder_nan_observed"]
    )


def varying(conditions: pd.DataFrame) -> list[str]:
    """The factors that tell the conditions apart, numerics apart; epsilon only where it does not follow from the
    placement."""
    found = [name for name in factors_of(conditions) if name != "numerics" and conditions[name].nunique() > 1]
    follows = (conditions.groupby("similarity")["epsilon"].nunique() == 1).all()
    return [name for name in found if not (name == "epsilon" and follows)]


def said(factor: str, value: str) -> str:
    """A factor's value as a label: 'frozen', 'clamp_product', 'zero_share=0.1'."""
    if factor == "trainable":
        return EMBEDDINGS.get(value, value)
    return value if factor in ("init", "similarity", "optimizer", "numerics") else f"{factor.split('.')[-1]}={value}"


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
    """Mean of the seeds, with ± their standard deviation where there are several."""

    def cell(condition: Mapping) -> str:
        mean, deviation = condition[f"{name}_mean"], condition[f"{name}_std"]
        if pd.isna(mean):
            return ""
        found = [f"{mean:.{digits}f}"] + ([] if pd.isna(deviation) else [f"{deviation:.{digits}f}"])
        return "±".join(text.removeprefix("0") if digits == 3 else text for text in found)

    return cell


def _outcome(condition: Mapping) -> str:
    nan, seeds = condition["nan_runs"], condition["seeds"]
    return ("NaN" if nan else "finite") + (f" {nan}/{seeds}" if nan and seeds > 1 else "")


def nan_steps(condition: Mapping, kind: str) -> str:
    """'0, 1': the steps in which the first weight and the encoder went to NaN; '-': none. kind: predicted, observed."""
    pair = [str(condition[f"{who}_nan_{kind}"]) for who in ("first", "encoder")]
    return ", ".join(step for step in pair if step) or "-"


def _tensor(condition: Mapping) -> str:
    return {"": "-", "convolution/kernel": "conv."}.get(condition["first_nan_tensor"], condition["first_nan_tensor"])


COLUMNS = {
    "embeddings": Column("embeddings", 10, lambda c: EMBEDDINGS.get(c["trainable"], c["trainable"])),
    "init": Column("vectors", 10, _text("init")),
    "similarity": Column("similarity", 15, _text("similarity")),
    "epsilon": Column("epsilon", 7, _value("epsilon")),
    "numerics": Column("numerics", 8, _text("numerics")),
    "numerics_ran": Column("what ran", 8, _text("numerics_ran")),
    "optimizer": Column("optimizer", 9, _text("optimizer")),
    "outcome": Column("outcome", 7, _outcome),
    "predicted": Column("NaN step, pred.", 6, lambda c: nan_steps(c, "predicted")),
    "observed": Column("NaN step, seen", 6, lambda c: nan_steps(c, "observed")),
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
WIDE = ("similarity", "numerics", "outcome", "predicted", "observed", "tensor", "loss", "titles", "convolution")
WIDE += ("mrr", "hits10", "zero_mrr", "zero_hits10")
TERMINAL = {  # (narrow, several seeds): the columns for which there is room; "±" needs much
    (False, False): tuple(name for name in WIDE if name != "zero_mrr"),
    (False, True): tuple(name for name in WIDE if name not in ("loss", "mrr", "zero_mrr")),
    (True, False): tuple(name for name in WIDE if name not in ("titles", "convolution", "zero_mrr")),
    (True, True): tuple(name for name in WIDE if name not in ("titles", "convolution", "loss", "mrr", "zero_mrr")),
}
SINGLE = dict.fromkeys(("mrr", "hits10", "zero_hits10"), 4)  # widths without a "±"
LEFT = ("embeddings", "init", "similarity", "numerics", "outcome")
CAPTION = {  # column: what its header leaves open
    "observed": "NaN step: of the first weight, of the encoder's kernels; predicted before training, and seen{first}.",
    "loss": "last loss: the last finite one.",
    "titles": "norm: at the start > at the end.",
    "zero_hits10": "zero: over the titles that started as a zero row.",
}


def caption(conditions: pd.DataFrame, columns: Sequence[str]) -> str:
    several = int(conditions["seeds"].max()) > 1
    mixed = ((conditions["nan_runs"] > 0) & (conditions["nan_runs"] < conditions["seeds"])).any()
    first = ", of the first seed" + (" that died" if mixed else "") if several else ""
    parts = [text.format(first=first) for n, text in CAPTION.items() if n in columns]
    parts += [] if "epsilon" in columns else _epsilons(conditions)
    number = _and([str(n) for n in sorted(conditions["seeds"].unique())])
    return " ".join([*parts, *([f"Quality: mean ± standard deviation of {number} seeds."] if several else [])])


def _epsilons(conditions: pd.DataFrame) -> list[str]:
    """['Epsilon: 1e-07 in ..., 1e-12 in ....'] where it is not a heading (see `groups`) and there is one."""
    guarded = conditions[conditions["epsilon"] != ""]
    by = {epsilon: list(group["similarity"]) for epsilon, group in guarded.groupby("epsilon", sort=False)}
    if not by or (guarded.groupby("similarity")["epsilon"].nunique() > 1).any():
        return []
    return [f"Epsilon: {', '.join(f'{epsilon} in {_and(names)}' for epsilon, names in by.items())}."]


def cells(condition: Mapping, columns: Sequence[str]) -> list[str]:
    """The cells of one condition, as text. columns: names in COLUMNS, or factors of the study."""
    return [_column(name).cell(condition) for name in columns]


def _column(name: str) -> Column:
    return COLUMNS[name] if name in COLUMNS else Column(name, 10, _text(name))


def groups(conditions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(heading, conditions) for each trainable x init and each value of what else varies, in the sweep's order."""
    others = [name for name in factors_of(conditions) if name not in FACTORS]
    if conditions["optimizer"].nunique() > 1:
        others.append("optimizer")
    if (conditions.groupby("similarity")["epsilon"].nunique() > 1).any():
        others.append("epsilon")
    for (trainable, init, *rest), group in conditions.groupby(["trainable", "init", *others], sort=False):
        more = "".join(f", {name}={value}" for name, value in zip(others, rest, strict=True) if value != "")
        yield f"{EMBEDDINGS.get(trainable, trainable)} embeddings, {init} vectors{more}", group


def print_table(conditions: pd.DataFrame, console: Console) -> None:
    """The table on the terminal: 100 columns wide, or 80 without the norms where the terminal is narrower.

    conditions: from `conditions_table`, here and below.
    """
    narrow = console.is_terminal and console.width < 100
    several = int(conditions["seeds"].max()) > 1
    kept = TERMINAL[narrow, several]
    out = Console(file=console.file, width=80 if narrow else 100, force_terminal=console.is_terminal, highlight=False)
    for heading, group in groups(conditions):
        table = Table(
            box=SIMPLE_HEAD, padding=0, pad_edge=False, title=heading, title_justify="left", title_style="bold"
        )
        for name in kept:
            column = _column(name)
            width = column.width if several else SINGLE.get(name, column.width)
            table.add_column(column.header, width=width, justify="left" if name in LEFT else "right")
        for _, condition in group.iterrows():
            table.add_row(*cells(condition, kept), style="red" if condition["nan_runs"] else None)
        out.print(table, "")
    out.print(caption(conditions, kept))
    out.print(verdict(conditions), style="bold")


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _captioned(grid: str, said: str) -> str:
    return f"{grid}\n\n{said}" if said else grid


def markdown(conditions: pd.DataFrame, columns: Sequence[str] = ()) -> str:
    """The whole table, one section per group; or, with columns, these alone in one."""
    if columns:
        rows = [cells(condition, columns) for _, condition in conditions.iterrows()]
        return _captioned(_grid([_column(name).header for name in columns], rows), caption(conditions, columns))
    headers = [_column(name).header for name in WIDE]
    sections = []
    for heading, group in groups(conditions):
        rows = [cells(condition, WIDE) for _, condition in group.iterrows()]
        sections.append(f"**{heading}**\n\n{_grid(headers, rows)}\n")
    return "\n".join([*sections, caption(conditions, WIDE)])


def latex(conditions: pd.DataFrame) -> str:
    """The whole table as a LaTeX tabular (booktabs), with the factors that vary as its first columns."""
    columns = dict.fromkeys(
        [*varying(conditions), "numerics", "outcome", "predicted", "observed", "mrr", "hits1", "hits10", "zero_hits10"]
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
    """For JSON: a number that was kept as the text it was written as, and null for an empty cell."""
    try:
        return None if value == "" else float(value) if isinstance(value, str) else value
    except ValueError:
        return value


FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {
    "md": markdown,
    "csv": lambda conditions: conditions.to_csv(index=False, float_format="%.6g"),
    "tex": latex,
    "json": lambda conditions: conditions.map(_plain).to_json(orient="records", indent=1, force_ascii=False),
}


def summary(conditions: pd.DataFrame, rows: Sequence[str] = ("trainable", "init", "similarity")) -> str:
    """The table folded to one row per value of `rows` and one column per numerics, as markdown."""
    columns = list(dict.fromkeys(conditions["numerics"]))
    names = {"trainable": "embeddings", "init": "vectors"}
    lines = []
    for values, group in conditions.groupby(list(rows), sort=False):
        found = []
        for numerics in columns:
            condition = group[group["numerics"] == numerics].iloc[0]
            several = condition["seeds"] > 1
            if condition["nan_runs"]:
                seen, predicted = (nan_steps(condition, kind) for kind in ("observed", "predicted"))
                of = f" {condition['nan_runs']}/{condition['seeds']}" if several else ""
                found.append(f"**NaN**{of} at steps {seen} (predicted {predicted})")
            else:
                deviation = f" ± {condition['hits_at_10_std']:.3f}" if several else ""
                found.append(f"finite, hits@10 {condition['hits_at_10_mean']:.3f}{deviation}")
        labels = [EMBEDDINGS.get(v, v) if name == "trainable" else v for name, v in zip(rows, values, strict=True)]
        lines.append([*map(str, labels), *found])
    said = "" if "epsilon" in rows else " ".join(_epsilons(conditions))
    return _captioned(_grid([*(names.get(name, name) for name in rows), *columns], lines), said)


def dead_zones(conditions: pd.DataFrame) -> pd.DataFrame:
    """Of a study of row norms: (similarity, numerics, low, high), a row for each stretch of neighbouring norms at which
    the weights go to NaN. low, high: float, the least and the largest of them."""
    rows = []
    norms = conditions["vectors.planted_norm"].astype(float)
    for (similarity, numerics), group in conditions.assign(norm=norms).groupby(["similarity", "numerics"], sort=False):
        group = group.sort_values("norm")
        dead = group["nan_runs"] > 0
        for _, stretch in group[dead].groupby((dead != dead.shift()).cumsum()[dead], sort=False):
            rows.append((similarity, numerics, stretch["norm"].min(), stretch["norm"].max()))
    return pd.DataFrame(rows, columns=["similarity", "numerics", "low", "high"])


def zones_markdown(conditions: pd.DataFrame) -> str:
    """The dead zones as a table: one row per placement and one column per numerics."""
    zones, columns = dead_zones(conditions), list(dict.fromkeys(conditions["numerics"]))
    top = conditions["vectors.planted_norm"].astype(float).max()

    def cell(similarity: str, numerics: str) -> str:
        own = zones[(zones["similarity"] == similarity) & (zones["numerics"] == numerics)]
        said = [
            f"from {_short(low)}" if high == top else f"{_short(low)} to {_short(high)}" if high > low else _short(low)
            for low, high in zip(own["low"], own["high"], strict=True)
        ]
        return ", ".join(said) or "none"

    names = list(dict.fromkeys(conditions["similarity"]))
    lines = [[name, *(cell(name, numerics) for numerics in columns)] for name in names]
    said = f"Norms of the planted rows at which weights go to NaN, of {_norms_tried(conditions)}."
    return _captioned(_grid(["similarity", *columns], lines), " ".join([said, *_epsilons(conditions)]))


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
    which = ": " + "; ".join(f"{who} under {_and(numerics)}".strip() for who, numerics in named.items())
    if len(named) > 8:
        which = f", under {_and(list(dead['numerics']))}"
    return (
        f"{len(dead)} of {len(conditions)} conditions end in NaN{which if len(dead) else ''}. "
        f"In {int(conditions['predicted_exactly'].sum())} of {seeds} runs the prediction, made before training, is "
        "exact: no NaN, or both steps."
    )


def _and(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
