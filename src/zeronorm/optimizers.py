"""Adam: Keras's own rule in one kernel, or by rows, and the rule of 2017. And what an optimizer
makes of a gradient that is not finite, measured on the optimizer itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

CROWDED = 1024
"""Rows that a step may name of a table. The correction below is a difference of sums that grow with
the square of how often a row is named; float32 loses it where that is some thousands of times, down
to a negative velocity, whose root is NaN."""


class Adam(keras.optimizers.Adam):
    """Keras's Adam (Kingma and Ba, "Adam", ICLR 2015, the form with epsilon-hat), its update
    computed by TensorFlow's fused kernel (ResourceApplyAdam): the same weights to float32 accuracy,
    from one pass over each variable.

    Of an embedding's row that a step names several times, Keras 3 adds the sum of the squares of
    its gradients to the velocity, not the square of their sum; so does this.

    Takes Keras's arguments. With amsgrad, which the kernel does not know, the update is Keras's.
    """

    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, **kwargs):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **kwargs)
        self._by_rows, self._static_shapes = False, True

    @property
    def is_plain(self) -> bool:
        """Whether a row that a gradient does not name moves by its momentum alone."""
        clips = (self.clipnorm, self.global_clipnorm, self.clipvalue)
        return (
            not (self.weight_decay or self.use_ema or self.gradient_accumulation_steps)
            and not (self.loss_scale_factor or self.amsgrad)
            and clips == (None, None, None)
            and isinstance(self._learning_rate, keras.Variable)
            and self.epsilon > 0
        )

    @contextmanager
    def by_rows(self, static_shapes: bool = True) -> Iterator[None]:
        """Within it a gradient of an embedding moves the rows that it names and no others: what
        becomes of those is up to the caller (`deferred.Table`).

        static_shapes: as XLA needs them; without, a row that is named twice is computed once.
        """
        self._by_rows, self._static_shapes = True, static_shapes
        try:
            yield
        finally:
            self._by_rows = False

    def update_step(self, gradient, variable, learning_rate):
        if isinstance(gradient, tf.IndexedSlices) and self._by_rows:
            self._update_rows(gradient.values, gradient.indices, variable, learning_rate)
            return
        crowded = (
            isinstance(gradient, tf.IndexedSlices) and (gradient.values.shape[0] or 0) > CROWDED
        )
        if crowded or self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        momentum, velocity = self.slots(variable)
        beta_1_power, beta_2_power = self._powers()
        dense = tf.convert_to_tensor(gradient)
        if isinstance(gradient, tf.IndexedSlices):
            # The kernel will add the square of a row's sum; what the velocity then lacks, or has
            # too much, comes first.
            values, ids = gradient.values, gradient.indices
            rows = variable.shape[0]  # that of a gradient inside a branch is not known
            times = tf.math.unsorted_segment_sum(tf.ones_like(values[:, :1]), ids, rows)
            squared, times = tf.gather(dense, ids) ** 2, tf.gather(times, ids)
            # a square that overflows is infinite in the kernel too, and infinity less infinity
            # would be NaN
            exact = (times > 1) & tf.math.is_finite(squared)
            excess = tf.where(exact, values * values - squared / times, 0.0)
            updates = excess * ((1 - self.beta_2) / self.beta_2)
            tf.raw_ops.ResourceScatterAdd(resource=velocity.handle, indices=ids, updates=updates)
        tf.raw_ops.ResourceApplyAdam(
            var=resource(variable).handle,
            m=momentum.handle,
            v=velocity.handle,
            beta1_power=beta_1_power,
            beta2_power=beta_2_power,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=dense,
        )

    def slots(self, variable) -> tuple[tf.Variable, tf.Variable]:
        """Momentum and velocity, each of the variable's shape."""
        position = self._get_variable_index(variable)
        return resource(self._momentums[position]), resource(self._velocities[position])

    def _update_rows(self, values, ids, variable, learning_rate):
        momentum, velocity = self.slots(variable)
        if self._static_shapes:
            # a row named twice is computed twice and written twice, with the same value
            total, squares = _totals(values, ids), _totals(values * values, ids)
        else:
            ids, position = tf.unique(ids)
            total, squares = (
                tf.math.unsorted_segment_sum(of, position, tf.size(ids))
                for of in (values, values * values)
            )
        beta_1_power, beta_2_power = self._powers()
        rate = tf.cast(learning_rate, tf.float32) * tf.sqrt(1 - beta_2_power) / (1 - beta_1_power)
        m, v = momentum.sparse_read(ids), velocity.sparse_read(ids)
        m = m + (total - m) * (1 - self.beta_1)
        v = v + (squares - v) * (1 - self.beta_2)
        row = resource(variable).sparse_read(ids) - rate * m / (tf.sqrt(v) + self.epsilon)
        for table, rows in ((momentum, m), (velocity, v), (resource(variable), row)):
            tf.raw_ops.ResourceScatterUpdate(resource=table.handle, indices=ids, updates=rows)

    def _powers(self):
        # with gradient_accumulation_steps Keras counts the updates by an expression, no variable
        step = tf.cast(tf.convert_to_tensor(self.iterations) + 1, tf.float32)
        return tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)


class Adam2017(Adam):
    """Adam as Keras 2.0.8 (2017) and the paper have it: epsilon is 1e-8, and the gradients of an
    embedding's row that a step names several times are added before they are squared."""

    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-8, **kwargs):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(tf.convert_to_tensor(gradient), variable, learning_rate)


def _totals(values, ids):
    """float32 [n, d]: for each of ids, int [n], the sum of all rows of values, float32 [n, d], that
    have this id.

    All shapes are static, so that XLA can compile it, and no tensor of the table's size is made.
    """
    order = tf.argsort(ids, stable=True)
    ordered = tf.gather(ids, order)
    starts = tf.concat([[0], tf.cast(ordered[1:] != ordered[:-1], tf.int32)], axis=0)
    segment = tf.cumsum(starts)  # of each position of the ordered ids
    sums = tf.math.unsorted_segment_sum(
        tf.gather(values, order), segment, num_segments=values.shape[0]
    )
    return tf.gather(sums, tf.gather(segment, tf.argsort(order)))


def resource(variable) -> tf.Variable:
    """TensorFlow's variable in Keras's."""
    return variable.value if isinstance(variable, keras.Variable) else variable


LARGE = 1e25  # a finite float32 whose square is not


@dataclass(frozen=True)
class Reach:
    """What becomes non-finite when a gradient is.

    row: the row of the embedding whose gradient it is;
    touched: the other rows that the same gradient names;
    table: the rows that it does not name;
    others: the other weights.
    """

    row: bool
    touched: bool
    table: bool
    others: bool


@dataclass(frozen=True)
class Reaches:
    """An optimizer's `Reach` for each gradient that is not finite.

    period: steps whose gradients it adds up before it applies them.
    nan, inf: of NaN or of infinity in a row of an embedding;
    large: of a finite value there whose square overflows, in the update that takes it or the next.
    encoder: of NaN in the gradients of all the other weights, where `row` says whether these die,
        and `touched` and `table` the same of the embedding.
    zeroes: whether it sets the rows that a gradient does not name to zero (Ftrl, whose weights are
        what it has added up, and that is nothing there).
    mixes: whether a row that a gradient names twice takes on what another's is. Keras finds the
        places of two sparse gradients' common ids by adding up those of an id, and the sum is
        another id's place, or none (`indexed_slices_union_indices_and_values` in
        keras/src/backend/tensorflow/sparse.py, 3.15): RMSprop and Adagrad, which under
        TensorFlow's kernels may stop with an error instead.
    """

    period: int
    nan: Reach
    inf: Reach
    large: Reach
    encoder: Reach
    zeroes: bool = False
    mixes: bool = False

    @staticmethod
    def elementwise() -> "Reaches":
        """Those of an update that mixes no elements, such as plain gradient descent."""
        row, nothing = Reach(True, False, False, False), Reach(False, False, False, False)
        return Reaches(1, row, row, nothing, Reach(True, False, False, True))


def reaches(optimizer, jit_compile: bool) -> Reaches:
    """Applies an optimizer to a table of 4 rows and a kernel, compiled as the step is.

    Elementwise updates confine NaN to its row; clipping by norm, factored moments and the like do
    not, accumulation delays it, a dynamic loss scale drops it.

    optimizer: a Keras optimizer of its own, not built yet.
    Raises whatever it raises on the gradient of an embedding.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
    period = inner.gradient_accumulation_steps or 1
    # named as Keras's layers name theirs: some optimizers (Muon) go by it
    table = keras.Variable(np.full((4, 3), 0.5, np.float32), name="embeddings")
    kernel = keras.Variable(np.full((3, 2), 0.5, np.float32), name="kernel")
    optimizer.build([table, kernel])
    state = [table, kernel, *optimizer.variables]
    start = [np.array(variable) for variable in state]

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(ids, rows, in_kernel):
        slices = tf.IndexedSlices(rows, ids, tf.constant([4, 3]))
        optimizer.apply([slices, in_kernel], [table, kernel])

    def reset() -> None:
        for variable, value in zip(state, start, strict=True):
            variable.assign(value)

    def take(ids: list[int], in_rows: list[float], in_kernel: float) -> None:
        rows = np.repeat(np.array(in_rows, np.float32)[:, np.newaxis], 3, axis=1)
        for _ in range(period):
            step(tf.constant(ids), tf.constant(rows), tf.fill([3, 2], np.float32(in_kernel)))

    def lost(in_row: float, in_kernel: float, again: bool = False) -> tuple[np.ndarray, bool]:
        reset()
        take([0, 1], [in_row, 0.1], in_kernel)
        if again:
            take([1, 2], [0.1, 0.1], 0.1)
        return ~np.isfinite(table).all(axis=1), bool(~np.isfinite(kernel).all())

    def reach(value: float) -> Reach:
        # an infinite velocity less itself is NaN, in the update that follows
        rows, others = lost(value, 0.1, again=value == LARGE)
        return Reach(bool(rows[0]), bool(rows[1]), bool(rows[2:].any()), others)

    rows, others = lost(0.1, np.nan)
    encoder = Reach(others, bool(rows[:2].any()), bool(rows[2:].any()), others)
    lost(0.1, 0.1)
    zeroes = not np.array(table)[2:].any()
    nan = reach(np.nan)
    reset()
    take([1, 1, 0], [0.1, 0.1, np.nan], 0.1)  # the places 1 and 2 add up to that of row 0
    mixes = not nan.touched and not np.isfinite(np.array(table)[1]).all()
    return Reaches(period, nan, reach(np.inf), reach(LARGE), encoder, zeroes, mixes)
