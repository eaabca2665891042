"""The verdicts follow from the runs: changed runs change them."""

import pytest

from zeronorm.report import claims, committed


@pytest.fixture
def runs():
    return committed.committed_runs("claims")


def verdicts(runs):
    return {judgement.claim.number: judgement.verdict for judgement in claims.judged(runs)}


def test_every_claim_has_a_verdict_a_sentence_and_runs(runs):
    found = claims.judged(runs)
    assert [judgement.claim.number for judgement in found] == list(range(1, 13))
    for judgement in found:
        assert judgement.sentence.endswith(".") and judgement.run_ids
        assert set(judgement.run_ids) <= set(runs["run_id"])
    assert len(claims.steps(runs)) == 9


def test_the_verdicts(runs):
    found = verdicts(runs)
    for number in (1, 2, 11):
        assert found[number] == "confirmed only under xla, tf1"
    assert found[4] == "confirmed only under tf1"
    for number in (5, 6, 7, 10):
        assert found[number] == "confirmed only under xla, tf1"
    for number in (8, 9):
        assert found[number] == "confirmed"
    assert found[12] == "refuted"
    assert found[3] == "not reproduced"


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
        (2, {}, {"nonfinite/words": 0}, "not reproduced"),
        (4, {}, {"loss_nonfinite_steps": "1"}, "not reproduced"),
        (5, {"optimizer": "sgd"}, {"outcome": "finite"}, "refuted"),
        (6, {"vectors__normalise": "True"}, {"outcome": "finite"}, "refuted"),
        (7, {"vectors__dtype": "float64"}, {"outcome": "finite"}, "refuted"),
        (8, {"trainable": "false"}, {"hits_at_10": 0.09}, "refuted"),
        (9, {"init": "uniform"}, {"outcome": "nan"}, "refuted"),
        (10, {"init": "repaired"}, {"outcome": "nan"}, "refuted"),
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
        claims.judged(runs[runs["optimizer"] != "sgd"])
