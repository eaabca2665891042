"""What single steps have shown (experiments/single_steps): which weights can shrink, whether a
training is smooth, how zero rows learn; as tables, and as evidence for the claims."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from zeronorm.report import committed, measured
from zeronorm.report.committed import existing

# of a training that is called smooth: p of its loss having no trend, and the largest change of the
# loss in standard deviations, at most
TREND, JUMP = 0.01, 5
HARDLY = 0.6
"""A zero row hardly learns where the hits@10 of the titles that began as zero rows is below this
share of that of all titles."""

SMOOTH = {8: "frozen", 9: "uniform"}  # claim: condition
LAYERS = {
    "titles": "titles",
    "words": "words",
    "convolution": "Conv1D",
    "dense": "Dense",
}


@dataclass(frozen=True)
class Shown:
    """Of a claim.

    sentence: what the steps show.
    holds: {numerics: whether they agree with it}, where that bears on the verdict.
    """

    sentence: str
    holds: Mapping[str, bool] = field(default_factory=dict)


def data(name: str, script: str) -> dict:
    """experiments/<name>/<script>.json, as <script>.py wrote it."""
    return json.loads(existing(name, f"{script}.json").read_text())


def shown(name: str) -> dict[int, Shown]:
    """{claim: what single steps show of it}; nothing outside a checkout."""
    if not (committed.experiments_dir() / name).is_dir():
        return {}
    return {3: Shown(shrinking(name))} | {claim: _smooth(name, claim) for claim in SMOOTH}


def is_smooth(row: Mapping) -> bool:
    """Of a row of smooth.json: in every seed the loss falls, without a jump."""
    return all(row["finite"]) and all(
        trend < 0 and p < TREND and jump <= JUMP
        for trend, p, jump in zip(row["trend"], row["p"], row["jump"], strict=True)
    )


def _smooth(name: str, claim: int) -> Shown:
    rows = [row for row in data(name, "smooth")["rows"] if row["condition"] == SMOOTH[claim]]
    holds = {row["numerics"]: is_smooth(row) for row in rows}
    runs = sum(len(row["finite"]) for row in rows)
    taus = [tau for row in rows for tau in row["trend"] if tau is not None]
    jumps = [jump for row in rows for jump in row["jump"] if jump is not None]
    return Shown(
        f"Step by step, in {runs} runs: Kendall's tau of loss and step is"
        f" {min(taus):.2f} to {max(taus):.2f}, the largest change of the loss from a step to the"
        f" next {max(jumps):.1f} standard deviations of these changes:"
        f" {'smooth' if all(holds.values()) else 'not smooth'}.",
        holds,
    )


def smooth(name: str) -> str:
    """A row for each condition and numerics."""

    def span(values: Sequence[float | None], form: str) -> str:
        there = [value for value in values if value is not None]
        if not there:
            return "-"
        ends = [form.format(end) for end in (min(there), max(there))]
        return ends[0] if ends[0] == ends[1] else " to ".join(ends)

    return _grid(
        [
            "condition",
            "numerics",
            "finite",
            "tau of loss and step",
            "p of no trend, at most",
            "largest change of the loss, SD",
            "largest gradient, medians",
            "smooth",
        ],
        [
            [
                row["condition"],
                row["numerics"],
                f"{sum(row['finite'])}/{len(row['finite'])}",
                span(row["trend"], "{:.2f}"),
                "-" if None in row["p"] else f"{max(row['p']):.0e}",
                span(row["jump"], "{:.1f}"),
                span(row["spike"], "{:.3g}"),
                "yes" if is_smooth(row) else "no",
            ]
            for row in data(name, "smooth")["rows"]
        ],
    )


def angles(name: str) -> str:
    """A row for each optimizer and weight."""
    return _grid(
        ["optimizer", "weight", "cosine with its gradient: median", "largest", "its norm fell in"],
        [
            [
                row["optimizer"],
                LAYERS[row["weight"]],
                f"{row['cosine_median']:.0e}",
                f"{row['cosine_max']:.0e}",
                f"{row['fell']} of {row['steps']} steps",
            ]
            for row in data(name, "norms")["rows"]
        ],
    )


def late_deaths(name: str) -> str:
    """A row for each optimizer and weight, over the batch orders."""
    rows = []
    for optimizer, deaths in _by_optimizer(name).items():
        died = [death["encoder"] for death in deaths]
        for part, layer in LAYERS.items():
            growth, slope = (
                np.array([death[f"{key}/{part}"] for death in deaths])
                for key in ("growth", "slope")
            )
            rows.append(
                [
                    optimizer,
                    layer,
                    f"{len(deaths)}, in steps {min(died):,} to {max(died):,}",
                    f"{growth.min():.5f} to {growth.max():.5f}",
                    f"{slope.min():+.2e} to {slope.max():+.2e}",
                    f"{int((slope < 0).sum())} of {len(slope)}",
                ]
            )
    headers = ["optimizer", "weight", "deaths", "last finite norm over the first"]
    return _grid([*headers, "slope before the death, per 1,000 steps", "falls in"], rows)


def shrinking(name: str) -> str:
    """C3 in sentences."""
    found = data(name, "norms")
    deaths = found["deaths"]
    free = [row for row in found["rows"] if row["weight"] in ("titles", "dense")]
    bound = max(row["cosine_max"] for row in free)
    fell = {
        (row["optimizer"], row["weight"]): f"{row['fell']} of {row['steps']}"
        for row in found["rows"]
    }
    falling = [
        f"{LAYERS[part]} in {n}"
        for part in LAYERS
        if (n := sum(death[f"slope/{part}"] < 0 for death in deaths))
    ]
    steps = "; ".join(
        f"{optimizer}: "
        + ", ".join(f"{layer} {fell[optimizer, part]}" for part, layer in LAYERS.items())
        for optimizer in _by_optimizer(name)
    )
    return (
        f"Under SGD it cannot be so for two of the four: neither the length of a title row nor that"
        f" of Dense's kernel and bias changes a cosine, so the gradient stands at right angles to"
        f" them (cosine at most {bound:.0e}), and a step of SGD lengthens them. Steps in which a"
        f" norm fell, without any zero row: {steps}. In {len(deaths)} trainings whose zero row is"
        f" touched again {found['alone']:,} steps or more after the first time, these norms fell"
        f" before the death: {', '.join(falling) or 'none'}."
    )


def learning(name: str, only: Sequence[str] = ()) -> str:
    """A row for each placement and treatment. only: the placements, if not all."""

    def mean(values: Sequence[float], form: str = "{:.3f}") -> str:
        return f"{form.format(np.mean(values))} ± {form.format(np.std(values, ddof=1))}"

    return _grid(
        [
            "similarity",
            "epsilon",
            "zero rows' gradients",
            "hits@10",
            "of zero-row titles",
            "hardly learn",
            "zero rows turn by",
            "other rows turn by",
        ],
        [
            [
                row["similarity"],
                row["epsilon"],
                row["treatment"],
                mean(row["hits10"]),
                mean(row["zero_hits10"]),
                "yes" if hardly_learns(row) else "no",
                f"{np.mean(row['zero_turned']):.2g}°",
                f"{np.mean(row['others_turned']):.2g}°",
            ]
            for row in data(name, "learning")["rows"]
            if not only or row["similarity"] in only
        ],
    )


def hardly_learns(row: Mapping) -> bool:
    """Of a row of learning.json, as HARDLY defines it."""
    return bool(np.mean(row["zero_hits10"]) < HARDLY * np.mean(row["hits10"]))


def when_measured(name: str) -> str:
    return " ".join(
        f"`{script}.py`: {measured.where_measured(data(name, script))}"
        for script in ("norms", "smooth", "learning")
    )


def _by_optimizer(name: str) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for death in data(name, "norms")["deaths"]:
        found.setdefault(death["optimizer"], []).append(death)
    return found


def _grid(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (headers, *rows)]
    lines.insert(1, "|" + "---|" * len(headers))
    return "\n".join(lines)
