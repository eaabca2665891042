"""How far is Adam by rows, and what others do to rows that a step does not name, from Adam that
moves every row at every step?

python experiments/benchmarks/adam.py [--small --to FOLDER]
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zeronorm import deferred, optimizers
from zeronorm.report import script

ROWS, D, NAMED = 2000, 16, 40
STEPS, SMALL = 3000, 30
RATE, B1, B2, EPSILON = 1e-3, 0.9, 0.999, 1e-7  # Keras's defaults


def gradients(steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each step the rows it names, as unevenly frequent as words, each once, and their
    gradients, of sizes from 1e-8 to 1."""
    rng = np.random.default_rng(0)
    often = 1 / np.arange(1, ROWS + 1) ** 1.1
    for _ in range(steps):
        ids = np.unique(rng.choice(ROWS, NAMED, p=often / often.sum())).astype(np.int32)
        size = 10 ** rng.uniform(-8, 0, (len(ids), 1))
        yield ids, (size * rng.standard_normal((len(ids), D))).astype(np.float32)


def start() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.3, (ROWS, D)).astype(np.float32)


def corrected(step: int) -> float:
    return RATE * np.sqrt(1 - B2**step) / (1 - B1**step)


def whole(steps: int) -> Iterator[np.ndarray]:
    """The table after each step, in float64: what the others are measured by."""
    w, m, v = start().astype(np.float64), np.zeros((ROWS, D)), np.zeros((ROWS, D))
    for step, (ids, values) in enumerate(gradients(steps), 1):
        gradient = np.zeros((ROWS, D))
        gradient[ids] = values
        m, v = B1 * m + (1 - B1) * gradient, B2 * v + (1 - B2) * gradient**2
        w = w - corrected(step) * m / (np.sqrt(v) + EPSILON)
        yield w


def named_only(steps: int, compensated: bool) -> np.ndarray:
    """The table after the last step, in float64, where only the rows named move.

    compensated: for the steps in which a row was not named, by its momentum's geometric series with
        the step size and the denominator of the moment, as the proposal in tensorflow#23668 and the
        smart-decay Adam of Caffe2 and OneFlow do; not: not at all, as LazyAdam and PyTorch's
        SparseAdam.
    """
    w, m, v = start().astype(np.float64), np.zeros((ROWS, D)), np.zeros((ROWS, D))
    last = np.zeros(ROWS, int)

    def move(ids, step):
        missed = (step - last[ids])[:, np.newaxis]
        series = B1 * (1 - B1**missed) / (1 - B1)
        w[ids] -= corrected(max(step, 1)) * series * m[ids] / (np.sqrt(v[ids]) + EPSILON)
        m[ids] *= B1**missed
        v[ids] *= B2**missed

    for step, (ids, values) in enumerate(gradients(steps), 1):
        if compensated:
            move(ids, step - 1)
        m[ids], v[ids] = B1 * m[ids] + (1 - B1) * values, B2 * v[ids] + (1 - B2) * values**2
        w[ids] -= corrected(step) * m[ids] / (np.sqrt(v[ids]) + EPSILON)
        last[ids] = step
    if compensated:
        move(np.arange(ROWS), steps)
    return w


def applied(optimizer, steps: int) -> np.ndarray:
    """The table after the last step of an optimizer that updates whole tables."""
    table = keras.Variable(start())
    optimizer.build([table])

    @tf.function(autograph=False, reduce_retracing=True)
    def step(ids, values):
        optimizer.apply([tf.IndexedSlices(values, ids, tf.constant([ROWS, D]))], [table])

    for ids, values in gradients(steps):
        step(tf.constant(ids), tf.constant(values))
    return table.numpy()


def by_rows(steps: int) -> tuple[np.ndarray, float, float]:
    """The table after the last step, and by how much the norms of the table and of its updates that
    are recorded are off, at most, relative to themselves."""
    table, optimizer = keras.Variable(start()), optimizers.Adam()
    optimizer.build([table])
    course = deferred.course_of(optimizer)
    assert course is not None
    held = deferred.Table(optimizer, table, course)

    @tf.function(autograph=False, reduce_retracing=True)
    def step(ids, values):
        watch = held.watch(ids)
        with optimizer.by_rows(static_shapes=False):
            optimizer.apply([tf.IndexedSlices(values, ids, tf.constant([ROWS, D]))], [table])
        change = watch.change()
        return change.growth(), change.squares()

    squares, before = float(np.sum(start().astype(np.float64) ** 2)), start().astype(np.float64)
    off = np.zeros(2)
    for (ids, values), after in zip(gradients(steps), whole(steps), strict=True):
        growth, moved = step(tf.constant(ids), tf.constant(values))
        squares += float(growth)
        found = np.sqrt([squares, float(moved)])
        true = np.array([np.linalg.norm(after), np.linalg.norm(after - before)])
        off, before = np.maximum(off, np.abs(found / true - 1)), after
    held.flush()
    return table.numpy(), float(off[0]), float(off[1])


def main(small: bool, to: Path) -> None:
    steps = SMALL if small else STEPS
    *_, exact = whole(steps)
    ours, norm_off, update_off = by_rows(steps)
    tables = {
        "this project, by rows": ours,
        "this project, whole tables": applied(optimizers.Adam(), steps),
        "Keras": applied(keras.optimizers.Adam(), steps),
        "compensated by a geometric series": named_only(steps, compensated=True),
        "only the rows named": named_only(steps, compensated=False),
    }
    rows: list[dict[str, Any]] = [
        {"variant": name, "distance": float(np.abs(table - exact).max())}
        for name, table in tables.items()
    ]
    moved = float(np.abs(exact - start()).max())
    more = {"steps": steps, "moved": moved, "norm_off": norm_off, "update_off": update_off}
    script.write(to, "adam", rows, **more)


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__)))
