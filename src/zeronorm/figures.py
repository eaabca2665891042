"""A run's figure, the norms of its weights, and what every figure shares: size, letters, colours.

Colours are Okabe and Ito's, which the colour-blind tell apart. Vermilion is kept for a NaN.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist

DPI = 100
WIDTH = 880  # pixels, about what a page shows, so that no letter is made smaller there
STYLE: Any = {  # in points; 8 are 11 pixels
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "figure.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
NAN = "#D55E00"
NAN_TEXT = "#8F3F00"  # the same, dark enough to read on it
FINITE = "#0072B2"
COLOURS = {
    "words": "#0072B2",
    "titles": "#000000",
    "convolution/kernel": "#009E73",
    "convolution/bias": "#56B4E9",
    "dense/kernel": "#CC79A7",
    "dense/bias": "#E69F00",
}
ENCODER = ("convolution/kernel", "convolution/bias", "dense/kernel", "dense/bias")
FLAG = 17  # pixels, the height of a line that says which weights died
NORM = "norm (a bias starts at 0)"
STEPS = "steps done (0: before training; step n leads from n to n + 1)"

Lines = Mapping[str, tuple[np.ndarray, np.ndarray]]


@contextmanager
def picture(path: Path, height: float, width: float = WIDTH, **options) -> Iterator[tuple]:
    """(figure, axes), of width and height in pixels, which is written to `path` at the end.

    options: of `plt.subplots`.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(width / DPI, height / DPI), dpi=DPI, **options)
        try:
            yield figure, axes
            # the version of matplotlib would make another file of the same picture
            figure.savefig(path, metadata={"Software": None})
        finally:
            plt.close(figure)


def place(figure, left: float, right: float, top: float, bottom: float, **gaps: float) -> None:
    """Margins of the panels in pixels, which needs no layout engine: one would double the time."""
    width, height = figure.get_size_inches() * DPI
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, top=1 - top / height, bottom=bottom / height
    )
    figure.subplots_adjust(**gaps)


def norms(
    curves: Mapping[str, np.ndarray],
    start: Mapping[str, float],
    deaths: Mapping[str, int],
    title: str,
    path: Path,
) -> None:
    """Norm of every weight against the steps done, and where it became NaN.

    curves: {"norm/<weight>": float [steps], after each step, NaN where not finite};
    start: {weight: norm before the first step};
    deaths: {weight: first non-finite step}.
    """
    lines = {
        name: (np.arange(len(curve) + 1), np.concatenate([[start[name]], curve]))
        for name in COLOURS
        if (curve := curves.get(f"norm/{name}")) is not None
    }
    steps = max((len(done) - 1 for done, _ in lines.values()), default=1)
    with picture(path, 430) as (figure, axes):
        place(figure, left=72, right=215, top=48, bottom=48)
        lines_of = textwrap.wrap(title, 120, max_lines=2, placeholder=" ...")
        figure.text(12 / WIDTH, 1 - 8 / 430, "\n".join(lines_of), va="top")
        draw_norms(axes, lines, deaths, steps, span([lines]))
        axes.set_ylabel(NORM)
        axes.set_xlabel(STEPS)
        axes.legend(
            handles=signs(lines, deaths), loc="upper left", bbox_to_anchor=(1, 1), frameon=False
        )


def span(panels: Sequence[Lines]) -> tuple[float, float]:
    """The least and the largest norm that panels show, and a little more."""
    norms = np.concatenate([[1.0], *(norm for lines in panels for _, norm in lines.values())])
    norms = norms[np.isfinite(norms) & (norms > 0)]
    return norms.min() / 1.7, norms.max() * 1.7


def signs(lines: Lines, deaths: Mapping[str, int]) -> list[Artist]:
    """What stands in the legend: the weights, and what tells a reader that one is NaN."""
    handles: list[Artist] = [
        plt.Line2D([], [], color=COLOURS[name], linestyle=_dashes(name), linewidth=1.6, label=name)
        for name in lines
    ]
    if deaths:
        cross: dict[str, Any] = {
            "marker": "x",
            "ms": 8,
            "mew": 2,
            "linestyle": "none",
            "color": "#555555",
        }
        handles += [
            plt.Line2D([], [], **cross, label="became NaN here; drawn\nat its last finite norm"),
            plt.Rectangle((0, 0), 1, 1, color=NAN, alpha=0.25, linewidth=0, label="from here NaN"),
        ]
    return handles


def _dashes(name: str) -> Literal["-", "--"]:
    """The two kernels start at almost the same norm."""
    return "--" if name.startswith("dense") else "-"


def draw_norms(
    axes,
    lines: Lines,
    deaths: Mapping[str, int],
    steps: int,
    heights: tuple[float, float],
    flags: int | None = None,
) -> None:
    """One panel. Its steps' axis is linear up to 1 and logarithmic from there, because deaths come
    early. A weight that became NaN in step n has its cross between n and n + 1 steps done, at its
    last finite norm; a line above names it.

    lines: {weight: (steps done, int [points], norm, float [points])};
    deaths: {weight: first non-finite step};
    steps: where the axis ends; heights: the least and the largest norm;
    flags: for how many lines above there is room; None: for as many as there are.
    """
    axes.set_xscale("symlog", linthresh=1)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(-0.1, max(steps, 1))
    if steps < 10:  # the axis has no other power of ten
        axes.set_xticks(range(max(steps, 1) + 1))
    for name, (done, norm) in lines.items():
        died = deaths.get(name, steps)
        # a bias starts at 0, which has no place on a logarithmic axis
        shown = (norm > 0) & np.isfinite(norm) & (done <= died)
        done, norm = done[shown].astype(float), norm[shown]
        if name in deaths and len(done):
            done, norm = np.append(done, died + 0.5), np.append(norm, norm[-1])
            axes.plot(
                done[-1], norm[-1], "x", color=COLOURS[name], ms=8, mew=2, clip_on=False, zorder=5
            )
        axes.plot(done, norm, _dashes(name), color=COLOURS[name], linewidth=1.6)
    _flag(axes, deaths, heights, len(set(deaths.values())) if flags is None else flags)
    axes.grid(alpha=0.25)


def _flag(axes, deaths: Mapping[str, int], heights: tuple[float, float], room: int) -> None:
    """Shades what is NaN and says above, a line for each step, which weights it took."""
    height = axes.get_window_extent().height
    low, high = heights
    axes.set_yscale("log")
    axes.set_ylim(low, low * (high / low) ** (1 / (1 - FLAG * room / height)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    to_fraction = axes.transData + axes.transAxes.inverted()
    for row, step in enumerate(sorted(set(deaths.values()))):
        axes.axvspan(step + 0.5, axes.get_xlim()[1], color=NAN, alpha=0.13, linewidth=0)
        across = to_fraction.transform((step + 0.5, low))[0]
        left = across > 0.55
        axes.annotate(
            f"{said([name for name in deaths if deaths[name] == step])}: NaN in step {step}",
            (across, 1 - FLAG * (row + 0.6) / height),
            xycoords="axes fraction",
            xytext=(-4 if left else 4, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            color=NAN_TEXT,
        )


def said(weights: Sequence[str]) -> str:
    """Weights as a reader names them: the encoder's four as one."""
    whole = set(ENCODER) <= set(weights)
    names = [name for name in weights if not (whole and name in ENCODER)]
    return ", ".join([*names, "encoder"] if whole else names)
