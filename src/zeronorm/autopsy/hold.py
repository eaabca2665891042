"""Stands before a model's train_function for one fit, so that each of its steps is watched."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext

import keras
import tensorflow as tf

from zeronorm.autopsy import graph
from zeronorm.autopsy.flight import Flight
from zeronorm.autopsy.keras_step import Steps


class Hold:
    """Takes the place of a model's train_function, from the beginning of a fit until `release`.

    look: called after each step with whether no weight became non-finite and whether the loss is
        finite, as `Flight.take` says.
    steps: the watched steps of an earlier fit, which serve again where the train_function is still
        theirs.

    flight: the last steps of this fit.
    fresh: whether the train_function was not called yet.
    called: whether it was since the present batch began.
    over: whether nothing is watched any more.
    """

    _train: Callable  # the model's own, while its place is taken

    def __init__(self, model: keras.Model, look: Callable, steps: Steps | None):
        self.model, self.flight, self.steps = model, Flight(), steps
        self.fresh, self.called, self.over = True, False, False
        self._look = look
        self._begun = True
        self.take()

    def begin_batch(self) -> None:
        self._begun, self.called = True, False
        if not self.over:
            self.take()

    def take(self) -> None:
        """Also before one that is made, or made anew, by a callback or an own
        `make_train_function` after the fit has begun."""
        now = self.model.train_function
        if now is not None and getattr(now, "__self__", None) is not self:
            self._train, self.model.train_function = now, self.watched
            self.flight.forget()

    def let_go(self) -> None:
        """Leaves the model as it was before it was watched."""
        if getattr(self.model.train_function, "__self__", None) is self:
            self.model.train_function = self._train
        self.flight.forget()

    def release(self) -> None:
        """Lets go of the model for the rest of the training."""
        self.let_go()
        self.over = True

    def watched(self, iterator):
        """As the model's own train_function: some steps, and their logs."""
        self.fresh = False
        # not of train_on_batch, which callbacks may call
        of_fit = hasattr(iterator, "element_spec")
        if not self._begun:  # another fit than the one that was watched, which was interrupted
            self.let_go()
        if self.over or not (self._begun and of_fit):
            return self._train(iterator)
        self._begun, self.called = False, True
        try:
            return self._several(iterator)
        except (StopIteration, tf.errors.OutOfRangeError):  # the end of the data
            raise
        except BaseException:
            self.release()
            raise

    def _several(self, iterator):
        try:
            with graph.quiet():
                self.steps = self.flight.watch(self.model, self._train, iterator, self.steps)
        except Exception as error:
            self.release()
            logs = self._train(iterator)  # where the model itself is at fault it says so
            warnings.warn(
                f"zeronorm.Autopsy cannot watch this model ({type(error).__name__}: {error}).",
                stacklevel=2,
            )
            return logs
        logs = None
        for _ in range(self.model.steps_per_execution):
            try:
                logs = self._one(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                if logs is None:
                    raise
                break
            if self.over:
                break
        return logs

    def _one(self, iterator):
        # each fit has a trace of its own
        with graph.quiet() if self.flight.step < 2 else nullcontext():
            logs, weights_finite, loss_finite = self.flight.take(iterator)
            self._look(weights_finite, loss_finite)
        return logs
