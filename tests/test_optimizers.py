"""Adam in one kernel and by rows, against Keras's own Adam on the same gradients."""

import dataclasses
from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf

from zeronorm import optimizers

ROWS, D = 12, 4
STEPS = 30


# by rows or not, with static shapes or not; compiled by XLA or not, which needs static ones
WAYS = [(None, False), (None, True), ("static", False), ("static", True), ("dynamic", False)]


def applied(optimizer, by_rows):
    """How an optimizer takes a step: whole tables, or the rows that a gradient names."""
    return nullcontext() if by_rows is None else optimizer.by_rows(by_rows == "static")


def trained(optimizer, ids_of_step, jit_compile=False, by_rows=None, seed=0):
    """The table after STEPS sparse gradients, and the dense weight after as many dense ones."""
    rng = np.random.default_rng(seed)
    table, dense = (
        keras.Variable(rng.standard_normal((ROWS, D)).astype(np.float32)) for _ in range(2)
    )
    optimizer.build([table, dense])

    @tf.function(jit_compile=jit_compile)
    def step(ids, values, gradient):
        with applied(optimizer, by_rows):
            optimizer.apply([tf.IndexedSlices(values, ids, (ROWS, D)), gradient], [table, dense])

    for number in range(STEPS):
        ids = np.asarray(ids_of_step(number), np.int32)
        values, gradient = (
            rng.standard_normal((n, D)).astype(np.float32) for n in (len(ids), ROWS)
        )
        step(tf.constant(ids), tf.constant(values), tf.constant(gradient))
    return table.numpy(), dense.numpy(), [v.numpy() for v in optimizer.variables]


@pytest.mark.parametrize(
    "options", [{}, {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}]
)
@pytest.mark.parametrize("by_rows, jit_compile", WAYS)
def test_a_row_touched_at_every_step_is_updated_as_by_keras(by_rows, options, jit_compile):
    """Every row in every step, some of them twice: the three agree, in the slots too."""

    def every_row(number):
        return [*range(ROWS), 3, 3, number % ROWS]

    expected = trained(keras.optimizers.Adam(**options), every_row)
    found = trained(optimizers.Adam(**options), every_row, jit_compile, by_rows)
    for x, y in zip((*expected[:2], *expected[2]), (*found[:2], *found[2]), strict=True):
        np.testing.assert_allclose(y, x, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("times", [optimizers.CROWDED // 4, optimizers.CROWDED + 1, 100_000])
@pytest.mark.parametrize("by_rows", [None, "static", "dynamic"])
def test_a_row_named_thousands_of_times_is_updated_as_by_keras(by_rows, times):
    """As a step with very many negatives, or a large batch of short texts, names a title or the
    padding: their gradients point one way, and the square of their sum dwarfs the sum of their
    squares."""
    rng = np.random.default_rng(0)
    ids = tf.constant(rng.integers(0, 2, times, np.int32))
    values = tf.constant(rng.normal(0.1, 0.01, (times, D)).astype(np.float32))

    def moved(optimizer, by_rows=None):
        table = keras.Variable(np.ones((ROWS, D), np.float32))
        optimizer.build([table])
        with applied(optimizer, by_rows):
            for _ in range(3):
                optimizer.apply([tf.IndexedSlices(values, ids, (ROWS, D))], [table])
        return table.numpy(), optimizer._velocities[0].numpy()

    ours = moved(optimizers.Adam(), by_rows)
    for x, y in zip(moved(keras.optimizers.Adam()), ours, strict=True):
        np.testing.assert_allclose(y, x, rtol=5e-3)


def test_adam_moves_untouched_rows_as_keras_does_and_by_rows_leaves_them():
    def first_half_then_rest(number):
        return range(6) if number < 15 else range(6, ROWS)

    expected = trained(keras.optimizers.Adam(), first_half_then_rest)[0]
    whole = trained(optimizers.Adam(), first_half_then_rest)[0]
    np.testing.assert_allclose(whole, expected, rtol=2e-5, atol=1e-6)

    by_rows = trained(optimizers.Adam(), first_half_then_rest, by_rows="static")[0]
    upto = trained(
        optimizers.Adam(), lambda number: range(6) if number < 15 else [11], by_rows="static"
    )[0]
    # 15 more steps on other rows have not moved them
    np.testing.assert_array_equal(by_rows[:6], upto[:6])
    assert np.abs(by_rows[:6] - expected[:6]).max() > 1e-3  # where Adam's momentum has


def test_amsgrad_is_kerass():
    rng = np.random.default_rng(0)
    steps = [rng.standard_normal((4, 3)).astype(np.float32) * size for size in (1, 3, 0.1, 0.1)]
    found = []
    for made in (optimizers.Adam, keras.optimizers.Adam):
        table, optimizer = keras.Variable(np.ones((4, 3), np.float32)), made(amsgrad=True)
        optimizer.build([table])
        for gradient in steps:
            optimizer.apply([tf.constant(gradient)], [table])
        found.append(np.array(table))
    np.testing.assert_array_equal(*found)


def once(optimizer, ids, values, jit_compile, by_rows=None):
    """A table of 4 rows of 1 after one sparse gradient."""
    table = keras.Variable(np.ones((4, 3), np.float32))
    optimizer.build([table])

    @tf.function(jit_compile=jit_compile)
    def step(values):
        slices = tf.IndexedSlices(values, tf.constant(ids), tf.constant([4, 3]))
        with applied(optimizer, by_rows):
            optimizer.apply([slices], [table])

    step(tf.constant(values, tf.float32))
    return np.array(table)


@pytest.mark.parametrize("size", [1e19, 1e25, 3e38])
@pytest.mark.parametrize("by_rows, jit_compile", WAYS)
def test_a_gradient_whose_square_overflows_loses_no_row(by_rows, size, jit_compile):
    """Keras's velocity becomes infinite there, and the row stays: infinity less infinity would have
    been NaN."""
    for ids in ([1, 2], [1, 1, 2]):
        values = [[size] * 3] + [[0.1] * 3] * (len(ids) - 1)
        expected = once(keras.optimizers.Adam(), ids, values, jit_compile)
        found = once(optimizers.Adam(), ids, values, jit_compile, by_rows)
        assert np.isfinite(found).all()
        if ids == [1, 2] and not by_rows:
            np.testing.assert_allclose(found, expected, rtol=1e-5)


ELEMENTWISE = optimizers.Reaches.elementwise()
EVERYWHERE = optimizers.Reach(True, True, True, True)
ROW, NOWHERE = (optimizers.Reach(row, False, False, False) for row in (True, False))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    "made, expected",
    [
        (optimizers.Adam, {"large": ROW}),  # its velocity, infinite, less itself
        (keras.optimizers.Adam, {"large": ROW}),
        (keras.optimizers.SGD, {}),
        (keras.optimizers.Lion, {"inf": NOWHERE}),  # which takes the sign
        (keras.optimizers.RMSprop, {"mixes": True}),
        (keras.optimizers.Adagrad, {"mixes": True}),
        (
            lambda: optimizers.Adam(clipnorm=1.0),
            {"nan": optimizers.Reach(True, True, False, False)},
        ),
        (
            lambda: optimizers.Adam(global_clipnorm=1.0),
            dict.fromkeys(("nan", "inf", "large", "encoder"), EVERYWHERE),
        ),
        (
            lambda: optimizers.Adam(clipvalue=1.0),
            {"inf": NOWHERE},
        ),
        (
            lambda: optimizers.Adam(gradient_accumulation_steps=4),
            {"period": 4, "large": ROW},
        ),
        (
            lambda: keras.optimizers.LossScaleOptimizer(optimizers.Adam()),
            dict.fromkeys(("nan", "inf", "encoder"), NOWHERE) | {"large": ROW},
        ),
    ],
)
def test_how_far_a_gradient_that_is_not_finite_gets(made, expected, jit_compile):
    assert optimizers.reaches(made(), jit_compile) == dataclasses.replace(ELEMENTWISE, **expected)


def test_an_optimizer_that_cannot_take_an_embeddings_gradient_says_so():
    """Keras divides an IndexedSlices by the scale, which it cannot."""
    with pytest.raises(TypeError):
        optimizers.reaches(optimizers.Adam(loss_scale_factor=8.0), False)
