"""The TF-IDF centroid, against the same by hand."""

import math

import numpy as np
import pytest

from zeronorm import corpus as corpora
from zeronorm.baseline import tfidf_centroid


def test_against_a_centroid_by_hand():
    windows = [["a", "b"], ["a", "c"], ["d", "c"], ["d", "d"], ["b", "c"], ["d", "a"]]
    title = np.array([0, 0, 1, 1, 2, 2], np.int32)
    train, test = np.array([0, 1, 2, 3, 4]), np.array([5])
    corpus = corpora.Corpus(
        np.zeros((6, 2), np.int32), title, [], ["x", "y", "z"], train, train[:0], test, windows
    )
    idf = {w: math.log((1 + 5) / (1 + sum(w in windows[p] for p in train))) + 1 for w in "abcd"}

    def vector(tokens):
        counted = np.array([tokens.count(w) * idf[w] for w in "abcd"])
        return counted / np.linalg.norm(counted)

    centroids = [sum(vector(windows[p]) for p in train if title[p] == t) for t in range(3)]
    scores = [vector(windows[5]) @ c / np.linalg.norm(c) for c in centroids]
    rank = sum(score >= scores[2] for score in scores)
    found = tfidf_centroid(corpus, test)
    assert found["mean_rank"] == rank == 3 and found["mrr"] == pytest.approx(1 / rank)


def test_it_is_far_above_chance_on_the_excerpt(excerpt):
    assert set(excerpt.baseline) == {"test", "validation"}
    assert excerpt.baseline["test"]["hits_at_1"] > 0.9
