"""The picture of how one zero row turns every weight into NaN. Its places are pixels, from above
and from the left."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from zeronorm.figures import FINITE, NAN, NAN_TEXT, WIDTH, picture, place

HEIGHT = 462
ROWS, COLUMNS, CELL = 7, 5, (25, 17)  # of a matrix
HIT = 3  # its row that is zero
WEIGHTS = ("words", "convolution", "dense")
# formula, what its guard sends back to the root at b = 0, the root's derivative, their product
FORMULAS = (
    (
        "clamp_product, the question's",
        "z·b / max(|z| |b|, ε)",
        "0: the maximum is ε, so |b| has no share in it",
        "∞",
        "0 · ∞",
    ),
    (
        "add_to_product, the answer's",
        "z·b / (|z| |b| + ε)",
        "0: −|z| (z·b) / ε², and z·b = 0",
        "∞",
        "0 · ∞",
    ),
    (
        "add_to_squares, a cure",
        "z·b / √((|z|² + ε) (|b|² + ε))",
        "0: z·b = 0",
        "finite",
        "0",
    ),
)


def draw(path: Path) -> None:
    """Above: batch, zero row, NaN row, next batch, every weight. Below: why the row turns."""
    with picture(path, HEIGHT) as (figure, axes):
        place(figure, left=0, right=0, top=0, bottom=0)
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(HEIGHT, 0)
        axes.set_axis_off()
        _flow(axes)
        _formulas(axes)


def _flow(axes: Axes) -> None:
    _bracket(axes, (12, 521), "step n")
    _bracket(axes, (548, 868), "step n + 1 or later")
    _box(axes, (12, 82, 122, 66), "a batch: a text z,\nits title b and\nten random ones", "#EEEEEE")
    _matrix(axes, (206, 56), "0")
    _matrix(axes, (396, 56), "NaN")
    _box(
        axes,
        (548, 82, 122, 66),
        "a batch that has\nthis title again:\ncosine(z, b) is NaN",
        "#EEEEEE",
    )
    for number, name in enumerate(WEIGHTS):
        _box(axes, (752, 56 + 42 * number, 116, 34), f"{name}: NaN", NAN, "white")
    middle = 56 + CELL[1] * (HIT + 0.5)
    _arrow(axes, (135, middle), (205, middle), "touches a\nzero row")
    _arrow(axes, (332, middle), (395, middle), "gradient\n0 · ∞", NAN_TEXT)
    _arrow(axes, (522, middle), (547, middle), "", NAN_TEXT)
    for number in range(3):
        _arrow(axes, (671, middle), (751, 73 + 42 * number), "", NAN_TEXT)
    axes.text(692, 54, "gradient of z: NaN", ha="center", va="center", color=NAN_TEXT)
    under: dict[str, Any] = {"ha": "center", "va": "top"}
    axes.text(268, 182, "titles, before the step", **under)
    axes.text(458, 182, "after it: one row is NaN", **under)
    axes.text(609, 182, "the loss was finite so far", **under)
    axes.text(810, 182, "every weight is NaN", **under)


def _formulas(axes: Axes) -> None:
    axes.axhline(222, 12 / WIDTH, 1 - 12 / WIDTH, color="#CCCCCC", linewidth=1)
    axes.text(
        12,
        244,
        "Why the gradient is 0 · ∞: the norm is a root, |b| = √(Σb²), and a root's derivative"
        " 1 / (2 √x) is infinite at 0.",
        va="center",
        weight="bold",
    )
    across = (12, 212, 400, 696, 802)
    heads = ("similarity", "formula", "sent back to the root of b = 0", "its derivative", "product")
    _line(axes, across, 272, heads, "#555555")
    for row, words in enumerate(FORMULAS):
        _line(axes, across, 300 + 28 * row, words, "black")
        axes.text(
            across[-1],
            300 + 28 * row,
            words[-1],
            va="center",
            weight="bold",
            color=FINITE if words[-1] == "0" else NAN_TEXT,
        )
    axes.text(
        12,
        392,
        "0 · ∞ is NaN under XLA in every release, and under TensorFlow's own kernels up to 1.13.2."
        " The kernels since 1.14.0 define it\nas 0, so the same script trains there."
        " An inactive hinge saves nobody: it sends 0, and 0 · ∞ needs no more.\n"
        "Frozen titles never take the gradient; uniform rows are never zero.",
        va="top",
        linespacing=1.5,
    )


def _line(axes: Axes, across: Sequence[int], y: float, words: Sequence[str], colour: str) -> None:
    for x, word in zip(across[:4], words[:4], strict=True):
        axes.text(x, y, word, va="center", color=colour)
    if colour != "black":
        axes.text(across[4], y, words[4], va="center", color=colour)


def _bracket(axes: Axes, ends: tuple[int, int], text: str) -> None:
    axes.text(sum(ends) / 2, 18, text, ha="center", va="center", weight="bold")
    axes.plot([ends[0], ends[0], ends[1], ends[1]], [36, 30, 30, 36], color="#999999", linewidth=1)


def _box(
    axes: Axes, at: tuple[float, float, float, float], text: str, face: str, ink: str = "black"
) -> None:
    x, y, width, height = at
    axes.add_patch(plt.Rectangle((x, y), width, height, facecolor=face, edgecolor="#999999"))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", color=ink)


def _matrix(axes: Axes, corner: tuple[float, float], hit: str) -> None:
    """The rows of the titles, one of them zero or NaN."""
    for row in range(ROWS):
        for column in range(COLUMNS):
            x, y = corner[0] + column * CELL[0], corner[1] + row * CELL[1]
            face = "#A9CCE6" if row != HIT else NAN if hit == "NaN" else "white"
            axes.add_patch(
                plt.Rectangle((x, y), *CELL, facecolor=face, edgecolor="#777777", lw=0.7)
            )
            if row == HIT:
                ink = "white" if hit == "NaN" else "black"
                middle = (x + CELL[0] / 2, y + CELL[1] / 2)
                axes.text(*middle, hit, ha="center", va="center", color=ink, size=8)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str,
    colour: str = "black",
) -> None:
    axes.annotate(
        "",
        end,
        start,
        arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0},
    )
    if text:
        middle = ((start[0] + end[0]) / 2, start[1] - 6)
        axes.text(*middle, text, ha="center", va="bottom", color=colour)
