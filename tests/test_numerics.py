"""The emulation of 2017 against cases worked by hand and against what TensorFlow's releases
computed, and the witness that XLA ran."""

import json

import numpy as np
import pytest
import tensorflow as tf

from zeronorm import checkout, numerics

NAN, INF = np.nan, np.inf
ZERO_OR_NAN = {"0": 0.0, "NaN": NAN}


def gradient(function, *arguments, upstream):
    tensors = [tf.constant(x, tf.float32) for x in arguments]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    return value.numpy(), *(
        g.numpy() for g in tape.gradient(value, tensors, output_gradients=tf.constant(upstream))
    )


def test_sqrt_2017_by_hand():
    # (0.5 * dy) / y: 0.5 * 8 / 2 = 2; 0.5 * 1 / 0 = inf; 0 / 0 = NaN
    value, dx = gradient(numerics.sqrt_2017, [4.0, 0.0, 0.0], upstream=[8.0, 1.0, 0.0])
    np.testing.assert_array_equal(value, [2, 0, 0])
    np.testing.assert_array_equal(dx, [2, INF, NAN])


def test_rsqrt_2017_by_hand():
    # -0.5 * dy * y^3: -0.5 * 8 / 8 = -0.5; -0.5 * 1 * inf = -inf; 0 * inf = NaN
    value, dx = gradient(numerics.rsqrt_2017, [4.0, 0.0, 0.0], upstream=[8.0, 1.0, 0.0])
    np.testing.assert_array_equal(value, [0.5, INF, INF])
    np.testing.assert_array_equal(dx, [-0.5, -INF, NAN])


def test_maximum_2017_takes_x_beside_a_nan_and_sends_the_gradient_to_y():
    x, y = [1.0, 3.0, 2.0, NAN, 0.0, NAN], [2.0, 1.0, 2.0, 5.0, NAN, NAN]
    value, dx, dy = gradient(numerics.maximum_2017, x, y, upstream=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    np.testing.assert_array_equal(value, [2, 3, 2, NAN, 0, NAN])
    np.testing.assert_array_equal(dx, [0, 2, 3, 0, 0, 0])  # a tie goes to x
    np.testing.assert_array_equal(dy, [1, 0, 0, 4, 5, 6])


def test_minimum_2017_mirrors_it():
    value, dx, dy = gradient(
        numerics.minimum_2017,
        [1.0, 2.0, NAN, 4.0],
        [2.0, 2.0, 3.0, NAN],
        upstream=[1.0, 2.0, 3.0, 4.0],
    )
    np.testing.assert_array_equal(value, [1, 2, NAN, 4])
    np.testing.assert_array_equal(dx, [1, 2, 0, 0])
    np.testing.assert_array_equal(dy, [0, 0, 3, 4])


def test_maximum_2017_sums_the_gradient_of_a_broadcast_operand():
    _, dx, dy = gradient(
        numerics.maximum_2017,
        0.0,
        [[1.0, -1.0], [-2.0, 3.0]],
        upstream=[[1.0, 10.0], [100.0, 1000.0]],
    )
    assert dx == 110
    np.testing.assert_array_equal(dy, [[1, 0], [0, 1000]])


RECORDED = json.loads(
    (checkout.conf_dir().parent / "experiments" / "releases" / "operations.json").read_text()
)
UNTIL_2_1 = [
    release
    for release in RECORDED
    if (1, 1) <= tuple(int(part) for part in release.split(".")[:2]) <= (2, 1)
]


@pytest.mark.parametrize("operation", ["maximum", "minimum"])
@pytest.mark.parametrize("release", UNTIL_2_1)
def test_maximum_and_minimum_2017_are_those_of_the_releases(release, operation):
    """Value and gradient of NaN on either side, in vectors and scalars, as the release's own
    kernels computed them."""
    for operands, recorded in RECORDED[release]["kernels"]["of NaN"][operation].items():
        lanes = len(recorded[0])
        x, y = (
            ZERO_OR_NAN[word.removeprefix("scalar ")] * np.ones(() if "scalar" in word else lanes)
            for word in operands.split(", ")
        )
        used = getattr(numerics, f"{operation}_2017")
        found = gradient(used, x, y, upstream=np.ones(lanes, np.float32))
        said = ["".join("N" if np.isnan(v) else f"{v:g}" for v in np.ravel(of)) for of in found]
        assert said == recorded, operands


@pytest.mark.parametrize("operation", ["sqrt", "rsqrt"])
def test_the_roots_of_2017_are_those_of_tensorflow_1_3(operation):
    for pair, recorded in RECORDED["1.3.0"]["kernels"]["roots"][operation].items():
        x, dy = map(float, pair.split(", "))
        if np.isfinite(x):  # of infinity and NaN its vectorised root made NaN; 1.12's did not
            used = getattr(numerics, f"{operation}_2017")
            found = gradient(used, [x], upstream=[np.float32(dy)])
            np.testing.assert_allclose(np.ravel(found), np.float64(recorded), rtol=1e-6)


def test_the_kernels_maximum_keeps_nan():
    assert np.isnan(tf.maximum(0.0, NAN).numpy())
    assert numerics.maximum_2017(0.0, NAN).numpy() == 0


@pytest.mark.parametrize(
    "used, expected", [(numerics.KERNELS, 0.0), (numerics.XLA, NAN), (numerics.TF1, NAN)]
)
def test_the_disagreement_in_one_operation(used, expected):
    """sqrt's gradient at 0 for an incoming 0: the whole subject of this repository."""

    @tf.function(jit_compile=used.jit_compile)
    def root_gradient(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = used.sqrt(x)
        return tape.gradient(y, x, output_gradients=upstream)

    np.testing.assert_array_equal(root_gradient(tf.constant(0.0), tf.constant(0.0)), expected)


def test_the_witness_counts_xla_and_fails_under_the_kernels():
    step = tf.constant(7)
    assert tf.function(numerics.xla_witness, jit_compile=True)(step).numpy() == 1
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.function(numerics.xla_witness)(step)


def test_keras_picks_kernels_without_a_gpu_and_xla_with_one():
    """By its own compile(jit_compile="auto"), told which devices there are; fails if Keras decides
    otherwise."""
    assert numerics.keras_choice(gpu=False) is numerics.KERNELS
    assert numerics.keras_choice(gpu=True) is numerics.XLA
    here = numerics.XLA if tf.config.list_physical_devices("GPU") else numerics.KERNELS
    assert numerics.named("auto") is numerics.keras_choice() is here
    assert [numerics.named(name) for name in numerics.BY_NAME] == list(numerics.BY_NAME.values())
