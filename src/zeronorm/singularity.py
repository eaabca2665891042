"""What a placement does at a zero row and near it: the derivative by its definition, the gradient that is computed,
and the score of a small vector. Three separate questions: a gradient can be finite and wrong, or right and enormous."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import tensorflow as tf

from zeronorm.numerics import Numerics

ROW = np.array([[0.6, 0.8]], np.float32)  # norm 1
COSINE = 0.6  # of ROW and DIRECTION
DIRECTION = np.array([[1.0, 0.0]], np.float32)
STEP = 1e-17  # from the zero row, for the derivative: its square is still a normal float32
TINY = 1e-20  # norm of a row that is not zero and whose square is, in float32
SMALL = (1e-3, 1e-6)  # norms at which the score is compared with the cosine


@dataclass(frozen=True)
class Singularity:
    """A placement as one numerics computes it, beside a row of norm 1.

    derivative: norm of d similarity / d row at the zero row by the definition of the derivative (a difference
    quotient of values; no gradient code has a part in it); None where there is none.
    gradient: norm of what the numerics computes there, for an incoming gradient of 1; NaN or inf possible.
    gradient_tiny: the same at a row of norm 1e-20.
    scores: {norm of a small row: its similarity, where the cosine is 0.6}.
    """

    derivative: float | None
    gradient: float
    gradient_tiny: float
    scores: dict[float, float]


@lru_cache(maxsize=64)  # of every run that shares the compiled step
def gradients(similarity: Callable, numerics: Numerics) -> Callable:
    """(a, b, upstream) -> [d/da, d/db] of `similarity`, of float32 tensors [1, 2] and [1], compiled as the step is."""

    @tf.function(jit_compile=numerics.jit_compile, autograph=False)
    def compiled(a, b, upstream):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            value = similarity(a, b)
        return tape.gradient(value, [a, b], output_gradients=upstream)

    def taken(a, b, upstream: float):
        a, b = tf.constant(a, tf.float32), tf.constant(b, tf.float32)
        return [x.numpy() for x in compiled(a, b, tf.constant([upstream]))]

    return taken


def measure(similarity: Callable, numerics: Numerics) -> Singularity:
    """similarity: of two float32 tensors [..., d], bound to its epsilon and to `numerics`."""
    taken = gradients(similarity, numerics)

    def norm(row) -> float:
        return float(np.linalg.norm(taken(ROW, row, 1.0)[1].astype(np.float64)))

    def score(row) -> float:
        return float(similarity(tf.constant(ROW), tf.constant(row, tf.float32))[0])

    return Singularity(
        derivative=_derivative(score),
        gradient=norm(np.zeros_like(ROW)),
        gradient_tiny=norm(ROW * TINY),
        scores={size: score(DIRECTION * size) for size in SMALL},
    )


def _derivative(score: Callable) -> float | None:
    """(f(h) - f(0)) / h along ROW, the steepest direction, where it settles as h falls; else None."""
    at_zero = score(np.zeros_like(ROW))
    near, nearer = ((score(ROW * h) - at_zero) / h for h in (STEP, STEP / 10))
    settled = np.isfinite([near, nearer]).all() and abs(near - nearer) <= 1e-3 * abs(near)
    return near if settled else None
