"""What zeronorm.Autopsy costs a healthy `model.fit` of a small CNN, beside the common ways to watch; and how long an
autopsy of the question's full model takes.

python experiments/benchmarks/watching.py [rounds]
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import pairs
from recording import NumpyNorms, checked, costs
from zeronorm import Autopsy, config, run_autopsy

BATCH, STEPS, EPOCHS = 32, 150, 4


def cnn() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((28, 28, 1))]
    for filters in (32, 64):
        layers += [keras.layers.Conv2D(filters, 3, activation="relu"), keras.layers.MaxPooling2D()]
    layers += [keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit(*callbacks: type[keras.callbacks.Callback]):
    """A turn: a fit of a model of its own, which is built and traced in the first turn; new callbacks in each."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(BATCH * STEPS, 28, 28, 1)).astype(np.float32)
    y = rng.integers(0, 10, BATCH * STEPS)
    model = cnn()

    def turn() -> int:
        made = [callback() for callback in callbacks]
        model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=made)
        return STEPS * EPOCHS

    return pairs.timed(turn)


def autopsy_seconds() -> dict[str, float]:
    """{numerics: seconds} of the first autopsy in a process, everything compiled anew, of the question's full model."""
    found = {}
    for name in ("xla", "tf1", "kernels"):
        moment = run_autopsy.reached(config.composed(f"numerics={name}"))
        start = time.perf_counter()
        run_autopsy.examine(moment)
        found[name] = time.perf_counter() - start
    return found


def main(rounds: int) -> None:
    variants = {
        "nothing": fit(),
        "TerminateOnNaN": fit(keras.callbacks.TerminateOnNaN),
        "zeronorm.Autopsy": fit(Autopsy),
        "np.linalg.norm callback": fit(NumpyNorms),
        "enable_check_numerics": checked(fit()),
    }
    rows = costs("keras fit of a small CNN", pairs.interleaved(variants, rounds), "nothing")
    pairs.write("watching", rows, rounds=rounds, autopsy_seconds=autopsy_seconds())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
