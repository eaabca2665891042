"""A training step at the question's size: Keras's compile and fit against this project's, which also records.

python experiments/benchmarks/step.py [rounds]
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from functools import partial
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

import pairs
import plain_keras
from zeronorm import examples, model, numerics, optimizers, recorder, similarity, training

STEPS = 100  # a turn
ROWS, TITLES, D, SIZE = 32_500, 106, 100, {"window": 100, "negatives": 10, "filters": 1000, "width": 5, "dropout": 0.2}
PLACEMENT = partial(similarity.clamp_product, epsilon=1e-7)


def data(steps: int, rows: int = ROWS, d: int = D):
    """Matrices without zero rows and `steps` batches of 10 texts whose words are as unevenly frequent as a text's."""
    rng = np.random.default_rng(0)
    words, titles = (0.05 * rng.standard_normal((n, d), np.float32) for n in (rows, TITLES))
    text = ((rng.zipf(1.2, size=(10 * steps, SIZE["window"])) - 1) % rows).astype(np.int32)
    positive, negatives = (rng.integers(0, TITLES, (10 * steps, k)).astype(np.int32) for k in (1, 10))
    return words, titles, examples.Examples(text, positive, negatives)


def ours(used: numerics.Numerics, words, titles, drawn, optimizer, trainable: bool = True):
    """A turn of this project's training over `drawn`, recording included."""
    ranker = model.build(
        n_words=len(words), n_titles=len(titles), dim=words.shape[1], margin=1.0, trainable_words=trainable,
        trainable_titles=trainable, similarity=PLACEMENT, numerics=used, rows_only=optimizers.rows_only(optimizer),
        **SIZE,
    )  # fmt: skip
    program = training.program(ranker, optimizer, used)
    program.reset(words, titles, seed=0)
    batches = list(examples.batches(drawn, 1, 10, False, 0))
    names = {"words": [""] * len(words), "titles": [""] * len(titles)}

    def turn() -> int:
        training.train(program, batches, program.recording(names))
        return len(batches)

    return pairs.timed(turn)


def ours_without_recording(*arguments, **options):
    """The same steps with nothing measured in them but the loss."""

    def loss_only(forward, gradients, changes):
        return {"loss": tf.reduce_mean(forward["loss"]), "nonfinite": tf.zeros([1, 3], tf.int32)}

    with mock.patch.object(recorder, "measure", loss_only), mock.patch.object(recorder.Recording, "add"):
        turn = ours(*arguments, **options)
        turn()  # traced here, while nothing is measured

    def unrecorded_turn() -> tuple[int, float]:
        with mock.patch.object(recorder.Recording, "add"):
            return turn()

    return unrecorded_turn


class Stopwatch(keras.callbacks.Callback):
    """Times the steps from the end of the first batch to the end of the last: `fit` pays up to a second a call before
    and after, which is no step's."""

    def on_train_begin(self, logs=None):
        self.steps = -1

    def on_train_batch_end(self, batch, logs=None):
        self.steps, self.end = self.steps + 1, time.perf_counter()
        self.start = self.end if self.steps == 0 else self.start


def keras_fit(used: numerics.Numerics, words, titles, drawn, optimizer, callbacks=(), trainable: bool = True):
    """A turn of `fit` over `drawn`."""
    ranker = plain_keras.build(
        words, titles, margin=1.0, trainable=trainable, similarity=PLACEMENT, numerics=used, optimizer=optimizer, **SIZE
    )
    inputs, nothing = [drawn.text, drawn.positive, drawn.negatives], np.zeros(len(drawn))
    watch = Stopwatch()

    def turn() -> tuple[int, float]:
        ranker.model.fit(inputs, nothing, batch_size=10, shuffle=False, verbose=0, callbacks=[*callbacks, watch])
        return watch.steps, watch.end - watch.start

    return turn


def forward_product():
    """A turn of STEPS times the convolution's matrix product, which any exact step has to do."""
    windows = SIZE["window"] - SIZE["width"] + 1
    patches = tf.random.normal((10 * windows, SIZE["width"] * D), seed=0)
    kernel = tf.random.normal((SIZE["width"] * D, SIZE["filters"]), seed=0)
    product = tf.function(tf.matmul, autograph=False)

    def turn() -> int:
        for _ in range(STEPS):
            out = product(patches, kernel)
        out[0, 0].numpy()
        return STEPS

    return pairs.timed(turn)


def main(rounds: int) -> None:
    words, titles, drawn = data(STEPS)
    times = {}
    for used in (numerics.KERNELS, numerics.XLA):
        times |= {f"{variant}, {used.name}": ms for variant, ms in measured(used, rounds, words, titles, drawn).items()}
    rows = []
    for name in ("kernels", "xla"):
        of_name = {variant: ms for variant, ms in times.items() if variant.endswith(name)}
        rows += pairs.summary(of_name, f"keras fit, {name}")
    pairs.write("step", rows, rounds=rounds)


def measured(used, rounds, words, titles, drawn):
    variants = {
        "keras fit": keras_fit(used, words, titles, drawn, keras.optimizers.Adam()),
        "ours, not recording": ours_without_recording(used, words, titles, drawn, optimizers.Adam()),
        "ours": ours(used, words, titles, drawn, optimizers.Adam()),
    }
    if not used.jit_compile:
        variants["forward product"] = forward_product()
    return pairs.interleaved(variants, rounds)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 11)
