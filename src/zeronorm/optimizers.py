"""Adam twice: Keras's own rule in one kernel, and the lazy variant whose cost does not depend on a table's rows."""

import keras
import tensorflow as tf

CROWDED = 1024
"""Rows that a step may name of a table. The correction below is a difference of sums that grow with
the square of how often a row is named; float32 loses it where that is some thousands of times, down
to a negative velocity, whose root is NaN."""


class Adam(keras.optimizers.Adam):
    """Keras's Adam (Kingma and Ba, "Adam", ICLR 2015, the form with epsilon-hat), its update computed by TensorFlow's
    fused kernel (ResourceApplyAdam): the same weights to float32 accuracy, from one pass over each variable.

    Of an embedding's row that a step names several times, Keras 3 adds the sum of the squares of its gradients to the
    velocity, not the square of their sum; so does this.

    Takes Keras's arguments but for amsgrad, which the kernel does not know.
    """

    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, **kwargs):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad=False, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        if isinstance(gradient, tf.IndexedSlices) and (gradient.values.shape[0] or 0) > CROWDED:
            super().update_step(gradient, variable, learning_rate)
            return
        momentum, velocity = self._slots(variable)
        beta_1_power, beta_2_power = self._powers()
        dense = tf.convert_to_tensor(gradient)
        if isinstance(gradient, tf.IndexedSlices):
            # The kernel will add the square of a row's sum; what the velocity then lacks, or has too much, comes first.
            values, ids = gradient.values, gradient.indices
            times = tf.math.unsorted_segment_sum(tf.ones_like(values[:, :1]), ids, dense.shape[0])
            excess = values * values - tf.gather(dense, ids) ** 2 / tf.gather(times, ids)
            rows = excess * ((1 - self.beta_2) / self.beta_2)
            tf.raw_ops.ResourceScatterAdd(resource=velocity.handle, indices=ids, updates=rows)
        tf.raw_ops.ResourceApplyAdam(
            var=_resource(variable).handle,
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

    def _slots(self, variable) -> tuple[tf.Variable, tf.Variable]:
        position = self._get_variable_index(variable)
        return _resource(self._momentums[position]), _resource(self._velocities[position])

    def _powers(self):
        step = tf.cast(self.iterations.value + 1, tf.float32)
        return tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)


class LazyAdam(Adam):
    """Adam that leaves the rows alone which a step's gradient does not name: no dense copy of an embedding's gradient,
    and a step's time does not grow with the embedding's rows.

    The difference from Adam: there a row goes on moving, by its decaying momentum, through steps that do not touch it;
    here row, momentum and velocity stay. A row touched at every step is updated as by Adam. The bias correction counts
    all steps. Other gradients than IndexedSlices are treated as by Adam.
    """

    def update_step(self, gradient, variable, learning_rate):
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        # A row named twice is computed twice and written twice, with the same value: all shapes stay static, for XLA.
        values, ids = gradient.values, gradient.indices
        momentum, velocity = self._slots(variable)
        beta_1_power, beta_2_power = self._powers()
        rate = tf.cast(learning_rate, tf.float32) * tf.sqrt(1 - beta_2_power) / (1 - beta_1_power)
        m, v = momentum.sparse_read(ids), velocity.sparse_read(ids)
        m = m + (_totals(values, ids) - m) * (1 - self.beta_1)
        v = v + (_totals(values * values, ids) - v) * (1 - self.beta_2)
        row = _resource(variable).sparse_read(ids) - rate * m / (tf.sqrt(v) + self.epsilon)
        for table, rows in ((momentum, m), (velocity, v), (_resource(variable), row)):
            tf.raw_ops.ResourceScatterUpdate(resource=table.handle, indices=ids, updates=rows)


def rows_only(optimizer) -> bool:
    """Whether an embedding's update is confined to the rows its gradient names."""
    return isinstance(optimizer, LazyAdam)


def _totals(values, ids):
    """float32 [n, d]: for each of ids, int [n], the sum of all rows of values, float32 [n, d], that have this id.

    All shapes are static, so that XLA can compile it, and no tensor of the table's size is made.
    """
    order = tf.argsort(ids, stable=True)
    ordered = tf.gather(ids, order)
    starts = tf.concat([[0], tf.cast(ordered[1:] != ordered[:-1], tf.int32)], axis=0)
    segment = tf.cumsum(starts)  # of each position of the ordered ids
    sums = tf.math.unsorted_segment_sum(tf.gather(values, order), segment, num_segments=values.shape[0])
    return tf.gather(sums, tf.gather(segment, tf.argsort(order)))


def _resource(variable) -> tf.Variable:
    return variable.value if isinstance(variable, keras.Variable) else variable
