"""A sweep in markdown, for those who browse: the verdict first, then the dead, then where to
look."""

from collections.abc import Callable, Iterator, Mapping

import pandas as pd

from zeronorm import markdown as marked
from zeronorm.report import present

SHOWN = 40  # runs in the table of the dead: MLflow takes 8000 characters of a description
COLUMNS = {  # header: tag of the run
    "tensor": "nan.first_tensor",
    "operation": "guilty.operation",
    "line": "guilty.line",
    "title": "guilty.title",
    "cure": "cure",
    "here": "cure.override",
}


def markdown(
    runs: pd.DataFrame,
    conditions: pd.DataFrame,
    command: str,
    pages: Mapping[str, str],
    autopsy: Callable[[str], str],
) -> str:
    """The description of a sweep's parent run.

    runs: from `tracking.children`.
    conditions: from `tables.conditions_table`, of the finished ones.
    command: what was typed.
    pages: {what it shows: address} of the views to look at.
    autopsy: run id -> address of its autopsy.
    """
    links = " | ".join(f"[{what}]({address})" for what, address in pages.items())
    parts = [f"**{present.verdict(conditions)}**", links, *_dead(runs, autopsy)]
    return "\n\n".join([*parts, marked.code(command)])


def numbers(conditions: pd.DataFrame) -> dict[str, float]:
    """{metric: value} of a sweep: its finished runs, those that died, those foretold exactly."""
    return {
        "runs": float(conditions["seeds"].sum()),
        "runs/nan": float(conditions["nan_runs"].sum()),
        "runs/predicted_exactly": float(conditions["predicted_exactly"].sum()),
    }


def _dead(runs: pd.DataFrame, autopsy: Callable[[str], str]) -> Iterator[str]:
    if "tags.outcome" not in runs:
        return
    dead = runs[runs["tags.outcome"] == "nan"]
    if not len(dead):
        return
    rows = []
    for _, run in dead.head(SHOWN).iterrows():
        name = _text(run, "mlflow.runName").partition(" ")[2] or _text(run, "condition")
        rows.append([f"[{name}]({autopsy(run['run_id'])})"])
        tags = ("nan.first_step", "nan.predicted_step", *COLUMNS.values())
        rows[-1] += [_text(run, tag) for tag in tags]
    lines = list(marked.table(["died", "NaN step", "predicted", *COLUMNS], rows))
    if len(dead) > SHOWN:
        lines.append(f"\nand {len(dead) - SHOWN} more")
    yield "\n".join(lines)


def _text(run: pd.Series, tag: str) -> str:
    """A tag's value as text of a table's cell: it may come from anywhere, so no markup."""
    value = run.get(f"tags.{tag}")
    return marked.plain(value) if isinstance(value, str) else ""
