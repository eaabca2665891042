"""The reason why a kernel or XLA refuses an operation, out of what TensorFlow 2.21 says: asked of
TensorFlow."""

import re

import pytest
import tensorflow as tf

from zeronorm import failure
from zeronorm.autopsy import refusal

X = tf.constant([1.0, 0.0])
WHERE = re.compile(
    r"Graph execution|Detected at|\[\[|\{\{|File \"|\[Op:|node name|tf2xla|_XlaMust|\n"
)


def labels():
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.constant([0, 4]), tf.ones((2, 4)))


def asserted():
    rates = tf.random.uniform([2]) - 1  # of a value that is not known when it is traced
    with tf.control_dependencies(
        [tf.debugging.assert_positive(rates, message="rates are positive")]
    ):
        return tf.identity(rates)


def raising(_):
    raise ValueError("no such file")


KERNELS = {  # what the kernels refuse: the operation, and their reason
    "labels": (labels, "Received a label value of 4 which is outside the valid range of [0, 4)."),
    "ids": (lambda: tf.gather(tf.ones((4, 2)), [[0, 7]]), "indices[0,1] = 7 is not in [0, 4)."),
    "point": (
        lambda: tf.gather_nd(tf.ones((4, 2)), [[0, 7]]),
        "indices[0] = [0, 7] does not index into param shape [4,2].",
    ),
    "inverse": (lambda: tf.linalg.inv(tf.zeros((2, 2))), "Input is not invertible."),
    "solve": (
        lambda: tf.linalg.solve(tf.zeros((2, 2)), X[:, None]),
        "Input matrix is not invertible.",
    ),
    "assertion": (asserted, "assertion failed: [rates are positive. ] ["),
    "check": (
        lambda: tf.debugging.check_numerics(X / 0.0, "the loss"),
        "the loss : Tensor had ",
    ),
    "number": (
        lambda: tf.strings.to_number(["abc"]),
        "StringToNumberOp could not correctly convert string: abc.",
    ),
    "python": (lambda: tf.py_function(raising, [X], tf.float32), "ValueError: no such file."),
    "segments": (lambda: tf.math.segment_sum(X, [1, 0]), "segment ids are not increasing."),
    "shape": (
        lambda: tf.ensure_shape(tf.boolean_mask(X, X > 0), [2]),
        "Shape of tensor boolean_mask/GatherV2 [1] is not compatible with expected shape [2].",
    ),
}
XLA = {
    "text": (lambda: tf.strings.length(tf.strings.as_string(X)), "it has no kernel for AsString."),
    "segments": (lambda: tf.math.segment_sum(X, [1, 0]), "it has no kernel for SegmentSum."),
    "python": (
        lambda: tf.py_function(tf.exp, [X], tf.float32),
        "it has no kernel for EagerPyFunc.",
    ),
    "slice": (lambda: tf.slice(X, tf.size(X)[None], [1]), "Expected size[0] in [0, 0], but got 1."),
}


def said(compute, jit_compile: bool, whole: bool = True) -> str:
    with pytest.raises(tf.errors.OpError) as raised:
        tf.function(compute, jit_compile=jit_compile, autograph=False)() if whole else compute()
    return refusal.sentence(raised.value.message)


@pytest.mark.parametrize("name", KERNELS)
def test_why_a_kernel_refuses(name):
    compute, expected = KERNELS[name]
    reason = said(compute, False)
    assert reason.startswith(expected) and not WHERE.search(reason)


@pytest.mark.parametrize("name", [name for name in KERNELS if name not in ("assertion", "shape")])
def test_why_a_kernel_refuses_without_a_graph(name):
    compute, expected = KERNELS[name]
    reason = said(compute, False, whole=False)
    assert reason.startswith(expected) and not WHERE.search(reason)


@pytest.mark.parametrize("name", KERNELS)
def test_a_run_that_fails_of_it_says_so(name):
    compute, expected = KERNELS[name]
    with pytest.raises(tf.errors.OpError) as raised:
        tf.function(compute, autograph=False)()
    reason = failure.reason(raised.value)
    assert reason.startswith(f"{type(raised.value).__name__}: {expected}")
    assert not WHERE.search(reason)


@pytest.mark.parametrize("name", XLA)
def test_why_xla_refuses(name):
    compute, expected = XLA[name]
    assert said(compute, True) == expected


def test_several_reasons_and_colours_and_none():
    several = (
        "2 root error(s) found.\n  (0) INVALID_ARGUMENT:  indices[0] = 7 is not in [0, 4)\n\t"
        " [[{{node a/b}}]]\n"
    )
    assert refusal.sentence(several) == "indices[0] = 7 is not in [0, 4)."
    assert refusal.sentence("\x1b[1mGraph execution error:\x1b[0m\n\n") == "it gives no reason."
    assert len(refusal.sentence("word " * 1000)) <= refusal.MOST + 4
