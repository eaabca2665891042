"""Convolution, maximum over time, tanh, with a gradient that visits only the windows that won.

The gradient of a maximum over time reaches one window per example and filter; TensorFlow multiplies
the zeros of all the others all the same. Here the winners are a sparse matrix [batch * windows,
filters], and both products with it (TensorFlow's CSR kernels) take a fraction of the dense ones'
time; experiments/benchmarks/README.md has the numbers.
"""

import keras
import tensorflow as tf


class MaxOverTime(keras.layers.Layer):
    """float32 [batch, filters] from float32 [batch, length, d]: tanh(kernel . window + bias), its
    largest value over the windows. The function, weights and initial values of Conv1D(filters,
    width, activation="tanh") and GlobalMaxPooling1D.

    sparse: the gradient is `max_over_time`'s, which XLA cannot compile; else TensorFlow's, of the
        plain formula.
    trainable_input: whether anything in front of this layer is trained; if not, no gradient is
        computed there.
    """

    def __init__(self, filters: int, width: int, sparse: bool, trainable_input: bool, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.width, self.sparse, self.trainable_input = (
            filters,
            width,
            sparse,
            trainable_input,
        )

    def build(self, shape):
        self.kernel = self.add_weight(shape=(self.width, shape[-1], self.filters), name="kernel")
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, x):
        kernel, bias = tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias)
        if self.sparse:
            return max_over_time(x, kernel, bias, self.trainable_input)
        return tf.reduce_max(
            tf.tanh(tf.nn.bias_add(tf.nn.conv1d(x, kernel, 1, "VALID"), bias)), axis=1
        )

    def compute_output_shape(self, shape):
        return (shape[0], self.filters)


def max_over_time(x, kernel, bias, trainable_input: bool = True):
    """max over the windows of tanh(kernel . window + bias): float32 [batch, filters].

    x: float32 [batch, length, d];
    kernel: float32 [width, d, filters];
    bias: float32 [filters].

    Because tanh rises, it is taken of the maximum alone, and bias is added to it. Value and
    gradient are those of the plain formula to float32 accuracy, and NaN where those are: windows
    that tie share the gradient evenly (`_MinOrMaxGrad` in tensorflow/python/ops/math_grad.py), and
    where anything is not finite, so that a zero of the sparse matrix would have met a NaN, the
    plain formula's gradient is taken instead.
    """

    width, d, filters = kernel.shape
    windows = x.shape[1] - width + 1

    @tf.custom_gradient
    def pooled(x, kernel, bias):
        patches = tf.concat([x[:, offset : offset + windows] for offset in range(width)], axis=2)
        patches = tf.reshape(patches, [-1, width * d])  # [batch * windows, width * d]
        matrix = tf.reshape(kernel, [width * d, filters])
        response = tf.reshape(patches @ matrix, [-1, windows, filters])
        largest = tf.reduce_max(response, axis=1)  # [batch, filters]
        y = tf.tanh(largest + bias)

        def gradient(dy):
            # While this is finite no sum of the products below overflows (Cauchy-Schwarz), and none
            # holds a NaN.
            bound = (
                tf.nn.l2_loss(x) * tf.nn.l2_loss(kernel) + tf.nn.l2_loss(bias) + tf.nn.l2_loss(dy)
            )
            d_matrix, d_bias, *d_patches = tf.cond(
                tf.math.is_finite(bound),
                lambda: _sparse_gradient(
                    dy, y, response, largest, patches, matrix, trainable_input
                ),
                lambda: _plain_gradient(dy, response, bias, patches, matrix, trainable_input),
            )
            d_kernel = tf.reshape(d_matrix, kernel.shape)
            if not trainable_input:
                return None, d_kernel, d_bias
            by_offset = tf.unstack(tf.reshape(d_patches[0], [-1, windows, width, d]), axis=2)
            padded = [
                tf.pad(part, [[0, 0], [o, width - 1 - o], [0, 0]])
                for o, part in enumerate(by_offset)
            ]
            return tf.add_n(padded), d_kernel, d_bias

        return y, gradient

    return pooled(x, kernel, bias)


def _sparse_gradient(dy, y, response, largest, patches, matrix, trainable_input: bool):
    """The gradient by the windows that won alone, where all values are finite.

    dy, y, largest: float32 [batch, filters], the incoming gradient, the output, and the largest of
        the response.
    response: float32 [batch, windows, filters], kernel . window.
    patches: float32 [batch * windows, width * d].
    matrix: float32 [width * d, filters], the kernel.
    Returns the gradients of matrix and bias, and of patches where the input is trained.
    """
    windows, filters = response.shape[1:]
    index = tf.where(tf.equal(response, largest[:, tf.newaxis]))  # int64 [winners, 3]
    example, window, column = tf.unstack(index, axis=1)
    cell = example * filters + column
    ties = tf.math.unsorted_segment_sum(tf.ones_like(cell, tf.float32), cell, tf.size(dy))
    slope = tf.reshape(dy * (1 - y * y), [-1]) / ties
    winners = tf.raw_ops.SparseTensorToCSRSparseMatrix(  # [batch * windows, filters]
        indices=tf.stack([example * windows + window, column], axis=1),
        values=tf.gather(slope, cell),
        dense_shape=tf.stack([tf.shape(patches, tf.int64)[0], filters]),
    )
    transposed = tf.raw_ops.SparseMatrixTranspose(input=winners, type=tf.float32)
    d_matrix = tf.raw_ops.SparseMatrixMatMul(a=transposed, b=patches, transpose_output=True)
    d_bias = tf.reduce_sum(dy * (1 - y * y), axis=0)
    if not trainable_input:
        return d_matrix, d_bias
    d_patches = tf.raw_ops.SparseMatrixMatMul(a=winners, b=matrix, transpose_b=True)
    return d_matrix, d_bias, d_patches


def _plain_gradient(dy, response, bias, patches, matrix, trainable_input: bool):
    """The gradient of the plain formula: a NaN meets every zero, as in TensorFlow's own.

    As `_sparse_gradient` takes and returns them; bias: float32 [filters].
    """
    active = tf.tanh(response + bias)
    won = tf.cast(tf.equal(active, tf.reduce_max(active, axis=1, keepdims=True)), tf.float32)
    share = won / tf.reduce_sum(won, axis=1, keepdims=True) * dy[:, tf.newaxis]
    slope = tf.reshape(share * (1 - active * active), [-1, matrix.shape[1]])
    d_matrix = tf.matmul(patches, slope, transpose_a=True)
    d_bias = tf.reduce_sum(slope, axis=0)
    if not trainable_input:
        return d_matrix, d_bias
    return d_matrix, d_bias, tf.matmul(slope, matrix, transpose_b=True)
