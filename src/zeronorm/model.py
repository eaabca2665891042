"""The question's encoder and ranker, in Keras 3 layers.

text -> words -> Conv1D(filters, width, tanh) -> global max over time -> tanh -> dropout -> Dense(d)
= z; similarity of z with the right title and with each negative; the sum over the negatives of
max(0, margin + similarity(z, negative) - similarity(z, positive)).

The question calls that loss WARP. It is a max-margin (hinge) ranking loss over sampled negatives,
without the rank weighting of WARP (Weston, Bengio and Usunier, "WSABIE", IJCAI 2011).
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from zeronorm import encoders
from zeronorm.numerics import Numerics

WEIGHTS = (
    "words",
    "titles",
    "convolution/kernel",
    "convolution/bias",
    "dense/kernel",
    "dense/bias",
)
"""Names of the question's weights, in the order in which a text meets them."""


class Lookup(keras.layers.Embedding):
    """An embedding that reads the rows it is asked for and never the whole matrix, which Keras's
    own does: TensorFlow can then update rows in place, where otherwise it would copy the matrix at
    every step."""

    def call(self, ids):
        return self.embeddings.value.sparse_read(ids)


class Similarity(keras.layers.Layer):
    """Of z [batch, d] with the positive [batch, 1, d] and the negatives [batch, k, d]: float32
    [batch, 1 + k]."""

    def __init__(self, similarity: Callable, **kwargs):
        super().__init__(**kwargs)
        self.similarity = similarity

    def call(self, z, positive, negatives):
        z = z[:, tf.newaxis, :]  # [batch, 1, d], broadcast over the titles
        return tf.concat([self.similarity(z, positive), self.similarity(z, negatives)], axis=1)

    def compute_output_shape(self, z_shape, positive_shape, negatives_shape):
        negatives = negatives_shape[1]
        return (z_shape[0], None if negatives is None else positive_shape[1] + negatives)


class Present(keras.layers.Layer):
    """1 for a title that counts, 0 for one that is masked: float32 [batch, k], of title ids [batch,
    k].

    As a user masks: the hinges are multiplied by it, after the similarity has been taken.
    """

    def __init__(self, n_titles: int, **kwargs):
        super().__init__(**kwargs)
        self.present = self.add_weight(
            shape=(n_titles,), initializer="ones", trainable=False, name="present"
        )

    def call(self, ids):
        return tf.gather(self.present.value, ids)


class MaxMargin(keras.layers.Layer):
    """loss: float32 [batch], from similarities [batch, 1 + k] whose first column is the right
    title's, and, if there is one, the mask [batch, 1 + k] of the titles."""

    def __init__(self, margin: float, maximum: Callable, **kwargs):
        super().__init__(**kwargs)
        self.margin, self.maximum = margin, maximum

    def call(self, similarity, present=None):
        hinges = self.maximum(0.0, self.margin + similarity[:, 1:] - similarity[:, :1])
        if present is not None:
            hinges *= present[:, 1:] * present[:, :1]
        return tf.reduce_sum(hinges, axis=1)

    def compute_output_shape(self, similarity_shape, present_shape=None):
        return (similarity_shape[0],)


class Loss(keras.layers.Layer):
    """loss: float32 [batch], a function's of the similarities [batch, 1 + k] whose first column is
    the right title's."""

    def __init__(self, function: Callable, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, similarity):
        return self.function(similarity)

    def compute_output_shape(self, similarity_shape):
        return (similarity_shape[0],)


@dataclass(frozen=True)
class Ranker:
    """Three views of one set of layers.

    model: (text, positive, negatives) -> loss [batch], what the question compiled and fitted with
        the mean as loss.
    observed: the same inputs -> {loss [batch], similarity [batch, 1 + k], z [batch, d]}.
    encoder: text [batch, window] -> z [batch, d].
    similarity: the placement, bound to its epsilon and numerics.
    tied: whether a text names titles too, by ids from the number of words on.
    loss: the layer that takes the similarities [batch, 1 + k] and, if titles are masked, the mask.
    """

    model: keras.Model
    observed: keras.Model
    encoder: keras.Model
    similarity: Callable
    loss: keras.layers.Layer
    tied: bool = False

    def named(self, text, positive, negatives) -> dict[str, tf.Tensor]:
        """{embedding: ids, int32 of any shape, of the rows that a batch reads}."""
        titles = [positive, negatives]
        if self.tied:
            text, others = split(text, self.weights["words"].shape[0])
            titles.append(others)
        return {"words": text, "titles": tf.concat(titles, axis=1)}

    @property
    def weights(self) -> dict[str, keras.Variable]:
        """{name: variable}, frozen ones included: words, titles, and LAYER/WEIGHT of the encoder's
        layers in their order; with the question's encoder the names in WEIGHTS."""
        layer = self.model.get_layer
        embeddings = {name: layer(name).embeddings for name in ("words", "titles")}
        return embeddings | {
            f"{layer.name}/{variable.name}": variable
            for layer in self.encoder.layers
            if layer.name not in embeddings
            for variable in layer.weights
        }

    @property
    def random_state(self) -> list[keras.Variable]:
        """The dropout's, uint32 [2]; none at a rate of 0, which Keras gives no generator."""
        made = (getattr(layer, "seed_generator", None) for layer in self.encoder.layers)
        return [generator.state for generator in made if generator is not None]


def build(
    *,
    n_words: int,
    n_titles: int,
    dim: int,
    window: int,
    negatives: int | None,
    filters: int,
    width: int,
    dropout: float,
    margin: float,
    trainable_words: bool,
    trainable_titles: bool,
    similarity: Callable,
    numerics: Numerics,
    rows_only: bool = False,
    masks_titles: bool = False,
    tied: bool = False,
    encoder: encoders.Encoder = encoders.cnn,
    loss: Callable | None = None,
) -> Ranker:
    """The model, with weights of no meaning yet: `initialise` sets them.

    negatives: of each example; None: as many as a batch has.
    similarity: a function of two float32 tensors [..., d] and a numerics, from
        `zeronorm.similarity` or elsewhere.
    rows_only: whether the optimizer will update embeddings row by row.
    masks_titles: whether `initialise` can mask titles in the loss.
    tied: whether text ids from n_words on are titles, whose rows the text then reads.
    encoder: from `zeronorm.encoders` or elsewhere.
    loss: a function as in `zeronorm.losses`, bound to its temperature; None: the hinge.
    """
    widths = {"text": window, "positive": 1, "negatives": negatives}
    inputs = [keras.Input((n,), dtype="int32", name=name) for name, n in widths.items()]
    text, positive, negative = inputs
    embedding = Lookup if rows_only else keras.layers.Embedding
    words = embedding(n_words, dim, trainable=trainable_words, name="words")
    titles = embedding(n_titles, dim, trainable=trainable_titles, name="titles")
    rows = _tied(text, words, titles) if tied else words(text)
    sparse, learns = not numerics.jit_compile, trainable_words or (tied and trainable_titles)
    z = encoder(rows, encoders.Settings(dim, filters, width, dropout, sparse, learns))

    def bound(a, b):
        return similarity(a, b, numerics)

    similarities = Similarity(bound, name="similarity")(z, titles(positive), titles(negative))
    if loss is None:
        layer = MaxMargin(margin, numerics.maximum, name="max_margin")
        of_each = layer(similarities, _present(masks_titles and n_titles, positive, negative))
    else:
        of_each = (layer := Loss(loss, name="loss"))(similarities)
    seen = {"loss": of_each, "similarity": similarities, "z": z}
    return Ranker(
        model=keras.Model(inputs, of_each, name="ranker"),
        observed=keras.Model(inputs, seen, name="observed"),
        encoder=keras.Model(text, z, name="encoder"),
        similarity=bound,
        loss=layer,
        tied=tied,
    )


def _tied(text, words: keras.layers.Embedding, titles: keras.layers.Embedding):
    """The rows of a text's words, float32 [batch, window, d], where some ids are titles'."""
    own, others = split(text, words.input_dim)
    is_title = keras.ops.expand_dims(text >= words.input_dim, -1)
    return keras.ops.where(is_title, titles(others), words(own))


def split(text, n_words: int):
    """(ids of words, ids of titles), int32 like text, whose ids from n_words on are titles'; 0
    where an id is of the other kind."""
    is_title = keras.ops.cast(text >= n_words, "int32")
    return text * (1 - is_title), (text - n_words) * is_title


def _present(n_titles: int, positive, negative):
    """The mask of both inputs' titles; None where n_titles, how many can be masked, is 0."""
    if not n_titles:
        return None
    mask = Present(n_titles, name="present")
    return keras.layers.Concatenate(name="both")([mask(positive), mask(negative)])


def initialise(
    ranker: Ranker,
    words: np.ndarray,
    titles: np.ndarray,
    seed: int,
    masked: np.ndarray | None = None,
) -> None:
    """Sets every weight and the dropout's random state: two rankers of one shape then compute the
    same, bit for bit.

    words: [n_words, d], titles: [n_titles, d], cast to float32.
    masked: bool [n_titles], for a ranker that masks. Kernels are glorot-uniform from `seed`, all
        other weights zero: Keras's defaults for kernels and biases.
    """
    weights = ranker.weights
    kernels = sum(name.endswith("kernel") for name in weights)
    kernel_seeds = iter(np.random.SeedSequence(seed).generate_state(kernels).tolist())
    for name, variable in weights.items():
        if name == "words":
            variable.assign(words.astype(np.float32))
        elif name == "titles":
            variable.assign(titles.astype(np.float32))
        elif name.endswith("kernel"):
            glorot = keras.initializers.GlorotUniform(seed=next(kernel_seeds) % 2**31)
            variable.assign(glorot(variable.shape))
        else:
            variable.assign(np.zeros(variable.shape, np.float32))
    if masked is not None:
        ranker.model.get_layer("present").present.assign(1.0 - masked)
    for state in ranker.random_state:
        state.assign([seed % 2**32, 0])


def round_otherwise(ranker: Ranker, number: int) -> None:
    """Moves every weight of the kernels to the next float32, up or down by a draw from `number`.

    The start is then the same to the last digit that float32 has, but no sum over it is: what
    becomes of a result says how far rounding alone carries it, under every compiler, machine and
    number of threads: inputs perturbed at random in their last place, as in Parker, "Monte Carlo
    Arithmetic: Exploiting Randomness in Floating-Point Arithmetic", 1997.
    """
    rng = np.random.default_rng(number)
    for name, variable in ranker.weights.items():
        if name.endswith("kernel"):
            value = np.asarray(variable)
            towards = np.where(rng.random(value.shape) < 0.5, -np.inf, np.inf).astype(value.dtype)
            variable.assign(np.nextafter(value, towards))


def passes_zero(ranker: Ranker, window: int) -> bool:
    """Whether a text of zero rows alone has a z of exactly 0 whatever the other weights are, and
    not only while its biases are 0. Leaves the ranker in a state of no meaning.

    window: words of a text.
    """
    for name, variable in ranker.weights.items():
        variable.assign(np.full(variable.shape, 0.0 if name == "words" else 0.5, np.float32))
    z = ranker.encoder(np.zeros((1, window), np.int32), training=False)
    return not np.any(np.array(z))
