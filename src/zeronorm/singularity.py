"""What a placement does at a zero row and near it: the derivative by its definition, the gradient
that is computed, and the score of a small vector. Three separate questions: a gradient can be
finite and wrong, or right and enormous.

And which rows of a matrix are deadly: at which the gradient that is computed is not finite. Zero is
one such place; where the square of a small row underflows, or that of a large one overflows, are
others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
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


PAIRS = 512  # of a text and a row whose gradients one call takes; of many, 16 times as many
ROWS = 8 * PAIRS  # that are tried at once
WAYS = (0.25, 1.0, 4.0)  # factors of a text's norm that an unusual row is tried with
USUAL = (1e-6, 1e6)  # norms between which a row is tried with one text only


class Kind(IntEnum):
    """Of a gradient. `large`: finite, but the sum of its squares is not."""

    finite = 0
    large = 1
    inf = 2
    nan = 3


@dataclass(frozen=True)
class Fates:
    """What a step does that looks up a title row, for each of n rows. Kinds as int8 [n].

    title, text: of the gradient at the row, and at the text that it is compared with, where the
        pair's hinge is active.
    title_idle, text_idle: the same for an incoming gradient of 0.
    edge: bool [n], whether one of these hangs on the text; they are then those of the first text.
    norm: float64 [n], of the row.
    """

    title: np.ndarray
    text: np.ndarray
    title_idle: np.ndarray
    text_idle: np.ndarray
    edge: np.ndarray
    norm: np.ndarray

    @property
    def deadly(self) -> np.ndarray:
        """bool [n]: whether one of the gradients there is not finite."""
        kinds = (self.title, self.text, self.title_idle, self.text_idle)
        return np.logical_or.reduce([kind >= Kind.inf for kind in kinds])


@dataclass(frozen=True)
class Singularity:
    """A placement as one numerics computes it, beside a row of norm 1.

    derivative: norm of d similarity / d row at the zero row by the definition of the derivative (a
        difference quotient of values; no gradient code has a part in it); None where there is none.
    gradient: norm of what the numerics computes there, for an incoming gradient of 1; NaN or inf
        possible.
    gradient_tiny: the same at a row of norm 1e-20.
    scores: {norm of a small row: its similarity, where the cosine is 0.6}.
    """

    derivative: float | None
    gradient: float
    gradient_tiny: float
    scores: dict[float, float]


@lru_cache(maxsize=64)  # of every run that shares the compiled step
def gradients(similarity: Callable, numerics: Numerics) -> Callable:
    """(a, b, upstream) -> [d/da, d/db] of `similarity`, of float32 [..., d], [..., d] and [...],
    compiled as the step is."""

    @tf.function(jit_compile=numerics.jit_compile, autograph=False)
    def compiled(a, b, upstream):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            value = similarity(a, b)
        return tape.gradient(value, [a, b], output_gradients=upstream)

    def gradient(a, b, upstream):
        return [
            x.numpy() for x in compiled(*(tf.constant(x, tf.float32) for x in (a, b, upstream)))
        ]

    return gradient


def measure(similarity: Callable, numerics: Numerics) -> Singularity:
    """similarity: of two float32 tensors [..., d], bound to its epsilon and to `numerics`."""
    gradient_of = gradients(similarity, numerics)

    def norm(row) -> float:
        return float(np.linalg.norm(gradient_of(ROW, row, [1.0])[1].astype(np.float64)))

    def score(row) -> float:
        return float(similarity(tf.constant(ROW), tf.constant(row, tf.float32))[0])

    return Singularity(
        derivative=_derivative(score),
        gradient=norm(np.zeros_like(ROW)),
        gradient_tiny=norm(ROW * TINY),
        scores={size: score(DIRECTION * size) for size in SMALL},
    )


def _derivative(score: Callable) -> float | None:
    """(f(h) - f(0)) / h along ROW, the steepest direction, where it settles as h falls; else
    None."""
    at_zero = score(np.zeros_like(ROW))
    near, nearer = ((score(ROW * h) - at_zero) / h for h in (STEP, STEP / 10))
    settled = np.isfinite([near, nearer]).all() and abs(near - nearer) <= 1e-3 * abs(near)
    return near if settled else None


def kinds(
    similarity: Callable, numerics: Numerics, a, b, upstream
) -> tuple[np.ndarray, np.ndarray]:
    """The kinds of the gradients at a and at b, each int8 [n], pair by pair.

    a, b: float32 [n, d]. upstream: float [n], or one for all, the gradients that come in.
    """
    gradient_of = gradients(similarity, numerics)
    upstream = np.broadcast_to(np.float32(upstream), len(a))
    found: list[list[np.ndarray]] = [[], []]
    most = PAIRS if len(a) <= 4 * PAIRS else 16 * PAIRS  # many: fewer calls
    for start in range(0, len(a), most):
        size = min(most, len(a) - start)
        # always as many pairs, so that XLA compiles once; each [1, d], as the model has them
        places = start + np.arange(most) % size
        parts = (x[places][:, np.newaxis] for x in (a, b, upstream))
        for kept, gradient in zip(found, gradient_of(*parts), strict=True):
            kept.append(_kinds(gradient[:size, 0]))
    return np.concatenate(found[0]), np.concatenate(found[1])


def _kinds(gradient: np.ndarray) -> np.ndarray:
    """int8 [n], of float32 [n, d]."""
    with np.errstate(over="ignore", invalid="ignore"):
        large = ~np.isfinite(np.square(gradient).sum(axis=1, dtype=np.float32))
    infinite, nan = np.isinf(gradient).any(axis=1), np.isnan(gradient).any(axis=1)
    return np.select([nan, infinite, large], [Kind.nan, Kind.inf, Kind.large], Kind.finite).astype(
        np.int8
    )


def fates(
    similarity: Callable,
    numerics: Numerics,
    rows: np.ndarray,
    texts: np.ndarray,
    upstream: float,
    most: float,
) -> Fates:
    """Takes the gradients of every row beside texts of the run.

    rows: float32 [n, d].
    texts: float32 [m, d], m >= 1, none zero.
    upstream, most: the least and the largest gradient that an active hinge sends. A row of usual
        norm is tried with the first text; any other with every text, at norms of WAYS times its
        own, and with both gradients.
    """

    def kinds_of(some: np.ndarray, texts: np.ndarray, incoming: Sequence[float]) -> np.ndarray:
        """int8 [2, incoming, texts, rows], of the text and of the row."""
        shape = (len(incoming), len(texts), len(some))
        sent, text, row = (index.ravel() for index in np.indices(shape))
        sent = np.asarray(incoming, np.float32)[sent]
        return np.stack(kinds(similarity, numerics, texts[text], some[row], sent)).reshape(
            2, *shape
        )

    parts = (rows[start : start + ROWS] for start in range(0, len(rows), ROWS))
    usual = np.concatenate(
        [kinds_of(part, texts[:1], (upstream, 0.0))[:, :, 0] for part in parts], axis=2
    )
    edge = np.zeros(len(rows), bool)
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    odd = np.flatnonzero(~((norms >= USUAL[0]) & (norms <= USUAL[1])))
    # by their bits: all zero rows are one
    bits, first, of = np.unique(
        rows[odd].view(np.int32), axis=0, return_index=True, return_inverse=True
    )
    tried = np.concatenate([texts * np.float32(way) for way in WAYS])
    differs = np.zeros(len(bits), bool)
    for start in range(0, len(bits), PAIRS):
        part = slice(start, start + PAIRS)
        found = kinds_of(bits[part].view(np.float32), tried, (upstream, most, 0.0))
        known = usual[:, [0, 0, 1], np.newaxis][..., odd[first[part]]]
        # that a square overflows matters to few optimizers, and none dies of it alone
        alike = np.maximum(found, Kind.large) == np.maximum(known, Kind.large)
        differs[part] = ~alike.all(axis=(0, 1, 2))
    edge[odd] = differs[of.ravel()]
    (text, text_idle), (title, title_idle) = usual
    return Fates(title, text, title_idle, text_idle, edge, norms)
