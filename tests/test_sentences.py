"""What a README says in prose of its tables is so in the tables."""

import json

import numpy as np
import pytest

from zeronorm.report import committed, measured, single_steps
from zeronorm.report.ranks import ABSENT

WINDOWS = 449


def conditions(name, **chosen):
    table = committed.conditions(name)
    return table[np.logical_and.reduce([table[key] == value for key, value in chosen.items()])]


def paired(name, metric, one, other):
    """The half-width and the mean of the 95 % interval of the difference, over the seeds."""
    runs = committed.committed_runs(name)
    a, b = (
        runs[np.logical_and.reduce([runs[key] == value for key, value in chosen.items()])]
        .set_index("seed")[metric]
        .astype(float)
        for chosen in (one, other)
    )
    difference = a - b
    quantile = {3: 4.303}[len(difference)]  # Student's, of two degrees of freedom
    return difference.mean(), quantile * difference.std() / len(difference) ** 0.5


def settled(*given):
    mean, half = paired(*given)
    return abs(mean) > half


def test_dose_response_the_drawn_orders_are_as_expected_to_three_standard_errors():
    rows = json.loads(committed.existing("prediction", "orders.json").read_text())["rows"]
    own = [row for row in rows if (row["corpus"], row["batch"]) == ("wikipedia_excerpt", 1)]
    assert len(own) == 6
    for row in own:
        assert abs(row["step_drawn"] - row["step"]) <= 3 * max(row["step_error"], 1e-3)


def test_ablation_any_one_factor_changed_is_finite():
    table = committed.conditions("ablation")
    dead = {"trainable": "true", "init": "pretrained", "numerics": ("xla", "tf1")}
    for _, row in table.iterrows():
        factors = (
            row["trainable"] == dead["trainable"],
            row["init"] == dead["init"],
            row["numerics"] in dead["numerics"],
            row["similarity"] in ("clamp_product", "add_to_product"),
        )
        assert (row["nan_runs"] > 0) == all(factors)


def test_ablation_the_order_of_the_placements_is_that_of_hits_10():
    for numerics in ("kernels", "xla", "tf1"):
        own = conditions("ablation", trainable="true", init="pretrained", numerics=numerics)
        own = own[own["nan_runs"] == 0].set_index("similarity")
        assert own["hits_at_10_mean"].nlargest(2).index.tolist() == [
            "add_to_squares",
            "clamp_squares",
        ]
        if numerics != "xla":
            for metric in ("hits_at_1_mean", "mrr_mean"):
                assert own[metric]["clamp_squares"] > own[metric]["add_to_squares"]
        start = {"trainable": "true", "init": "pretrained", "numerics": numerics}
        pair = [start | {"similarity": name} for name in ("add_to_squares", "clamp_squares")]
        assert not settled("ablation", "mrr", *pair)


def test_ablation_frozen_the_zero_titles_are_not_all_of_it():
    """Of the windows whose title has a vector, 269 of 449, a pretrained matrix finds a quarter at
    once, of all a uniform one four fifths; the zero titles it never has among the first ten."""
    frozen = {
        start: conditions("ablation", trainable="false", init=start)
        for start in ("pretrained", "uniform")
    }
    pretrained, uniform = (one["hits_at_1_mean"] for one in frozen.values())
    assert (frozen["pretrained"]["zero_hits_at_10_mean"] == 0).all()
    assert (abs(pretrained * WINDOWS / 269 - 1 / 4) < 0.03).all() and (
        abs(uniform - 4 / 5) < 0.03
    ).all()


def test_ablation_from_uniform_rows_the_placements_differ_by_less_than_a_point():
    hits = conditions("ablation", trainable="true", init="uniform")["hits_at_10_mean"]
    error = (hits.mean() * (1 - hits.mean()) / WINDOWS) ** 0.5
    assert hits.max() - hits.min() < 0.01 < 2 * error


def test_init_scale_the_smallest_norm_is_best_and_the_largest_worst():
    for start in ("pretrained", "repaired"):
        own = conditions("init_scale", init=start)
        own = own[own["init.norm"] != ""].set_index("init.norm")
        for metric in ("mrr_mean", "hits_at_10_mean"):
            assert (own[metric].idxmax(), own[metric].idxmin()) == ("0.1", "10.0")


def test_best_a_larger_rate_is_worse_by_little_at_the_largest_norm():
    own = conditions("best", init="uniform").set_index(
        ["init.norm", "optimizer.keras.learning_rate"]
    )
    for metric in ("hits_at_1_mean", "hits_at_10_mean", "mrr_mean"):
        lost = {
            norm: own[metric][norm, "0.001"] - own[metric][norm, "0.003"]
            for norm in ("0.03", "0.1", "0.3")
        }
        assert 0 < lost["0.3"] < min(lost["0.03"], lost["0.1"])
    best = own["mrr_mean"].idxmax()
    assert best == own["hits_at_10_mean"].idxmax() == ("0.3", "0.001")


def test_repair_the_mean_row_ranks_last():
    """Under each placement; and zero rows that learn end far above it."""
    table = committed.conditions("repair")
    for placement in ("clamp_product", "add_to_squares", "double_where"):
        own = table[(table["init"] == "repaired") & (table["similarity"] == placement)]
        own = own.set_index("init.repair")["hits_at_10_mean"]
        assert own.idxmin() == "mean"
    bare = {"init": "pretrained", "similarity": "add_to_squares", "training.zero_titles": ""}
    assert conditions("repair", **bare)["hits_at_10_mean"].item() > own["mean"] + 0.1


@pytest.mark.parametrize("name", ["epsilon_placement", "quick_ablation", "where_it_dies"])
def test_zero_rows_hardly_learn_where_the_readmes_say_so(name):
    """Everywhere but with an epsilon of 1e-7 inside the root."""
    table = conditions(name, trainable="true", init="pretrained", nan_runs=0)
    if "corpus.name" in table:
        table = table[table["corpus.name"] == "wikipedia_excerpt"]
    share = table["zero_hits_at_10_mean"] / table["hits_at_10_mean"]
    learns = table["similarity"].isin(["add_to_squares", "clamp_squares"])
    learns &= table["epsilon"] == "1e-07"
    assert (share[learns] > 0.8).all() and (share[~learns] < 0.51).all()


def test_from_1e_6_up_the_titles_of_zero_rows_rank_as_well_as_all():
    table = committed.conditions("epsilon_size")
    share = table["zero_hits_at_10_mean"] / table["hits_at_10_mean"]
    size = table["epsilon"].astype(float)
    assert (share[size > 5e-7] > 0.98).all() and (share[size < 5e-7] < 0.95).all()
    assert (share[size < 1e-11] < 0.51).all()


def test_what_is_claimed_of_the_treatments():
    """Zero rows hardly learn as they are, and do with the memory gone, or the gradient clipped."""
    for row in single_steps.data("single_steps", "learning")["rows"]:
        inside = (row["similarity"], row["epsilon"]) == ("add_to_squares", "1e-7")
        as_it_is = row["treatment"] == "as it is"
        assert single_steps.hardly_learns(row) == (as_it_is and not inside), row
        assert (max(row["zero_turned"]) < 1) == (as_it_is and not inside), row


def test_what_is_claimed_of_the_norms():
    """Titles and Dense stand at right angles to their gradients and do not shrink under SGD; words
    and Conv1D do not, and may. No kernel shrinks before a late death."""
    found = single_steps.data("single_steps", "norms")
    for row in found["rows"]:
        free = row["weight"] in ("titles", "dense")
        assert row["cosine_max"] < 1e-6 if free else row["cosine_max"] > 1e-3, row
        if row["optimizer"] == "sgd":
            assert (row["fell"] > 0) == (not free), row
    for death in found["deaths"]:
        assert death["encoder"] - death["row"] > found["alone"] == 1000
        for part in ("convolution", "dense"):
            assert death[f"growth/{part}"] > 1 and death[f"slope/{part}"] > 0
    assert {death["optimizer"] for death in found["deaths"]} == {"sgd", "adam"}


def test_what_is_claimed_of_smooth_trainings():
    rows = {
        (row["condition"], row["numerics"]): row
        for row in single_steps.data("single_steps", "smooth")["rows"]
    }
    for condition in ("frozen", "uniform"):
        for numerics in ("kernels", "xla", "tf1"):
            assert single_steps.is_smooth(rows[condition, numerics])
    asked = rows["as asked", "kernels"]
    assert single_steps.is_smooth(asked) and min(asked["spike"]) > 1e6
    assert not any(rows["as asked", "xla"]["finite"] + rows["as asked", "tf1"]["finite"])


@pytest.mark.parametrize(
    "name, corpus, texts, titles, zero",
    [
        ("full_budget", "", 449, 89, 180),
        ("init_scale", "", 403, 88, 160),
        ("repair", "", 403, 88, 160),
        ("where_it_dies", "python_topics", 57, 25, 27),
        ("where_it_dies", "python_docstrings", 29, 16, 3),
    ],
)
def test_of_how_many_texts_and_titles_a_quality_is(name, corpus, texts, titles, zero):
    """Those that have windows to be judged on; an interval is over these titles."""
    found, counted = committed.ranks(name), set()
    for condition, ranks, is_zero in zip(found.conditions, found.rank, found.zero, strict=True):
        if corpus in condition:
            title = found.title[ranks != ABSENT]
            counted.add((len(title), len(set(title)), int(is_zero[title].sum())))
    # a start without zero rows has no text of one
    assert counted - {(texts, titles, 0)} == {(texts, titles, zero)}


def test_the_model_of_a_sweep_s_minutes_is_off_by_about_a_sixth():
    rows = [row for row in measured.benchmark_data("scaling")["rows"] if row["minutes"]]
    off = [row["predicted"] / row["minutes"] - 1 for row in rows]
    assert max(map(abs, off)) == pytest.approx(1 / 6, abs=0.02) and min(off) < 0 < max(off)


def test_how_many_studies_were_reproduced_on_another_kind_of_processor():
    logs = {
        path.parent.name: json.loads(path.read_text())
        for path in committed.experiments_dir().glob("*/reproductions.json")
    }
    elsewhere = [
        name
        for name, entries in logs.items()
        if any(entry["elsewhere"] and not entry["FAIL"] for entry in entries)
    ]
    words = {7: "Seven", 8: "Eight", 9: "Nine", 10: "Ten", 11: "Eleven", 12: "Twelve"}
    paper = " ".join((committed.experiments_dir().parent / "docs" / "paper.md").read_text().split())
    assert f"{words[len(elsewhere)]} studies, most with one seed," in paper
