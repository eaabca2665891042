"""The compiled steps and the loop around them."""

from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby, islice

import keras
import numpy as np
import tensorflow as tf

from zeronorm import deferred, model, recorder
from zeronorm.examples import Batch
from zeronorm.model import Ranker
from zeronorm.numerics import Numerics, xla_witness

# steps between two looks from outside: long enough that the call costs nothing, short enough for
# Ctrl-C
CHUNK = 25


@dataclass(eq=False)
class Program:
    """A ranker, its optimizer and their compiled steps. It can train again and again: `reset` makes
    it as new, which costs no second trace or XLA compilation.

    take: (text [batch, window], positive, negatives) -> ({name in recorder.FORWARD: tensor},
        {weight: gradient}), one step that is not compiled yet.
    update: (number int32 [], text [batch, window], positive, negatives) -> (whether XLA ran, int32
        [], and what take returns), that step compiled, without measurements.
    steps: (numbers int32 [n], text [n, batch, window], positive, negatives, stop_at bool [tensors])
        -> (how many were taken, {name: measurements of `recorder.measure`, [n, ...]}), as `program`
        says. Rows of `tables` are then as of the step that last named them, until `flush`.
    tables: {embedding: its rows and their course}, where the optimizer's is known.
    """

    ranker: Ranker
    optimizer: keras.optimizers.Optimizer
    numerics: Numerics
    take: Callable
    update: Callable
    steps: Callable
    tables: dict[str, deferred.Table]
    _optimizer_start: list[np.ndarray | None]  # None: zeros

    @property
    def state(self) -> list:
        """Every variable that a step may change: weights, the dropout's random state, the
        optimizer's."""
        return [*self.ranker.model.variables, *self.optimizer.variables]

    @property
    def trained(self) -> list[str]:
        """Names of the weights that are trained, in the order of model.WEIGHTS."""
        return [name for name, variable in self.ranker.weights.items() if variable.trainable]

    def reset(
        self, words: np.ndarray, titles: np.ndarray, seed: int, masked: np.ndarray | None = None
    ) -> None:
        """Initial weights from the matrices and the seed, and the masked titles, as
        `model.initialise` takes them; the optimizer's state as when it was made."""
        model.initialise(self.ranker, words, titles, seed, masked)
        for variable, value in zip(self.optimizer.variables, self._optimizer_start, strict=True):
            variable.assign(tf.zeros(variable.shape, variable.dtype) if value is None else value)
        for table in self.tables.values():
            table.reset()

    def flush(self) -> None:
        """Brings every row of the embeddings up to date: `state` is then the training's."""
        for table in self.tables.values():
            table.flush()

    def finish(self) -> None:
        """What Keras's fit does after its last step: an optimizer that keeps a moving average of
        the weights (use_ema) puts the average in their place."""
        self.optimizer.finalize_variable_values(
            [self.ranker.weights[name] for name in self.trained]
        )

    def recording(self, names: dict[str, list[str]]) -> recorder.Recording:
        """For a training that starts from the present weights.

        names: {embedding: what each row stands for}.
        """
        start = {name: recorder.Start.of(self.ranker.weights[name].numpy()) for name in self.tables}
        return recorder.Recording(self.trained, names, start)


def program(ranker: Ranker, optimizer, numerics: Numerics) -> Program:
    """Builds the steps: Keras's own training step (loss = mean over the batch, tape, optimizer),
    with measurements, in a loop that is compiled too.

    optimizer: a Keras optimizer, not built yet. Beside the measurements there is "xla", int32: 1 if
        XLA computed the step.
    """
    weights = {name: variable for name, variable in ranker.weights.items() if variable.trainable}
    optimizer.build(list(weights.values()))
    tables = deferred.tables(optimizer, weights)

    def take(text, positive, negatives):
        with tf.GradientTape() as tape:
            forward = ranker.observed([text, positive, negatives], training=True)
            # as it is, but for a loss scale
            loss = optimizer.scale_loss(tf.reduce_mean(forward["loss"]))
        gradients = dict(
            zip(weights, tape.gradient(loss, [w.value for w in weights.values()]), strict=True)
        )
        optimizer.apply(list(gradients.values()), list(weights.values()))
        return {name: forward[name] for name in recorder.FORWARD}, gradients

    @tf.function(jit_compile=numerics.jit_compile, autograph=False)
    def update(number, text, positive, negatives):
        with optimizer.by_rows(numerics.jit_compile) if tables else nullcontext():
            forward, gradients = take(text, positive, negatives)
        return xla_witness(number) if numerics.jit_compile else tf.constant(0), forward, gradients

    # Whoever computes the update, TensorFlow's kernels measure it: on a CPU XLA sums a large array
    # on one core only.
    @tf.function(jit_compile=False, autograph=False)
    def step(number, text, positive, negatives):
        touched = ranker.named(text, positive, negatives)
        watches = {
            name: tables[name].watch(touched[name])
            if name in tables
            else recorder.Watch(variable.value)
            for name, variable in weights.items()
        }
        ran_xla, forward, gradients = update(number, text, positive, negatives)
        changes = {name: watch.change() for name, watch in watches.items()}
        return {"xla": ran_xla, **recorder.measure(forward, gradients, changes)}

    @cache
    # of one batch's inputs: only the number of steps may vary without a new trace
    def loop(*shapes: tuple[int, ...]):
        one = step.get_concrete_function(*(tf.TensorSpec(shape, tf.int32) for shape in shapes))
        signature = [tf.TensorSpec((None, *shape), tf.int32) for shape in shapes]
        signature.append(tf.TensorSpec(one.structured_outputs["nonfinite"].shape[:1], tf.bool))
        return tf.function(partial(_repeated, one), signature, autograph=False)

    def steps(*inputs):
        return loop(*(tuple(x.shape[1:]) for x in inputs[:-1]))(*inputs)

    starts = [value if np.any(value) else None for value in map(np.array, optimizer.variables)]
    return Program(ranker, optimizer, numerics, take, update, steps, tables, starts)


def _repeated(one, numbers, text, positive, negatives, stop_at):
    """One traced step after another, as `Program.steps` takes and returns them, up to the first
    with a tensor to stop at."""
    inputs, count = (numbers, text, positive, negatives), tf.shape(numbers)[0]
    arrays = {
        name: tf.TensorArray(spec.dtype, count, element_shape=spec.shape)
        for name, spec in one.structured_outputs.items()
    }

    def body(position, stopped, arrays):
        out = one(*(x[position] for x in inputs))
        stopped = tf.reduce_any(stop_at & tf.reduce_any(out["nonfinite"] > 0, axis=1))
        return (
            position + 1,
            stopped,
            {name: array.write(position, out[name]) for name, array in arrays.items()},
        )

    taken, _, arrays = tf.while_loop(
        lambda position, stopped, _: (position < count) & ~stopped,
        body,
        (0, tf.constant(False), arrays),
    )
    return taken, {name: array.stack() for name, array in arrays.items()}


def chunks(batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    """The batches, at most CHUNK together, of one epoch and of one size."""
    for _, alike in groupby(batches, key=lambda batch: (batch.epoch, len(batch.text))):
        while chunk := list(islice(alike, CHUNK)):
            yield chunk


def train(
    program: Program,
    batches: Iterable[Batch],
    recording: recorder.Recording,
    stop_at: Container[tuple[str, str]] = (),
    after_chunk: Callable[[Batch], None] = lambda last: None,
) -> int:
    """Runs the steps over the batches, CHUNK at a time; what they measured is in `recording` after
    each chunk.

    stop_at: (phase, name) of the tensors in recording.tensors with whose first non-finite value to
        end.
    after_chunk: called with the last batch taken; it flushes the program before it reads weights.
    Returns the number of steps that XLA computed. A NaN raises nothing.
    """
    xla_steps = 0
    stops = tf.constant([tensor in stop_at for tensor in recording.tensors])
    try:
        for chunk in chunks(batches):
            if recording.is_lost(stop_at):
                chunk = chunk[:1]
            numbers = np.array([batch.step for batch in chunk], np.int32)
            inputs = (
                np.stack([getattr(batch, part) for batch in chunk])
                for part in ("text", "positive", "negatives")
            )
            taken, measured = program.steps(*map(tf.constant, (numbers, *inputs)), stops)
            taken = int(taken)
            measured = {name: value.numpy()[:taken] for name, value in measured.items()}
            recording.add(chunk[:taken], measured)
            xla_steps += int(measured["xla"].sum())
            after_chunk(chunk[taken - 1])
            if taken < len(chunk) or recording.is_lost(stop_at):
                break
    finally:  # also at an interruption
        program.flush()
    return xla_steps


def encode(ranker: Ranker, text: np.ndarray, batch: int = 64) -> np.ndarray:
    """z, float32 [n, d], of texts int32 [n, window], without dropout, by TensorFlow's kernels."""

    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, len(text), batch):
            yield ranker.encoder(text[start : start + batch], training=False).numpy()

    return np.concatenate(list(pieces()))


def scores(ranker: Ranker, z: np.ndarray, batch: int = 64) -> np.ndarray:
    """Similarity of every z [n, d] with every title: float32 [n, titles], by the ranker's own
    placement."""
    titles = tf.convert_to_tensor(ranker.weights["titles"].value)
    return np.concatenate(
        [
            ranker.similarity(z[start : start + batch, None, :], titles).numpy()
            for start in range(0, len(z), batch)
        ]
    )


def encoder_is_finite(program: Program) -> Callable[[np.ndarray], bool]:
    """A function of texts, int32 [n, window]: whether the gradients of the encoder's weights are
    finite there, compiled as the step is, for an incoming gradient of 1 and without dropout. Traced
    at the first call.
    """
    encoder, used = program.ranker.encoder, program.ranker.weights
    weights = [used[name].value for name in program.trained if name != "titles"]

    @tf.function(jit_compile=program.numerics.jit_compile, autograph=False)
    def gradients(text):
        with tf.GradientTape() as tape:
            z = encoder(text, training=False)
        return tape.gradient(z, weights)

    def is_finite(text: np.ndarray) -> bool:
        found = (
            g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients(tf.constant(text))
        )
        return all(bool(tf.reduce_all(tf.math.is_finite(gradient))) for gradient in found)

    return is_finite
