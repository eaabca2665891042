"""What recording costs: the same steps without it, with it, and the common ways to watch a model in
Keras's fit.

python experiments/benchmarks/recording.py [rounds] [--small --to FOLDER]
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

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


CASES = {  # what is trained
    "trainable": (optimizers.Adam, True),
    "frozen": (optimizers.Adam, False),
}


def main(rounds: int, small: bool, to: Path) -> None:
    size = step.SMALL if small else step.QUESTION
    of, rows = (size, numerics.KERNELS, *step.data(size)), []
    for case, (optimizer, trainable) in CASES.items():
        variants = {
            "not recording": step.ours_without_recording(*of, optimizer(), trainable=trainable),
            "recording": step.ours(*of, optimizer(), trainable=trainable),
        }
        rows += costs(case, pairs.interleaved(variants, rounds), "not recording")
    variants = {
        "nothing": step.keras_fit(*of, keras.optimizers.Adam()),
        "TerminateOnNaN": step.keras_fit(
            *of, keras.optimizers.Adam(), [keras.callbacks.TerminateOnNaN()]
        ),
        "np.linalg.norm callback": step.keras_fit(*of, keras.optimizers.Adam(), [NumpyNorms()]),
        "enable_check_numerics": checked(step.keras_fit(*of, keras.optimizers.Adam())),
    }
    rows += costs("keras fit, trainable", pairs.interleaved(variants, rounds), "nothing")
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
