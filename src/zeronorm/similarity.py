"""Cosine similarity, once for each place where an epsilon can go.

Every function takes `a` and `b` (float32, [..., d], broadcast against each other) and returns their
similarity (float32, [...]) over the last axis. `numerics` supplies the operations whose gradient is
in question (square root, reciprocal root, maximum, minimum); see `zeronorm.numerics`. With u = |a|
|b|, dot = a.b and e = epsilon, a name says the formula. The YAML file of the same name under
conf/similarity says what epsilon bounds and who ships that placement.

The rule behind the table of results: a guard *after* the root leaves sqrt's infinite derivative at
0 in the chain and multiplies it by an incoming 0. Whoever computes 0 * inf decides whether the row
becomes NaN.
"""

import tensorflow as tf


def _dot(a, b):
    return tf.reduce_sum(a * b, axis=-1)


def _square(x):
    return tf.reduce_sum(x * x, axis=-1)


def unguarded(a, b, numerics):
    """dot / u. At a zero row already the value is 0/0 = NaN."""
    return _dot(a, b) / (numerics.sqrt(_square(a)) * numerics.sqrt(_square(b)))


def clamp_product(a, b, numerics, epsilon):
    """dot / max(u, e): the question's formula (K.maximum(u, K.epsilon()), 2017)."""
    norms = numerics.sqrt(_square(a)) * numerics.sqrt(_square(b))
    return _dot(a, b) / numerics.maximum(norms, epsilon)


def add_to_product(a, b, numerics, epsilon):
    """dot / (u + e): the published answer's formula."""
    norms = numerics.sqrt(_square(a)) * numerics.sqrt(_square(b))
    return _dot(a, b) / (norms + epsilon)


def add_to_norms(a, b, numerics, epsilon):
    """dot / ((|a| + e) (|b| + e))."""
    return _dot(a, b) / (
        (numerics.sqrt(_square(a)) + epsilon) * (numerics.sqrt(_square(b)) + epsilon)
    )


def clamp_norms(a, b, numerics, epsilon):
    """dot / (max(|a|, e) max(|b|, e)): StarSpace's formula, and the value of
    torch.nn.functional.cosine_similarity, whose own gradient is finite (experiments/releases)."""
    norm_a = numerics.maximum(numerics.sqrt(_square(a)), epsilon)
    norm_b = numerics.maximum(numerics.sqrt(_square(b)), epsilon)
    return _dot(a, b) / (norm_a * norm_b)


def add_to_squares(a, b, numerics, epsilon):
    """dot / sqrt((|a|^2 + e) (|b|^2 + e)): epsilon inside the root, which then never sees 0."""
    return _dot(a, b) / numerics.sqrt((_square(a) + epsilon) * (_square(b) + epsilon))


def clamp_squares(a, b, numerics, epsilon):
    """(a rsqrt(max(|a|^2, e))) . (b rsqrt(max(|b|^2, e))): tf.math.l2_normalize,
    optax.cosine_similarity."""
    unit_a = a * numerics.rsqrt(numerics.maximum(_square(a), epsilon))[..., tf.newaxis]
    unit_b = b * numerics.rsqrt(numerics.maximum(_square(b), epsilon))[..., tf.newaxis]
    return _dot(unit_a, unit_b)


def keras_normalize(a, b, numerics, epsilon):
    """(a min(rsqrt(|a|^2), 1/e)) . (b min(rsqrt(|b|^2), 1/e)): keras.losses.CosineSimilarity and
    Dot(normalize=True), as released in Keras 3.15 (keras.ops.normalize, order 2)."""
    unit_a = a * numerics.minimum(numerics.rsqrt(_square(a)), 1.0 / epsilon)[..., tf.newaxis]
    unit_b = b * numerics.minimum(numerics.rsqrt(_square(b)), 1.0 / epsilon)[..., tf.newaxis]
    return _dot(unit_a, unit_b)


def divide_no_nan(a, b, numerics):
    """dot / u where u > 0, else 0, by tf.math.divide_no_nan. It guards the quotient, not the
    root."""
    return tf.math.divide_no_nan(_dot(a, b), numerics.sqrt(_square(a)) * numerics.sqrt(_square(b)))


def single_where(a, b, numerics):
    """where(u > 0, dot / u, 0): the folk remedy. The dead branch's gradient is 0 * NaN."""
    norms = numerics.sqrt(_square(a)) * numerics.sqrt(_square(b))
    return tf.where(norms > 0, _dot(a, b) / norms, 0.0)


def double_where(a, b, numerics):
    """where(u > 0, dot / u, 0), the root's argument replaced by 1 where it is 0: neither branch
    divides by 0.

    The gradient at a zero row is exactly 0: the row never learns.
    """
    square_a, square_b = _square(a), _square(b)
    safe = (square_a > 0) & (square_b > 0)
    norms = numerics.sqrt(tf.where(safe, square_a, 1.0)) * numerics.sqrt(
        tf.where(safe, square_b, 1.0)
    )
    return tf.where(safe, _dot(a, b) / norms, 0.0)
