"""A training step at the question's size: Keras's compile and fit against this project's, which
also records.

python experiments/benchmarks/step.py [rounds] [--small --to FOLDER]
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

import pairs
import plain_keras
from zeronorm import (
    convolution,
    deferred,
    encoders,
    examples,
    model,
    numerics,
    optimizers,
    recorder,
    similarity,
    training,
)
from zeronorm.report import script

PLACEMENT = partial(similarity.clamp_product, epsilon=1e-7)


@dataclass(frozen=True)
class Size:
    """steps: of a turn, of 10 texts each.
    rows, titles: of the two embeddings, of width d. The rest: the network's."""

    steps: int
    rows: int
    titles: int
    d: int
    window: int
    filters: int
    negatives: int = 10
    width: int = 5
    dropout: float = 0.2

    @property
    def network(self) -> dict:
        return {
            name: getattr(self, name)
            for name in ("window", "negatives", "filters", "width", "dropout")
        }


QUESTION = Size(steps=100, rows=32_500, titles=106, d=100, window=100, filters=1000)
SMALL = Size(steps=3, rows=50, titles=12, d=8, window=20, filters=4)


def data(size: Size) -> tuple[np.ndarray, np.ndarray, examples.Examples]:
    """Matrices without zero rows and a turn's texts, whose words are as unevenly frequent as a
    text's."""
    rng, count = np.random.default_rng(0), 10 * size.steps
    words, titles = (
        0.05 * rng.standard_normal((n, size.d), np.float32) for n in (size.rows, size.titles)
    )
    text = ((rng.zipf(1.2, size=(count, size.window)) - 1) % size.rows).astype(np.int32)
    positive, negatives = (
        rng.integers(0, size.titles, (count, k)).astype(np.int32) for k in (1, size.negatives)
    )
    return words, titles, examples.Examples(text, positive, negatives)


def ours(
    size: Size, used: numerics.Numerics, words, titles, drawn, optimizer, trainable: bool = True
):
    """A turn of this project's training over `drawn`, recording included."""
    program, names = made(size, used, words, titles, optimizer, trainable)
    batches = list(examples.batches(drawn, 1, 10, False, 0))

    def turn() -> int:
        training.train(program, batches, program.recording(names))
        return len(batches)

    return pairs.timed(turn)


def made(
    size: Size, used: numerics.Numerics, words, titles, optimizer, trainable: bool = True
) -> tuple[training.Program, dict[str, list[str]]]:
    """This project's steps, and names of the rows for their recording."""
    ranker = model.build(
        n_words=len(words),
        n_titles=len(titles),
        dim=words.shape[1],
        margin=1.0,
        trainable_words=trainable,
        trainable_titles=trainable,
        similarity=PLACEMENT,
        numerics=used,
        rows_only=deferred.course_of(optimizer) is not None,
        **size.network,
    )
    program = training.program(ranker, optimizer, used)
    program.reset(words, titles, seed=0)
    return program, {"words": [""] * len(words), "titles": [""] * len(titles)}


def ours_without_recording(*arguments, **options):
    """The same steps with nothing measured in them but the loss, nor kept for the tables' norms."""

    def loss_only(forward, gradients, changes):
        # as many as `train` may be told to stop at
        tensors = len(forward) + len(gradients) + 2 * len(changes)
        return {
            "loss": tf.reduce_mean(forward["loss"]),
            "nonfinite": tf.zeros([tensors, 3], tf.int32),
        }

    def as_of(table, ids, rows, step):
        deferred._write(ids, (table.last, tf.fill(tf.shape(ids), step)))

    def change(watch):
        watch.table._enter(watch.ids, None, watch.step)

    with (
        mock.patch.object(recorder, "measure", loss_only),
        mock.patch.object(recorder.Recording, "add"),
        mock.patch.multiple(
            deferred.Table, _enter=as_of, _leave=mock.Mock(), _drift=mock.Mock(return_value=None)
        ),
        mock.patch.object(deferred.Watch, "change", change),
    ):
        turn = ours(*arguments, **options)
        turn()  # traced here, while nothing is measured

    def unrecorded_turn() -> tuple[int, float]:
        with mock.patch.object(recorder.Recording, "add"):
            return turn()

    return unrecorded_turn


class Stopwatch(keras.callbacks.Callback):
    """Times the steps from the end of the first batch to the end of the last: `fit` pays up to a
    second a call before and after, which is no step's."""

    def on_train_begin(self, logs=None):
        self.steps, self.start = -1, 0.0

    def on_train_batch_end(self, batch, logs=None):
        self.steps, self.end = self.steps + 1, time.perf_counter()
        if self.steps == 0:
            self.start = self.end


def keras_fit(size: Size, used: numerics.Numerics, words, titles, drawn, optimizer, callbacks=()):
    """A turn of `fit` over `drawn`."""
    ranker = plain_keras.build(
        words,
        titles,
        margin=1.0,
        trainable=True,
        similarity=PLACEMENT,
        numerics=used,
        optimizer=optimizer,
        **size.network,
    )
    inputs, nothing = [drawn.text, drawn.positive, drawn.negatives], np.zeros(len(drawn))
    watch = Stopwatch()

    def turn() -> tuple[int, float]:
        ranker.model.fit(
            inputs, nothing, batch_size=10, shuffle=False, verbose=0, callbacks=[*callbacks, watch]
        )
        return watch.steps, watch.end - watch.start

    return turn


def forward_product(size: Size):
    """A turn of the convolution's matrix product alone, which any exact step has to do."""
    windows = size.window - size.width + 1
    patches = tf.random.normal((10 * windows, size.width * size.d), seed=0)
    kernel = tf.random.normal((size.width * size.d, size.filters), seed=0)
    product = tf.function(tf.matmul, autograph=False)

    def turn() -> int:
        for _ in range(size.steps):
            out = product(patches, kernel)
        out[0, 0].numpy()
        return size.steps

    return pairs.timed(turn)


def main(rounds: int, small: bool, to: Path) -> None:
    size = SMALL if small else QUESTION
    times: dict[str, list[float]] = {}
    pieces: dict[str, dict[str, float]] = {}
    for used in (numerics.KERNELS, numerics.XLA):
        variants = compared(size, used)
        upto = taken_apart(size, used)
        found = pairs.interleaved(variants | upto, rounds)
        times |= {f"{variant}, {used.name}": found[variant] for variant in variants}
        pieces[used.name] = alone({name: found[name] for name in upto} | {LAST: found["ours"]})
    rows = []
    for name in ("kernels", "xla"):
        of_name = {variant: ms for variant, ms in times.items() if variant.endswith(name)}
        rows += pairs.summary(of_name, f"keras fit, {name}")
    script.write(to, "step", rows, rounds=rounds, pieces=pieces)


class Parts:
    """A training step up to some point, each longer than the one before."""

    def __init__(self, size: Size, used: numerics.Numerics, words, titles):
        self.program, self.names = made(size, used, words, titles, optimizers.Adam())
        self.used, self.ranker, self.optimizer = used, self.program.ranker, self.program.optimizer
        self.weights = {name: self.ranker.weights[name] for name in self.program.trained}

    def encoder(self, text, positive, negatives):
        return [self.ranker.encoder(text, training=True)]

    def loss(self, *batch):
        return [self.ranker.observed(list(batch), training=True)["loss"]]

    def gradients(self, *batch):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.loss(*batch)[0])
        found = tape.gradient(loss, [weight.value for weight in self.weights.values()])
        return [g.values if isinstance(g, tf.IndexedSlices) else g for g in found]

    def update(self, *batch):
        with self.optimizer.by_rows(self.used.jit_compile):
            forward, _ = self.program.take(*batch)
        return [forward["loss"]]

    def turn(self, part: Callable, rows: bool, batches: list[examples.Batch]):
        """A turn of the steps up to `part`, in the compiled loop of a training.

        rows: whether rows are brought up to date, and the tables' norms kept.
        """
        tables = self.program.tables if rows else {}
        compiled = tf.function(part, jit_compile=self.used.jit_compile, autograph=False)

        @tf.function(autograph=False)
        def step(number, text, positive, negatives):
            named = {"words": text, "titles": tf.concat([positive, negatives], axis=1)}
            watches = [table.watch(named[name]) for name, table in tables.items()]
            values = compiled(text, positive, negatives)
            kept = [watch.change().squares() for watch in watches]
            # each value is needed, so none is left out of the graph
            seen = tf.add_n([tf.reshape(value, [-1])[0] for value in (*values, *kept)])
            return {"loss": seen, "nonfinite": tf.zeros([1, 3], tf.int32)}

        shapes = [part.shape for part in inputs_of(batches[:1])]
        one = step.get_concrete_function(*(tf.TensorSpec(s[1:], tf.int32) for s in shapes))
        loop = tf.function(partial(training._repeated, one), autograph=False)

        # a traced function does not keep its variables alive
        def turn(parts=self) -> int:
            for chunk in training.chunks(batches):
                taken, _ = loop(*map(tf.constant, inputs_of(chunk)), tf.constant([False]))
            taken.numpy()
            return len(batches)

        return pairs.timed(turn)


def inputs_of(chunk: list[examples.Batch]) -> list[np.ndarray]:
    numbers = np.array([batch.step for batch in chunk], np.int32)
    parts = ("text", "positive", "negatives")
    return [numbers, *(np.stack([getattr(b, part) for b in chunk]) for part in parts)]


LAST = "the recording of everything else"  # the piece with which a step is whole


def taken_apart(size: Size, used: numerics.Numerics) -> dict[str, Callable[[], tuple[int, float]]]:
    """{piece of a step: a turn of the steps up to it}, but for LAST."""
    words, titles, drawn = data(size)
    parts = Parts(size, used, words, titles)
    batches = list(examples.batches(drawn, 1, 10, False, 0))
    return {
        "lookup, convolution, maximum, dense layer": parts.turn(parts.encoder, False, batches),
        "similarities and loss": parts.turn(parts.loss, False, batches),
        "their gradients": parts.turn(parts.gradients, False, batches),
        "Adam, of the rows named and of the kernels": parts.turn(parts.update, False, batches),
        "rows brought up to date, the tables' norms": parts.turn(parts.update, True, batches),
    }


def alone(upto: dict[str, list[float]]) -> dict[str, float]:
    """{piece of a step: its ms}: what the step up to it takes longer than the step up to the one
    before, the mean of the rounds, so that they sum to the mean step."""
    means = np.array(list(upto.values())).mean(axis=1)
    return dict(zip(upto, np.diff(means, prepend=0.0).tolist(), strict=True))


# what is written by hand, and what puts the obvious in its place while a turn is traced
BY_HAND: dict[str, Callable[[], AbstractContextManager]] = {
    "whole tables": lambda: mock.patch.object(deferred, "course_of", lambda optimizer: None),
    "plain gradient of the maximum": lambda: mock.patch.object(
        encoders, "MaxOverTime", plain_maximum
    ),
    "Keras's Embedding": lambda: mock.patch.object(model, "Lookup", keras.layers.Embedding),
    "steps one by one": lambda: mock.patch.object(training, "CHUNK", 1),
}


def plain_maximum(filters: int, width: int, sparse: bool, trainable_input: bool, name: str):
    return convolution.MaxOverTime(filters, width, False, trainable_input, name=name)


def without(part: str, *arguments):
    """A turn of this project's training in which a part that is written by hand is the obvious."""
    with BY_HAND[part]():
        turn = ours(*arguments)

    def patched() -> tuple[int, float]:
        with BY_HAND[part]():
            return turn()

    return patched


def compared(size: Size, used: numerics.Numerics) -> dict[str, Callable[[], tuple[int, float]]]:
    """{variant of a step: a turn of it}."""
    drawn = data(size)
    variants = {
        "keras fit": keras_fit(size, used, *drawn, keras.optimizers.Adam()),
        "ours, not recording": ours_without_recording(size, used, *drawn, optimizers.Adam()),
        "ours": ours(size, used, *drawn, optimizers.Adam()),
    }
    for part in BY_HAND:
        if part != "plain gradient of the maximum" or not used.jit_compile:  # XLA's is plain
            variants[f"ours, {part}"] = without(part, size, used, *drawn, optimizers.Adam())
    # whole tables too, and not by the fused kernel
    variants["ours, Keras's Adam"] = ours(size, used, *drawn, keras.optimizers.Adam())
    if not used.jit_compile:
        variants["forward product"] = forward_product(size)
    return variants


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__, rounds=11)))
