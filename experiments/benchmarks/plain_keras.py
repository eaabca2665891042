"""The question's model as one writes it in Keras: stock layers, `compile`, `fit`. What the
benchmarks and the equality tests compare with."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from zeronorm import model
from zeronorm.numerics import Numerics


def build(
    words: np.ndarray,
    titles: np.ndarray,
    *,
    window: int,
    negatives: int,
    filters: int,
    width: int,
    dropout: float,
    margin: float,
    trainable: bool,
    similarity: Callable,
    numerics: Numerics,
    optimizer: keras.Optimizer,
) -> model.Ranker:
    """Compiled, its embeddings filled.

    words: float32 [n_words, d];
    titles: float32 [n_titles, d].
    """
    text = keras.Input((window,), dtype="int32")
    positive = keras.Input((1,), dtype="int32")
    negative = keras.Input((negatives,), dtype="int32")
    d = words.shape[1]
    embedded = keras.layers.Embedding(len(words), d, trainable=trainable, name="words")
    titled = keras.layers.Embedding(len(titles), d, trainable=trainable, name="titles")
    h = keras.layers.Conv1D(filters, width, activation="tanh", name="convolution")(embedded(text))
    h = keras.layers.GlobalMaxPooling1D()(h)
    h = keras.layers.Activation("tanh")(h)
    h = keras.layers.Dropout(dropout, seed=0, name="dropout")(h)
    z = keras.layers.Dense(d, name="dense")(h)
    similarities = model.Similarity(lambda a, b: similarity(a, b, numerics))(
        z, titled(positive), titled(negative)
    )
    max_margin = model.MaxMargin(margin, numerics.maximum)
    loss = max_margin(similarities)
    inputs = [text, positive, negative]
    ranker = model.Ranker(
        model=keras.Model(inputs, loss),
        observed=keras.Model(inputs, {"loss": loss, "similarity": similarities, "z": z}),
        encoder=keras.Model(text, z),
        similarity=lambda a, b: similarity(a, b, numerics),
        loss=max_margin,
    )
    model.initialise(ranker, words, titles, seed=0)
    ranker.model.compile(
        optimizer, loss=lambda _, value: tf.reduce_mean(value), jit_compile=numerics.jit_compile
    )
    return ranker
