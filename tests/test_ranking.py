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
    assert ranking.metrics(rank, ranking.scored(scores, TARGET)) == {
        "mrr": pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 2) / 4),
        "hits_at_1": 0.25,
        "hits_at_10": 1.0,
        "mean_rank": 2.25,
    }


def test_a_tie_counts_against_the_target():
    scores = np.array([[0.5, 0.5, 0.1, 0.0], [0.7, 0.2, 0.2, 0.2]])
    assert ranking.ranks(scores, np.array([0, 1])).tolist() == [2, 4]


@pytest.mark.parametrize("score", [0.0, np.nan, np.inf, -np.inf])
def test_a_model_that_says_the_same_of_everything_has_the_last_rank(score):
    scores, target = np.full((5, 106), score), np.arange(5)
    rank = ranking.ranks(scores, target)
    assert rank.tolist() == [106] * 5
    assert ranking.metrics(rank, ranking.scored(scores, target))["hits_at_10"] == 0


@pytest.mark.parametrize("titles", [1, 2, 8, 10, 11])
def test_a_dead_model_hits_nothing_however_few_titles_there_are(titles):
    scores, target = np.full((3, titles), np.nan), np.zeros(3, int)
    found = ranking.metrics(ranking.ranks(scores, target), ranking.scored(scores, target))
    assert found["hits_at_1"] == found["hits_at_10"] == 0 and found["mean_rank"] == titles


def test_a_non_finite_score_never_outranks_a_finite_one():
    scores = np.array([[-1.0, np.nan, np.inf, -np.inf], [np.nan, 0.3, 0.1, 0.2]])
    assert ranking.ranks(scores, np.array([0, 0])).tolist() == [1, 4]


def test_no_examples_no_metrics():
    assert ranking.metrics(np.array([], dtype=int), np.array([], dtype=bool)) == {}
