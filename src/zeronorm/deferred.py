"""Dense Adam on an embedding at the cost of the rows that a step names, with the table's norms
exact.

Adam moves a row at every step, named or not, by its decaying momentum. What it does to a row that
is not named is known beforehand, so it can be done when the row is next read. A row last named in
step t0, with momentum m and velocity v, has moved k steps later by

    - sum over j = 1..k of  rate(t0 + j) b1^j m / (sqrt(v) b2^(j/2) + eps)

With u = m / (sqrt(v) + eps), y = sqrt(v) / (sqrt(v) + eps) and d(j) = 1 - b2^(j/2) the fraction is
b1^j u / (1 - y d(j)), a series in y d(j) that is short, since b1^j vanishes before d(j) grows:

    - u (S0 + y S1 + y^2 S2 + ...),   Sn(t0, k) = sum over j of rate(t0 + j) b1^j d(j)^n

docs/adam.md tells how the norms follow, how far all this is from dense Adam, and what others do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil, comb, log

import keras
import numpy as np
import tensorflow as tf

from zeronorm import recorder
from zeronorm.optimizers import Adam, resource

TERMS = 5  # of the series of a movement; as many sums of u.u y^n are kept
CROSS = 3  # sums of w.u y^n that are kept
NEGLIGIBLE = 1e-10  # what is left of a momentum, of itself, when its row is said to rest
ACCURATE = 1e-7  # of a movement, what the terms left out may come to: float32's own rounding
COUNTED = 1e-6  # and what those may that w.u y^n leaves out; a movement is a small part of a norm
LONGEST = 250_000  # steps until the bias correction is 1, at most: 40 bytes are kept of each
BLOCK = 16_384  # rows brought up to date at once where all are
TINY = 1e-30  # times infinity it is infinity, where a power that has underflowed would make NaN


@dataclass(frozen=True)
class Course:
    """What two decay rates make of every row alike, for a learning rate of 1.

    ages: steps after which a row that is not named rests.
    horizon: steps after which the bias correction is 1.
    rate: float64 [horizon + 1], of a step, counted from 1, the factor of the bias correction.
    whole: float64 [horizon + 1, TERMS], Sn(t0, ages).
    rest: float64 [ages + 1, TERMS, TERMS], of an age k: what S(t0, k) lacks of S(t0, ages), as a
        linear map of S(t0 + k, ages).
    decay: float64 [ages], b1^k of the ages k = 1, 2, ...
    powers: float64 [ages, TERMS], d(k)^n.
    """

    ages: int
    horizon: int
    rate: np.ndarray
    whole: np.ndarray
    rest: np.ndarray
    decay: np.ndarray
    powers: np.ndarray

    @cached_property
    def tensors(self) -> dict[str, tf.Tensor]:
        """{name: its array as a tensor}, which every traced step shares: a constant of a graph is
        copied again and again, megabytes each, and some of it stays when the graph has gone."""
        arrays = {
            name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        with tf.init_scope():
            return {name: tf.constant(array) for name, array in arrays.items()}


@lru_cache(maxsize=8)
def course(beta_1: float, beta_2: float) -> Course | None:
    """None where TERMS terms of the series are not enough, or the tables would be too long."""
    if not (0 < beta_1 < 1 and 0 < beta_2 < 1):
        return None
    ages, horizon = (ceil(log(NEGLIGIBLE) / log(beta)) for beta in (beta_1, beta_2))
    if ages * TERMS > horizon or horizon > LONGEST:
        return None
    age, n = np.arange(1, ages + 1), np.arange(TERMS)
    decay, d = beta_1**age, 1 - beta_2 ** (age / 2)
    for terms, most in ((TERMS, ACCURATE), (CROSS, COUNTED)):
        if np.sum(decay * d**terms / (1 - d)) > most * decay.sum():
            return None
    step = np.arange(1, horizon + ages + 2)
    rates = np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
    windows = np.lib.stride_tricks.sliding_window_view(rates, ages)[: horizon + 1]
    powers = d[:, np.newaxis] ** n
    # d(k + i) = d(k) + b2^(k/2) d(i), to the power of n; from `ages` on nothing is lacking
    rest, k = np.zeros((ages + 1, TERMS, TERMS)), np.arange(ages)
    kept = beta_2 ** (k / 2)
    for power in range(TERMS):
        for m in range(power + 1):
            rest[:ages, power, m] = beta_1**k * comb(power, m) * (1 - kept) ** (power - m) * kept**m
    rate = np.concatenate([[0.0], rates[:horizon]])
    return Course(
        ages, horizon, rate, windows @ (decay[:, np.newaxis] * powers), rest, decay, powers
    )


def course_of(optimizer) -> Course | None:
    """The course of the rows that a step of an optimizer leaves alone; None of an optimizer of
    which it is not known: any but a plain Adam (no schedule of the learning rate, no weight
    decay, no moving average, no gradients that are clipped, accumulated or scaled)."""
    if type(optimizer) is not Adam or not optimizer.is_plain:
        return None
    return course(float(optimizer.beta_1), float(optimizer.beta_2))


def tables(optimizer, weights: Mapping[str, keras.Variable]) -> dict[str, "Table"]:
    """{embedding: its `Table`}, of the weights that an optimizer has been built with; empty if the
    course of their rows is not known."""
    course = course_of(optimizer)
    return {
        name: Table(optimizer, weights[name], course)
        for name in recorder.EMBEDDINGS
        if course and name in weights
    }


class _Now:
    """A moment between two steps, of an optimizer whose rows take a course.

    done: int32 [], steps taken.
    rate: float64 [], the learning rate.
    whole, rest: float64 [horizon + 1, TERMS] and [ages + 1, TERMS]: Sn(t0, done - t0) is
        whole[t0] - rest[done - t0].
    """

    def __init__(self, course: Course, optimizer: Adam):
        self.done = tf.cast(tf.convert_to_tensor(optimizer.iterations), tf.int32)
        self.rate = tf.cast(tf.convert_to_tensor(optimizer.learning_rate), tf.float64)
        self.whole = course.tensors["whole"]
        ahead = self.whole[tf.minimum(self.done, course.horizon)]
        self.rest = tf.linalg.matvec(course.tensors["rest"], ahead)


class Table:
    """An embedding that Adam trains, whose rows are brought up to date when a step names them.

    A row, its momentum and its velocity are what they were after the step in which it was last
    named; `flush` brings all of them up to date. Whatever reads the table as a whole flushes it
    first, and so does whatever sets the learning rate between two steps.
    """

    def __init__(self, optimizer: Adam, variable, course: Course):
        """variable: one that the optimizer has been built with, float32 [rows, d]."""
        self.optimizer, self.course = optimizer, course
        self.variable = resource(variable)
        self.momentum, self.velocity = optimizer.slots(variable)
        rows, kept = self.variable.shape[0], CROSS + TERMS
        # of each row: the step after which it is as of, and there w.u y^n and u.u y^n
        self.last = tf.Variable(tf.zeros([rows], tf.int32), trainable=False)
        self.products = tf.Variable(tf.zeros([rows, kept]), trainable=False)
        # the sums of `products` over the rows of each of the last steps, at step modulo ages
        self.sums = tf.Variable(tf.zeros([course.ages, kept], tf.float64), trainable=False)
        # 0; NaN once a row is lost, which moves on by NaN in every later step
        self.lost = tf.Variable(tf.zeros([], tf.float64), trainable=False)

    def reset(self) -> None:
        """As before the first step."""
        for variable in (self.last, self.products, self.sums, self.lost):
            variable.assign(tf.zeros(variable.shape, variable.dtype))

    def flush(self) -> None:
        """Brings every row up to date."""
        rows = self.variable.shape[0]
        for start in range(0, rows, BLOCK):
            self._flush(tf.range(start, min(start + BLOCK, rows)))

    @cached_property
    def _flush(self) -> Callable:
        """Brings rows up to date, int32 [n]: traced once, and for each table anew."""

        @tf.function(autograph=False)
        def flush(ids):
            now = _Now(self.course, self.optimizer)
            self._enter(ids, self._caught_up(ids, now), now.done)

        # a concrete function: TensorFlow takes the traces of many tables for those of one
        return flush.get_concrete_function(tf.TensorSpec([None], tf.int32))

    def watch(self, named) -> "Watch":
        """Brings the rows up to date that a step is about to read, and watches its update of them.

        named: int32, any shape, the rows that it names.
        """
        ids = tf.unique(tf.reshape(named, [-1])).y
        now = _Now(self.course, self.optimizer)
        return Watch(self, ids, self._caught_up(ids, now), self._drift(now), now.done + 1)

    def _caught_up(self, ids, now: _Now):
        """float32 [n, d]: the rows after the step now.done, to which they and their slots are
        brought; they are in no sum until they `_enter` one.

        ids: int32 [n], each once.
        """
        course, last = self.course, tf.gather(self.last, ids)
        age = now.done - last
        lacking = tf.gather(now.rest, tf.minimum(age, course.ages))
        s = tf.gather(now.whole, tf.minimum(last, course.horizon)) - lacking
        s = tf.cast(now.rate * s, tf.float32)[:, :, tf.newaxis]  # [n, TERMS, 1]
        row, m, v = (
            table.sparse_read(ids) for table in (self.variable, self.momentum, self.velocity)
        )
        u, y = self._direction(m, v)
        series = s[:, TERMS - 1]
        for n in reversed(range(TERMS - 1)):
            series = s[:, n] + y * series
        row -= u * series
        k = tf.cast(age, tf.float32)[:, tf.newaxis]
        m *= tf.pow(self.optimizer.beta_1, k)
        v *= tf.maximum(tf.pow(self.optimizer.beta_2, k), TINY)
        _write(ids, (self.variable, row), (self.momentum, m), (self.velocity, v))
        self._leave(ids, last, age)
        return row

    def _leave(self, ids, last, age):
        """Takes rows out of the sums of the steps `last`, `age` steps ago, int32 [n] each."""
        # older rows rest: the sums of their steps have made room for others'
        counted = (age < self.course.ages)[:, tf.newaxis]
        left = tf.where(counted, tf.gather(self.products, ids), 0.0)
        slot = tf.math.floormod(last, self.course.ages)
        self.sums.assign_sub(
            tf.math.unsorted_segment_sum(tf.cast(left, tf.float64), slot, self.course.ages)
        )

    def _enter(self, ids, rows, step):
        """Counts rows among those of a step.

        ids: int32 [n], each once. rows: float32 [n, d], as they are after the step, int32 [].
        """
        m, v = self.momentum.sparse_read(ids), self.velocity.sparse_read(ids)
        u, y = self._direction(m, v)
        uy = u * y
        uyy = uy * y
        pairs = [(rows, u), (rows, uy), (rows, uyy), (u, u), (u, uy), (uy, uy), (uy, uyy)]
        pairs.append((uyy, uyy))
        products = tf.stack([tf.reduce_sum(a * b, axis=1) for a, b in pairs], axis=1)
        _write(ids, (self.products, products), (self.last, tf.fill(tf.shape(ids), step)))
        total = tf.reduce_sum(tf.cast(products, tf.float64), axis=0)
        tf.raw_ops.ResourceScatterAdd(
            resource=self.sums.handle,
            indices=tf.math.floormod(step, self.course.ages),
            updates=total,
        )

    def _drift(self, now: _Now) -> recorder.Drift:
        """What the step after now.done does to the rows that are in a sum."""
        course = self.course
        age = tf.range(course.ages)  # after now.done
        t0 = now.done - age
        kept = tf.gather(self.sums, tf.math.floormod(t0, course.ages))
        cross, own = kept[:, :CROSS], kept[:, CROSS:]
        s = now.rate * (
            tf.gather(now.whole, tf.clip_by_value(t0, 0, course.horizon)) - now.rest[:-1]
        )
        # w.u y^n has changed since t0, as w has
        cross -= tf.stack(
            [tf.reduce_sum(s[:, :CROSS] * own[:, n : n + CROSS], axis=1) for n in range(CROSS)],
            axis=1,
        )
        rate = tf.gather(course.tensors["rate"], tf.minimum(now.done + 1, course.horizon))
        c, powers = now.rate * rate * course.tensors["decay"], course.tensors["powers"]
        squares = tf.reduce_sum(own * powers * tf.range(1.0, TERMS + 1.0, dtype=tf.float64), axis=1)
        squares *= c * c
        growth = squares - 2 * c * tf.reduce_sum(cross * powers[:, :CROSS], axis=1)
        squares, growth = tf.reduce_sum(squares), tf.reduce_sum(growth)
        lost = self.lost.assign_add(0.0 * growth, read_value=True)
        return recorder.Drift(growth + lost, squares + lost)

    def _direction(self, m, v):
        """u and y, float32 [n, d]; of an infinite velocity 0 and 1."""
        root = tf.sqrt(v)
        below = root + self.optimizer.epsilon
        return m / below, 1.0 - self.optimizer.epsilon / below


class Watch:
    """Of one step's update of a table: reads the rows that it names before, and by `change`
    after."""

    def __init__(self, table: Table, ids, before, drift: recorder.Drift, step):
        self.table, self.ids, self.before, self.drift, self.step = table, ids, before, drift, step

    def change(self) -> recorder.Change:
        table = self.table
        slot = tf.math.floormod(self.step, table.course.ages)
        tf.raw_ops.ResourceScatterUpdate(
            resource=table.sums.handle, indices=slot, updates=tf.zeros([CROSS + TERMS], tf.float64)
        )
        after = table.variable.sparse_read(self.ids)
        table._enter(self.ids, after, self.step)
        return recorder.Change(self.before, after, self.ids, self.drift)


def _write(ids, *rows) -> None:
    """rows: (variable, its rows at ids)."""
    for variable, values in rows:
        tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=ids, updates=values)
