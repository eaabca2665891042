"""The autopsy as a Keras callback: watches any model's `fit`, and keeps what is needed to examine the step that fails.

The user's own compiled step runs unchanged. After it one more small function looks whether the weights are finite. Once
in a while the weights are copied, and the batches since then are kept: from these the failing step is reached again.
"""

import sys
from collections import deque
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from zeronorm import autopsy, harm
from zeronorm import capsule as capsules

EVERY = 50  # steps between two copies of the weights
MEMORY = 256e6  # bytes of batches that are kept at most


class Autopsy(keras.callbacks.Callback):
    """Finds what makes a weight NaN or infinite: `model.fit(..., callbacks=[zeronorm.Autopsy()])`.

    then: what to do after a weight was poisoned: "stop" puts the last finite weights back and ends the training;
    "go_on" trains on as if nobody had watched. names: {weight's path: what each row stands for}, for the report.
    capsule: a file to write the failing step to, for `replay`. verbose: 1 prints the report, 0 does not.

    `report` is None where nothing fired, else an `autopsy.Report`; of a step that poisons a weight it replaces that of
    one that did not.
    """

    def __init__(
        self,
        then: str = "stop",
        names: dict[str, list[str]] | None = None,
        capsule: str | Path | None = None,
        verbose: int = 1,
    ):
        super().__init__()
        if then not in ("stop", "go_on"):
            raise ValueError(f"then must be 'stop' or 'go_on', not {then!r}.")
        self.then, self.names, self.capsule, self.verbose = then, names or {}, capsule, verbose
        self.report: autopsy.Report | None = None

    def on_train_begin(self, logs=None) -> None:
        model = self.model
        if model.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError("zeronorm.Autopsy watches a model on one device; this one is distributed over several.")
        self._train = model.train_function
        model.train_function = self._watched
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        subject = subject_of(model, None)
        self._state, self._weights, self._optimizers = subject.state, subject.weights, subject.optimizers
        self._lost = harm.lost(self._weights)  # before the training; what is lost from the start is no news
        self._finite = tf.function(_finite, autograph=False)
        self._values = [variable.value for name, variable in self._weights.items() if name not in self._lost]
        self._step, self._batches, self._held = 0, deque(), None
        self._past: deque[tuple[int, object]] = deque(maxlen=EVERY)  # (step, loss), not read before it is needed
        self._loss_is_lost, self._seen = False, 0
        self._in_order = _in_order()

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self._held, self._loss_is_lost, self._seen = None, False, 0

    def on_train_end(self, logs=None) -> None:
        self.model.train_function = self._train
        self._held, self._batches = None, deque()

    def _watched(self, iterator):
        """As the model's own train_function: some steps, and their logs."""
        batches = list(islice(iterator, self.model.steps_per_execution))
        if not batches:
            raise StopIteration
        if self._held is None or len(self._batches) >= self._room:
            self._hold(batches[0])
        for batch in batches:
            self._batches.append(_Taken(self._step, self._seen, self._rates(), batch))
            self._step += 1
            self._seen += _size(batch)
        logs = self._train(iter(batches))
        loss = logs.get("loss") if isinstance(logs, dict) else None
        self._past.append((self._step - 1, loss))
        weights_finite, loss_finite = map(bool, self._finite(self._values, loss))
        if not weights_finite:  # or so large that their squares overflow
            weights_finite = not harm.newly(harm.lost(self._weights), self._lost)
        if not (weights_finite and (loss_finite or self._loss_is_lost)):
            self._fire(weights_finite)
        return logs

    def _hold(self, batch) -> None:
        self._held = harm.Held(self._state)
        self._batches.clear()
        size = sum(tensor.nbytes for tensor in map(np.asarray, tf.nest.flatten(batch)))
        self._room = int(max(1, min(EVERY, MEMORY / max(size, 1))))

    def _rates(self) -> list[tf.Tensor | None]:
        """The learning rates, which other callbacks may change between steps; None where a schedule gives it."""
        rates = [optimizer.learning_rate for optimizer in self._optimizers]
        return [tf.identity(rate.value) if isinstance(rate, keras.Variable) else None for rate in rates]

    def _fire(self, weights_finite: bool) -> None:
        """Something became non-finite in the steps since the last check: reach the first of them again, examine it."""
        self._loss_is_lost = weights_finite
        after = harm.Held(self._state)
        self._held.restore()
        norms: dict[int, dict[str, float]] = {}
        for taken in self._batches:
            for optimizer, rate in zip(self._optimizers, taken.rates, strict=True):
                if rate is not None:
                    optimizer.learning_rate = rate
            before = harm.Held(self._state)
            norms[taken.step] = {f"norm/{v.path}": float(tf.norm(v.value)) for v in self.model.trainable_variables}
            logs = self._train(iter([taken.batch]))
            if weights_finite:
                fired = not np.isfinite(logs["loss"])
            else:  # the loss, a mean over the epoch's steps, may have been lost before
                fired = bool(harm.newly(harm.lost(self._weights), self._lost))
            if fired:
                before.restore()
                self._examine(taken, norms)
                break
        if weights_finite or self.then == "go_on":
            after.restore()
        else:
            before.restore()
            self.model.stop_training = True

    def _examine(self, taken: "_Taken", norms: dict[int, dict[str, float]]) -> None:
        """The report of a step, from the state before it. norms: of the weights before the steps up to it."""
        losses = {step: None if loss is None else float(loss) for step, loss in self._past}
        history = [{"step": step, "loss": losses.get(step), **found} for step, found in norms.items()]
        if self.capsule:
            _capsule(self.model, taken.step, taken.batch).save(self.capsule)
        subject = subject_of(self.model, taken.batch, self.names)
        found = autopsy.report(subject, taken.step, history=tuple(history))
        if self._in_order and found.guilty:
            found = replace(found, positions=tuple(taken.first + example for example in found.guilty[0].examples))
        if self.report is None or (found.harmful and not self.report.harmful):
            self.report = found
            if self.verbose:
                print(f"\n{found}")


def replay(model: keras.Model, path: str | Path, names: dict[str, list[str]] | None = None) -> autopsy.Report:
    """The report of the step in a capsule, which `Autopsy(capsule=path)` wrote, on this machine.

    model: built and compiled as it was trained; its weights and optimizer state become those before the step. names: as
    `Autopsy` takes them. Raises CapsuleError if the file is none or of another model.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    found = capsules.load(path)
    model.jit_compile = found.jit_compile
    found.restore(subject_of(model, None).state)
    return autopsy.report(subject_of(model, found.batch, names), found.step)


def subject_of(model: keras.Model, batch, names: dict[str, list[str]] | None = None) -> harm.Subject:
    """A compiled model's training step on a batch, as an autopsy takes it."""
    optimizers = [value for value in vars(model).values() if isinstance(value, keras.optimizers.Optimizer)]
    state = _unique(model.variables + model.metrics_variables, *(optimizer.variables for optimizer in optimizers))
    measured = {id(variable) for variable in model.metrics_variables}
    weights = {
        variable.path: variable
        for variable in state
        if id(variable) not in measured and tf.as_dtype(variable.dtype).is_floating
    }
    return harm.Subject(model.train_step, batch, weights, state, optimizers, bool(model.jit_compile), names or {})


def _capsule(model: keras.Model, step: int, batch) -> capsules.Capsule:
    state = tuple((variable.path, np.array(variable)) for variable in subject_of(model, batch).state)
    return capsules.Capsule(step, bool(model.jit_compile), state, batch)


@dataclass(frozen=True)
class _Taken:
    """A step that was taken: its number, how many examples of the epoch came before, the learning rates, the batch."""

    step: int
    first: int
    rates: list[tf.Tensor | None]
    batch: object


def _size(batch) -> int:
    return next((int(tensor.shape[0]) for tensor in tf.nest.flatten(batch) if tensor.shape.rank), 0)


def _in_order() -> bool:
    """Whether the `fit` that is under way was given arrays and shuffle=False. A callback is not told, so this reads the
    arguments where fit has them."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "fit" and {"x", "shuffle", "validation_split"} <= frame.f_locals.keys():
            arrays = tf.nest.flatten(frame.f_locals["x"])
            return not frame.f_locals["shuffle"] and all(isinstance(x, (np.ndarray, tf.Tensor)) for x in arrays)
        frame = frame.f_back
    return False


def _finite(values, loss):
    """(whether every value is finite, whether the loss is): one pass over each, and no copy."""
    sums = [tf.nn.l2_loss(tf.cast(value, tf.float32)) for value in values]
    weights = tf.reduce_all(tf.math.is_finite(tf.stack(sums))) if sums else tf.constant(True)
    return weights, tf.constant(True) if loss is None else tf.reduce_all(tf.math.is_finite(loss))


def _unique(*groups):
    found = {id(variable): variable for group in groups for variable in group}
    return list(found.values())
