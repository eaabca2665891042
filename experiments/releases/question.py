"""The question's training, on the Keras and TensorFlow that it was asked of.

    python2.7 question.py start.npz > question.json

Python 2.7 or 3, Keras 2.0 to 2.2, TensorFlow 1.x, NumPy, and nothing else. start.npz, which
`zeronorm export` writes, gives the text and the two matrices; everything else is Keras's own: its
layers, its initial kernels, its fit with validation_split=0.1, shuffling and dropout.

Where it differs from the code that was posted, which does not run as it stands:

1. The negatives have one name; the posted lambda uses one that nothing defines.
2. Shapes are read without .value, which only TensorFlow's own shapes have.
3. The ten negatives come as one input of ten ids, where the question has them so too, and are drawn
   before the training, once an example.
4. The text and the vectors are this project's: the question's own were never published.
5. A callback notes the loss of each batch, and the norm of each weight after it.
"""

from __future__ import print_function

import argparse
import json
import os
import sys

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras
import keras.backend as K
import tensorflow as tf
from keras import layers

FILTERS, WIDTH = 1000, 5
NAMES = ("words", "titles", "convolution", "dense")


def clamp_product(a, b):
    """As asked."""
    norms = K.sqrt(K.sum(a * a, axis=-1)) * K.sqrt(K.sum(b * b, axis=-1))
    return K.sum(a * b, axis=-1) / K.maximum(norms, K.epsilon())


def add_to_product(a, b):
    """As answered."""
    norms = K.sqrt(K.sum(a * a, axis=-1)) * K.sqrt(K.sum(b * b, axis=-1))
    return K.sum(a * b, axis=-1) / (norms + K.epsilon())


def model(words, titles, optimizer, trainable, similarity, window, negatives):
    text = layers.Input((window,), dtype="int32")
    right = layers.Input((1,), dtype="int32")
    wrong = layers.Input((negatives,), dtype="int32")
    table = layers.Embedding(*words.shape, weights=[words], trainable=trainable, name="words")
    of_titles = layers.Embedding(
        *titles.shape, weights=[titles], trainable=trainable, name="titles"
    )
    h = layers.Conv1D(FILTERS, WIDTH, activation="tanh", name="convolution")(table(text))
    h = layers.Activation("tanh")(layers.GlobalMaxPooling1D()(h))
    z = layers.Dense(words.shape[1], name="dense")(layers.Dropout(0.2)(h))

    def warp(tensors):
        z, right, wrong = tensors
        z = K.expand_dims(z, 1)
        hinges = K.maximum(0.0, 1.0 + similarity(z, wrong) - similarity(z, right))
        return K.sum(hinges, axis=-1, keepdims=True)

    loss = layers.Lambda(warp, output_shape=(1,))([z, of_titles(right), of_titles(wrong)])
    made = keras.models.Model([text, right, wrong], loss)
    made.compile(optimizer, loss=lambda _, predicted: K.mean(predicted))
    return made


class Norms(keras.callbacks.Callback):
    """The loss of each batch, and each layer's norms after it."""

    def on_train_begin(self, logs=None):
        self.loss, self.val_loss = [], []
        self.norms = {name: [] for name in NAMES}  # type: dict
        self.note()

    def on_batch_end(self, batch, logs=None):
        self.loss.append(said(logs["loss"]))
        self.note()

    def on_epoch_end(self, epoch, logs=None):
        self.val_loss.append(said(logs["val_loss"]))

    def note(self):
        for name in NAMES:
            kernel = self.model.get_layer(name).get_weights()[0]
            self.norms[name].append(said(np.sqrt(np.sum(np.square(kernel, dtype=np.float64)))))


def said(value):
    """A number, or a word where JSON has none."""
    value = float(value)
    return value if np.isfinite(value) else str(value)


def unit(rows):
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def uniform(rows):
    return np.random.RandomState(0).uniform(-0.05, 0.05, rows.shape)


def repaired(rows):
    """Rows of zeros as small random ones; nothing else is changed."""
    zero = ~rows.any(axis=1, keepdims=True)
    return np.where(zero, np.random.RandomState(0).normal(0, 0.01, rows.shape), rows)


CONDITIONS = {  # type: dict
    "20 examples": {},
    "500 examples": {"examples": 500},
    "SGD": {"optimizer": "sgd"},
    "normalised": {"matrices": unit},
    "float64 vectors": {"matrices": lambda rows: rows.astype(np.float64)},
    "frozen": {"trainable": False},
    "uniform": {"matrices": uniform},
    "zero rows repaired": {"matrices": repaired},
    "epsilon added": {"similarity": add_to_product},
}
"""What is changed of the question's first case."""


def fitted(start, examples=20, optimizer="adam", matrices=None, trainable=True, similarity=None):
    K.clear_session()
    np.random.seed(0)
    tf.set_random_seed(0)
    words, titles = (
        (matrices or (lambda rows: rows))(start["weights/" + name]) for name in NAMES[:2]
    )
    inputs = [start[part][:examples] for part in ("text", "positive", "negatives")]
    window, negatives = inputs[0].shape[1], inputs[2].shape[1]
    made = model(
        words, titles, optimizer, trainable, similarity or clamp_product, window, negatives
    )
    norms = Norms()
    made.fit(
        inputs,
        np.zeros((len(inputs[0]), 1)),
        batch_size=10,
        epochs=10,
        validation_split=0.1,
        callbacks=[norms],
        verbose=0,
    )
    return {"loss": norms.loss, "val_loss": norms.val_loss, "norms": norms.norms}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("start", help="what `zeronorm export` wrote")
    with np.load(parser.parse_args().start) as read:
        start = {name: read[name] for name in read.files}
    found = {
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "conditions": {name: fitted(start, **changed) for name, changed in CONDITIONS.items()},
    }
    json.dump(found, sys.stdout, indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
