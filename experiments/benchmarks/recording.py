"""What recording costs: the same steps without it, with it, and the common ways to watch a model in
Keras's fit.

python experiments/benchmarks/recording.py [rounds] [--small --to FOLDER]
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import pairs
import step
from zeronorm import numerics, optimizers
from zeronorm.report import script


class NumpyNorms(keras.callbacks.Callback):
    """np.linalg.norm of every weight after every batch."""

    def on_train_batch_end(self, batch, logs=None):
        for weight in self.model.trainable_weights:
            np.linalg.norm(np.asarray(weight))


CASES = {  # whether the embeddings are trained, and by which compiler
    "trainable, kernels": (True, numerics.KERNELS),
    "trainable, xla": (True, numerics.XLA),
    "frozen, kernels": (False, numerics.KERNELS),
    "frozen, xla": (False, numerics.XLA),
}


def main(rounds: int, small: bool, to: Path) -> None:
    size = step.SMALL if small else step.QUESTION
    data, turns = step.data(size), {}
    for case, (trainable, used) in CASES.items():
        of = (size, used, *data)
        turns[case, "not recording"] = step.ours_without_recording(
            *of, optimizers.Adam(), trainable=trainable
        )
        turns[case, "recording"] = step.ours(*of, optimizers.Adam(), trainable=trainable)
    fit = partial(step.keras_fit, size, numerics.KERNELS, *data)
    by_keras = "keras fit, trainable, kernels"
    stop, norms = keras.callbacks.TerminateOnNaN(), NumpyNorms()
    turns |= {
        (by_keras, "nothing"): fit(keras.optimizers.Adam()),
        (by_keras, "TerminateOnNaN"): fit(keras.optimizers.Adam(), [stop]),
        (by_keras, "np.linalg.norm callback"): fit(keras.optimizers.Adam(), [norms]),
        (by_keras, "enable_check_numerics"): checked(fit(keras.optimizers.Adam())),
    }
    times = pairs.interleaved(turns, rounds)
    rows = []
    for case in dict.fromkeys(case for case, _ in times):
        own = {variant: ms for (of_case, variant), ms in times.items() if of_case == case}
        rows += costs(case, own, next(iter(own)))
    script.write(to, "recording", rows, rounds=rounds)


def checked(turn):
    """The turn, traced and run under tf.debugging.enable_check_numerics, which is off again after
    each."""

    def turn_checked() -> tuple[int, float]:
        tf.debugging.enable_check_numerics()
        try:
            return turn()
        finally:
            tf.debugging.disable_check_numerics()

    return turn_checked


def costs(case: str, times: dict[str, list[float]], baseline: str) -> list[dict]:
    """A row per variant: ms a step, and by how much its time exceeds the baseline's, round by
    round."""
    rows = []
    for variant, values in times.items():
        low, cost, high = np.percentile(
            np.array(values) / np.array(times[baseline]) - 1, [25, 50, 75]
        )
        row = {"case": case, "variant": variant, "ms": float(np.median(values))}
        rows.append(row | {"cost": cost, "cost_low": low, "cost_high": high})
    return rows


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__, rounds=7)))
