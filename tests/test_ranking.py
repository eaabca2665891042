"""Ranks and metrics: 4 x 4 score matrices by hand, ties, NaN, degenerate models."""

import numpy as np
import pytest

from zeronorm import ranking

TARGET = np.array([0, 1, 2, 3])


def test_by_hand():
    scores = np.array(
        [[0.9, 0.1, 0.2, 0.3], [0.5, 0.4, 0.1, 0.2], [0.1, 0.2, 0.0, 0.3], [0.4, 0.3, 0.2, 0.35]]
    )
    rank = ranking.ranks(scores, TARGET)
    assert rank.tolist() == [1, 2, 4, 2]
    assert ranking.metrics(rank, 4) == {
        "mrr": pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 2) / 4),
        "hits_at_1": 0.25,
        "hits_at_10": 1.0,
        "mean_rank": 2.25,
    }


def test_a_tie_counts_against_the_target():
    scores = np.array([[0.5, 0.5, 0.1, 0.0], [0.7, 0.2, 0.2, 0.2]])
    assert ranking.ranks(scores, np.array([0, 1])).tolist() == [2, 4]


def test_a_model_that_says_the_same_of_everything_has_the_last_rank():
    rank = ranking.ranks(np.zeros((5, 106)), np.arange(5))
    assert rank.tolist() == [106] * 5
    assert ranking.metrics(rank, 106)["hits_at_10"] == 0


@pytest.mark.parametrize("titles", [1, 2, 8, 10, 11, 106])
@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_a_dead_model_is_not_ranked_however_few_titles_there_are(titles, score):
    rank = ranking.ranks(np.full((3, titles), score), np.zeros(3, int))
    assert rank.tolist() == [ranking.UNRANKED] * 3
    worst = {"mrr": 0.0, "hits_at_1": 0.0, "hits_at_10": 0.0, "mean_rank": titles}
    assert ranking.metrics(rank, titles) == worst


def test_a_non_finite_score_never_outranks_a_finite_one():
    scores = np.array([[-1.0, np.nan, np.inf, -np.inf], [np.nan, 0.3, 0.1, 0.2]])
    assert ranking.ranks(scores, np.array([0, 0])).tolist() == [1, ranking.UNRANKED]


def test_no_examples_no_metrics():
    assert ranking.metrics(np.array([], dtype=int), 4) == {}
