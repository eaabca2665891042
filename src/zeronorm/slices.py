"""Rows of an embedding that a step names, some of them more than once. All shapes are static, so that XLA can compile
it, and no tensor of the embedding's size is made."""

import tensorflow as tf


def first(ids):
    """bool [n]: whether each of ids, int [n], stands there for the first time."""
    order, starts = _sorted(ids)
    return tf.gather(starts, tf.argsort(order))


def totals(values, ids):
    """float32 [n, d]: for each of ids, int [n], the sum of all rows of values, float32 [n, d], that have this id."""
    order, starts = _sorted(ids)
    segment = tf.cumsum(tf.cast(starts, tf.int32)) - 1  # of each position of the sorted ids
    sums = tf.math.unsorted_segment_sum(tf.gather(values, order), segment, num_segments=values.shape[0])
    return tf.gather(sums, tf.gather(segment, tf.argsort(order)))


def once(rows, first):
    """rows float32 [n, d] with those zeroed that first, bool [n], tells to be repetitions."""
    return tf.where(first[:, tf.newaxis], rows, 0.0)


def _sorted(ids):
    """(order int32 [n] that sorts ids, equal ones in their given order; bool [n]: where a new id begins in it)."""
    order = tf.argsort(ids, stable=True)
    ordered = tf.gather(ids, order)
    return order, tf.concat([[True], ordered[1:] != ordered[:-1]], axis=0)
