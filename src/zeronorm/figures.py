"""A run's figure: the norms of its weights. Colours are Okabe and Ito's, which the colour-blind
tell apart."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

COLOURS = {
    "words": "#0072B2",
    "titles": "#D55E00",
    "convolution/kernel": "#009E73",
    "convolution/bias": "#56B4E9",
    "dense/kernel": "#CC79A7",
    "dense/bias": "#E69F00",
}


def norms(
    curves: Mapping[str, np.ndarray],
    start: Mapping[str, float],
    deaths: Mapping[str, int],
    title: str,
    path: Path,
) -> None:
    """Norm of every weight against the steps done, with a cross at the last finite value of each
    that died.

    curves: {"norm/<weight>": float [steps], after each step, NaN where not finite};
    start: {weight: norm before the first step};
    deaths: {weight: first non-finite step}.
    """
    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=100)
    # a layout engine would double the time
    figure.subplots_adjust(left=0.08, right=0.77, bottom=0.12, top=0.92)
    draw_norms(axes, curves, start, deaths)
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_ylabel("norm")
    figure.legend(loc="upper left", bbox_to_anchor=(0.77, 0.92), frameon=False, fontsize=9)
    figure.savefig(path)
    plt.close(figure)


def draw_norms(
    axes, curves: Mapping[str, np.ndarray], start: Mapping[str, float], deaths: Mapping[str, int]
) -> None:
    """One panel. The steps' axis is linear up to 1 and logarithmic from there, because deaths come
    early."""
    steps = max((len(curve) for curve in curves.values()), default=1)
    for name, colour in COLOURS.items():
        curve = curves.get(f"norm/{name}")
        if curve is None:
            continue
        values = np.concatenate([[start[name]], curve])  # values[n]: after n steps
        # a bias starts at 0, which has no place on a logarithmic axis
        values = np.where(values > 0, values, np.nan)
        # the two kernels start at almost the same norm
        style = "--" if name.startswith("dense") else "-"
        axes.plot(np.arange(len(values)), values, style, color=colour, linewidth=1.6, label=name)
        until = deaths[name] + 1 if name in deaths else 0
        alive = np.flatnonzero(np.isfinite(values[:until]))
        if len(alive):
            where = alive[-1]
            axes.plot(
                where, values[where], "x", color=colour, ms=9, mew=2.2, clip_on=False, zorder=5
            )
    axes.set_yscale("log")
    axes.set_xscale("symlog", linthresh=1)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(-0.1, steps)
    axes.set_xlabel("steps done")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
