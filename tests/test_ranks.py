"""The committed ranks: what is written is read again, in the same bytes, and nothing else is."""

import gzip

import numpy as np
import pandas as pd
import pytest

from zeronorm import ranking
from zeronorm.report import committed, intervals, ranks


def table(*rows):
    return pd.DataFrame(rows, columns=["title", "zero", "rank"])


@pytest.fixture
def two():
    """Two runs of three titles, one of which has a comma and a name that pandas takes for nothing;
    the second lacks a text."""
    one = table(("NA", 1, 3), ("NA", 1, 0), ("a, b", 0, 1), ("seed", 0, 106))
    other = table(("NA", 0, 7), ("a, b", 1, 2), ("seed", 0, 10))
    return ranks.gather(["true kernels", "false kernels"], [0, 2], [one, other])


def test_the_texts_of_a_run_are_in_the_columns_of_their_titles(two):
    assert two.titles == ["NA", "a, b", "seed"] and two.title.tolist() == [0, 0, 1, 2]
    assert two.rank.tolist() == [[3, 0, 1, 106], [7, ranks.ABSENT, 2, 10]]
    assert two.zero.tolist() == [[True, False, False], [False, True, False]]


def test_what_is_written_is_read_again_and_is_the_same_bytes(two, tmp_path):
    path = tmp_path / "ranks.csv.gz"
    ranks.save(two, path)
    first = path.read_bytes()
    found = ranks.load(path)
    for name in ("conditions", "seeds", "title", "rank", "zero"):
        np.testing.assert_array_equal(getattr(found, name), getattr(two, name))
    assert found.titles == two.titles
    ranks.save(found, path)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"condition,seed,zero,A\n",
        b"condition,zero,seed,A\nx,0,,1\n",
        b"condition,seed,zero,A\nx,0,\n",
        b"condition,seed,zero,A\nx,0,,one\n",
        b"condition,seed,zero,A\nx,0,,-1\n",
        b"condition,seed,zero,A\nx,zero,,1\n",
        b"\xff\xfe",
    ],
)
def test_what_is_no_table_of_ranks_is_refused(tmp_path, text):
    path = tmp_path / "ranks.csv.gz"
    path.write_bytes(gzip.compress(text))
    with pytest.raises(ValueError):
        ranks.load(path)
    path.write_bytes(text)
    with pytest.raises(ValueError):
        ranks.load(path)


def test_a_large_study_stays_below_a_hundred_kilobytes(tmp_path):
    rng = np.random.default_rng(0)
    titles = np.repeat([f"title {n}" for n in range(89)], 5)
    tables = [
        pd.DataFrame(
            {"title": titles, "zero": 0, "rank": np.minimum(rng.geometric(0.08, 445), 106)}
        )
        for _ in range(144)
    ]
    path = tmp_path / "ranks.csv.gz"
    ranks.save(ranks.gather([f"c {n}" for n in range(144)], [0] * 144, tables), path)
    assert path.stat().st_size < 100_000


def test_the_means_are_the_metrics_and_a_run_with_fewer_texts_counts_these(two):
    found = intervals.quality(two)
    for place, name in enumerate(two.conditions):
        own = two.rank[place][two.rank[place] != ranks.ABSENT]
        for metric in intervals.METRICS:
            wanted = ranking.metrics(own, 106)[metric]
            assert found.loc[name, f"{metric}_mean"] == pytest.approx(wanted)
    assert found.loc["true kernels", "zero_mrr_mean"] == pytest.approx((1 / 3 + 0) / 2)


def test_ranks_of_other_runs_than_the_report_s_are_refused(tmp_path, monkeypatch, two):
    source = committed.experiments_dir() / "full_budget"
    (tmp_path / "full_budget").mkdir()
    for file in ("runs.csv", "reported.csv"):
        (tmp_path / "full_budget" / file).write_bytes((source / file).read_bytes())
    monkeypatch.setattr(committed, "experiments_dir", lambda: tmp_path)
    assert committed.ranks("full_budget") is None
    ranks.save(two, tmp_path / "full_budget" / ranks.FILE)
    with pytest.raises(committed.ReportError, match="not of the runs of its"):
        committed.ranks("full_budget")
