"""Our loop is the question's training, only measured: equal to plain Keras, repeatable, stopped on
demand."""

from functools import partial

import keras
import numpy as np
import pytest

import plain_keras
from zeronorm import deferred, examples, model, numerics, optimizers, similarity, training

STEPS = 24


def build(used, words, titles, trainable=True, placement=None, dropout=0.2, filters=32, **more):
    return model.build(
        n_words=len(words),
        n_titles=len(titles),
        dim=words.shape[1],
        window=20,
        negatives=10,
        filters=filters,
        width=5,
        dropout=dropout,
        margin=1.0,
        trainable_words=trainable,
        trainable_titles=trainable,
        similarity=placement or partial(similarity.clamp_product, epsilon=1e-7),
        numerics=used,
        **more,
    )


def order_of(tiny, steps):
    drawn = examples.draw(tiny[0], None, 10, seed=0)
    return list(examples.batches(drawn, epochs=9, batch=4, shuffle=True, seed=0))[:steps]


def names_of(tiny):
    return {"words": tiny[0].vocabulary, "titles": tiny[0].titles}


def recorded(tiny, used, stop=False, steps=STEPS, optimizer=None, **options):
    _, words, titles = tiny
    order, optimizer = order_of(tiny, steps), optimizer or optimizers.Adam()
    options["rows_only"] = deferred.course_of(optimizer) is not None  # as in a run
    program = training.program(build(used, words, titles, **options), optimizer, used)
    program.reset(words, titles, seed=7)
    recording = program.recording(names_of(tiny))
    xla_steps = training.train(program, order, recording, recording.tensors if stop else ())
    return program, recording, order, xla_steps


def plain(tiny, used, optimizer, trainable=True):
    """The same model of Keras's stock layers, compiled as Keras compiles."""
    _, words, titles = tiny
    reference = plain_keras.build(
        words,
        titles,
        window=20,
        negatives=10,
        filters=32,
        width=5,
        dropout=0.2,
        margin=1.0,
        trainable=trainable,
        similarity=partial(similarity.clamp_product, epsilon=1e-7),
        numerics=used,
        optimizer=optimizer,
    )
    model.initialise(reference, words, titles, seed=7)
    return reference


class OnWholeTables(optimizers.Adam):
    """Adam, but a class of which the course of rows that are not named is not known."""


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize(
    ("optimizer", "kerass"),
    [
        (optimizers.Adam, keras.optimizers.Adam),
        (OnWholeTables, keras.optimizers.Adam),
        (keras.optimizers.SGD, keras.optimizers.SGD),
    ],
    ids=["adam", "adam_on_whole_tables", "sgd"],
)
@pytest.mark.parametrize(
    "used", [numerics.KERNELS, numerics.XLA, numerics.TF1], ids=lambda used: used.name
)
def test_equals_plain_keras_fit(tiny, used, optimizer, kerass, trainable):
    """Same weights, seed and batches through stock layers, compile and fit: the same losses and
    weights in 24 steps."""
    built, words, titles = tiny
    titles = np.abs(titles) + 0.1  # no zero row: both must stay finite to be compared
    program, recording, order, _ = recorded(
        (built, words, titles), used, optimizer=optimizer(), trainable=trainable
    )
    reference = plain((built, words, titles), used, kerass(), trainable)
    losses = []

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(logs["loss"])
            self.model.reset_metrics()  # Keras reports the running mean otherwise

    for batch in order:
        inputs = [batch.text, batch.positive, batch.negatives]
        reference.model.fit(
            inputs,
            np.zeros(len(batch.text)),
            batch_size=len(batch.text),
            shuffle=False,
            verbose=0,
            callbacks=[Keep()],
        )
    assert reference.model.jit_compile == used.jit_compile
    np.testing.assert_allclose(recording.curves["train/loss"], losses, rtol=2e-5)
    for name, variable in program.ranker.weights.items():
        np.testing.assert_allclose(
            variable.numpy(), reference.weights[name].numpy(), rtol=1e-4, atol=2e-6
        )


@pytest.mark.parametrize(
    ("ours", "kerass"),
    [(optimizers.Adam, keras.optimizers.Adam), (keras.optimizers.SGD, keras.optimizers.SGD)],
    ids=["adam", "sgd"],
)
def test_a_moving_average_of_the_weights_takes_their_place_as_in_fit(tiny, ours, kerass):
    built, words, titles = tiny
    tiny = built, words, np.abs(titles) + 0.1
    average = {"use_ema": True, "ema_momentum": 0.9}
    program, _, order, _ = recorded(tiny, numerics.KERNELS, optimizer=ours(**average))
    last = {name: variable.numpy() for name, variable in program.ranker.weights.items()}
    program.finish()
    reference = plain(tiny, numerics.KERNELS, kerass(**average))
    inputs = [
        np.concatenate([getattr(batch, part) for batch in order])
        for part in ("text", "positive", "negatives")
    ]
    reference.model.fit(inputs, np.zeros(len(inputs[0])), batch_size=4, shuffle=False, verbose=0)
    for name, variable in program.ranker.weights.items():
        np.testing.assert_allclose(
            variable.numpy(), reference.weights[name].numpy(), rtol=1e-4, atol=2e-6
        )
        assert not np.allclose(variable.numpy(), last[name], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    ("ours", "kerass"),
    [
        (
            lambda: optimizers.Adam(gradient_accumulation_steps=4),
            lambda: keras.optimizers.Adam(gradient_accumulation_steps=4),
        ),
        (
            lambda: keras.optimizers.LossScaleOptimizer(optimizers.Adam(), initial_scale=64.0),
            lambda: keras.optimizers.LossScaleOptimizer(
                keras.optimizers.Adam(), initial_scale=64.0
            ),
        ),
    ],
    ids=["accumulation", "loss scale"],
)
def test_accumulation_and_a_loss_scale_are_those_of_fit(tiny, ours, kerass):
    built, words, titles = tiny
    tiny = built, words, np.abs(titles) + 0.1
    program, _, order, _ = recorded(tiny, numerics.KERNELS, optimizer=ours())
    reference = plain(tiny, numerics.KERNELS, kerass())
    inputs = [
        np.concatenate([getattr(batch, part) for batch in order])
        for part in ("text", "positive", "negatives")
    ]
    reference.model.fit(inputs, np.zeros(len(inputs[0])), batch_size=4, shuffle=False, verbose=0)
    for name, variable in program.ranker.weights.items():
        np.testing.assert_allclose(
            variable.numpy(), reference.weights[name].numpy(), rtol=1e-4, atol=3e-6
        )


@pytest.mark.parametrize("used", numerics.BY_NAME.values(), ids=numerics.BY_NAME)
def test_nan_travels_as_in_plain_keras(tiny, used):
    """The same elements of the same weights end as NaN, step by step, as in stock layers and
    train_on_batch."""
    program, *_ = recorded(tiny, used, steps=0)
    reference = plain(tiny, used, keras.optimizers.Adam())
    for batch in order_of(tiny, 4):
        training.train(program, [batch], program.recording(names_of(tiny)))
        reference.model.train_on_batch(
            [batch.text, batch.positive, batch.negatives], np.zeros(len(batch.text))
        )
        for name, variable in program.ranker.weights.items():
            np.testing.assert_array_equal(
                np.isnan(variable.numpy()), np.isnan(reference.weights[name].numpy())
            )
    assert np.isnan(program.ranker.weights["dense/kernel"].numpy()).all() == (
        used is not numerics.KERNELS
    )


@pytest.mark.parametrize("used", numerics.BY_NAME.values(), ids=numerics.BY_NAME)
def test_two_runs_of_one_seed_are_identical_and_a_reset_program_is_as_new(tiny, used):
    _, first, _, _ = recorded(tiny, used)
    program, second, order, _ = recorded(tiny, used)
    program.reset(*tiny[1:], seed=7)
    third = program.recording(names_of(tiny))
    training.train(program, order, third)
    for other in (second, third):
        assert other.events == first.events
        for name, curve in first.curves.items():
            np.testing.assert_array_equal(curve, other.curves[name])
    program.reset(*tiny[1:], seed=8)
    fourth = program.recording(names_of(tiny))
    training.train(program, order, fourth)
    assert not np.array_equal(
        fourth.curves["norm/grad/dense/kernel"], first.curves["norm/grad/dense/kernel"]
    )


@pytest.mark.parametrize("used", numerics.BY_NAME.values(), ids=numerics.BY_NAME)
def test_xla_counts_its_steps(tiny, used):
    _, _, order, xla_steps = recorded(tiny, used, steps=5)
    assert xla_steps == (len(order) if used.jit_compile else 0)


def test_stop_ends_with_the_step_that_broke(tiny):
    _, recording, _, _ = recorded(tiny, numerics.XLA, stop=True)
    assert recording.steps == recording.events[0].step + 1 == recording.first_nan().step + 1
    _, recording, order, _ = recorded(tiny, numerics.XLA, stop=False)
    assert recording.steps == len(order)


def test_a_chunk_ends_with_its_epoch_and_where_the_size_changes(tiny):
    drawn = examples.draw(tiny[0], 94, 10, seed=0)
    # 31 of 3 and one of 1, twice
    order = list(examples.batches(drawn, epochs=2, batch=3, shuffle=True, seed=0))
    chunks = list(training.chunks(order))
    assert [batch for chunk in chunks for batch in chunk] == order
    assert [len(chunk) for chunk in chunks] == [25, 6, 1, 25, 6, 1]
    for chunk in chunks:
        assert len({(batch.epoch, len(batch.text)) for batch in chunk}) == 1


def test_tf1_loss_is_zero_while_the_weights_are_nan(tiny):
    """What the question reports (C4): the maximum of 2017 drops the NaN, so the loss never shows
    it."""
    program, recording, _, _ = recorded(tiny, numerics.TF1)
    assert np.isnan(program.ranker.weights["dense/kernel"].numpy()).all()
    assert recording.curves["train/loss"][-1] == 0
    assert np.isfinite(recording.curves["train/loss"]).all()


def test_frozen_embeddings_stay(tiny):
    program, recording, _, _ = recorded(tiny, numerics.XLA, trainable=False)
    np.testing.assert_array_equal(program.ranker.weights["words"].numpy(), tiny[1])
    np.testing.assert_array_equal(program.ranker.weights["titles"].numpy(), tiny[2])
    assert program.trained == [
        "convolution/kernel",
        "convolution/bias",
        "dense/kernel",
        "dense/bias",
    ]
    assert recording.first_nan() is None


def test_scores_are_the_placement_of_every_text_with_every_title(tiny):
    built, words, titles = tiny
    ranker = build(numerics.KERNELS, words, titles)
    model.initialise(ranker, words, titles, seed=0)
    z = training.encode(ranker, built.text, batch=7)
    expected = (
        z
        @ titles.T
        / np.maximum(np.linalg.norm(z, axis=1)[:, None] * np.linalg.norm(titles, axis=1), 1e-7)
    )
    np.testing.assert_allclose(training.scores(ranker, z, batch=7), expected, rtol=1e-4, atol=1e-6)


def test_the_loss_by_hand(tiny):
    """max(0, 1 + s(negative) - s(positive)), summed over the negatives, of similarities seen by the
    model itself."""
    built, words, titles = tiny
    ranker = build(numerics.KERNELS, words, titles)
    model.initialise(ranker, words, titles, seed=0)
    drawn = examples.draw(built, 6, 10, seed=0)
    out = ranker.observed([drawn.text, drawn.positive, drawn.negatives], training=False)
    s = out["similarity"].numpy()
    expected = [sum(max(0.0, 1 + s[i, j] - s[i, 0]) for j in range(1, 11)) for i in range(6)]
    np.testing.assert_allclose(out["loss"], expected, rtol=1e-5)
    scores = training.scores(ranker, out["z"].numpy())
    np.testing.assert_allclose(
        s[:, 0], scores[np.arange(6), drawn.positive[:, 0]], rtol=1e-4, atol=1e-6
    )


def test_masked_titles_are_out_of_the_loss_by_hand(tiny):
    built, words, titles = tiny
    masked = ~titles.any(axis=1)
    ranker = build(numerics.KERNELS, words, titles, masks_titles=True)
    model.initialise(ranker, words, titles, seed=0, masked=masked)
    drawn = examples.draw(built, 6, 10, seed=0)
    out = ranker.observed([drawn.text, drawn.positive, drawn.negatives], training=False)
    s, ids = out["similarity"].numpy(), np.concatenate([drawn.positive, drawn.negatives], axis=1)
    expected = [
        sum(
            max(0.0, 1 + s[i, j] - s[i, 0])
            for j in range(1, 11)
            if not (masked[ids[i, j]] or masked[ids[i, 0]])
        )
        for i in range(6)
    ]
    np.testing.assert_allclose(out["loss"], expected, rtol=1e-5)
    model.initialise(ranker, words, titles, seed=0, masked=np.zeros(12, bool))
    assert (
        ranker.observed([drawn.text, drawn.positive, drawn.negatives])["loss"].numpy() > 0
    ).all()
