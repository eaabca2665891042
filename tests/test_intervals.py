"""Intervals by title: against the normal theory of a ratio, and against those of the texts."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from zeronorm.report import intervals, ranks


def study(hits, seeds=1):
    """{condition: bool [titles, texts]} -> its ranks, the same for every seed."""
    names, tables = [], []
    for name, own in hits.items():
        for _ in range(seeds):
            title = np.repeat([f"t{n}" for n in range(own.shape[0])], own.shape[1])
            rank = np.where(own.ravel(), 1, 50)
            tables.append(pd.DataFrame({"title": title, "zero": 0, "rank": rank}))
            names.append(name)
    return ranks.gather(names, list(range(seeds)) * len(hits), tables)


def of(found, name):
    return found.take(found.conditions == name)


def test_texts_of_a_title_that_are_alike_are_one_observation():
    rng = np.random.default_rng(0)
    alike = np.repeat(rng.random((89, 1)) < 0.5, 5, axis=1)
    apart = rng.random((89, 5)) < 0.5
    found = intervals.quality(study({"alike": alike, "apart": apart}))
    for name, own, size in (("alike", alike, 89), ("apart", apart, 445)):
        low, high = found.loc[name, ["hits_at_1_low", "hits_at_1_high"]]
        half = norm.ppf(0.975) * own.std() / np.sqrt(size)
        assert (high - low) / 2 == pytest.approx(half, rel=0.2), name
        assert low < found.loc[name, "hits_at_1_mean"] == own.mean() < high


def test_a_difference_is_paired_by_title():
    """Two conditions that share what is hard and differ by one text of each third title: the
    difference is far better known than either."""
    left = np.repeat(np.random.default_rng(0).random((90, 1)) < 0.5, 5, axis=1)
    right = left.copy()
    right[::3, 0] = False
    found = study({"left": left, "right": right})
    mean, low, high = intervals.difference(of(found, "left"), of(found, "right"), "hits_at_1")
    assert mean == pytest.approx(left.mean() - right.mean()) and 0 < low < mean < high
    own = intervals.quality(found).loc["left"]
    assert high - low < (own["hits_at_1_high"] - own["hits_at_1_low"]) / 3
    back = intervals.difference(of(found, "right"), of(found, "left"), "hits_at_1")
    assert back == pytest.approx((-mean, -high, -low))
    again = intervals.difference(of(found, "left"), of(found, "right"), "hits_at_1")
    assert again == (mean, low, high)  # the same draws


def test_seeds_are_drawn_too():
    """Three seeds that disagree widen the interval."""
    texts = np.random.default_rng(0).random((89, 5)) < 0.5
    same = study({"c": texts}, seeds=3)
    rank = same.rank.copy()
    rank[1], rank[2] = 1, 50
    differing = ranks.Ranks(same.conditions, same.seeds, same.titles, same.title, rank, same.zero)
    narrow, wide = (intervals.quality(one).loc["c"] for one in (same, differing))
    assert wide["mrr_high"] - wide["mrr_low"] > 3 * (narrow["mrr_high"] - narrow["mrr_low"])


def test_several_conditions_on_one_side_are_their_mean():
    texts = np.random.default_rng(0).random((3, 60, 5)) < np.array([0.2, 0.4, 0.6])[:, None, None]
    found = study(dict(zip("abc", texts, strict=True)))
    sides = found.take(found.conditions != "b"), of(found, "b")
    mean = intervals.difference(*sides, "mrr").mean
    gains = np.where(texts, 1, 1 / 50).mean(axis=(1, 2))
    assert mean == pytest.approx((gains[0] + gains[2]) / 2 - gains[1])


def test_nothing_to_draw_from_has_no_interval():
    found = intervals.quality(study({"c": np.ones((1, 3), bool)}))
    assert found.loc["c", "mrr_mean"] == 1 and np.isnan(found.loc["c", "mrr_low"])
    assert np.isnan(found.loc["c", "zero_mrr_mean"])  # no title started as a zero row
    same = intervals.quality(study({"c": np.ones((20, 3), bool)})).loc["c"]
    assert same["mrr_low"] == same["mrr_mean"] == same["mrr_high"] == 1


def test_other_seeds_cannot_be_paired():
    found = study({"a": np.ones((9, 2), bool)}, seeds=2)
    with pytest.raises(ValueError, match="other seeds"):
        intervals.difference(found.take(found.seeds == 0), found.take(found.seeds == 1), "mrr")
