"""The compiled step and the loop around it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from zeronorm import model, recorder
from zeronorm.examples import Batch
from zeronorm.model import Ranker
from zeronorm.numerics import Numerics, xla_witness

FLUSH = 50  # steps whose measurements stay on the device before they are fetched together


@dataclass
class Program:
    """A ranker, its optimizer and their compiled step. It can train again and again: `reset` makes it as new, which
    costs no second trace or XLA compilation."""

    ranker: Ranker
    optimizer: object
    numerics: Numerics
    step: Callable
    _optimizer_start: list[np.ndarray]

    @property
    def trained(self) -> list[str]:
        """Names of the weights that are trained, in the order of model.WEIGHTS."""
        return [name for name, variable in self.ranker.weights.items() if variable.trainable]

    def reset(self, words: np.ndarray, titles: np.ndarray, seed: int) -> None:
        """Initial weights from the matrices and the seed; the optimizer's state as when it was made."""
        model.initialise(self.ranker, words, titles, seed)
        for variable, value in zip(self.optimizer.variables, self._optimizer_start, strict=True):
            variable.assign(value)


def program(ranker: Ranker, optimizer, numerics: Numerics) -> Program:
    """Builds the step: Keras's own training step (loss = mean over the batch, tape, optimizer), with measurements.

    optimizer: a Keras optimizer, not built yet. The step takes (step int32 [], text, positive, negatives) and returns
    the measurements of `recorder.measure`, and "xla", int32 []: 1 if XLA computed this step.
    """
    weights = {name: variable for name, variable in ranker.weights.items() if variable.trainable}
    optimizer.build(list(weights.values()))

    @tf.function(jit_compile=numerics.jit_compile, reduce_retracing=False)
    def step(number, text, positive, negatives):
        with tf.GradientTape() as tape:
            forward = ranker.observed([text, positive, negatives], training=True)
            loss = tf.reduce_mean(forward["loss"])
        gradients = dict(zip(weights, tape.gradient(loss, [w.value for w in weights.values()]), strict=True))
        before = {name: tf.identity(variable.value) for name, variable in weights.items()}
        optimizer.apply(list(gradients.values()), list(weights.values()))
        after = {name: tf.convert_to_tensor(variable.value) for name, variable in weights.items()}
        ran_xla = xla_witness(number) if numerics.jit_compile else tf.constant(0)
        ordered = {name: forward[name] for name in recorder.FORWARD}
        return {"xla": ran_xla, **recorder.measure(ordered, gradients, before, after)}

    return Program(ranker, optimizer, numerics, step, [np.array(v) for v in optimizer.variables])


def train(
    program: Program,
    batches: Iterable[Batch],
    recording: recorder.Recording,
    stop_on_nan: bool = False,
    after_step: Callable[[Batch], None] = lambda batch: None,
) -> int:
    """Runs the step on every batch; measurements are fetched FLUSH steps at a time, and once more at an interruption.

    stop_on_nan: end with the first step that leaves a non-finite value anywhere. after_step: called between steps.
    Returns the number of steps that XLA computed. A NaN raises nothing.
    """
    done: list[Batch] = []
    measured: list[dict] = []
    xla_steps = 0
    try:
        for batch in batches:
            out = program.step(tf.constant(batch.step), batch.text, batch.positive, batch.negatives)
            done.append(batch)
            measured.append(out)
            stop = stop_on_nan and bool(tf.reduce_any(out["nonfinite"] > 0))
            if len(done) == FLUSH or stop:
                xla_steps += _flush(recording, done, measured)
            if stop:
                break
            after_step(batch)
    finally:
        xla_steps += _flush(recording, done, measured)
    return xla_steps


def _flush(recording: recorder.Recording, done: list[Batch], measured: list[dict]) -> int:
    fetched = [{name: value.numpy() for name, value in m.items()} for m in measured]
    recording.add(done, fetched)
    xla_steps = sum(int(m["xla"]) for m in fetched)
    done.clear()
    measured.clear()
    return xla_steps


def encode(ranker: Ranker, text: np.ndarray, batch: int = 64) -> np.ndarray:
    """z, float32 [n, d], of texts int32 [n, window], without dropout, by TensorFlow's kernels."""

    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, len(text), batch):
            yield ranker.encoder(text[start : start + batch], training=False).numpy()

    return np.concatenate(list(pieces()))


def scores(ranker: Ranker, z: np.ndarray, batch: int = 64) -> np.ndarray:
    """Similarity of every z [n, d] with every title: float32 [n, titles], by the ranker's own placement."""
    titles = tf.convert_to_tensor(ranker.weights["titles"].value)
    return np.concatenate(
        [ranker.similarity(z[start : start + batch, None, :], titles).numpy() for start in range(0, len(z), batch)]
    )
