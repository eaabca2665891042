"""Rows named more than once, against NumPy over the whole table."""

import numpy as np
import pytest
import tensorflow as tf

from zeronorm import recorder, slices

IDS = np.array([4, 1, 4, 0, 1, 4, 9])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_totals_are_the_rows_of_the_dense_gradient(jit_compile):
    values = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    dense = np.zeros((10, 3))
    np.add.at(dense, IDS, values)

    @tf.function(jit_compile=jit_compile)
    def found(values, ids):
        total = slices.totals(values, ids)
        return total, slices.first(ids), recorder.squares(slices.once(total, slices.first(ids)))

    total, first, squares = found(tf.constant(values), tf.constant(IDS))
    np.testing.assert_allclose(total, dense[IDS], rtol=1e-6)
    np.testing.assert_array_equal(first, [True, True, False, True, False, False, True])
    np.testing.assert_allclose(squares, (dense**2).sum(), rtol=1e-6)
