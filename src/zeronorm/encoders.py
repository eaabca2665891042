"""Encoders: each a function from the rows of a text's words to its z.

It takes the rows, a Keras tensor [batch, window, d], and `Settings`, and returns z, a Keras tensor
[batch, d], of Keras layers that have names of their own. Kernels start glorot-uniform, every other
weight at 0 (`model.initialise`); at least one layer needs a kernel, whose first NaN is the
encoder's. conf/encoder has a YAML file for each.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from zeronorm.convolution import MaxOverTime


@dataclass(frozen=True)
class Settings:
    """dim: of z and of the rows;
    filters, width: of a convolution, width in words;
    dropout: the share that is dropped;
    sparse: whether TensorFlow's kernels compute the step, so that sparse products can be used;
    trainable_rows: whether the rows are trained.
    """

    dim: int
    filters: int
    width: int
    dropout: float
    sparse: bool
    trainable_rows: bool


Encoder = Callable[[keras.KerasTensor, Settings], keras.KerasTensor]


def cnn(rows, settings: Settings):
    """The question's: a convolution with tanh, its maximum over time, tanh, dropout, a dense
    layer."""
    h = MaxOverTime(
        settings.filters,
        settings.width,
        settings.sparse,
        trainable_input=settings.trainable_rows,
        name="convolution",
    )(rows)
    h = keras.layers.Activation("tanh", name="squash")(h)
    h = keras.layers.Dropout(settings.dropout, seed=0, name="dropout")(h)
    return keras.layers.Dense(settings.dim, name="dense")(h)


def relu(rows, settings: Settings):
    """The question's with ReLU for tanh: a filter that no window excites is at 0, where it learns
    nothing."""
    h = keras.layers.Conv1D(
        settings.filters, settings.width, activation="relu", name="convolution"
    )(rows)
    h = keras.layers.GlobalMaxPooling1D(name="maximum")(h)
    h = keras.layers.Dropout(settings.dropout, seed=0, name="dropout")(h)
    return keras.layers.Dense(settings.dim, name="dense")(h)


def mean_pooling(rows, settings: Settings):
    """The mean of the rows, the padding's among them, and a dense layer without bias: z is 0 in
    every step for a text of zero rows, not in step 0 only."""
    h = keras.layers.GlobalAveragePooling1D(name="mean")(rows)
    h = keras.layers.Dropout(settings.dropout, seed=0, name="dropout")(h)
    return keras.layers.Dense(settings.dim, use_bias=False, name="dense")(h)
