"""Value and gradient of every placement, at ordinary, zero and 1e-20 rows, under all three
numerics.

The oracle is written for itself, in float64 NumPy: s = dot * g(|a|, |b|), so ds/db = a g + dot
dg/d|b| b/|b|, whose second part vanishes at b = 0. Where float32 cannot be right (an infinite
derivative times 0, a square that underflows) the expected outcome stands in the table beside its
reason.
"""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from zeronorm import numerics, similarity

EPSILON = {"add_to_squares": 1e-7, "clamp_squares": 1e-12} | dict.fromkeys(
    ("clamp_product", "add_to_product", "add_to_norms", "clamp_norms", "keras_normalize"), 1e-7
)
PLACEMENTS = [*EPSILON, "unguarded", "divide_no_nan", "single_where", "double_where"]
A, B = np.array([1.0, -2.0, 3.0]), np.array([0.5, 1.0, 2.0])


def factor(name, a, b, e):
    """g(|a|, |b|) and its derivative by |b|, float64; b > 0 or an epsilon that keeps g finite
    at 0."""
    if name == "clamp_product":
        return (1 / (a * b), -1 / (a * b**2)) if a * b > e else (1 / e, 0)
    if name == "add_to_product":
        return 1 / (a * b + e), -a / (a * b + e) ** 2
    if name == "add_to_norms":
        return 1 / ((a + e) * (b + e)), -1 / ((a + e) * (b + e) ** 2)
    if name in ("clamp_norms", "keras_normalize"):
        return (1 / (a * b), -1 / (a * b**2)) if b > e else (1 / (a * e), 0)
    if name == "add_to_squares":
        g = 1 / np.sqrt((a**2 + e) * (b**2 + e))
        return g, -g * b / (b**2 + e)
    if name == "clamp_squares":
        return (1 / (a * b), -1 / (a * b**2)) if b**2 > e else (1 / (a * np.sqrt(e)), 0)
    return 1 / (a * b), -1 / (a * b**2)  # no epsilon


def oracle(name, a, b):
    """(value, ds/da, ds/db) in float64."""
    norm_a, norm_b, dot, e = np.linalg.norm(a), np.linalg.norm(b), a @ b, EPSILON.get(name)
    g, dg_b = factor(name, norm_a, norm_b, e)
    small = 1e-6 * norm_a  # ds/d|a| by a central difference: only |b| stands at the singular point
    dg_a = (
        factor(name, norm_a + small, norm_b, e)[0] - factor(name, norm_a - small, norm_b, e)[0]
    ) / (2 * small)
    towards_b = b / norm_b if norm_b else np.zeros_like(b)
    return dot * g, b * g + dot * dg_a * a / norm_a, a * g + dot * dg_b * towards_b


def measured(name, used, a, b, upstream=1.0):
    placement = getattr(similarity, name)
    if name in EPSILON:
        placement = partial(placement, epsilon=EPSILON[name])

    @tf.function(jit_compile=used.jit_compile)
    def run(a, b, upstream):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            value = placement(a, b, used)
        return value, *tape.gradient(value, [a, b], output_gradients=upstream)

    tensors = (tf.constant(row[None], tf.float32) for row in (a, b))
    return [x.numpy()[0] for x in run(*tensors, tf.constant([upstream]))]


@pytest.fixture(params=numerics.BY_NAME.values(), ids=numerics.BY_NAME)
def used(request):
    return request.param


@pytest.mark.parametrize("name", PLACEMENTS)
def test_ordinary_rows_agree_with_the_cosine_in_float64(name, used):
    for got, expected in zip(measured(name, used, A, B), oracle(name, A, B), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)
    for got in measured(name, used, A, B, upstream=0.0)[1:]:
        np.testing.assert_array_equal(got, 0)


# The root's derivative at 0 is infinite and a guard after the root sends it exactly 0. The kernels
# define 0 * inf as 0 there; XLA and TensorFlow to 1.13 compute 0 * 0.5 / 0.
GUARD_AFTER_THE_ROOT = (
    "clamp_product",
    "add_to_product",
    "add_to_norms",
    "clamp_norms",
    "keras_normalize",
)
GUARD_INSIDE_THE_ROOT = ("add_to_squares", "clamp_squares")


@pytest.mark.parametrize("upstream", [1.0, 0.0])
@pytest.mark.parametrize("name", PLACEMENTS)
def test_zero_row(name, used, upstream):
    value, to_a, to_b = measured(name, used, A, np.zeros(3), upstream)
    if name == "unguarded":
        # 0/0 already forward
        assert np.isnan(value) and np.isnan(to_a).all() and np.isnan(to_b).all()
    elif name == "single_where":
        # the dead branch's 0 * NaN, everywhere
        assert value == 0 and np.isnan(to_a).all() and np.isnan(to_b).all()
    elif name == "double_where":
        assert value == 0 and not to_a.any() and not to_b.any()  # finite, and the row never learns
    elif name == "divide_no_nan":
        assert value == 0 and not to_a.any()  # the quotient is guarded, the root is not
        assert not to_b.any() if used is numerics.KERNELS else np.isnan(to_b).all()
    else:
        expected = oracle(name, A, np.zeros(3))
        assert value == 0 and not to_a.any()
        if name in GUARD_INSIDE_THE_ROOT or used is numerics.KERNELS:
            np.testing.assert_allclose(to_b, upstream * expected[2], rtol=1e-5)
        else:
            assert np.isnan(to_b).all()


@pytest.mark.parametrize("name", PLACEMENTS)
def test_row_of_1e_20_whose_square_underflows(name, used):
    row = 1e-20 * B
    value, to_a, to_b = measured(name, used, A, row)
    if name == "unguarded":
        assert np.isinf(value)  # a dot of 1e-20 over a norm of 0
        assert not np.isfinite(to_a).any() and not np.isfinite(to_b).any()
    elif name == "single_where":
        assert value == 0 and np.isnan(to_a).all() and np.isnan(to_b).all()
    elif name == "double_where":
        assert value == 0 and not to_a.any() and not to_b.any()
    elif name == "divide_no_nan":
        assert value == 0 and not to_a.any()
        assert not to_b.any() if used is numerics.KERNELS else np.isnan(to_b).all()
    else:
        expected = oracle(name, A, row)
        np.testing.assert_allclose(value, expected[0], rtol=1e-4)
        np.testing.assert_allclose(to_a, expected[1], rtol=1e-3)
        if name in ("add_to_product", "add_to_norms"):
            assert np.isinf(
                to_b
                # here the root's gradient receives 1e-6 instead of 0, so every numerics has inf
            ).all()
        elif name in GUARD_INSIDE_THE_ROOT or used is numerics.KERNELS:
            np.testing.assert_allclose(to_b, expected[2], rtol=1e-4)
        else:
            assert np.isnan(to_b).all()


@pytest.mark.parametrize("name", PLACEMENTS)
def test_broadcasts_one_text_over_many_titles(name):
    rng = np.random.default_rng(0)
    z, titles = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 1, 5), (4, 7, 5)))
    epsilon = {"epsilon": EPSILON[name]} if name in EPSILON else {}
    got = getattr(similarity, name)(z, titles, numerics.KERNELS, **epsilon)
    expected = (z * titles).sum(-1) / np.linalg.norm(z, axis=-1) / np.linalg.norm(titles, axis=-1)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_keras_normalize_is_what_keras_ships():
    import keras

    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((6, 5)).astype(np.float32) for _ in range(2))
    b[2] = 0
    ours = similarity.keras_normalize(a, b, numerics.KERNELS, epsilon=keras.config.epsilon())
    theirs = -keras.losses.CosineSimilarity(reduction=None)(a, b)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_clamp_squares_is_l2_normalize():
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((6, 5)).astype(np.float32) for _ in range(2))
    theirs = tf.reduce_sum(tf.math.l2_normalize(a, -1) * tf.math.l2_normalize(b, -1), -1)
    np.testing.assert_allclose(
        similarity.clamp_squares(a, b, numerics.KERNELS, epsilon=1e-12), theirs, rtol=1e-6
    )


@pytest.mark.parametrize("epsilon", [1e-12, 1e-7, 1e-5, 1e-2])
def test_the_maximum_inside_the_root_is_finite_at_every_length(used, epsilon):
    """Of a title's row and of a text, from 0 to the largest that float32 has, and is the cosine
    where both are longer than the root of epsilon and their squares are finite."""
    lengths = np.array([0, *10.0 ** np.arange(-45, 39)])
    rng = np.random.default_rng(0)
    towards = rng.standard_normal((2, len(lengths), 3))
    a, b = towards / np.linalg.norm(towards, axis=-1, keepdims=True)
    for long in (0, 1):
        sides = [a, b]
        sides[long] = sides[long] * lengths[:, None]
        assert np.isfinite(sides[long]).all()

        @tf.function(jit_compile=used.jit_compile)
        def run(a, b):
            with tf.GradientTape() as tape:
                tape.watch([a, b])
                value = similarity.clamp_squares(a, b, used, epsilon=epsilon)
            return value, *tape.gradient(value, [a, b])

        found = [x.numpy() for x in run(*(tf.constant(side, tf.float32) for side in sides))]
        assert all(np.isfinite(x).all() for x in found)
        ordinary = (lengths > 1.1 * np.sqrt(epsilon)) & (lengths < 1e19)
        np.testing.assert_allclose(found[0][ordinary], (a * b).sum(-1)[ordinary], atol=1e-6)
