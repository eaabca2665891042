"""A study's figures of how well its conditions rank. hits@10 is on one scale everywhere, 0 to 1.

Conditions are as in reported.csv, with the intervals of `present.with_intervals` where there are
ranks.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from zeronorm.figures import NAN, WIDTH, picture, place
from zeronorm.report import tables
from zeronorm.report.figures import NUMERICS

LETTER = 6.1  # pixels, about the width of one in a label
ROW = 27  # pixels, the height of a cell
GROUP = 0.3  # rows, between two groups of conditions
LINES = (("#000000", "o"), ("#009E73", "s"), ("#CC79A7", "D"), ("#0072B2", "v"), ("#E69F00", "^"))
SAID = {"init.norm": "mean norm of the rows at the start"}
UNSET = {"init.norm": "not\nscaled"}  # what it means that the factor has no value


def outcome(conditions: pd.DataFrame, path: Path) -> None:
    """What became of every condition: cells, numerics (or else placements) across; where neither
    varies, curves against a factor that is a number, or dots.

    conditions: as in experiments/<study>/reported.csv.
    """
    across = next(
        (name for name in ("numerics", "similarity") if conditions[name].nunique() > 1), None
    )
    along = _number(conditions)
    if across:
        _cells(conditions, across, path)
    elif along:
        _curves(conditions, along, path)
    else:
        _dots(conditions, path)


def _number(conditions: pd.DataFrame) -> str | None:
    """The factor that has most values, three at least, and all of them numbers."""
    sizes = {}
    for name in tables.varying(conditions):
        values = set(conditions[name]) - {""}
        if pd.to_numeric(pd.Series(list(values)), errors="coerce").notna().all():
            sizes[name] = len(values)
    largest = max(sizes, key=lambda name: sizes[name], default=None)
    return largest if largest and sizes[largest] >= 3 else None


def _labels(conditions: pd.DataFrame, factors: Sequence[str]) -> list[str]:
    return [
        " ".join(tables.said(name, row[name]) for name in factors if row[name] != "")
        for _, row in conditions.iterrows()
    ]


def _heights(conditions: pd.DataFrame, factors: Sequence[str]) -> dict[str, float]:
    """{label: where its row stands}, in the order of the table, with a gap between two groups: the
    conditions that differ in the last factors only."""
    named = conditions.assign(label=_labels(conditions, factors)).drop_duplicates("label")
    for kept in range(len(factors) - 1, -1, -1):
        group = _labels(named, factors[:kept])
        if len(named) >= 2 * len(set(group)):
            break
    heights, at = {}, 0.0
    for place_of, label in enumerate(named["label"]):
        if place_of and group[place_of] != group[place_of - 1]:
            at += GROUP
        heights[label] = at
        at += 1
    return heights


def _shade(share: float):
    return plt.get_cmap("Blues")(0.06 + 0.84 * share)


def _cells(conditions: pd.DataFrame, across: str, path: Path) -> None:
    """A cell per condition: vermilion where it went to NaN, else the bluer the higher hits@10."""
    factors = [name for name in tables.varying(conditions) if name != across]
    rows = _heights(conditions, factors)
    columns = list(dict.fromkeys(conditions[across]))
    bottom = max(rows.values()) + 1
    left = 20 + LETTER * max(map(len, rows))
    width = min(WIDTH, left + 14 + 190 * len(columns))
    height = 30 + ROW * bottom + 62
    with picture(path, height, width) as (figure, axes):
        place(figure, left=left, right=14, top=30, bottom=62)
        for label, (_, cell) in zip(
            _labels(conditions, factors), conditions.iterrows(), strict=True
        ):
            x, y = columns.index(cell[across]), rows[label]
            dead, share = cell["nan_runs"] > 0, cell["hits_at_10_mean"]
            colour = NAN if dead else _shade(share)
            axes.add_patch(plt.Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white"))
            count = f" in {cell['nan_runs']} of {cell['seeds']}" if cell["seeds"] > 1 else ""
            text = f"NaN{count}" if dead else f"{share:.3f}"
            shown = {"color": "white" if dead or share > 0.6 else "black"}
            axes.text(x + 0.5, y + 0.52, text, ha="center", va="center", **shown)
        axes.set_xlim(0, len(columns))
        axes.set_ylim(bottom, 0)
        axes.set_xticks(np.arange(len(columns)) + 0.5, columns, weight="bold")
        axes.set_yticks([at + 0.5 for at in rows.values()], list(rows))
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        _scale(figure, left, width, height, bool((conditions["nan_runs"] > 0).any()))


def _scale(figure, left: float, width: float, height: float, some_died: bool) -> None:
    """What the colours of `_cells` mean."""
    bar = figure.add_axes((left / width, 34 / height, 240 / width, 14 / height))
    bar.imshow([[_shade(share) for share in np.linspace(0, 1, 241)]], aspect="auto")
    bar.set_xticks([0, 60, 120, 180, 240], ["0", "0.25", "0.5", "0.75", "1"])
    bar.set_yticks([])
    bar.tick_params(length=2)
    bar.spines[:].set_visible(False)
    at = (left + 252, left + 380) if width > left + 380 + 70 else (left + 252, left + 360)
    figure.text(at[0] / width, 41 / height, "hits@10, all titles", va="center")
    if not some_died:
        return
    nan = plt.Rectangle((at[1] / width, 34 / height), 18 / width, 14 / height, color=NAN)
    figure.add_artist(nan)
    figure.text((at[1] + 24) / width, 41 / height, "NaN", va="center")


def _curves(conditions: pd.DataFrame, along: str, path: Path) -> None:
    """hits@10 and hits@1 against a factor that is a number, a line for each value of the others."""
    factors = [name for name in tables.varying(conditions) if name != along]
    values = sorted({float(value) for value in conditions[along] if value != ""})
    unset = values[-1] ** 2 / values[-2]  # where no value stands on the axis
    labels = pd.Series(_labels(conditions, factors), conditions.index)
    with picture(path, 350, ncols=2, sharey=True) as (figure, axes):
        place(figure, left=52, right=14, top=30, bottom=84, wspace=0.08)
        for panel, rank in zip(axes, (10, 1), strict=True):
            for (label, group), (colour, marker) in zip(
                conditions.groupby(labels, sort=False), LINES, strict=False
            ):
                at = pd.to_numeric(group[along])
                order = at.sort_values().index
                mean = group[f"hits_at_{rank}_mean"]
                look = {"color": colour, "marker": marker, "ms": 6, "capsize": 2, "elinewidth": 1}
                known = order[at[order].notna()]
                bars = {"yerr": _reach(group.loc[known], f"hits_at_{rank}"), "label": label}
                panel.errorbar(at[known], mean[known], **bars, **look)
                own = at.index[at.isna()]
                bars = {"yerr": _reach(group.loc[own], f"hits_at_{rank}")}
                panel.errorbar(
                    [unset] * len(own), mean[own], ls="none", mfc="white", **bars, **look
                )
                dead = group.index[group["nan_runs"] > 0]
                panel.plot(at[dead].fillna(unset), mean[dead], "x", color=NAN, ms=9, mew=2)
            _chance(panel, conditions, rank)
            panel.set_xscale("log")
            panel.minorticks_off()
            ticks = {value: f"{value:g}" for value in values}
            if (conditions[along] == "").any():
                ticks[unset] = UNSET.get(along, "not\nset")
            panel.set_xticks(list(ticks), list(ticks.values()))
            panel.set_xlabel(SAID.get(along, along), labelpad=2)
            panel.set_title(f"hits@{rank}", loc="left", weight="bold")
        figure.text(1 - 14 / WIDTH, 1 - 20 / 350, _bars(conditions).strip(" ()"), ha="right")
        _legend(figure, axes[0], ncols=4, loc="lower left")


def _chance(panel, conditions: pd.DataFrame, rank: int) -> None:
    """The axis of a share of hits, 0 to 1, and what guessing has."""
    panel.set_ylim(-0.02, 1.02)
    panel.grid(alpha=0.25)
    titles = set(conditions["titles"])
    if len(titles) == 1:
        share = rank / int(titles.pop())
        panel.axhline(share, color="#777777", linewidth=1, linestyle=":", label="chance")


def _dots(conditions: pd.DataFrame, path: Path) -> None:
    """hits@10 and hits@1 of each condition."""
    rows = _heights(conditions, tables.varying(conditions))
    left = 24 + LETTER * max(map(len, rows))
    with picture(path, 110 + 40 * len(rows)) as (figure, axes):
        place(figure, left=left, right=24, top=34, bottom=46)
        for rank, marker in ((10, "o"), (1, "D")):
            mean, dead = conditions[f"hits_at_{rank}_mean"], conditions["nan_runs"] > 0
            look = {"fmt": marker, "ms": 7, "capsize": 3, "color": "#0072B2"}
            if rank == 1:
                look["mfc"] = "white"
            bars = {"xerr": _reach(conditions[~dead], f"hits_at_{rank}"), "label": f"hits@{rank}"}
            heights = np.array(list(rows.values()))
            axes.errorbar(mean[~dead], heights[~dead], **bars, **look)
            axes.plot(mean[dead], heights[dead], "x", color=NAN, ms=9, mew=2)
            for value, height in zip(mean[~dead], heights[~dead], strict=True):
                over = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
                axes.annotate(f"{value:.3f}", (value, height), **over)
        _shares(axes, rows, conditions)
        axes.set_xlabel(f"share of the windows it was judged on{_bars(conditions)}")
        _legend(figure, axes, ncols=3, loc="upper left", bbox_to_anchor=(left / WIDTH, 1))


def _legend(figure, axes, **where) -> None:
    """What chance has comes last."""
    handles, names = axes.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda at: "chance" in names[at])
    shown = [handles[at] for at in order], [names[at] for at in order]
    figure.legend(*shown, frameon=False, **where)


def _reach(conditions: pd.DataFrame, metric: str) -> np.ndarray:
    """How far a metric's bars go down and up, float64 [2, n]: to the ends of the interval, where
    there is one, or else by the seeds' deviation."""
    if f"{metric}_low" in conditions:
        low, mean, high = (conditions[f"{metric}_{end}"] for end in ("low", "mean", "high"))
        ends = np.array([mean - low, high - mean], dtype=float)
    else:
        ends = np.array([conditions[f"{metric}_std"]] * 2, dtype=float)
    return np.nan_to_num(ends).clip(0)


def _bars(conditions: pd.DataFrame) -> str:
    """What the bars are, for the label of an axis."""
    several = (conditions["seeds"] > 1).any()
    if "hits_at_10_low" in conditions:
        drawn = "titles and seeds" if several else "titles"
        return f" (bars: 95 % interval by bootstrap over {drawn})"
    return " (bars: standard deviation of the seeds)" if several else ""


def _shares(axes, rows: dict[str, float], conditions: pd.DataFrame) -> None:
    """Rows of conditions, and a share of hits across, 0 to 1."""
    axes.set_xlim(-0.02, 1.02)
    axes.set_yticks(list(rows.values()), list(rows))
    axes.set_ylim(max(rows.values()) + 0.55, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(alpha=0.25, axis="x")
    titles = set(conditions["titles"])
    if len(titles) == 1:
        share = 10 / int(titles.pop())
        axes.axvline(share, color="#777777", linewidth=1, linestyle=":", label="hits@10 by chance")


def quality(conditions: pd.DataFrame, path: Path) -> None:
    """hits@10 of all titles (filled) and of those that started as a zero row (hollow), by
    condition, where it stays finite; colour and shape tell the numerics.

    conditions: as in reported.csv.
    """
    alive = conditions[conditions["nan_runs"] == 0]
    factors = tables.varying(conditions)
    rows = _heights(alive, factors)
    shown = list(dict.fromkeys(alive["numerics"]))
    left = 20 + LETTER * max(map(len, rows))
    row = 14 + 11 * len(shown)
    height = 100 + row * (max(rows.values()) + 1)
    with picture(path, height) as (figure, axes):
        place(figure, left=left, right=24, top=54, bottom=46)
        for at in rows.values():
            axes.axhspan(at - 0.5, at + 0.5, color="#F3F3F3", linewidth=0, zorder=0)
            axes.axhline(at - 0.5, color="white", linewidth=2, zorder=0.5)
        places = _beside(alive, rows, _labels(alive, factors), 11 / row)
        for numerics in shown:
            own = alive["numerics"] == numerics
            colour, marker = NUMERICS[numerics]
            look = {"fmt": marker, "color": colour, "ms": 6, "mew": 1.3, "elinewidth": 1}
            # beside each other: their bars overlap
            for metric, what, apart in (
                ("hits_at_10", "all titles", -2.5 / row),
                ("zero_hits_at_10", "zero rows", 2.5 / row),
            ):
                mean = alive[own][f"{metric}_mean"]
                if mean.notna().any():
                    look["mfc"] = colour if what == "all titles" else "white"
                    look["label"] = f"{numerics}, {what}"
                    at = places[own] + apart
                    axes.errorbar(mean, at, xerr=_reach(alive[own], metric), **look)
        _shares(axes, rows, conditions)
        axes.set_xlabel(f"hits@10{_bars(conditions)}")
        _legend(figure, axes, ncols=len(shown) + 1, loc="upper left")


def _beside(
    alive: pd.DataFrame, rows: dict[str, float], labels: Sequence[str], distance: float
) -> np.ndarray:
    """Where each condition stands: those of one row beside each other, so that none hides."""
    named = pd.Series(labels, alive.index)
    number = named.groupby(named).cumcount()
    count = named.groupby(named).transform("size")
    return (named.map(rows) + distance * (number - (count - 1) / 2)).to_numpy()
