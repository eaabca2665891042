"""The sparse gradient against TensorFlow's own, of the formula in Keras's stock layers: values,
ties and NaN."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from zeronorm.convolution import MaxOverTime, max_over_time

BATCH, LENGTH, D, FILTERS, WIDTH = 3, 11, 4, 7, 3


def plain(x, kernel, bias):
    return tf.reduce_max(tf.tanh(tf.nn.bias_add(tf.nn.conv1d(x, kernel, 1, "VALID"), bias)), axis=1)


def both(x, kernel, bias, dy):
    """Value and gradients by TensorFlow and by max_over_time."""
    found = []
    for function in (plain, max_over_time):

        @tf.function
        def run(x, kernel, bias, dy, function=function):
            with tf.GradientTape() as tape:
                tape.watch([x, kernel, bias])
                y = function(x, kernel, bias)
            return y, *tape.gradient(y, [x, kernel, bias], output_gradients=dy)

        found.append([part.numpy() for part in run(*map(tf.constant, (x, kernel, bias, dy)))])
    return zip(*found, strict=True)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    shapes = (BATCH, LENGTH, D), (WIDTH, D, FILTERS), (FILTERS,), (BATCH, FILTERS)
    return [rng.standard_normal(shape).astype(np.float32) * 0.3 for shape in shapes]


def test_value_and_gradients_are_tensorflows(arrays):
    for expected, found in both(*arrays):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert np.abs(expected).max() > 0.01


def test_ties_share_the_gradient(arrays):
    """Padding and a repeated text: equal windows, of which each gets its share, as Keras gives
    it."""
    x, kernel, bias, dy = arrays
    x[0] = x[0, 0]  # nine equal windows
    x[1, :8] = 0  # six windows of padding only; with the biases below they win
    x[2, 6:] = x[2, :5]
    x[1, 8:] *= 1e-3
    kernel[:, :, 0] = 0  # every window ties for this filter
    for expected, found in both(x, kernel, bias, dy):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    _, (d_x, _), *_ = both(x, kernel, bias, dy)
    # evenly, over the middle
    np.testing.assert_allclose(d_x[0, 3:8], np.broadcast_to(d_x[0, 3], (5, D)), rtol=1e-5)


def test_saturated_windows(arrays):
    x, kernel, bias, dy = arrays
    for expected, found in both(x, kernel * 40, bias, dy):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


POISON = {
    "a word": lambda a, bad: a[0].__setitem__((1, 5, 2), bad),
    "every word": lambda a, bad: a[0].fill(bad),
    "a kernel element": lambda a, bad: a[1].__setitem__((1, 2, 3), bad),
    "a bias": lambda a, bad: a[2].__setitem__(4, bad),
    "an incoming gradient": lambda a, bad: a[3].__setitem__((2, 1), bad),
    "every incoming gradient": lambda a, bad: a[3].fill(bad),
}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30], ids=str)
@pytest.mark.parametrize("where", POISON)
def test_what_is_not_finite_travels_as_in_tensorflow(arrays, where, bad):
    POISON[where](arrays, np.float32(bad))
    for expected, found in both(*arrays):
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(found[~finite], expected[~finite])
        np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-4, atol=1e-5)


def test_no_gradient_is_computed_for_a_frozen_input(arrays):
    """Two sparse products fall to one, and the kernel's gradient is the same."""
    x, kernel, bias, dy = map(tf.constant, arrays)

    def traced(trainable_input):
        @tf.function
        def run(x, kernel, bias, dy):
            with tf.GradientTape() as tape:
                tape.watch(kernel)
                y = max_over_time(x, kernel, bias, trainable_input)
            return tape.gradient(y, kernel, output_gradients=dy)

        definition = run.get_concrete_function(x, kernel, bias, dy).graph.as_graph_def()
        products = [
            n.op
            for f in definition.library.function
            for n in f.node_def
            if n.op == "SparseMatrixMatMul"
        ]
        return run(x, kernel, bias, dy), len(products)

    (with_input, two), (without, one) = traced(True), traced(False)
    np.testing.assert_array_equal(with_input, without)
    assert (two, one) == (2, 1)


@pytest.mark.parametrize("sparse", [True, False])
def test_the_layer_is_keras_conv1d_and_pooling(arrays, sparse):
    x, kernel, bias, _ = arrays
    stock = keras.Sequential(
        [keras.layers.Conv1D(FILTERS, WIDTH, activation="tanh"), keras.layers.GlobalMaxPooling1D()]
    )
    layer = MaxOverTime(FILTERS, WIDTH, sparse, trainable_input=True)
    expected, _ = stock(x), layer(x)
    assert [w.shape for w in stock.weights] == [w.shape for w in layer.weights]
    for network in (stock, layer):
        network.set_weights([kernel, bias])
    np.testing.assert_allclose(layer(x), stock(x), rtol=1e-5, atol=1e-6)
    assert layer.compute_output_shape(x.shape) == expected.shape
