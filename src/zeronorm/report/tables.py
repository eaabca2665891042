"""A sweep's runs -> conditions, seeds pooled: as data."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

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
WEIGHTS = (
    "words",
    "titles",
    "convolution/kernel",
    "convolution/bias",
    "dense/kernel",
    "dense/bias",
)
TAGS = {  # column: tag of the run
    "outcome": "outcome",
    "first_nan_predicted": "nan.predicted_step",
    "first_nan_observed": "nan.first_step",
    "first_nan_tensor": "nan.first_tensor",
    "encoder_nan_predicted": "nan.predicted_encoder_step",
    "encoder_nan_observed": "nan.encoder_step",
    "last_finite_loss": "loss.last_finite",
}
STEPS = tuple(name for name in TAGS if name.endswith(("_predicted", "_observed")))
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
# what a measured gradient says instead of a number
WORDS = {"nan": "not finite", "inf": "infinite"}


def runs_table(
    study: str, children: pd.DataFrame, further: Sequence[str] | None = None
) -> pd.DataFrame:
    """One row per finished run: the factors that vary, seed, what was predicted and seen, quality,
    norms.

    further: the factors besides FACTORS; None: those that vary.
    children: from `tracking.children`. A value that is not there (no NaN, a weight whose norm is
        not finite) is empty.
    """
    finished = children[children["status"] == "FINISHED"].reset_index(drop=True)
    columns: dict[str, object] = {"study": [study] * len(finished)}
    for factor, param in FACTORS.items():
        columns[factor] = finished[param].replace({"True": "true", "False": "false", "None": ""})
    empty = pd.Series([""] * len(finished), dtype=object)
    given = None if further is None else [f"params.{factor}" for factor in further]
    for column in further_factors(finished) if given is None else given:
        columns[column.removeprefix("params.")] = finished.get(column, empty).replace({"None": ""})
    columns["seed"] = finished["params.seed"].astype(int)
    columns |= {column: finished.get(f"tags.{tag}", empty) for column, tag in TAGS.items()}
    for prefix, group in (("", "eval"), ("zero_", "eval_zero_rows")):
        for metric in METRICS:
            columns[prefix + metric] = finished.get(f"metrics.{group}/{metric}", np.nan)
    for name in WEIGHTS:
        # an encoder of another kind has other weights
        ends = finished.get(f"tags.norm.{name}", empty).fillna("").str.partition(" -> ")
        columns[f"norm/{name}_start"], columns[f"norm/{name}_end"] = (
            ends[0],
            ends[2].replace("nan", ""),
        )
        last = finished.get(f"metrics.norm/{name}", pd.Series(np.nan, finished.index))
        last = last.map(lambda value: "" if pd.isna(value) else f"{value:.6g}")
        # after a step: the metric, which older runs have alone, counts the start in
        after = finished.get(f"tags.norm_last.{name}", last).fillna(last)
        columns[f"norm/{name}_last_finite"] = after.replace("nan", "")
    for name in ("words", "titles"):
        dead = finished.get(f"metrics.nonfinite/{name}", pd.Series(0, finished.index)).fillna(0)
        columns[f"nonfinite/{name}"] = dead.astype(int)
    columns["zero_titles"] = finished.get(
        "metrics.zero_rows/titles", pd.Series(0, finished.index)
    ).astype(int)
    columns |= {
        column: finished.get(f"tags.{tag}", empty).replace(WORDS)
        for column, tag in FURTHER_TAGS.items()
    }
    columns["seconds"] = finished["seconds"].round(1)
    columns["config_sha"] = finished["tags.config.sha"].str[:16]
    columns["run_id"] = finished["run_id"]
    table = pd.DataFrame(columns)
    return table.fillna(
        {column: "" for column in table.columns if not pd.api.types.is_numeric_dtype(table[column])}
    )


def further_factors(children: pd.DataFrame) -> list[str]:
    """The parameters, besides FACTORS and the seed, that tell the runs apart; not those that follow
    from a choice, but for those that a run sets itself."""
    overrides = " ".join(map(str, children.get("tags.overrides", []))).split()
    set_by_a_run = {override.split("=")[0] for override in overrides}
    found = []
    for column in children.columns:
        group = column.removeprefix("params.").split(".")[0]
        if (
            not column.startswith("params.")
            or column in FACTORS.values()
            or group in ("seed", "tracking", "home", "rounding")
        ):
            continue
        choice = f"params.{group}.name"
        if (
            column != choice
            and choice in children
            and column.removeprefix("params.") not in set_by_a_run
        ):
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


def condition(run: Mapping) -> str:
    """The values of the factors of a run, or of a condition: the key of its curves in curves.csv,
    besides the seed."""
    names = list(run.keys())
    factors = names[1 : names.index("seed" if "seed" in names else "seeds")]
    return " ".join(str(run[factor]) for factor in factors)


def conditions_table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per condition, seeds pooled: how many went to NaN, in which steps, mean and
    deviation; what else is said is of the first seed that died, or else of the first."""
    factors = ["study", *factors_of(runs)]
    groups = runs.groupby(factors, sort=False, dropna=False).ngroup()
    dead = runs["outcome"] == "nan"
    order = np.lexsort((runs["seed"], ~dead, groups))
    first = runs.iloc[order[~groups.iloc[order].duplicated()]].reset_index(drop=True)
    metrics = [prefix + name for prefix in ("", "zero_") for name in METRICS]
    pooled = runs[metrics].groupby(groups).agg(["mean", "std"])
    ends = [f"norm/{name}_{end}" for name in WEIGHTS for end in ("start", "end", "last_finite")]
    return pd.DataFrame(
        {name: first[name] for name in factors}
        | {"seeds": groups.value_counts(sort=False), "nan_runs": dead.groupby(groups).sum()}
        | {
            name: runs[name].groupby(groups).agg(_span) if name in STEPS else first[name]
            for name in TAGS
            if name != "outcome"
        }
        | {"_".join(name): pooled[name] for name in pooled}
        | {name: first[name] for name in ends}
        | {
            "predicted_exactly": exact(runs).groupby(groups).sum(),
            "first_touch_mean": pd.to_numeric(runs["first_touch"]).groupby(groups).mean(),
        }
        | {
            name: first[name]
            for name in ("nonfinite/words", "nonfinite/titles", "zero_titles", *FURTHER_TAGS)
        }
    )


def _span(steps: pd.Series) -> str:
    """'5-23': the first and the last of steps, as texts; '5' of equal ones; empty of none."""
    ends = sorted({int(step) for step in steps if step != ""})
    return "-".join(map(str, dict.fromkeys([*ends[:1], *ends[-1:]])))


def exact(runs: pd.DataFrame) -> pd.Series:
    """bool: whether what was predicted before training is what happened: no NaN, or both
    steps, of the first weight and of the encoder."""
    return (runs["first_nan_predicted"] == runs["first_nan_observed"]) & (
        runs["encoder_nan_predicted"] == runs["encoder_nan_observed"]
    )


def varying(conditions: pd.DataFrame) -> list[str]:
    """The factors that tell the conditions apart, numerics apart; epsilon only where it does not
    follow from the placement."""
    found = [
        name
        for name in factors_of(conditions)
        if name != "numerics" and conditions[name].nunique() > 1
    ]
    follows = (conditions.groupby("similarity")["epsilon"].nunique() == 1).all()
    return [name for name in found if not (name == "epsilon" and follows)]


def named(factor: str) -> str:
    """A factor's name as a heading: of a config group's choice that of the group."""
    return factor.removesuffix(".name")


def said(factor: str, value: str) -> str:
    """A factor's value as a label: 'frozen', 'clamp_product', 'zero_share=0.1'."""
    if factor == "trainable":
        return EMBEDDINGS.get(value, value)
    return (
        value
        if factor in ("init", "similarity", "optimizer", "numerics")
        else f"{named(factor).split('.')[-1]}={value}"
    )


def dead_zones(conditions: pd.DataFrame) -> pd.DataFrame:
    """Of a study of row norms: (similarity, numerics, low, high), a row for each stretch of
    neighbouring norms at which the weights go to NaN. low, high: float, the least and the largest
    of them."""
    rows = []
    norms = conditions["vectors.planted_norm"].astype(float)
    for (similarity, numerics), group in conditions.assign(norm=norms).groupby(
        ["similarity", "numerics"], sort=False
    ):
        group = group.sort_values("norm")
        dead = group["nan_runs"] > 0
        for _, stretch in group[dead].groupby((dead != dead.shift()).cumsum()[dead], sort=False):
            rows.append((similarity, numerics, stretch["norm"].min(), stretch["norm"].max()))
    return pd.DataFrame(rows, columns=["similarity", "numerics", "low", "high"])
