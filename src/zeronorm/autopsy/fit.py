"""Which `fit` is under way: Keras tells its callbacks neither the data nor the arguments that it
was given."""

import sys
from collections.abc import Iterator, Mapping
from types import FrameType

import numpy as np
import tensorflow as tf


def under_way() -> Iterator[dict]:
    """The variables of every function named fit that is under way, the innermost first."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "fit":
            first = next(iter(frame.f_code.co_varnames), "")
            yield {**frame.f_locals, "": frame.f_locals.get(first)}
        frame = frame.f_back


def is_of(model) -> bool:
    """Whether a `fit` of this model is under way: Keras's, or one that the model has of its own."""
    return any(found[""] is model for found in under_way())


def keras_arguments() -> dict | None:
    """The arguments of Keras's `fit`, where it is under way. A callback is not told them."""
    arguments = {"x", "shuffle", "validation_split"}
    return next((found for found in under_way() if arguments <= found.keys()), None)


def is_in_order() -> bool:
    """Whether the `fit` that is under way was given arrays and shuffle=False."""
    given = keras_arguments()
    if given is None:
        return False
    arrays = tf.nest.flatten(given["x"])
    return not given["shuffle"] and all(isinstance(x, (np.ndarray, tf.Tensor)) for x in arrays)


def steps(params: Mapping | None) -> int | None:
    """How many steps the `fit` that is under way takes in all; None where Keras does not know.

    params: what Keras tells its callbacks.
    """
    each, epochs = ((params or {}).get(name) for name in ("steps", "epochs"))
    if not (isinstance(each, int) and isinstance(epochs, int) and each > 0):
        return None
    return each * (epochs - ((keras_arguments() or {}).get("initial_epoch") or 0))
