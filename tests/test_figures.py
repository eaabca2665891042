"""Figures: drawn from committed data, legible at the width they are read, and one convention of
steps, of colours and of scales in all of them."""

import shutil
import struct
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib import colors, text
from matplotlib.figure import Figure

from zeronorm import checkout
from zeronorm import figures as drawing
from zeronorm.report import committed, figures, quality, tables, write

ROOT = checkout.conf_dir().parent
EXPERIMENTS = ROOT / "experiments"
STUDIES = sorted(path.parent.name for path in EXPERIMENTS.glob("*/reported.csv"))
PICTURES = sorted(EXPERIMENTS.rglob("*.png"))
PAGE = 830  # pixels, of a README's column on a wide screen
WEIGHTS = tuple(drawing.COLOURS)


def table(study, file):
    return committed.read_table(EXPERIMENTS / study / f"{file}.csv")


@pytest.fixture
def seen(monkeypatch):
    """Of every figure written: {"figure", "path", "texts": [(words, size, box)]}, in its pixels."""
    found, texts = [], []
    draw, save = text.Text.draw, Figure.savefig

    def drawn(self, renderer):
        if self.get_visible() and self.get_text().strip():
            texts.append((self.get_text(), self.get_fontsize(), self.get_window_extent(renderer)))
        return draw(self, renderer)

    def saved(self, path, **options):
        texts.clear()
        save(self, path, **options)
        found.append({"figure": self, "path": path, "texts": list(texts)})

    monkeypatch.setattr(text.Text, "draw", drawn)
    monkeypatch.setattr(Figure, "savefig", saved)
    return found


def legible(one):
    """Raises unless every letter of a figure can be read on a page, and stands alone."""
    width, height = one["figure"].get_size_inches() * one["figure"].dpi
    assert width <= 900
    for words, size, box in one["texts"]:
        assert size / 72 * one["figure"].dpi * min(1, PAGE / width) >= 10, words
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, words
    for (words, _, box), (others, _, other) in combinations(one["texts"], 2):
        assert not box.padded(-1).overlaps(other.padded(-1)), (words, others)


def current(path, committed_one):
    """Raises unless a picture that was drawn now is the one that is committed."""
    now, then = (plt.imread(picture) for picture in (path, committed_one))
    assert now.shape == then.shape, committed_one
    # an edge may be smoothed a little otherwise by another machine
    assert (np.abs(now - then) > 0.1).mean() < 1e-4, f"{committed_one} is not of today's tables"


def patches(one, colour):
    """The filled shapes of a figure that have a colour, however transparent."""
    wanted = colors.to_rgb(colour)
    return [
        patch
        for axes in one["figure"].axes
        for patch in axes.patches
        if patch.get_facecolor()[:3] == wanted and patch.get_visible()
    ]


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_s_figures_are_drawn_from_its_tables_and_can_be_read(name, tmp_path, seen):
    for file in (EXPERIMENTS / name).glob("*.csv*"):
        shutil.copy(file, tmp_path)
    drawn = write.draw(tmp_path)
    assert sorted(drawn) == sorted(path.name for path in (EXPERIMENTS / name).glob("*.png"))
    assert [one["path"].name for one in seen] == drawn
    for one in seen:
        legible(one)
        current(one["path"], EXPERIMENTS / name / one["path"].name)


def test_what_is_of_no_single_study_can_be_read_too(tmp_path, seen, monkeypatch):
    shutil.copytree(EXPERIMENTS, tmp_path / "experiments", ignore=shutil.ignore_patterns("*.png"))
    monkeypatch.setattr(committed, "experiments_dir", lambda: tmp_path / "experiments")
    monkeypatch.setattr(write, "draw", lambda folder: [])
    paths = {path.relative_to(tmp_path) for path in write.redraw()}
    studies = [EXPERIMENTS / name for name in STUDIES]
    committed_ones = {path.relative_to(ROOT) for path in PICTURES if path.parent not in studies}
    assert paths == committed_ones and len(seen) == len(paths)
    for one in seen:
        legible(one)
    for path in paths:
        current(tmp_path / path, ROOT / path)


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: str(path.relative_to(EXPERIMENTS)))
def test_a_committed_picture_is_as_wide_as_it_is_read(path):
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    assert width <= 900 and height <= 1000


@pytest.mark.parametrize("name", STUDIES)
def test_the_norms_drawn_are_of_a_run_that_dies_where_any_does(name):
    runs = table(name, "runs")
    drawn = figures.drawn_runs(runs)
    died = (runs["outcome"] == "nan").any()
    assert (drawn["outcome"] == "nan").any() == died
    assert drawn["numerics"].is_unique and "auto" not in set(drawn["numerics"])
    assert drawn["seed"].nunique() == 1
    factors = [factor for factor in tables.factors_of(runs) if factor != "numerics"]
    assert len(drawn[factors].drop_duplicates()) == 1
    if name == "dose_response":
        assert set(drawn["vectors.zero_share"]) == {"0.01"}


def test_auto_is_drawn_where_it_is_not_one_of_the_others():
    runs = table("where_it_dies", "runs")
    alone = runs[runs["numerics"].isin(["xla", "auto"])]
    assert list(figures.drawn_runs(alone)["numerics"]) == ["xla", "auto"]


def norms_of(deaths, steps=40, weights=WEIGHTS):
    """Curves, start and deaths, as `experiment` hands them to `norms`."""
    curves = {f"norm/{name}": np.linspace(2.0, 3.0, steps) for name in weights}
    for name, step in deaths.items():
        curves[f"norm/{name}"][step:] = np.nan
    return curves, dict.fromkeys(weights, 2.0), deaths


@pytest.mark.parametrize("step", [0, 1, 2, 7, 18, 39])
def test_a_cross_stands_between_the_steps_done_before_and_after_the_nan(step, tmp_path, seen):
    drawing.norms(*norms_of({"titles": step}), "a run", tmp_path / "norms.png")
    [one] = seen
    [axes] = one["figure"].axes
    [cross] = [line for line in axes.lines if line.get_marker() == "x"]
    [where], [norm] = cross.get_data()
    assert step < where < step + 1
    assert norm == pytest.approx(2.0 if step == 0 else 2 + (step - 1) / 39)
    [shade] = patches(one, drawing.NAN)
    assert shade.get_x() == where and shade.get_x() + shade.get_width() >= 40
    assert f"titles: NaN in step {step}" in [words for words, *_ in one["texts"]]


@pytest.mark.parametrize(
    "deaths",
    [
        {},
        {"titles": 0},
        dict.fromkeys(WEIGHTS, 0),
        {name: 0 if name == "titles" else 1 for name in WEIGHTS},
        {name: 18 + (name != "titles") for name in WEIGHTS},
        {name: 5 * number for number, name in enumerate(WEIGHTS)},
        {name: 38 + (name == "words") for name in WEIGHTS},
    ],
    ids=str,
)
@pytest.mark.parametrize("steps", [40, 4000])
def test_a_run_s_figure_can_be_read_however_it_died(deaths, steps, tmp_path, seen):
    title = " ".join(["trainable pretrained clamp_product xla"] * 6)
    drawing.norms(*norms_of(deaths, steps), title, tmp_path / "norms.png")
    [one] = seen
    legible(one)
    said = " ".join(words for words, *_ in one["texts"])
    for step in set(deaths.values()):
        assert f": NaN in step {step}" in said
    assert ("from here NaN" in said) == bool(deaths)
    assert len(patches(one, drawing.NAN)) == len(set(deaths.values()))


@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_a_short_run_has_its_figure(steps, tmp_path, seen):
    curves, start, _ = norms_of({"titles": 0}, steps)
    start["dense/bias"] = 0.0
    drawing.norms(curves, start, {"titles": 0, "dense/bias": 0}, "short", tmp_path / "norms.png")
    legible(seen[0])


def test_vermilion_is_a_nan_and_nothing_else():
    others = [*drawing.COLOURS.values(), *(colour for colour, _ in figures.NUMERICS.values())]
    others += [drawing.FINITE, *(colour for colour, _ in quality.LINES)]
    assert drawing.NAN not in others
    for looks in (figures.NUMERICS.values(), quality.LINES):
        assert (
            len({colour for colour, _ in looks}) == len({mark for _, mark in looks}) == len(looks)
        )


@pytest.mark.parametrize("best", [0.46, 0.7, 1.0])
def test_a_quality_has_its_colour_whatever_stands_beside_it(best, tmp_path, seen):
    conditions = table("where_it_dies", "reported").astype({"hits_at_10_mean": float})
    conditions.loc[0, "hits_at_10_mean"] = 0.45
    conditions.loc[4, "hits_at_10_mean"] = best
    quality.outcome(conditions, tmp_path / "outcome.png")
    wanted = colors.to_hex(quality._shade(0.45))
    assert wanted == colors.to_hex(patches(seen[0], quality._shade(0.45)[:3])[0].get_facecolor())
    dead = int((conditions["nan_runs"] > 0).sum())
    assert len(patches(seen[0], drawing.NAN)) == dead


@pytest.mark.parametrize("name", STUDIES)
def test_hits_are_drawn_from_0_to_1_and_no_picture_is_a_single_column(name, tmp_path, seen):
    conditions = table(name, "reported")
    if len(conditions) > write.MOST_CONDITIONS or len(tables.varying(conditions)) > 5:
        return
    quality.outcome(conditions, tmp_path / "outcome.png")
    quality.quality(conditions, tmp_path / "quality.png")
    outcome, ranked = seen
    if conditions["numerics"].nunique() == conditions["similarity"].nunique() == 1:
        ranges = [axes.get_ylim() for axes in outcome["figure"].axes]
        ranges = ranges if len(ranges) == 2 else [outcome["figure"].axes[0].get_xlim()]
        assert ranges == [(-0.02, 1.02)] * len(ranges)
    else:
        assert outcome["figure"].axes[0].get_xlim()[1] > 1
    assert ranked["figure"].axes[0].get_xlim() == (-0.02, 1.02)


@pytest.mark.parametrize("name", ["ablation", "quick_ablation", "epsilon_placement", "repair"])
def test_the_rows_stand_in_the_order_of_the_table(name, tmp_path, seen):
    conditions = table(name, "reported")
    quality.quality(conditions, tmp_path / "quality.png")
    axes = seen[0]["figure"].axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    alive = conditions[conditions["nan_runs"] == 0]
    assert shown == list(dict.fromkeys(quality._labels(alive, tables.varying(conditions))))
    assert list(axes.get_yticks()) == sorted(axes.get_yticks())
    marks = [container.lines[0].get_xydata() for container in axes.containers]
    places = [tuple(mark) for mark in np.concatenate(marks).round(4) if not np.isnan(mark[0])]
    assert len(set(places)) == len(places)  # none hides another


def test_a_step_that_was_not_the_predicted_one_is_seen(tmp_path, seen):
    runs = pd.concat([table(name, "runs") for name in STUDIES], ignore_index=True)
    runs = runs[tables.exact(runs)]
    figures.predicted(runs, tmp_path / "right.png")
    dead = runs.index[runs["first_nan_observed"] != ""][0]
    runs.loc[dead, "first_nan_observed"] = ""
    figures.predicted(runs, tmp_path / "wrong.png")
    right, wrong = seen
    assert not patches(right, drawing.NAN) and len(patches(wrong, drawing.NAN)) == 1
    for one, exact in ((right, len(runs)), (wrong, len(runs) - 1)):
        assert any(f"In {exact:,} of {len(runs):,} runs" in words for words, *_ in one["texts"])
        for axes in one["figure"].axes:
            assert sum(int(words.get_text()) for words in axes.texts) == len(runs)


def test_the_dose_s_steps_are_the_table_s(tmp_path, seen):
    """A mark stands at the step that the tables say, 0-based, and numerics that agree in every run
    are drawn once."""
    runs = table("dose_response", "runs")
    figures.dose_response(runs, tmp_path / "dose.png")
    [axes] = seen[0]["figure"].axes
    said = {line.get_label(): line for line in axes.lines}
    assert {"kernels, seen", "xla and tf1, predicted", "xla and tf1, seen"} <= set(said)
    steps = runs[runs["numerics"] == "xla"]["first_nan_observed"]
    heights = said["xla and tf1, seen"].get_ydata()
    assert sorted(heights)[: (steps != "").sum()] == sorted(int(s) for s in steps if s != "")
    runs.loc[runs.index[runs["numerics"] == "tf1"][-1], "first_nan_observed"] = "7"
    assert list(figures._alike(runs)) == ["kernels", "xla", "tf1"]


@pytest.mark.parametrize("factor", ["vectors.zero_share", "vectors.planted_norm"])
def test_a_factor_that_a_part_of_a_study_has_is_the_axis_of_no_figure(tmp_path, factor):
    """As in a study of several grids: its other conditions have no place on that axis."""
    study = {"vectors.zero_share": "dose_response", "vectors.planted_norm": "row_norms"}[factor]
    for file in (EXPERIMENTS / study).glob("*.csv*"):
        shutil.copy(file, tmp_path)
    assert f"{study}.png" in write.draw(tmp_path)
    for file in ("runs", "reported"):
        made = table(study, file)
        made.loc[made[factor] == made[factor].iloc[0], factor] = ""
        made.to_csv(tmp_path / f"{file}.csv", **committed.CSV)
    assert f"{study}.png" not in write.draw(tmp_path)


def bars(container) -> list[tuple[float, float]]:
    """(lower end, upper end) of each bar of an errorbar that goes up."""
    return [(low[1], high[1]) for low, high in container.lines[2][0].get_segments()]


@pytest.mark.parametrize("ranked", [False, True])
def test_bars_are_the_intervals_where_there_are_any(ranked, tmp_path, seen):
    conditions = table("init_scale", "reported")
    mean = conditions["hits_at_10_mean"].astype(float)
    reach = conditions["hits_at_10_std"].astype(float)
    low, high = mean - reach, mean + reach
    if ranked:
        low, high = mean - 0.2, mean + 0.1
        for metric in ("hits_at_10", "hits_at_1"):
            own = conditions[f"{metric}_mean"].astype(float)
            conditions[f"{metric}_low"], conditions[f"{metric}_high"] = own - 0.2, own + 0.1
    quality.outcome(conditions, tmp_path / "outcome.png")
    figure = seen[0]["figure"]
    drawn = {pair for container in figure.axes[0].containers for pair in bars(container)}
    wanted = sorted(zip(low, high, strict=True))
    assert np.allclose(sorted(drawn), sorted(set(wanted)))
    said = "95 % interval" if ranked else "standard deviation"
    assert any(said in text.get_text() for text in figure.texts)
