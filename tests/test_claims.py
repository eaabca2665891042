"""The verdicts follow from the runs: changed runs change them."""

import pytest

from zeronorm.report import claims, committed, single_steps
from zeronorm.report.single_steps import Shown


@pytest.fixture
def runs():
    return committed.committed_runs("claims")


def verdicts(runs, steps=None):
    steps = single_steps.shown("single_steps") if steps is None else steps
    return {judgement.claim.number: judgement.verdict for judgement in claims.judged(runs, steps)}


def test_every_claim_has_a_verdict_a_sentence_and_runs(runs):
    found = claims.judged(runs, single_steps.shown("single_steps"))
    assert [judgement.claim.number for judgement in found] == list(range(1, 13))
    for judgement in found:
        assert judgement.sentence.endswith(".") and judgement.run_ids
        assert set(judgement.run_ids) <= set(runs["run_id"])
    assert len(claims.steps(runs)) == 9


def test_the_verdicts(runs):
    where = "confirmed only under xla, tf1"
    assert verdicts(runs) == {
        1: where,
        2: "refuted: with 20 examples too",
        3: "not reproduced",
        4: "confirmed only under tf1",
        5: where,
        6: where,
        7: where,
        8: "confirmed",
        9: "confirmed",
        10: f"{where}, but one is enough",
        11: "possible, not the cause here",
        12: "refuted",
    }


def test_a_verdict_that_other_runs_do_not_bear_out_is_a_conclusion_that_does_not_hold(runs):
    steps = single_steps.shown("single_steps")
    assert all(one.holds for one in claims.held(runs, runs, steps))
    cured = changed(runs, claims.select(runs, similarity="add_to_product"), outcome="finite")
    lost = [one for one in claims.held(runs, cured, steps) if not one.holds]
    [only] = lost
    assert (only.says, only.found) == ("C12 is refuted.", "confirmed only under xla, tf1")


def changed(runs, where, **values):
    runs = runs.copy()
    for column, value in values.items():
        runs.loc[where.index, column] = value
    return runs


@pytest.mark.parametrize(
    "number, select, values, verdict",
    [
        (
            1,
            {"examples": "20", "training__name": "question"},
            {"encoder_nan_observed": ""},
            "not reproduced",
        ),
        (
            2,
            {"examples": "20", "training__name": "question"},
            {"nonfinite/words": 0},
            "confirmed only under xla, tf1",
        ),
        (2, {}, {"nonfinite/words": 0}, "refuted"),
        (4, {}, {"loss_nonfinite_steps": "1"}, "not reproduced"),
        (5, {"optimizer": "sgd"}, {"outcome": "finite"}, "refuted"),
        (6, {"vectors__normalise": "True"}, {"outcome": "finite"}, "refuted"),
        (7, {"vectors__dtype": "float64"}, {"outcome": "finite"}, "refuted"),
        (8, {"trainable": "false"}, {"hits_at_10": 0.09}, "refuted"),
        (9, {"init": "uniform"}, {"outcome": "nan"}, "refuted"),
        (10, {"init": "repaired"}, {"outcome": "nan"}, "refuted"),
        (11, {}, {"zero_texts": "3"}, "confirmed only under xla, tf1"),
        (
            11,
            {"init": "repaired", "vectors__zero_word_share": "1.0"},
            {"outcome": "finite"},
            "refuted",
        ),
        (
            12,
            {"similarity": "add_to_product"},
            {"outcome": "finite"},
            "confirmed only under xla, tf1",
        ),
    ],
)
def test_other_runs_other_verdicts(runs, number, select, values, verdict):
    assert verdicts(changed(runs, claims.select(runs, **select), **values))[number] == verdict


def test_one_seed_that_disagrees_unsettles_a_numerics(runs):
    one = claims.select(runs, optimizer="sgd")
    one = one[(one["numerics"] == "xla") & (one["seed"] == 1)]
    assert verdicts(changed(runs, one, outcome="finite"))[5] == "confirmed only under tf1"


def test_a_claim_without_runs_is_an_error(runs):
    with pytest.raises(ValueError, match="C5 has no runs"):
        claims.judged(runs[runs["optimizer"] != "sgd"], {})


def test_many_zero_rows_are_claimed_where_one_does_not_kill(runs):
    one = claims._one_zero_title(runs)
    assert verdicts(changed(runs, one, outcome="finite"))[10] == "confirmed only under xla, tf1"


def test_what_is_not_smooth_is_not_confirmed(runs):
    """By numerics; and a sentence alone changes no verdict."""
    steps = {8: Shown("Rough.", {"kernels": False, "xla": True, "tf1": True}), 9: Shown("Said.")}
    found = verdicts(runs, steps)
    assert found[8] == "confirmed only under xla, tf1" and found[9] == "confirmed"


def row(**changed):
    smooth = {"finite": [True, True], "trend": [-0.5, -0.4], "p": [1e-9, 1e-8]}
    return smooth | {"jump": [3.0, 2.0]} | changed


@pytest.mark.parametrize(
    "changed",
    [
        {"finite": [True, False]},
        {"trend": [-0.5, 0.4]},
        {"p": [1e-9, 0.02]},
        {"jump": [3.0, 5.1]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_smooth_is_that_the_loss_of_every_seed_falls_without_a_jump(changed):
    assert single_steps.is_smooth(row())
    assert not single_steps.is_smooth(row(**changed))


def test_the_quotient_of_a_text_of_zero_rows_is_a_number(runs):
    """Where the loss of step 0 were NaN as well, the sentence would count it."""
    dead = claims.select(runs, init="repaired", vectors__zero_word_share="1.0")
    dead = dead[dead["outcome"] == "nan"]
    assert claims._finite_quotients(dead) == 3  # of xla; tf1's maximum hides a NaN
    assert claims._finite_quotients(changed(dead, dead, loss_nonfinite_steps="100")) == 0
