"""Batches: reproducible, complete, negatives that are other titles."""

import numpy as np
import pytest

from zeronorm import examples


def test_negatives_are_other_titles_uniformly(tiny):
    built, _, _ = tiny
    drawn = examples.draw(built, None, negatives=500, seed=0)
    assert not (drawn.negatives == drawn.positive).any()
    others = drawn.negatives[0]
    assert set(others.tolist()) == set(range(12)) - {int(drawn.positive[0, 0])}
    assert drawn.negatives.dtype == drawn.positive.dtype == drawn.text.dtype == np.int32


def test_fewer_examples_are_a_part_of_more_whatever_the_seed(tiny):
    built, _, _ = tiny
    few, more = examples.draw(built, 20, 10, seed=0), examples.draw(built, 40, 10, seed=1)
    np.testing.assert_array_equal(few.text, more.text[:20])
    assert not np.array_equal(few.negatives, more.negatives[:20])


def test_more_than_there_are(tiny):
    with pytest.raises(
        ValueError, match=r"examples=9999 is more than the \d+ examples of the train split"
    ):
        examples.draw(tiny[0], 9999, 10, seed=0)


def test_every_epoch_shows_every_example_once_in_a_new_order(tiny):
    drawn = examples.draw(tiny[0], 25, 10, seed=0)
    found = list(examples.batches(drawn, epochs=3, batch=10, shuffle=True, seed=0))
    # the last batch is smaller, as in Keras
    assert [len(batch.text) for batch in found] == [10, 10, 5] * 3
    assert [batch.step for batch in found] == list(range(9))
    assert [(batch.epoch, batch.batch) for batch in found[3:5]] == [(1, 0), (1, 1)]
    epochs = [
        np.concatenate([batch.text for batch in found if batch.epoch == epoch])
        for epoch in range(3)
    ]
    ordered = [epoch[np.lexsort(epoch.T)] for epoch in epochs]
    np.testing.assert_array_equal(ordered[0], ordered[1])
    assert not np.array_equal(epochs[0], epochs[1])
    again = list(examples.batches(drawn, epochs=3, batch=10, shuffle=True, seed=0))
    assert all(np.array_equal(a.negatives, b.negatives) for a, b in zip(found, again, strict=True))
    assert examples.steps_per_epoch(25, 10) == 3


def test_unshuffled_keeps_the_order(tiny):
    drawn = examples.draw(tiny[0], 25, 10, seed=0)
    found = examples.batches(drawn, epochs=1, batch=10, shuffle=False, seed=0)
    np.testing.assert_array_equal(np.concatenate([batch.text for batch in found]), drawn.text)


def test_left_out_titles_are_neither_right_nor_negative(tiny):
    built, _, titles = tiny
    zero = ~titles.any(axis=1)
    drawn = examples.draw(built, None, negatives=500, seed=0, left_out=zero)
    kept = set(np.flatnonzero(~zero).tolist())
    assert set(drawn.positive.ravel().tolist()) == kept
    assert not (drawn.negatives == drawn.positive).any()
    assert set(drawn.negatives[0].tolist()) == kept - {int(drawn.positive[0, 0])}
    none_left_out = examples.draw(built, None, negatives=10, seed=0, left_out=np.zeros(12, bool))
    np.testing.assert_array_equal(
        none_left_out.negatives, examples.draw(built, None, 10, seed=0).negatives
    )
    with pytest.raises(ValueError, match="left_out leaves 1 of 12 titles: no negatives"):
        examples.draw(built, None, 10, seed=0, left_out=np.arange(12) > 0)


def test_in_a_batch_the_others_right_titles_are_the_negatives():
    made = examples.Examples(
        np.zeros((5, 2), np.int32),
        np.arange(5, dtype=np.int32)[:, None],
        np.zeros((5, 0), np.int32),
    )
    first, last = examples.batches(made, 1, 3, shuffle=False, seed=0)
    assert (
        first.negatives.tolist() == [[1, 2], [2, 0], [0, 1]] and first.negatives.dtype == np.int32
    )
    assert last.negatives.tolist() == [[4], [3]]
