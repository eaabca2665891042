"""Can the weights get smaller and smaller until they are NaN? The angle between each weight and its
gradient, and the norms of runs whose NaN comes late.

python experiments/single_steps/norms.py [--small --to FOLDER]
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy.stats import linregress

import walk
from zeronorm import examples, preparation, training
from zeronorm.report import script

OPTIMIZERS = ("sgd", "adam")
SEEDS, ORDERS = 3, range(10)
# no zero row, so that every gradient is one that a row of ordinary length gets
HEALTHY = ["init=repaired", "numerics=kernels", "training=quick"]
# twice the question's epochs: most batches hold a title that has many texts, and are passed over
LATE = ["init=repaired", "numerics=tf1", "training=question", "training.epochs=20"]
ALONE, SMALL = 1000, 10  # steps between the first touch of the zero title and the second, at least
LAST = 500  # steps before the death, over which the slope is taken


def angles(optimizer: str, seeds: int, overrides: list[str]) -> list[dict]:
    """A row for each of walk.PARTS: the cosine between gradient and weight, absolute, over all
    steps of all seeds; and in how many steps the norm fell. Of the titles the cosine is that of
    each row by itself."""
    cosines: dict[str, list[float]] = {part: [] for part in walk.PARTS}
    fell, steps = dict.fromkeys(walk.PARTS, 0), 0
    for seed in range(seeds):
        run = walk.prepared(*HEALTHY, *overrides, f"optimizer={optimizer}", f"seed={seed}")
        run.start()
        take = tf.function(run.program.take, autograph=False)
        for batch in run.order():
            before = {part: walk.weight(run, part) for part in walk.PARTS}
            inputs = (batch.text, batch.positive, batch.negatives)
            _, gradients = take(*map(tf.constant, inputs))
            steps += 1
            for part, weight in before.items():
                gradient = np.concatenate(
                    [dense(gradients[name]).ravel() for name in walk.PARTS[part]]
                )
                width = run.titles.shape[1] if part == "titles" else len(weight)
                cosines[part] += list(absolute_cosines(weight, gradient, width))
                fell[part] += np.linalg.norm(walk.weight(run, part)) < np.linalg.norm(weight)
    return [
        {
            "optimizer": optimizer,
            "weight": part,
            "steps": steps,
            "cosine_median": float(np.median(cosines[part])),
            "cosine_max": float(np.max(cosines[part])),
            "fell": int(fell[part]),
        }
        for part in walk.PARTS
    ]


def dense(gradient) -> np.ndarray:
    return np.asarray(tf.convert_to_tensor(gradient), dtype=np.float64)


def absolute_cosines(weight: np.ndarray, gradient: np.ndarray, width: int) -> np.ndarray:
    """|cos| of each `width` elements that have a gradient."""
    weight, gradient = weight.reshape(-1, width), gradient.reshape(-1, width)
    length = np.linalg.norm(weight, axis=1) * np.linalg.norm(gradient, axis=1)
    return np.abs((weight * gradient).sum(axis=1)[length > 0] / length[length > 0])


def late(run: preparation.Prepared, title: int, alone: int) -> Iterator[examples.Batch]:
    """The run's batches, without those that hold the title a second time within `alone` steps of
    the first; numbered anew."""
    touches, step, first = 0, 0, 0
    for batch in run.order():
        if title in walk.touched(batch):
            if touches == 1 and step - first <= alone:
                continue
            touches, first = touches + 1, first if touches else step
        yield replace(batch, step=step)
        step += 1


def death(optimizer: str, seed: int, alone: int, overrides: list[str]) -> dict:
    """A training with one zero title, by the arithmetic of TensorFlow up to 1.13: the steps in
    which the row and the encoder die; and of each of walk.PARTS the last finite norm over the
    first, and the slope of the norm before the death, in shares of itself in a thousand steps. Of
    the titles the norm is that of all other rows."""
    run = walk.prepared(*LATE, *overrides, f"optimizer={optimizer}", f"seed={seed}")
    title = seed  # another in each order
    zeroed = run.titles.copy()
    zeroed[title] = 0
    run = replace(run, titles=zeroed)
    recording, norms = run.start(), [measured(run, title)]
    steps = [0]

    def after_chunk(last: examples.Batch) -> None:
        norms.append(measured(run, title))
        steps.append(last.step + 1)

    stop_at = [("weight", "convolution/kernel")]
    training.train(run.program, late(run, title, alone), recording, stop_at, after_chunk)
    row, encoder = recording.first_nan(), recording.first_nan("convolution/kernel")
    assert row is not None and encoder is not None and encoder.step > row.step + alone
    found = {"optimizer": optimizer, "order": seed, "row": row.step, "encoder": encoder.step}
    found |= trends(np.array(steps), norms, encoder.step)
    print(found, flush=True)
    return found


def measured(run: preparation.Prepared, title: int) -> dict[str, float]:
    norms = {part: float(np.linalg.norm(walk.weight(run, part))) for part in walk.PARTS}
    rows = np.asarray(run.program.ranker.weights["titles"], dtype=np.float64)
    return norms | {"titles": float(np.linalg.norm(np.delete(rows, title, axis=0)))}


def trends(steps: np.ndarray, norms: list[dict[str, float]], end: int) -> dict[str, float]:
    """{"growth/PART", "slope/PART"}, of the measurements before step `end`."""
    alive = steps <= end
    late = alive & (steps >= end - LAST)
    found = {}
    for part in walk.PARTS:
        values = np.array([norm[part] for norm in norms])
        slope = linregress(steps[late], values[late]).slope
        found[f"growth/{part}"] = float(values[alive][-1] / values[0])
        found[f"slope/{part}"] = float(1000 * slope / values[late].mean())
    return found


def main(small: bool, to: Path) -> None:
    own = walk.SMALL if small else []
    seeds, orders, alone = (1, ORDERS[:1], SMALL) if small else (SEEDS, ORDERS, ALONE)
    budget = ["training.batch=1", "training.negatives=1"] if small else []
    rows, deaths = [], []
    for optimizer in OPTIMIZERS:
        rows += angles(optimizer, seeds, own or ["examples=1000"])
        deaths += [death(optimizer, seed, alone, [*own, *budget]) for seed in orders]
    script.write(to, "norms", rows, deaths=deaths, alone=alone, last=LAST)


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__)))
