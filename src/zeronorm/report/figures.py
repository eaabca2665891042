"""A study's figures of what died: norms, steps, the norms that kill. `quality` has what ranks."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import ticker

from zeronorm.figures import (
    COLOURS,
    FINITE,
    NAN,
    NORM,
    STEPS,
    WIDTH,
    draw_norms,
    picture,
    place,
    signs,
    span,
)
from zeronorm.report import tables

NUMERICS = {  # none of them vermilion, which is kept for a NaN; each its marker
    "kernels": ("#009E73", "o"),
    "xla": ("#CC79A7", "s"),
    "tf1": ("#0072B2", "D"),
    "auto": ("#56B4E9", "v"),
}


SMALL = 7.7  # points: letters of 10 pixels on a page, the least that is read


def drawn_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of a study whose norms are drawn: one condition under each numerics.

    It is the question's (trainable, pretrained, clamp_product) where there is such; of several the
    one that dies last, because its norms have a course until then. A numerics that only picks one
    of the others, `auto`, is left out.
    runs: as in runs.csv.
    """
    wanted = runs[
        (runs["trainable"] == "true")
        & (runs["init"] == "pretrained")
        & (runs["similarity"] == "clamp_product")
    ]
    wanted = wanted if len(wanted) else runs
    wanted = wanted[wanted["seed"] == wanted["seed"].min()]
    factors = [name for name in tables.factors_of(runs) if name != "numerics"]
    key = wanted[factors].astype(str).agg(" ".join, axis=1)
    died = pd.to_numeric(wanted["first_nan_observed"]).fillna(-1)
    last = died.groupby(key, sort=False).max().idxmax()  # of several the first
    chosen = wanted[key == last].drop_duplicates("numerics")
    own = chosen["numerics"] == chosen["numerics_ran"]
    others = ~chosen["numerics_ran"].isin(chosen.loc[own, "numerics_ran"])
    return chosen[own | others]


def study_norms(
    runs: pd.DataFrame, curves: pd.DataFrame, condition: Callable[..., str], path: Path
) -> None:
    """The runs of `drawn_runs`, a panel each.

    runs, curves: as in experiments/<study>/runs.csv and curves.csv;
    condition: row of runs -> its key in curves.
    """
    wanted = drawn_runs(runs)
    last = int(curves["step"].max()) + 1
    panels = [(run, *_course(run, curves, condition(run))) for _, run in wanted.iterrows()]
    heights = span([lines for _, lines, _ in panels])
    flags = max(len(set(deaths.values())) for *_, deaths in panels)
    rows = len(panels) // 2 + 1  # two columns, and a place for the legend
    grid = {"width_ratios": (3, 1)} if len(panels) == 1 else None
    title = textwrap.fill(f"Norm of every weight: {_named(runs, wanted.iloc[0])}", 130)
    top = 42 + 14 * len(title.splitlines())
    height = top + 40 + 256 * rows
    with picture(path, height, nrows=rows, ncols=2, squeeze=False, gridspec_kw=grid) as drawn:
        figure, axes = drawn
        place(figure, left=72, right=14, top=top, bottom=50, wspace=0.06, hspace=0.24)
        for panel in axes.flat[len(panels) :]:
            panel.set_axis_off()
        for panel, (run, lines, deaths) in zip(axes.flat, panels, strict=False):
            draw_norms(panel, lines, deaths, last, heights, flags)
            outcome = f"NaN in step {run['first_nan_observed']}" if deaths else "stays finite"
            panel.set_title(f"{run['numerics']}: {outcome}", loc="left", weight="bold")
            first = panel.get_subplotspec().is_first_col()
            panel.set_ylabel(NORM if first else "")
            panel.tick_params(labelleft=first)
        all_deaths = {name: step for *_, deaths in panels for name, step in deaths.items()}
        signs_of = signs(panels[0][1], all_deaths)
        axes.flat[len(panels)].legend(handles=signs_of, loc="upper left", frameon=False)
        figure.text(12 / WIDTH, 1 - 8 / height, title, va="top")
        figure.text(72 / WIDTH, 8 / height, STEPS, va="bottom")


def _course(run: pd.Series, curves: pd.DataFrame, key: str) -> tuple[dict, dict[str, int]]:
    """The lines of a run's norms and the steps of their deaths, as `draw_norms` takes them."""
    mine = curves[(curves["condition"] == key) & (curves["seed"] == run["seed"])]
    lines, deaths = {}, {}
    for name in COLOURS:
        if run[f"norm/{name}_start"] == "":  # an encoder of another kind
            continue
        part = mine[mine["name"] == f"norm/{name}"].sort_values("step")
        known = {0: float(run[f"norm/{name}_start"])}
        known |= dict(zip(part["step"] + 1, part["value"], strict=True))
        if run[f"norm/{name}_end"] == "":
            first = "first_nan_observed" if name == "titles" else "encoder_nan_observed"
            deaths[name] = int(run[first])
            last = run[f"norm/{name}_last_finite"]
            if deaths[name] and last:
                known[deaths[name]] = float(last)
        lines[name] = (np.array(list(known)), np.array(list(known.values())))
    return lines, deaths


def _named(runs: pd.DataFrame, run: pd.Series) -> str:
    """A run's condition, numerics apart, and its seed."""
    factors = ["trainable", "init", "similarity", *tables.varying(runs)]
    words = [tables.said(name, run[name]) for name in dict.fromkeys(factors) if run[name] != ""]
    return f"{' '.join(words)}, seed {run['seed']}"


def dose_response(runs: pd.DataFrame, path: Path) -> None:
    """First step with a NaN weight against the share of zero titles: each run's prediction (ring)
    and what was seen (cross), and the expected first touch by chance (line). Numerics of which all
    runs agree are drawn as one.

    runs: as in experiments/<study>/runs.csv.
    """
    shares = sorted({float(share) for share in runs["vectors.zero_share"]})
    seen = pd.to_numeric(runs["first_nan_observed"])
    never = 3 * max(seen.max(), 3.0)
    groups = _alike(runs)
    with picture(path, 430) as (figure, axes):
        place(figure, left=64, right=14, top=14, bottom=96)
        axes.set_yscale("symlog", linthresh=1, linscale=0.5)
        for number, (names, group) in enumerate(groups.items()):
            colour = NUMERICS[names.split(" ")[0]][0]
            shift = 0.36 * (number - (len(groups) - 1) / 2)
            for kind, marker, size in (("predicted", "o", 11), ("observed", "x", 6)):
                steps = pd.to_numeric(group[f"first_nan_{kind}"]).fillna(never)
                places = group["vectors.zero_share"].astype(float).map(shares.index) + shift
                word = {"predicted": "predicted", "observed": "seen"}[kind]
                look = {"color": colour, "ms": size, "mfc": "none", "mew": 1.5, "ls": "none"}
                axes.plot(places, steps, marker=marker, label=f"{names}, {word}", **look)
            _count(axes, places, steps)
        expected = runs[runs["first_touch_expected"] != ""].drop_duplicates("vectors.zero_share")
        axes.plot(
            expected["vectors.zero_share"].astype(float).map(shares.index),
            expected["first_touch_expected"].astype(float),
            color="black",
            linewidth=1,
            label="expected step of the first batch with a zero title,\nfrom the shares alone",
        )
        ticks = [tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500) if tick < never / 1.5]
        axes.set_yticks([*ticks, never], [*map(str, ticks), "never"])
        axes.yaxis.set_minor_locator(ticker.NullLocator())
        axes.set_ylim(-0.25, 1.4 * never)
        axes.set_xticks(range(len(shares)), [f"{share:g}" for share in shares])
        axes.set_xlabel("share of zero title rows")
        axes.set_ylabel("step of the first NaN weight")
        axes.grid(alpha=0.25)
        figure.legend(loc="lower left", ncols=3, frameon=False, bbox_to_anchor=(0.05, 0))


def _alike(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """{numerics, of several with the same steps in every run all: the runs of the first}."""
    steps = ["vectors.zero_share", "seed", "first_nan_predicted", "first_nan_observed"]
    found: dict[tuple, list[str]] = {}
    for name, group in runs.groupby("numerics", sort=False):
        key = tuple(map(tuple, group[steps].astype(str).sort_values(steps[:2]).to_numpy()))
        found.setdefault(key, []).append(str(name))
    return {" and ".join(names): runs[runs["numerics"] == names[0]] for names in found.values()}


def _count(axes, places: pd.Series, steps: pd.Series) -> None:
    """Beside a mark of several runs, how many."""
    counts = pd.DataFrame({"x": places, "y": steps}).value_counts()
    for (x, y), count in counts[counts > 1].items():
        axes.annotate(f"×{count}", (x, y), xytext=(8, 0), textcoords="offset points", va="center")


def row_norms(conditions: pd.DataFrame, path: Path) -> None:
    """Which norms of a title row kill, under each placement: a bar for each numerics, filled where
    the weights go to NaN, with a tick at each norm that was tried.

    conditions: as in reported.csv.
    """
    zones = tables.dead_zones(conditions)
    tried = sorted(set(conditions["vectors.planted_norm"].astype(float)))
    zero = np.floor(np.log10(tried[1])) - 3  # where 0 stands on the axis
    names = list(dict.fromkeys(conditions["similarity"]))
    shown = list(dict.fromkeys(conditions["numerics"]))

    def at(norms: Sequence[float]) -> np.ndarray:
        return np.array([np.log10(norm) if norm > 0 else zero for norm in norms])

    with picture(path, 130 + 48 * len(names)) as (figure, axes):
        place(figure, left=130, right=20, top=34, bottom=46)
        for number, numerics in enumerate(shown):
            shift = 0.27 * (number - (len(shown) - 1) / 2)
            for row in range(len(names)):
                height = [row + shift] * len(tried)
                axes.plot(at(tried), height, "|", color="#AAAAAA", ms=5, zorder=1)
            own = zones[zones["numerics"] == numerics]
            left, right = at(own["low"]), at(own["high"])
            rows = [names.index(name) + shift for name in own["similarity"]]
            look = {"color": NUMERICS[numerics][0], "label": f"NaN under {numerics}", "zorder": 2}
            axes.barh(rows, right - left + 0.8, 0.24, left - 0.4, **look)
        axes.plot([], [], "|", color="#AAAAAA", ms=5, label="a norm that was tried")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        powers = range(-40, 40, 10)
        labels = [f"1e{power}" if power else "1" for power in powers]
        axes.set_xticks([zero, *powers], ["0", *labels])
        axes.set_xlabel("norm of the title row")
        axes.grid(alpha=0.25, axis="x")
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="upper left", ncols=4, frameon=False, bbox_to_anchor=(0.14, 1.0))


def release_bands(rows: list[dict], wheels: list[dict], path: Path) -> None:
    """What became of the question's model, with its own formula, in each minor release: a band for
    each compiler.

    rows: as in experiments/releases/releases.json; wheels: as in wheels.csv beside it.
    """
    compilers = {"xla": "XLA", "kernels": "TensorFlow's\nkernels"}  # from below
    colours = {"NaN": NAN, "finite": FINITE, "not run": "#DDDDDD"}
    labels = {"NaN": "weights go to NaN", "finite": "trains", "not run": "not to be had, or no XLA"}
    found = {
        (row["release"], row["compiler"]): row["outcome"]
        for row in rows
        if row["similarity"] == "clamp_product"
    }
    with picture(path, 240) as (figure, axes):
        place(figure, left=90, right=26, top=34, bottom=82)
        for height, compiler in enumerate(compilers):
            for position, wheel in enumerate(wheels):
                outcome = found.get((wheel["release"], compiler), "not run")
                axes.barh(height, 1, 0.8, position - 0.5, color=colours[outcome], edgecolor="white")
        years = [wheel["since"][:4] for wheel in wheels]
        axes.set_xticks(range(len(wheels)), [wheel["minor"] for wheel in wheels], rotation=90)
        for position, year in enumerate(years):
            if year not in years[:position]:
                below = {"xytext": (0, -32), "textcoords": "offset points"}
                axes.annotate(year, (position - 0.4, -0.5), annotation_clip=False, **below)
        axes.set_yticks(range(len(compilers)), list(compilers.values()))
        axes.set_xlim(-0.5, len(wheels) - 0.5)
        axes.set_ylim(-0.5, len(compilers) - 0.5)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        handles = [plt.Rectangle((0, 0), 1, 1, color=colours[outcome]) for outcome in labels]
        figure.legend(
            handles,
            labels.values(),
            ncols=3,
            loc="upper left",
            frameon=False,
            bbox_to_anchor=(0.09, 1.0),
        )
        figure.text(90 / WIDTH, 6 / 240, "release of TensorFlow, and the year in which it came out")


def predicted(runs: pd.DataFrame, path: Path) -> None:
    """How many runs were predicted to die in each step, or never, and when they did: of the first
    weight, and of the encoder.

    runs: of all studies, with the columns of runs.csv.
    """
    exact = int(tables.exact(runs).sum())
    died = int((runs["first_nan_observed"] != "").sum())
    with picture(path, 462, ncols=2) as (figure, axes):
        place(figure, left=68, right=14, top=84, bottom=58, wspace=0.16)
        for panel, kind, title in (
            (axes[0], "first", "first NaN in any weight"),
            (axes[1], "encoder", "first NaN in the encoder"),
        ):
            _agreement(panel, runs[f"{kind}_nan_predicted"], runs[f"{kind}_nan_observed"])
            panel.set_title(title, loc="left", weight="bold")
            panel.set_xlabel("step, predicted before training")
        axes[0].set_ylabel("step, seen")
        figure.text(
            12 / WIDTH,
            1 - 10 / 462,
            f"In {exact:,} of {len(runs):,} runs, those of {runs['study'].nunique()} studies, both"
            f" steps are exactly the predicted ones: {died:,} died, {len(runs) - died:,} never"
            " did.\nA number counts runs. Blue: predicted exactly; vermilion: not.",
            va="top",
        )


def _span(step: str) -> str:
    """The place of a step on an axis: '3', '10+', 'never'."""
    if step == "":
        return "never"
    known = next((low for low in (50, 20, 10) if int(step) >= low), None)
    return step if known is None else f"{known}+"


def _agreement(axes, foretold: pd.Series, seen: pd.Series) -> None:
    """Counts of (predicted, seen), each step that occurs a place on both axes, later ones
    together."""
    steps = sorted({int(step) for step in [*foretold, *seen] if step != ""})
    names = [*dict.fromkeys(map(_span, map(str, steps))), "never"]
    cells = pd.DataFrame(
        {"x": foretold.map(_span), "y": seen.map(_span), "exact": foretold == seen}
    )
    for (x, y), cell in cells.groupby(["x", "y"]):
        column, row, count = names.index(x), names.index(y), len(cell)
        colour = FINITE if cell["exact"].all() else NAN
        axes.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, color=colour, linewidth=0))
        axes.text(column, row, str(count), ha="center", va="center", color="white", size=SMALL)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(-0.5, len(names) - 0.5)
    # "never" is wider than its cell
    axes.set_xticks(range(len(names)), [*names[:-1], f"\n{names[-1]}"])
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0, labelsize=SMALL)
    for edge in np.arange(len(names) + 1) - 0.5:
        axes.axhline(edge, color="#E4E4E4", linewidth=0.7, zorder=0)
        axes.axvline(edge, color="#E4E4E4", linewidth=0.7, zorder=0)
    axes.spines[:].set_visible(False)
