"""The last steps of a fit, kept so that the one that fails can be taken again.

Once in a while the variables are held, which copies only what changes, and the batches since then
are kept: from these the failing step is reached.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from zeronorm.autopsy import thresholds
from zeronorm.autopsy.keras_step import Record, Steps, bytes_of, size_of
from zeronorm.autopsy.subject import Snapshot, lost_since, nonfinite


@dataclass
class Ends:
    """The states that a training can go on from after it was repeated: that of before the step that
    was reached, and that of after the last step."""

    before: Snapshot
    after: Snapshot


@dataclass(frozen=True)
class Reached:
    """A failing step that was taken again.

    record: the step, as it was recorded.
    lost: {weight: elements that it lost}.
    loss_is_finite: whether its loss was.
    history: [{step, loss, norm/WEIGHT}, ...] of the steps up to it.
    """

    record: Record
    lost: dict[str, int]
    loss_is_finite: bool
    history: tuple[dict, ...]


class Flight:
    """The steps of one fit.

    step: how many were taken.
    """

    def __init__(self) -> None:
        self.step = 0
        self._seen = 0  # examples of this epoch
        self._steps: Steps | None = None
        self._at_first: dict[str, int] | None = None  # what is lost before the training is no news
        self._held: Snapshot | None = None
        self._batches: deque[Record] = deque()
        self._room = thresholds.HOLD_EVERY
        # (step, loss), not read before it is needed
        self._past: deque[tuple[int, tf.Tensor | None]] = deque(maxlen=thresholds.HOLD_EVERY)

    def begin_epoch(self) -> None:
        self._held, self._seen = None, 0

    def forget(self) -> None:
        """What was kept: the variables may be others from now on."""
        self._held, self._batches = None, deque()

    def watch(self, model: keras.Model, train: Callable, iterator, known: Steps | None) -> Steps:
        """The steps of a train_function, watched: the known ones if they are that function's."""
        if known is None or known.train is not train:
            known = Steps(model, train, iterator)
        self._steps = known
        if self._at_first is None:
            self._at_first = nonfinite(known.weights())
        return known

    def take(self, iterator) -> tuple[object, bool, bool]:
        """One step: (logs, whether no weight became non-finite as far as was looked, whether the
        loss is finite)."""
        steps = self._watched()
        if self._held is None or len(self._batches) >= self._room:
            self._held, self._room = Snapshot(steps.variables), thresholds.HOLD_EVERY
            self._batches.clear()
        thorough = self.step % thresholds.LOOK_EVERY == 0
        logs, flags, numbers, batch = steps.take(iterator, thorough=thorough)
        if not self._batches:
            fitting = int(thresholds.KEPT_BATCHES / max(bytes_of(batch), 1))
            self._room = max(1, min(thresholds.HOLD_EVERY, fitting))
        self._batches.append(Record(self.step, self._seen, numbers, batch))
        self._past.append((self.step, logs.get("loss") if isinstance(logs, dict) else None))
        self.step += 1
        self._seen += size_of(batch)
        weights_finite, loss_finite = flags.numpy()
        return logs, bool(weights_finite), bool(loss_finite)

    def lost(self) -> dict[str, int]:
        """{weight: elements that are not finite now and were before the training}."""
        assert self._at_first is not None  # `watch` comes first
        return lost_since(nonfinite(self._watched().weights()), self._at_first)

    def repeatable(self) -> bool:
        return self._watched().repeatable()

    def rewind(self) -> Ends:
        """Puts the variables to where they were held last."""
        assert self._held is not None  # a step was taken
        after = Snapshot(self._watched().variables)
        self._held.restore()
        return Ends(self._held, after)

    def reach(self, ends: Ends, loss_only: bool) -> Reached | None:
        """Takes the steps again up to the first that fails, and goes back to before it; None where
        none does. Keeps that state in `ends.before`.

        loss_only: whether it is the loss alone that was lost.
        """
        steps, norms = self._watched(), {}
        assert self._at_first is not None
        for record in self._batches:
            ends.before = Snapshot(steps.variables)
            norms[record.step] = steps.norms()
            fails, loss_is_finite = steps.fails(record, self._at_first, loss_only=loss_only)
            if fails:
                lost = self.lost()
                ends.before.restore()
                return Reached(record, lost, loss_is_finite, self._history(norms))
        ends.before = Snapshot(steps.variables)
        return None

    def _history(self, norms: dict[int, dict]) -> tuple[dict, ...]:
        losses = {step: None if loss is None else float(np.mean(loss)) for step, loss in self._past}
        return tuple({"step": step, "loss": losses.get(step), **of} for step, of in norms.items())

    def _watched(self) -> Steps:
        assert self._steps is not None  # `watch` comes first
        return self._steps
