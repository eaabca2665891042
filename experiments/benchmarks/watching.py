"""What zeronorm.Autopsy costs a healthy `model.fit` of a small CNN, beside the common ways to
watch; and how long an autopsy of the question's full model takes.

python experiments/benchmarks/watching.py [rounds] [--small --to FOLDER]
"""

import os
import tempfile
import time
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import keras
import numpy as np

import pairs
from recording import NumpyNorms, checked, costs
from zeronorm import Autopsy, config, preparation, run_autopsy
from zeronorm.report import script

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


def fit(steps: int, *callbacks: type[keras.callbacks.Callback]):
    """A turn: a fit of EPOCHS times `steps` steps, of a model of its own, which is built and traced
    in the first turn; new callbacks in each."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(BATCH * steps, 28, 28, 1)).astype(np.float32)
    y = rng.integers(0, 10, BATCH * steps)
    model = cnn()

    def turn() -> int:
        made = [callback() for callback in callbacks]
        model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=made)
        return steps * EPOCHS

    return pairs.timed(turn)


def autopsy_seconds(names: tuple[str, ...], overrides: Sequence[str] = ()) -> dict[str, float]:
    """{numerics: seconds} of the first autopsy in a process, everything compiled anew, of the
    question's full model but for the overrides."""
    found = {}
    for name in names:
        prepared = preparation.prepare(config.composed(f"numerics={name}", *overrides))
        moment = run_autopsy.reached(prepared)
        start = time.perf_counter()
        run_autopsy.examine(moment)
        found[name] = time.perf_counter() - start
    return found


def main(rounds: int, small: bool, to: Path) -> None:
    steps = 2 if small else STEPS
    variants = {
        "nothing": fit(steps),
        "TerminateOnNaN": fit(steps, keras.callbacks.TerminateOnNaN),
        "zeronorm.Autopsy": fit(steps, Autopsy),
        "np.linalg.norm callback": fit(steps, NumpyNorms),
        "enable_check_numerics": checked(fit(steps)),
    }
    rows = costs("keras fit of a small CNN", pairs.interleaved(variants, rounds), "nothing")
    with tempfile.TemporaryDirectory() as folder:
        home = [f"home={folder}", *pairs.small_run(Path(folder))] if small else []
        seconds = autopsy_seconds(("xla", "tf1", "kernels"), home)
    script.write(to, "watching", rows, rounds=rounds, autopsy_seconds=seconds)


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__, rounds=7)))
