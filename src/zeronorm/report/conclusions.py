"""What the Reading of a study says, as data: experiments/STUDY/conclusions.yaml, judged by runs.

The file is a list. A conclusion has the keys

    says: the sentence.
    relation: greater: the left metric is above the right one by more than `margin`, with its whole
        interval; within: the whole interval of the difference lies inside ±margin; not_separable:
        the interval holds 0; nan or finite: what became of every run of the left side.
    left, right: a condition selector, {factor: value, or a list of values}, the factors as the
        columns of runs.csv, null where it is not set. nan and finite have no right side.
    among: a selector that both sides share.
    each: factors; the conclusion has to hold for each of their values apart.
    metric: of `intervals.METRICS`, with zero_ before it over the titles that began as a zero row.
    margin: a number; 0 if it is not given.
    elsewhere: nan or finite: what became of every other run of the study.

Of several conditions on one side it is their mean that is compared.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from zeronorm.report import intervals, tables
from zeronorm.report.ranks import Ranks

COMPARED = ("greater", "within", "not_separable")
OUTCOMES = ("nan", "finite")
LABELS = {"mrr": "MRR", "hits_at_1": "hits@1", "hits_at_10": "hits@10"}
NOTE = (
    "A number: the difference, left less right, with its 95 % interval by bootstrap over the"
    " titles, and over the seeds where there are several."
)
Selector = Mapping[str, Any]
# what stands under a key: its name in a sentence, its type in YAML
TEXT, SELECTOR = ("text", str), ("selector", dict)
KINDS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(("says", "relation", "metric", "elsewhere"), TEXT),
    **dict.fromkeys(("left", "right", "among"), SELECTOR),
    "each": ("factor or list of factors", (str, list)),
    "margin": ("number", (int, float)),
}


@dataclass(frozen=True)
class Conclusion:
    """As the module says."""

    says: str
    relation: str
    left: Selector
    right: Selector = field(default_factory=dict)
    among: Selector = field(default_factory=dict)
    each: Sequence[str] = ()
    metric: str = ""
    margin: float = 0.0
    elsewhere: str = ""


@dataclass(frozen=True)
class Judged:
    """A conclusion held against runs.

    holds: None where it cannot be computed.
    found: what was computed, in a few words; or why nothing was.
    """

    says: str
    holds: bool | None
    found: str


def load(path: Path) -> list[Conclusion]:
    """The conclusions of a file; none where there is no file. Raises ValueError with one sentence
    if it is not as this module says."""
    if not path.exists():
        return []
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, list):
        raise ValueError("it is no list")
    return [_conclusion(number, entry) for number, entry in enumerate(content, 1)]


def _conclusion(number: int, entry: Any) -> Conclusion:
    known = {option.name for option in fields(Conclusion)}
    if not isinstance(entry, dict) or not {"says", "relation", "left"} <= set(entry) <= known:
        raise ValueError(f"number {number} needs says, relation and left, of {sorted(known)}")
    for key, value in entry.items():
        if not _fits(key, value):
            raise ValueError(f"number {number}: {key} is no {KINDS[key][0]}: {value!r}")
    found = Conclusion(**entry)
    if found.elsewhere not in ("", *OUTCOMES):
        raise ValueError(f"number {number} has {found.elsewhere} elsewhere, none of {OUTCOMES}")
    if found.relation not in (*COMPARED, *OUTCOMES):
        raise ValueError(f"number {number} has the relation {found.relation}, none of {COMPARED}")
    metric = found.metric.removeprefix(intervals.ZERO)
    if found.relation in COMPARED and (metric not in intervals.METRICS or not found.right):
        raise ValueError(f"number {number} compares, and has no right side or no known metric")
    return found


def _fits(key: str, value: Any) -> bool:
    """Whether YAML gave for a key what KINDS says."""
    if isinstance(value, list):
        return key == "each" and all(isinstance(name, str) for name in value)
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, KINDS[key][1]) and not isinstance(value, bool)


def judge(
    conclusions: Sequence[Conclusion],
    study: pd.DataFrame,
    found: pd.DataFrame,
    ranks: Ranks | None,
) -> list[Judged]:
    """Each conclusion, of the runs that were found.

    study: the runs of the whole study, from runs.csv; a conclusion of which some were not found
        is not judged.
    found: the same columns.
    ranks: of the runs of `found`, in their order; None where the report has none.
    Raises ValueError if a selector names no run of the study, or `each` no factor.
    """
    return [_judged(conclusion, study, found, ranks) for conclusion in conclusions]


def _judged(
    conclusion: Conclusion, study: pd.DataFrame, found: pd.DataFrame, ranks: Ranks | None
) -> Judged:
    sides = [conclusion.left, *([conclusion.right] if conclusion.right else [])]
    chosen = [{**conclusion.among, **side} for side in sides]
    wanted = [_selected(study, selector) for selector in chosen]
    if not all(rows.any() for rows in wanted):
        raise ValueError(f"'{conclusion.says}' selects a condition that no run has")
    rows = [_selected(found, selector) for selector in chosen]
    everything = wanted if not conclusion.elsewhere else [np.ones(len(study), dtype=bool)]
    have = rows if not conclusion.elsewhere else [np.ones(len(found), dtype=bool)]
    for need, there in zip(everything, have, strict=True):
        if need.sum() > there.sum():
            return Judged(conclusion.says, None, "not computed: not all of its runs are here")
    if conclusion.relation in OUTCOMES:
        return _outcome(conclusion, found, rows[0])
    if ranks is None:
        return Judged(conclusion.says, None, "not computed yet: the report has no ranks")
    return _compared(conclusion, found, rows, ranks)


def _selected(runs: pd.DataFrame, selector: Selector) -> np.ndarray:
    """bool [runs]."""
    rows = np.ones(len(runs), dtype=bool)
    for factor, value in selector.items():
        if factor not in runs:
            raise ValueError(f"{factor} is no factor of the study")
        values = value if isinstance(value, list) else [value]
        rows &= runs[factor].map(lambda text, of=values: any(_same(text, one) for one in of))
    return np.asarray(rows, dtype=bool)


def _same(text: Any, value: Any) -> bool:
    """Whether a cell of runs.csv is what YAML says."""
    said = {None: "", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return str(text) == said[value]
    try:
        return float(text) == float(value)
    except (TypeError, ValueError):
        return str(text) == str(value)


def _outcome(conclusion: Conclusion, found: pd.DataFrame, rows: np.ndarray) -> Judged:
    as_said = found["outcome"] == conclusion.relation
    wrong = found[rows & ~as_said]
    said = f"{conclusion.relation} in {int((rows & as_said).sum())} of {int(rows.sum())} runs"
    holds = not len(wrong)
    if conclusion.elsewhere:
        others = found[~rows]
        agree = int((others["outcome"] == conclusion.elsewhere).sum())
        said += f", {conclusion.elsewhere} in {agree} of the {len(others)} others"
        holds &= agree == len(others)
    return Judged(conclusion.says, holds, said)


def _compared(
    conclusion: Conclusion, found: pd.DataFrame, rows: Sequence[np.ndarray], ranks: Ranks
) -> Judged:
    """Of the parts of `each` that one is shown that comes nearest to failing, or fails most."""
    parts = []
    for where, part in _parts(conclusion.each, found, rows[0] | rows[1]):
        sides = [ranks.take(side & part) for side in rows]
        if not all(len(side.seeds) for side in sides):
            raise ValueError(f"'{conclusion.says}' has no run on one side{where}")
        interval = intervals.difference(sides[0], sides[1], conclusion.metric)
        parts.append((_slack(conclusion, interval), where, interval))
    # a part that no text decides is none that holds
    slack, where, shown = min(parts, key=lambda part: -np.inf if np.isnan(part[0]) else part[0])
    several = f"; the closest of {len(parts)}{where}" if len(parts) > 1 else ""
    return Judged(
        conclusion.says,
        slack > 0 or (slack == 0 and conclusion.relation == "not_separable"),
        f"{_metric(conclusion.metric)} {_signed(shown.mean)}"
        f" [{_signed(shown.low)}, {_signed(shown.high)}]{several}",
    )


def _parts(
    each: Sequence[str], found: pd.DataFrame, rows: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """(' at FACTOR=VALUE', its runs) of every combination of the values of `each`."""
    names = [each] if isinstance(each, str) else list(each)
    if unknown := [name for name in names if name not in found]:
        raise ValueError(f"{unknown[0]} is no factor of the study")
    values = [list(dict.fromkeys(found.loc[rows, name])) for name in names]
    for chosen in product(*values):
        pairs = dict(zip(names, chosen, strict=True))
        part = np.ones(len(found), dtype=bool)
        for name, value in pairs.items():
            part &= np.asarray(found[name] == value)
        if (part & rows).any():
            said = ", ".join(tables.said(name, value or "unset") for name, value in pairs.items())
            yield f", {said}" if said else "", part


def _slack(conclusion: Conclusion, found: intervals.Interval) -> float:
    """How far the interval is from breaking the relation; below 0 where it does."""
    if conclusion.relation == "greater":
        return found.low - conclusion.margin
    if conclusion.relation == "within":
        return min(conclusion.margin - found.high, conclusion.margin + found.low)
    return min(found.high, -found.low)


def _metric(name: str) -> str:
    zero = name.startswith(intervals.ZERO)
    return LABELS[name.removeprefix(intervals.ZERO)] + (" of zero rows" if zero else "")


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("0.", ".", 1)


def markdown(judged: Sequence[Judged]) -> str:
    """A table of the conclusions, with what they rest on."""
    said = {True: "yes", False: "**no**", None: "-"}
    lines = ["| conclusion | computed | holds |", "|---|---|---|"]
    lines += [f"| {one.says} | {one.found} | {said[one.holds]} |" for one in judged]
    if any("[" in one.found for one in judged):
        lines += ["", NOTE]
    return "\n".join(lines)
