"""Does a step's time grow with the vocabulary? An embedding's update, and its recording, at two
sizes: Keras's Adam, this project's on whole tables, and by rows.

python experiments/benchmarks/vocabulary.py [rounds] [--small --to FOLDER]

Needs 12 GB of memory: 1,000,000 x 300 weights, with Adam's two slots, for three variants in turn.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gc
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import pairs
from zeronorm import deferred, optimizers, recorder
from zeronorm.report import script

# floats a row, rows named by a batch (10 texts of 100 words), steps a turn
D, NAMED, STEPS = 300, 1000, 20
SIZES, SMALL = (10_000, 1_000_000), (100, 1000)  # rows of the table


def updates(rows: int, by_rows: bool):
    """A turn of STEPS sparse gradients on a table of `rows`, recorded as a training records
    them."""
    table, optimizer = keras.Variable(np.full((rows, D), 0.1, np.float32)), optimizers.Adam()
    optimizer.build([table])
    course = deferred.course_of(optimizer)
    assert course is not None
    held = deferred.Table(optimizer, table, course) if by_rows else None
    rng = np.random.default_rng(0)
    ids = [tf.constant(rng.integers(0, rows, NAMED, np.int32)) for _ in range(STEPS)]
    values = tf.constant(rng.standard_normal((NAMED, D), np.float32))
    forward = {name: tf.ones([1]) for name in recorder.FORWARD}

    @tf.function(autograph=False)
    def step(ids):
        watch = held.watch(ids) if held else recorder.Watch(table.value)
        gradient = tf.IndexedSlices(values, ids, (rows, D))
        with optimizer.by_rows(static_shapes=False) if held else nullcontext():
            optimizer.apply([gradient], [table])
        # all of it: what is not returned is not computed
        return recorder.measure(forward, {"words": gradient}, {"words": watch.change()})

    def turn() -> int:
        for named in ids:
            measured = step(named)
        measured["squares"].numpy()
        return STEPS

    return pairs.timed(turn)


def keras_updates(rows: int):
    """A turn of Keras's own Adam on the same gradients, not recorded."""
    table = keras.Variable(np.full((rows, D), 0.1, np.float32))
    optimizer = keras.optimizers.Adam()
    optimizer.build([table])
    rng = np.random.default_rng(0)
    ids = [tf.constant(rng.integers(0, rows, NAMED, np.int32)) for _ in range(STEPS)]
    values = tf.constant(rng.standard_normal((NAMED, D), np.float32))

    @tf.function(autograph=False)
    def step(ids):
        optimizer.apply([tf.IndexedSlices(values, ids, (rows, D))], [table])

    def turn(steps: int = 2 if rows > 100_000 else STEPS) -> int:
        for named in ids[:steps]:
            step(named)
        np.asarray(table.value[0])
        return steps

    return pairs.timed(turn)


def main(rounds: int, small: bool, to: Path) -> None:
    sizes = SMALL if small else SIZES
    variants = {
        "adam by rows, recorded": lambda rows: updates(rows, by_rows=True),
        "adam on whole tables, recorded": lambda rows: updates(rows, by_rows=False),
        "keras adam": keras_updates,
    }
    rows: list[dict[str, Any]] = []
    for name, made in variants.items():
        few, many = (made(size) for size in sizes)
        times = pairs.interleaved({"small": few, "large": many}, rounds)
        growth = np.array(times["large"]) / np.array(times["small"])
        row = {
            "variant": name,
            "ms_small": float(np.median(times["small"])),
            "ms_large": float(np.median(times["large"])),
        }
        low, middle, high = np.percentile(growth, [25, 50, 75])
        rows.append(row | {"growth": middle, "growth_low": low, "growth_high": high})
        del few, many
        gc.collect()
    for row in rows:
        row["speed_large"] = rows[-1]["ms_large"] / row["ms_large"]
    script.write(to, "vocabulary", rows, rounds=rounds, sizes=sizes, d=D, named=NAMED)


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__, rounds=7)))
