"""A study's figures. Colours are Okabe and Ito's, which the colour-blind tell apart."""

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from zeronorm.figures import COLOURS, draw_norms
from zeronorm.report import tables


def drawn_runs(runs):
    """The runs of a study whose norms are drawn: the question's condition (trainable, pretrained,
    clamp_product) under each numerics, or the study's first condition of each where it has no such.

    runs: as in runs.csv.
    """
    wanted = runs[
        (runs["trainable"] == "true")
        & (runs["init"] == "pretrained")
        & (runs["similarity"] == "clamp_product")
    ]
    return (wanted if len(wanted) else runs).drop_duplicates("numerics")


def study_norms(runs, curves, condition: Callable, path: Path) -> None:
    """The runs of `drawn_runs`, side by side.

    runs, curves: pandas tables as in experiments/<study>/runs.csv and curves.csv;
    condition: row of runs -> its key in curves.
    """
    wanted = drawn_runs(runs)
    size = (3.3 * len(wanted) + 1.7, 3.4)
    figure, panels = plt.subplots(
        1, len(wanted), figsize=size, dpi=110, sharey=True, squeeze=False, layout="constrained"
    )
    last = int(curves["step"].max())
    for axes, (_, run) in zip(panels[0], wanted.iterrows(), strict=True):
        mine = curves[(curves["condition"] == condition(run)) & (curves["seed"] == run["seed"])]
        drawn, deaths = {}, {}
        start = {name: float(run[f"norm/{name}_start"]) for name in COLOURS}
        for name in COLOURS:
            part = mine[mine["name"] == f"norm/{name}"]
            curve = np.full(last + 1, np.nan)
            curve[part["step"]] = part["value"]
            known = np.flatnonzero(np.isfinite(curve))
            end = run[f"norm/{name}_end"] not in ("", None)
            if end and len(known):
                own = slice(known[-1] + 1)  # a shorter run's curve ends where the run does
                curve[own] = np.interp(np.arange(last + 1)[own], known, curve[known])
            elif not end:
                deaths[name] = int(
                    run["first_nan_observed"] if name == "titles" else run["encoder_nan_observed"]
                )
            drawn[f"norm/{name}"] = curve
        draw_norms(axes, drawn, start, deaths)
        verdict = f"dies in step {run['first_nan_observed']}" if deaths else "stays finite"
        axes.set_title(f"{run['numerics']}: {verdict}", fontsize=10, loc="left")
    panels[0][0].set_ylabel("norm")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path)
    plt.close(figure)


NAN_COLOUR, FINITE_COLOURS = "#D55E00", "Blues"


def outcome(conditions, path: Path) -> None:
    """A cell per condition, numerics across: vermilion where it went to NaN, else the bluer the
    higher hits@10.

    conditions: as in experiments/<study>/reported.csv.
    """
    factors = tables.varying(conditions)
    named = conditions.assign(
        row=[
            " ".join(tables.said(name, row[name]) for name in factors if row[name] != "")
            for _, row in conditions.iterrows()
        ]
    )
    rows, columns = list(dict.fromkeys(named["row"])), list(dict.fromkeys(named["numerics"]))
    figure, axes = plt.subplots(
        figsize=(3.6 + 1.35 * len(columns), 0.9 + 0.27 * len(rows)), dpi=110, layout="constrained"
    )
    best = max(conditions["hits_at_10_mean"].max(), 1e-9)
    shades = plt.get_cmap(FINITE_COLOURS)
    for _, cell in named.iterrows():
        x, y = columns.index(cell["numerics"]), rows.index(cell["row"])
        dead, several = cell["nan_runs"] > 0, cell["seeds"] > 1
        share = 0.1 + 0.75 * cell["hits_at_10_mean"] / best
        axes.add_patch(
            plt.Rectangle(
                (x, y), 1, 1, facecolor=NAN_COLOUR if dead else shades(share), edgecolor="white"
            )
        )
        count = f" {cell['nan_runs']}/{cell['seeds']}" if several else ""
        text = f"NaN{count}" if dead else f"{cell['hits_at_10_mean']:.3f}"
        axes.text(
            x + 0.5,
            y + 0.52,
            text,
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dead or share > 0.55 else "black",
        )
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, fontsize=9)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("NaN, or hits@10 of all titles", fontsize=8)
    figure.savefig(path)
    plt.close(figure)


def dose_response(runs, path: Path) -> None:
    """First step with a NaN weight against the share of zero titles: each run's prediction (ring)
    and observation (cross), and the expected first touch by chance (line).

    runs: as in experiments/<study>/runs.csv.
    """
    colours = {"xla": "#D55E00", "tf1": "#0072B2", "kernels": "#009E73"}
    shift = {"xla": -0.12, "tf1": 0.12, "kernels": 0.0}
    shares = sorted({float(share) for share in runs["vectors.zero_share"]})
    figure, axes = plt.subplots(figsize=(8, 4), dpi=110, layout="constrained")
    never = 10 ** np.ceil(
        np.log10(
            1 + max((int(step) for step in runs["first_nan_observed"] if step != ""), default=1)
        )
    )
    for numerics, group in runs.groupby("numerics", sort=False):
        for kind, marker, size in (("predicted", "o", 9), ("observed", "x", 5)):
            steps = [never if step == "" else 1 + int(step) for step in group[f"first_nan_{kind}"]]
            places = [
                shares.index(float(share)) + shift[numerics]
                for share in group["vectors.zero_share"]
            ]
            axes.plot(
                places,
                steps,
                marker,
                color=colours[numerics],
                ms=size,
                mfc="none",
                mew=1.2,
                label=f"{numerics}, {kind}",
            )
    expected = runs[runs["first_touch_expected"] != ""].drop_duplicates("vectors.zero_share")
    axes.plot(
        [shares.index(float(share)) for share in expected["vectors.zero_share"]],
        [1 + float(step) for step in expected["first_touch_expected"]],
        "-",
        color="black",
        linewidth=1,
        label="expected by chance",
    )
    axes.set_yscale("log")
    ticks = [10**power for power in range(int(np.log10(never)))]
    axes.set_yticks([*ticks, never], [*map(str, ticks), "never"])
    axes.set_xticks(range(len(shares)), [f"{share:g}" for share in shares])
    axes.set_xlabel("share of zero title rows")
    axes.set_ylabel("steps until the first NaN weight")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path)
    plt.close(figure)


def row_norms(conditions, path: Path) -> None:
    """Which norms of a title row kill, under each placement: a bar for each numerics, filled where
    the weights go to NaN, with a tick at each norm that was tried.

    conditions: as in reported.csv.
    """
    colours = {"kernels": "#009E73", "xla": "#D55E00", "tf1": "#0072B2"}
    zones = tables.dead_zones(conditions)
    tried = sorted(set(conditions["vectors.planted_norm"].astype(float)))
    zero = np.floor(np.log10(tried[1])) - 3  # where 0 stands on the axis

    def place(norm: float) -> float:
        return np.log10(norm) if norm > 0 else zero

    names, shown = (
        list(dict.fromkeys(conditions["similarity"])),
        list(dict.fromkeys(conditions["numerics"])),
    )
    figure, axes = plt.subplots(
        figsize=(8.4, 0.9 + 0.5 * len(names)), dpi=110, layout="constrained"
    )
    for number, numerics in enumerate(shown):
        shift = 0.27 * (number - (len(shown) - 1) / 2)
        for row in range(len(names)):
            axes.plot(
                [place(n) for n in tried],
                [row + shift] * len(tried),
                "|",
                color="#BBBBBB",
                ms=4,
                zorder=1,
            )
        own = zones[zones["numerics"] == numerics]
        left = np.array([place(low) for low in own["low"]])
        width = np.array([place(high) for high in own["high"]]) - left
        at = [names.index(name) + shift for name in own["similarity"]]
        axes.barh(
            at, width + 0.8, 0.24, left - 0.4, color=colours[numerics], label=numerics, zorder=2
        )
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    ticks = [power for power in range(-40, 40, 10)]
    axes.set_xticks([zero, *ticks], ["0", *(f"$10^{{{power}}}$" for power in ticks)])
    axes.set_xlabel("norm of the row; filled: the weights go to NaN")
    axes.grid(alpha=0.25, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path)
    plt.close(figure)


def quality(conditions, path: Path) -> None:
    """hits@10 of all titles (dot) and of those that started as a zero row (triangle), by condition,
    for the conditions that stay finite under every numerics shown; colour tells the numerics.

    conditions: as in reported.csv.
    """
    colours = {"xla": "#D55E00", "tf1": "#0072B2", "kernels": "#009E73", "auto": "#CC79A7"}
    factors = tables.varying(conditions)
    alive = conditions[conditions["nan_runs"] == 0]
    labels = [
        " ".join(tables.said(name, row[name]) for name in factors if row[name] != "")
        for _, row in alive.iterrows()
    ]
    order = (
        alive.assign(label=labels)
        .groupby("label")["hits_at_10_mean"]
        .mean()
        .sort_values()
        .index.tolist()
    )
    figure, axes = plt.subplots(figsize=(8, 1.6 + 0.24 * len(order)), dpi=110, layout="constrained")
    seen = set()
    shown = list(dict.fromkeys(alive["numerics"]))
    for label, (_, row) in zip(labels, alive.iterrows(), strict=True):
        for metric, marker, what in (
            ("hits_at_10", "o", "all titles"),
            ("zero_hits_at_10", "^", "zero-row titles"),
        ):
            deviation = row[f"{metric}_std"]
            name = f"{row['numerics']}, {what}"
            # so that equal values do not hide
            beside = 0.2 * (shown.index(row["numerics"]) - (len(shown) - 1) / 2)
            axes.errorbar(
                row[f"{metric}_mean"],
                order.index(label) + beside,
                xerr=None if np.isnan(deviation) else deviation,
                fmt=marker,
                color=colours[row["numerics"]],
                ms=6,
                mfc="none" if marker == "^" else None,
                elinewidth=1,
                label=None if name in seen else name,
            )
            seen.add(name)
    axes.set_yticks(range(len(order)), order, fontsize=8)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlabel("hits@10 (bars: standard deviation of the seeds)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path)
    plt.close(figure)


def release_bands(rows: list[dict], wheels: list[dict], path: Path) -> None:
    """What became of the question's model, with its own formula, in each minor release: a band for
    each compiler.

    rows: as in experiments/releases/releases.json; wheels: as in wheels.csv beside it.
    """
    compilers = {"kernels": "TensorFlow's kernels", "xla": "XLA"}
    colours = {"NaN": "#D55E00", "finite": "#009E73", "not run": "#DDDDDD"}
    labels = {"NaN": "weights go to NaN", "finite": "trains", "not run": "not to be had, or no XLA"}
    found = {
        (row["release"], row["compiler"]): row["outcome"]
        for row in rows
        if row["similarity"] == "clamp_product"
    }
    figure, axes = plt.subplots(figsize=(12, 2.4), dpi=110, layout="constrained")
    for height, compiler in enumerate(reversed(compilers)):
        for place, wheel in enumerate(wheels):
            outcome = found.get((wheel["release"], compiler), "not run")
            axes.barh(height, 1, 0.8, place - 0.5, color=colours[outcome], edgecolor="white")
    ticks = [f"{wheel['minor']}\n" for wheel in wheels]
    years = [wheel["since"][:4] for wheel in wheels]
    for place, year in enumerate(years):
        if place == 0 or year != years[place - 1]:
            ticks[place] += year
    axes.set_xticks(range(len(wheels)), ticks, fontsize=6.5)
    axes.set_yticks(range(len(compilers)), list(compilers.values())[::-1])
    axes.set_xlim(-0.5, len(wheels) - 0.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colours[outcome]) for outcome in labels]
    figure.legend(
        handles, labels.values(), ncols=3, loc="outside upper center", frameon=False, fontsize=8
    )
    axes.set_xlabel("release of TensorFlow, and the year in which it came out", fontsize=8)
    figure.savefig(path)
    plt.close(figure)
