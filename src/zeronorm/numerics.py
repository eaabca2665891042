"""Who computes the gradient: TensorFlow's kernels, XLA, or TensorFlow's kernels up to 1.13.2.

The three agree wherever the mathematics is finite. They differ in what sqrt's gradient is where
sqrt(x) = 0 and the incoming gradient is 0, i.e. in 0 * 0.5 / 0:

- kernels: 0. Since 1.14.0 (June 2019) SqrtGrad and RsqrtGrad return 0 for an incoming 0
  (tensorflow/core/kernels/cwise_ops_gradients.h: scalar_sqrt_gradient_op, scalar_rsqrt_gradient_op,
  mul_no_nan_op).
- xla: NaN. SqrtGrad is lowered to `dy * 0.5 / y`
  (tensorflow/compiler/tf2xla/kernels/binary_ops.cc). Its maximum on a CPU is not settled for NaN:
  with both operands unknown to the compiler, maximum(0, NaN) is 0 and maximum(NaN, 0) NaN.
- tf1: NaN. Up to 1.13.2 the same header had no guard. In addition maximum(0, NaN) was 0, which is
  why a loss could read 0 while every weight was NaN. experiments/releases holds what each release
  computed, and the emulation against TensorFlow 1.3.0 in training.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from unittest import mock

import keras
import tensorflow as tf


@dataclass(frozen=True)
class Numerics:
    """The operations whose gradient is in question, and whether the step that contains them is
    compiled by XLA."""

    name: str
    jit_compile: bool
    sqrt: Callable
    rsqrt: Callable
    maximum: Callable
    minimum: Callable


@tf.custom_gradient
def sqrt_2017(x):
    """sqrt(x) with the gradient of TensorFlow up to 1.13.2: (0.5 * dy) / y, unguarded, so 0 / 0 =
    NaN at x = 0, dy = 0.

    x: float32, any shape. Source: `scalar_sqrt_gradient_op` in
        tensorflow/core/kernels/cwise_ops_gradients.h, 2017.
    """
    y = tf.sqrt(x)

    def gradient(dy):
        with tf.name_scope("SqrtGrad_2017"):
            return 0.5 * dy / y

    return y, gradient


@tf.custom_gradient
def rsqrt_2017(x):
    """1 / sqrt(x) with the gradient of TensorFlow up to 1.13.2: -0.5 * dy * y^3, unguarded, so 0 *
    inf = NaN at x = 0, dy = 0.

    x: float32, any shape. Source: `scalar_rsqrt_gradient_op` in the same header, and the values
        recorded in experiments/releases/operations.json.
    """
    y = tf.math.rsqrt(x)

    def gradient(dy):
        with tf.name_scope("RsqrtGrad_2017"):
            # in this order: of a tiny x, y^3 would overflow where dy is 0, and 1.x made 0 of it
            return -0.5 * (dy * y) * (y * y)

    return y, gradient


def _select_2017(takes_y, reaches_x):
    """A binary selection that takes x where a comparison with NaN says nothing. The gradient goes
    by a comparison of its own, and to y where that says nothing."""

    @tf.custom_gradient
    def select(x, y):
        def gradient(dy):
            mask = reaches_x(x, y)
            to_x, to_y = (
                tf.where(mask, dy, tf.zeros_like(dy)),
                tf.where(mask, tf.zeros_like(dy), dy),
            )
            return _sum_to(to_x, tf.shape(x)), _sum_to(to_y, tf.shape(y))

        return tf.where(takes_y(x, y), y, x), gradient

    return lambda x, y: select(
        tf.convert_to_tensor(x, tf.float32), tf.convert_to_tensor(y, tf.float32)
    )


def _sum_to(gradient, shape):
    """Sums a broadcast operand's gradient back to the operand's shape."""
    axes, _ = tf.raw_ops.BroadcastGradientArgs(s0=shape, s1=tf.shape(gradient))
    return tf.reshape(tf.reduce_sum(gradient, axes), shape)


# The value is std::max's, x < y ? y : x, in every lane of every release from 1.1 to 2.1; the mask
# of the gradient is `x >= y`, a tie to x (tensorflow/python/ops/math_grad.py,
# _MaximumMinimumGrad). Both as recorded in experiments/releases/operations.json.
maximum_2017 = _select_2017(lambda x, y: x < y, lambda x, y: x >= y)
minimum_2017 = _select_2017(lambda x, y: y < x, lambda x, y: x <= y)

KERNELS = Numerics("kernels", False, tf.sqrt, tf.math.rsqrt, tf.maximum, tf.minimum)
XLA = Numerics("xla", True, tf.sqrt, tf.math.rsqrt, tf.maximum, tf.minimum)
TF1 = Numerics("tf1", False, sqrt_2017, rsqrt_2017, maximum_2017, minimum_2017)
BY_NAME = {numerics.name: numerics for numerics in (KERNELS, XLA, TF1)}


def named(name: str) -> Numerics:
    """KERNELS, XLA or TF1 by name; `auto`: the one that Keras's compile(jit_compile="auto") picks
    on this machine."""
    return keras_choice() if name == "auto" else BY_NAME[name]


def keras_choice(gpu: bool | None = None) -> Numerics:
    """What Keras's compile(jit_compile="auto") picks: KERNELS or XLA.

    gpu: whether Keras is told that there is a GPU; None: it looks. (Keras decides by the kinds of
        the physical devices: keras/src/trainers/trainer.py.)
    """
    told: AbstractContextManager = nullcontext()
    if gpu is not None:
        kinds = ["CPU", "GPU"] if gpu else ["CPU"]
        devices = [tf.config.PhysicalDevice(f"/physical_device:{kind}:0", kind) for kind in kinds]
        told = mock.patch.object(tf.config, "list_physical_devices", lambda kind=None: devices)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    with told:
        model.compile(loss="mse", jit_compile="auto")
        return XLA if model.jit_compile else KERNELS


def xla_witness(step):
    """1 if XLA computes this call; TensorFlow's own CPU kernel raises InvalidArgumentError instead.

    A gather out of bounds: the kernel checks its indices, XLA clamps them ("Operation Semantics:
    Gather"). A step that contains it cannot have been executed by the kernels, so the sum over the
    steps counts the steps XLA ran.

    step: int32 [], not negative and not a constant of the graph.
    Returns int32 [].
    """
    return tf.gather(tf.constant([0, 1]), step + 2)
