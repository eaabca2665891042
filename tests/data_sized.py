"""Training steps whose sizes only the data decides, each with something non-finite to find on a
marked line.

A `Graph` is a function of a batch h [8, 4] of finite numbers, of which row 5 is zero and h[:, 0] >
0 in four rows, and of a weight w [4]: what it returns is added to the loss. Its marked line makes
NaN or infinity, in value or gradient.
"""

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import keras
import numpy as np
import tensorflow as tf

import zeronorm
from zeronorm.autopsy import cures, examination
from zeronorm.autopsy.subject import Trial

GRAPHS: list["Graph"] = []


@dataclass(frozen=True)
class Graph:
    """function: of (h, w).
    xla: whether XLA takes it, and shows its line.
    here: whether it can run in no other process."""

    function: Callable
    xla: bool
    here: bool

    @property
    def name(self) -> str:
        return self.function.__name__


def graph(function: Callable | None = None, *, xla: bool = True, here: bool = False) -> Callable:
    """Adds a function to the graphs."""
    if function is None:
        return lambda function: graph(function, xla=xla, here=here)
    GRAPHS.append(Graph(function, xla, here))
    return function


@graph
def boolean_mask(h, w):
    x = tf.boolean_mask(h * w, h[:, 1] > -9)
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph
def masked_log(h, w):
    rows = tf.boolean_mask(h * w, h[:, 0] > 0)
    return tf.reduce_sum(tf.math.log(rows - rows))  # guilty


@graph
def where_indices(h, w):
    rows = tf.where(h[:, 0] <= 0)
    x = tf.gather_nd(h * w, rows)
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph
def where_then_gather(h, w):
    rows = tf.gather(h * w, tf.where(h[:, 0] > -9)[:, 0])
    return tf.reduce_sum(1 / tf.reduce_sum(rows * rows, -1))  # guilty


@graph
def unique(h, w):
    values, _ = tf.unique(tf.cast(tf.round(h[:, 0]), tf.int32))
    x = w[0] * tf.cast(values - values, tf.float32)[:, None]
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph(xla=False)
def unique_with_counts(h, w):
    _, _, counts = tf.unique_with_counts(tf.cast(h[:, 0] > 0, tf.int32))
    return tf.reduce_sum(w[0] / tf.cast(counts - counts, tf.float32))  # guilty


@graph
def dynamic_partition(h, w):
    parts = tf.dynamic_partition(h * w, tf.cast(h[:, 0] > 0, tf.int32), 2)
    x = parts[0]
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1))) + tf.reduce_sum(parts[1])  # guilty


@graph
def dynamic_stitch(h, w):
    positive = tf.cast(h[:, 0] > 0, tf.int32)
    parts = tf.dynamic_partition(h * w, positive, 2)
    places = tf.dynamic_partition(tf.range(8), positive, 2)
    x = tf.dynamic_stitch(places, parts)
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph
def non_max_suppression(h, w):
    corner = tf.abs(h[:, :2])
    boxes = tf.concat([corner, corner + 1], -1)
    chosen = tf.image.non_max_suppression(boxes, h[:, 2], 8, 0.9)
    scores = tf.gather(w[0] * h[:, 3], chosen)
    return tf.reduce_sum(tf.math.log(scores - scores))  # guilty


@graph
def ragged(h, w):
    rows = tf.RaggedTensor.from_row_lengths(tf.reshape(h * w, [-1]), tf.repeat([1, 7], 4))
    x = tf.reduce_sum(rows, 1)[:, None] * 0.0
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph(xla=False)
def ragged_mask(h, w):
    rows = tf.ragged.boolean_mask(h * w, h > 0)
    return tf.reduce_sum(tf.reduce_mean(rows, 1))  # guilty


@graph(xla=False)
def sparse(h, w):
    found = tf.sparse.from_dense(tf.nn.relu(h))
    values = w[0] * found.values
    summed = tf.sparse.reduce_sum(found.with_values(values), 1)
    return tf.reduce_sum(tf.math.log(summed))  # guilty


@graph(xla=False)
def sparse_matrix_product(h, w):
    product = tf.sparse.sparse_dense_matmul(tf.sparse.from_dense(h), w[:, None])
    x = product - product
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph
def tensor_array(h, w):
    rows = tf.boolean_mask(h * w, h[:, 0] > -9)
    kept = tf.TensorArray(tf.float32, 0, dynamic_size=True, clear_after_read=False)
    kept = kept.unstack(rows)
    x = kept.stack()
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph(xla=False)  # XLA lets nobody look into its loop, and among others a loop is nobody's fault
def map_fn(h, w):
    rows = tf.boolean_mask(h * w, h[:, 0] > -9)
    return tf.reduce_sum(tf.map_fn(lambda x: tf.sqrt(tf.reduce_sum(x * x)), rows))  # guilty


@graph(xla=False)
def map_fn_to_ragged(h, w):
    lengths = tf.cast(h[:, 0] > 0, tf.int32)
    spec = tf.RaggedTensorSpec([None], tf.float32)
    found = tf.map_fn(lambda n: tf.ones([n]), lengths, fn_output_signature=spec)
    return tf.reduce_sum(w[0] / tf.reduce_sum(found, 1))  # guilty


@graph
def scan(h, w):
    rows = tf.boolean_mask(h * w, h[:, 0] > -9)
    x = tf.scan(lambda a, b: b, rows)
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph(xla=False)
def strings(h, w):
    words = tf.strings.as_string(h[:, 0])
    lengths = tf.cast(tf.strings.length(words), tf.float32)
    return tf.reduce_sum(w[0] / (lengths - lengths))  # guilty


@graph(xla=False)
def split_strings(h, w):
    parts = tf.strings.split(tf.strings.as_string(h[:, 0]), ".")
    numbers = tf.strings.to_number(parts.values) * 0.0
    return tf.reduce_sum(tf.math.log(w[0] * numbers))  # guilty


@graph(xla=False, here=True)
def py_function(h, w):
    rows = tf.py_function(lambda x: x[x[:, 0] > 0], [h], tf.float32)
    return tf.reduce_sum(w[0] / tf.reduce_sum(rows - rows))  # guilty


@graph(xla=False, here=True)
def numpy_function(h, w):
    rows = tf.numpy_function(lambda x: x[x[:, 0] > 0], [h], tf.float32)
    return tf.reduce_sum(tf.math.log(w[0] * (rows - rows)))  # guilty


@graph(xla=False)
def sets(h, w):
    signs = tf.cast(tf.sign(h), tf.int64)
    common = tf.sets.intersection(signs[None, 0], signs[None, 1])
    count = tf.cast(tf.size(common.values), tf.float32)
    return w[0] / (count - count)  # guilty


@graph(xla=False)
def setdiff(h, w):
    rest, _ = tf.unique(tf.cast(h[:, 0] > 0, tf.int32))
    left = tf.cast(tf.sets.difference(rest[None], tf.constant([[1]])).values, tf.float32)
    return tf.reduce_sum(tf.math.log(w[0] * left))  # guilty


@graph(xla=False)
def random_shape(h, w):
    size = tf.random.stateless_uniform([], [1, 2], 2, 6, tf.int32)
    drawn = tf.random.stateless_uniform(tf.stack([size, 3]), [3, 4])
    x = w[0] * (drawn - drawn)
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph
def trip_count(h, w):
    count = tf.reduce_sum(tf.cast(h[:, 0] > 0, tf.int32))
    shrunk = tf.while_loop(
        lambda i, _: i < count, lambda i, x: (i + 1, x * 0.0), (0, h * w), maximum_iterations=9
    )[1]
    x = shrunk
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph(xla=False)
def root_in_a_loop(h, w):
    count = tf.reduce_sum(tf.cast(h[:, 0] > 0, tf.int32))

    def body(i, x):
        return i + 1, x + tf.reduce_sum(tf.sqrt(tf.reduce_sum(h * w * h * w, -1)))  # guilty

    return tf.while_loop(lambda i, _: i < count, body, (0, w[0]))[1]


@graph
def trip_count_converges(h, w):
    """A loop that ends when the data says so, without a gradient."""
    start = tf.reduce_sum(tf.abs(h))
    end = tf.while_loop(lambda x: x > 1e-3, lambda x: x / 2, [start])[0]
    return tf.reduce_sum(w) * tf.math.log(tf.stop_gradient(end) - end)  # guilty


@graph
def segment_sum(h, w):
    segments = tf.cast(h[:, 0] == 0, tf.int32)
    x = tf.math.unsorted_segment_sum(h * w, segments, 2)
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph(xla=False)
def sorted_segments(h, w):
    segments = tf.cumsum(tf.cast(h[:, 0] > 9, tf.int32))
    means = tf.math.segment_mean(h * w, segments)
    x = means - means
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph
def range_by_data(h, w):
    steps = tf.range(tf.reduce_sum(tf.cast(h[:, 0] > 0, tf.int32)))
    return tf.reduce_sum(w[0] / tf.cast(steps, tf.float32))  # guilty


@graph
def top_k_by_data(h, w):
    k = tf.reduce_sum(tf.cast(h[:, 0] > 0, tf.int32))
    best = tf.math.top_k(w[0] * h[:, 1], k).values
    return tf.reduce_sum(tf.math.log(best - best))  # guilty


@graph
def reshape_by_data(h, w):
    rows = tf.reduce_sum(tf.cast(h[:, 0] > 0, tf.int32))
    x = tf.reshape(h * w * 0.0, tf.stack([rows + 1, -1]))
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph
def slice_by_data(h, w):
    first = tf.reduce_sum(tf.cast(h[:, 0] > 0, tf.int32))
    rows = (h * w)[:first]
    return tf.reduce_sum(tf.acos(1.5 + rows - rows))  # guilty


@graph(xla=False)
def image_crops(h, w):
    image = tf.reshape(h * w, [1, 8, 4, 1])
    chosen = tf.cast(tf.where(h[:, 0] > 0)[:, 0], tf.int32)
    boxes = tf.tile([[0.0, 0.0, 1.0, 1.0]], tf.stack([tf.size(chosen), 1]))
    crops = tf.image.crop_and_resize(image, boxes, chosen * 0, [2, 2])
    return tf.reduce_sum(tf.math.rsqrt(crops - crops))  # guilty


@graph
def crop_by_data(h, w):
    rows = tf.reduce_sum(tf.cast(h[:, 0] > 0, tf.int32))
    crop = tf.image.crop_to_bounding_box(tf.reshape(h * w, [1, 8, 4, 1]), 0, 0, rows, 2)
    return tf.reduce_sum(tf.math.log(crop - crop))  # guilty


@graph
def padded_by_data(h, w):
    more = tf.reduce_sum(tf.cast(h[:, 0] > 0, tf.int32))
    wide = tf.pad(h * w, tf.stack([tf.stack([0, more]), tf.constant([0, 0])]))
    x = wide
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph
def repeat_by_data(h, w):
    rows = tf.repeat(h * w, tf.cast(h[:, 1] > -9, tf.int32), axis=0)
    x = rows
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph
def sequence_mask(h, w):
    lengths = tf.cast(h[:, 0] > 0, tf.int32)
    mask = tf.cast(tf.sequence_mask(lengths), tf.float32)
    return tf.reduce_sum(w[0] / tf.reduce_sum(mask, -1))  # guilty


@graph
def split_by_data(h, w):
    first = tf.reduce_sum(tf.cast(h[:, 0] > 0, tf.int32))
    a, b = tf.split(h * w, tf.stack([first, 8 - first]), num=2)
    x = tf.concat([b, a], 0)
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph
def cumulative(h, w):
    last = tf.boolean_mask(tf.cumsum(h * w), h[:, 0] > 0)
    return tf.reduce_sum(tf.math.log(tf.reduce_max(last) - tf.reduce_max(last)))  # guilty


@graph
def softmax_of_none(h, w):
    rows = tf.boolean_mask(h * w, h[:, 0] > 9)
    return tf.reduce_mean(rows)  # guilty


@graph
def minimum_of_none(h, w):
    rows = tf.boolean_mask(h * w, h[:, 0] > 9)
    return tf.reduce_sum(w) * tf.reduce_min(rows)  # guilty


@graph(xla=False)
def bincount(h, w):
    counts = tf.math.bincount(tf.cast(tf.abs(h[:, 0]) * 3, tf.int32))
    return tf.reduce_sum(w[0] / tf.cast(counts - counts, tf.float32))  # guilty


@graph(xla=False)
def sampled_classes(h, w):
    chosen, _, _ = tf.random.fixed_unigram_candidate_sampler(
        tf.zeros([1, 1], tf.int64), 1, 3, True, 5, unigrams=[1.0] * 5, seed=1
    )
    return tf.reduce_sum(tf.math.log(w[0] * tf.cast(chosen - chosen, tf.float32)))  # guilty


@graph(xla=False)
def gathered_by_a_branch(h, w):
    some = tf.reduce_any(h[:, 0] > 0)
    rows = tf.cond(some, lambda: tf.boolean_mask(h * w, h[:, 0] <= 0), lambda: h * w)
    x = rows
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@graph(xla=False)
def broadcast_by_data(h, w):
    count = tf.reduce_sum(tf.cast(h[:, 0] > 0, tf.int32))
    wide = tf.broadcast_to(w * 0.0, tf.stack([count, 4]))
    x = wide
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(x * x, -1)))  # guilty


@lru_cache(maxsize=1)
def made_once():
    keys = np.arange(3)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, keys), -1)


@graph(xla=False, here=True)
def table(h, w):
    with tf.init_scope():
        signs = made_once()
    found = signs.lookup(tf.cast(h[:, 0] > 0, tf.int64))
    return tf.reduce_sum(w[0] / tf.cast(found - found, tf.float32))  # guilty


def data() -> tuple[np.ndarray, np.ndarray]:
    """(x [8, 4], y [8, 1]) of one batch."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 1, (8, 4)).astype(np.float32)
    x[::2, 0] *= -1
    x[5] = 0
    x[7, 0] = 0.5
    return x, np.ones((8, 1), np.float32)


class Added(keras.layers.Layer):
    """Adds a graph to the loss."""

    def __init__(self, function: Callable):
        super().__init__()
        self.function = function

    def build(self, shape):
        self.w = self.add_weight(shape=(4,), initializer="ones", name="w")

    def call(self, h):
        self.add_loss(self.function(h, self.w.value))
        return h


def model(graphs: Sequence[Graph], jit_compile: bool) -> keras.Model:
    """A model whose loss all of them add to, each with a weight of its own."""
    keras.utils.set_random_seed(0)
    layers = [Added(of.function) for of in graphs]
    made = keras.Sequential([keras.Input((4,), batch_size=8), *layers, keras.layers.Dense(1)])
    made.compile("sgd", "mse", jit_compile=jit_compile)
    return made


def named(report, of: Graph) -> bool:
    """Whether a report names the marked line of a graph."""
    lines, first = inspect.getsourcelines(of.function)
    marked = {
        first + number for number, line in enumerate(lines) if line.rstrip().endswith("# guilty")
    }
    return any(one.file == __file__ and one.line in marked for one in report.guilty)


class Own(Trial):
    """Takes the step only as it is trained."""

    def __call__(self, *arguments):
        return (
            super().__call__(*arguments) if self._jit_compile == self.subject.jit_compile else None
        )


def main() -> None:
    """Examines every graph under both compilers, in groups, and prints {compiler: {graph: [named,
    what it could not see]}}."""
    # neither cures nor the other compiler are asked for: they take time
    cures.tried = lambda *arguments: ()
    examination.Trial = Own  # type: ignore[misc]  # in the place of a class, for this process
    x, y = data()
    found: dict[str, dict[str, list]] = {}
    for name, jit_compile in (("kernels", False), ("xla", True)):
        found[name] = {}
        for group in groups():
            report = zeronorm.examine(model(group, jit_compile), x, y, seconds=3600)
            said = [
                *report.left_out,
                *(f"{who} refuses: {why}" for who, why in report.refused.items()),
            ]
            found[name] |= {of.name: [named(report, of), said] for of in group}
    print(json.dumps(found))


def groups() -> list[list[Graph]]:
    """Those that XLA takes, those that it refuses, those that can run in no other process."""
    kinds = [[of for of in GRAPHS if of.xla], [of for of in GRAPHS if not of.xla and not of.here]]
    return [*kinds, [of for of in GRAPHS if of.here]]


if __name__ == "__main__":
    main()
