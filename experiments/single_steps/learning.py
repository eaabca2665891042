"""Why do zero rows hardly learn where the kernels save them? Adam's memory of their first gradient
is taken away, or that gradient is made small.

python experiments/single_steps/learning.py [--small --to FOLDER]
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

import walk
from zeronorm import experiment, numerics, optimizers, preparation, training, vectors
from zeronorm.report import script

SEEDS = 3
RUN = ["numerics=kernels", "training=quick"]  # of the study epsilon_placement
PLACEMENTS = {
    "clamp_product": "1e-7",
    "keras_normalize": "1e-7",
    "clamp_squares": "1e-12",
    "add_to_squares": "1e-7",
}
CLIP = 1.0


class ClippedRows(optimizers.Adam):
    """Adam, with the gradient of each row of one table clipped to the norm CLIP by itself."""

    def __init__(self, table: tf.Variable):
        super().__init__()
        self.table = table

    def update_step(self, gradient, variable, learning_rate):
        if isinstance(gradient, tf.IndexedSlices) and variable is self.table:
            values = tf.clip_by_norm(gradient.values, CLIP, axes=[1])
            gradient = tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
        super().update_step(gradient, variable, learning_rate)


TREATMENTS = ("as it is", "memory reset", "row clipped")
"""memory reset: after the first step that touches a zero row, Adam's momentum and velocity of that
row are set to 0, as before it."""


def trained(run: preparation.Prepared, treatment: str) -> dict[str, float]:
    """hits@10 of all titles and of those that started as a zero row; and by how many degrees a row
    turns, the median: a zero row from where its first touch put it, another from its start."""
    if treatment == "row clipped":
        ranker = run.program.ranker
        optimizer = ClippedRows(optimizers.resource(ranker.weights["titles"]))
        run = replace(run, program=training.program(ranker, optimizer, numerics.KERNELS))
    titles = run.program.ranker.weights["titles"]
    recording, zero = run.start(), vectors.zero_rows(run.titles)
    placed = run.titles.astype(np.float64)
    waiting = set(np.flatnonzero(zero).tolist())
    for batch in walk.steps(run, run.order(), recording):
        first = sorted(waiting.intersection(walk.touched(batch).tolist()))
        waiting.difference_update(first)
        placed[first] = np.asarray(titles)[first]
        if first and treatment == "memory reset":
            for slot in run.program.optimizer.slots(titles):
                slot.scatter_nd_update(
                    np.array(first)[:, None], np.zeros((len(first), slot.shape[1]), np.float32)
                )
    corpus = run.data.corpus
    found = experiment.evaluate(run.program.ranker, corpus, corpus.test, zero).metrics()
    degrees = turned(placed, np.asarray(titles, dtype=np.float64))
    return {
        "hits10": found["eval/hits_at_10"],
        "zero_hits10": found["eval_zero_rows/hits_at_10"],
        "zero_turned": float(np.nanmedian(degrees[zero])),
        "others_turned": float(np.nanmedian(degrees[~zero])),
    }


def turned(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Degrees between the rows of two float64 [rows, d]; NaN where one is zero."""
    length = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosine = (before * after).sum(axis=1) / np.where(length > 0, length, np.nan)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def main(small: bool, to: Path) -> None:
    rows, own = [], walk.SMALL if small else ["examples=2000"]
    for placement, epsilon in PLACEMENTS.items():
        for treatment in TREATMENTS:
            found = [
                trained(
                    walk.prepared(
                        *RUN,
                        *own,
                        f"similarity={placement}",
                        f"similarity.epsilon={epsilon}",
                        f"seed={seed}",
                    ),
                    treatment,
                )
                for seed in range(1 if small else SEEDS)
            ]
            row = {"similarity": placement, "epsilon": epsilon, "treatment": treatment}
            rows.append(row | {key: [one[key] for one in found] for key in found[0]})
            print(rows[-1], flush=True)
    script.write(to, "learning", rows, clip=CLIP)


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__)))
