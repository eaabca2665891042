"""Figures, for a run and for a study. Colours are Okabe and Ito's, which the colour-blind tell apart."""

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


def norms(curves: Mapping[str, np.ndarray], deaths: Mapping[str, int], title: str, path: Path) -> None:
    """Norm of every weight against the step, with a cross at the last finite value of each that died.

    curves: {"norm/<weight>": float [steps], NaN where not finite}; deaths: {weight: first non-finite step}.
    """
    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=100, layout="constrained")
    draw_norms(axes, curves, deaths)
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_ylabel("norm after the step")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(path)
    plt.close(figure)


def draw_norms(axes, curves: Mapping[str, np.ndarray], deaths: Mapping[str, int]) -> None:
    """One panel: the curves, and a cross for each death; a weight that dies in step 0 has no curve, only a cross."""
    steps = max((len(curve) for curve in curves.values()), default=0)
    floor = min((np.nanmin(c) for c in curves.values() if np.isfinite(c).any() and np.nanmin(c) > 0), default=1.0)
    for name, colour in COLOURS.items():
        curve = curves.get(f"norm/{name}")
        if curve is None:
            continue
        axes.plot(np.arange(len(curve)), curve, color=colour, linewidth=1.6, label=name)
        if name in deaths:
            alive = np.flatnonzero(np.isfinite(curve[: deaths[name]]))
            height = curve[alive[-1]] if len(alive) else floor
            axes.plot(
                deaths[name], height, "x", color=colour, markersize=10, markeredgewidth=2.2, clip_on=False, zorder=5
            )
    axes.set_yscale("log")
    axes.set_xlim(-0.02 * max(steps, 1), steps)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def study_norms(runs, curves, path: Path) -> None:
    """The question's condition (trainable, pretrained, clamp_product) under each numerics of a study, side by side.

    runs, curves: pandas tables as in experiments/<study>/runs.csv and curves.csv. Draws the study's first condition of
    each numerics where it has no such condition.
    """
    wanted = runs[
        (runs["trainable"] == "true") & (runs["init"] == "pretrained") & (runs["similarity"] == "clamp_product")
    ]
    wanted = (wanted if len(wanted) else runs).drop_duplicates("numerics")
    figure, panels = plt.subplots(
        1,
        len(wanted),
        figsize=(3.3 * len(wanted) + 1.7, 3.4),
        dpi=110,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, (_, run) in zip(panels[0], wanted.iterrows(), strict=True):
        condition = f"{run['trainable']} {run['init']} {run['similarity']} {run['numerics']}"
        mine = curves[(curves["condition"] == condition) & (curves["seed"] == run["seed"])]
        last = int(mine["step"].max())
        drawn, deaths = {}, {}
        for name in COLOURS:
            part = mine[mine["name"] == f"norm/{name}"]
            curve = np.full(last + 1, np.nan)
            curve[part["step"]] = part["value"]
            known = np.flatnonzero(np.isfinite(curve))
            end = run[f"norm/{name}_end"] not in ("", None)
            if end and len(known):
                curve = np.interp(np.arange(last + 1), known, curve[known])
            elif not end:
                deaths[name] = int(run["first_nan_observed"] if name == "titles" else run["encoder_nan_observed"])
            drawn[f"norm/{name}"] = curve
        draw_norms(axes, drawn, deaths)
        verdict = f"dies in step {run['first_nan_observed']}" if deaths else "stays finite"
        axes.set_title(f"{run['numerics']}: {verdict}", fontsize=10, loc="left")
    panels[0][0].set_ylabel("norm after the step")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path)
    plt.close(figure)
