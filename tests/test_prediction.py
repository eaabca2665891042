"""The predicted steps, against batches made by hand and against real trainings."""

from functools import partial

import numpy as np
import pytest

from zeronorm import examples, model, numerics, optimizers, prediction, similarity, training
from zeronorm.examples import Batch
from zeronorm.prediction import Prediction, Probe, Touch

ZERO_TITLES = np.array([False, False, True, True, False, False])
ZERO_WORDS = np.array([True, False, True])


def batch(step, positive, negatives, text=(1,)):
    return Batch(step, 0, step, *(np.array([row], dtype=np.int32) for row in (text, positive, negatives)))


def test_touches_by_hand():
    order = [
        batch(0, [0], [1, 4]),
        batch(1, [1], [2, 0]),  # title 2, a zero row, as a negative
        batch(2, [3], [0, 1]),  # title 3, a zero row too, but not touched before
        batch(3, [0], [4, 5]),
        batch(4, [2], [5, 4]),  # title 2 again, as a positive
        batch(5, [3], [2, 4]),
    ]
    assert prediction.touches(order, ZERO_TITLES, ZERO_WORDS) == Touch(first=1, again=4, zero_text=None, titles=(2,))
    assert prediction.touches(order[:4], ZERO_TITLES, ZERO_WORDS) == Touch(1, None, None, (2,))
    assert prediction.touches(order[:1], ZERO_TITLES, ZERO_WORDS) == Touch(None, None, None, ())


def test_a_text_of_zero_rows_counts_in_step_0_only():
    order = [batch(0, [0], [1, 4], text=(0, 2)), batch(1, [0], [1, 4], text=(0, 0))]
    assert prediction.touches(order, ZERO_TITLES, ZERO_WORDS).zero_text == 0
    assert prediction.touches([order[1]], ZERO_TITLES, ZERO_WORDS).zero_text is None


@pytest.mark.parametrize(
    "probe, trainable, expected",
    [
        (Probe(True, True, True), True, Prediction(None, None)),
        (Probe(False, True, True), True, Prediction(3, 5)),
        (Probe(False, True, True), False, Prediction(None, None)),  # frozen rows never become NaN
        (Probe(False, False, False), True, Prediction(3, 0)),  # a zero text poisons the encoder in step 0
        (Probe(False, False, True), False, Prediction(None, 3)),  # frozen, but dz itself is NaN
    ],
)
def test_predict(probe, trainable, expected):
    assert prediction.predict(Touch(3, 5, 0, (1,)), probe, trainable) == expected


def test_chance_against_drawing():
    """The expected first touch, from shares alone, against 4,000 drawn orders and negatives."""
    titles, zero = 20, np.zeros(20, bool)
    zero[[3, 7]] = True
    rng = np.random.default_rng(0)
    positive = rng.integers(0, titles, 50)[:, None].astype(np.int32)
    made = examples.Examples(np.zeros((50, 1), np.int32), positive, np.zeros((50, 4), np.int32))
    for size in (1, 3):
        found = prediction.chance(made, zero, size)
        firsts = []
        for _ in range(4000):
            others = rng.integers(0, titles - 1, (50, 4))
            order = rng.permutation(50)
            touched = zero[positive[:, 0]] | zero[others + (others >= positive)].any(axis=1)
            firsts.append(np.flatnonzero(touched[order])[0] // size)
        assert found.batch == pytest.approx(np.mean(np.array(firsts) == 0), abs=0.02)
        assert found.first == pytest.approx(np.mean(firsts), rel=0.06)
        assert found.ever == pytest.approx(1)


def test_chance_where_nothing_is_or_everything_is_zero():
    made = examples.Examples(
        np.zeros((6, 1), np.int32), np.arange(6, dtype=np.int32)[:, None], np.zeros((6, 2), np.int32)
    )
    assert prediction.chance(made, np.zeros(6, bool), 2) == prediction.Chance(0, 0, None)
    assert prediction.chance(made, np.ones(6, bool), 2) == prediction.Chance(1, 1, 0)


PLACEMENTS = {
    "clamp_product": partial(similarity.clamp_product, epsilon=1e-7),
    "add_to_product": partial(similarity.add_to_product, epsilon=1e-7),
    "add_to_squares": partial(similarity.add_to_squares, epsilon=1e-7),
    "unguarded": similarity.unguarded,
    "single_where": similarity.single_where,
    "double_where": similarity.double_where,
}


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("name", PLACEMENTS)
@pytest.mark.parametrize("used", numerics.BY_NAME.values(), ids=numerics.BY_NAME)
@pytest.mark.parametrize("zero", ["many titles", "one title", "a text"])
def test_predicted_is_observed(tiny, used, name, trainable, zero):
    """On a small model, with many zero titles, with one that is rare, and with a text of zero rows."""
    built, words, titles = tiny
    words, titles = words.copy(), np.abs(titles) + 0.1
    drawn = examples.draw(built, 30, negatives=2, seed=4)
    order = list(examples.batches(drawn, epochs=2, batch=3, shuffle=True, seed=4))
    if zero == "many titles":
        titles[::3] = 0
    elif zero == "one title":
        titles[np.setdiff1d(np.arange(12), np.concatenate([b.negatives.ravel() for b in order[:2]]))[0]] = 0
    else:
        words[order[0].text[1]] = 0
    ranker = model.build(
        n_words=len(words), n_titles=12, dim=8, window=20, negatives=2, filters=16, width=3, dropout=0.2, margin=1.0,
        trainable_words=trainable, trainable_titles=trainable, similarity=PLACEMENTS[name], numerics=used,
    )  # fmt: skip
    program = training.program(ranker, optimizers.Adam(), used)
    program.reset(words, titles, seed=0)
    touch = prediction.touches(order, ~titles.any(axis=1), ~words.any(axis=1))
    predicted = prediction.predict(touch, prediction.probe(ranker.similarity, used), trainable)
    recording = program.recording({"words": built.vocabulary, "titles": built.titles})
    training.train(program, order, recording)

    titles_seen, encoder_seen = recording.first_nan("titles"), recording.first_nan("convolution/kernel", "dense/kernel")
    assert (encoder_seen and encoder_seen.step) == predicted.encoder
    if predicted.titles is not None:
        assert titles_seen.step == predicted.titles
        if predicted.encoder is None or predicted.titles < predicted.encoder:
            assert tuple(titles_seen.rows) == touch.titles
    assert (predicted.first is None) == (recording.first_nan() is None)
