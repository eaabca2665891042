"""Losses besides the question's hinge (`model.MaxMargin`): each a function of the similarities.

It takes float32 [batch, 1 + k], the right title's first, a temperature if its YAML file in
conf/loss has one, and returns float32 [batch].
"""

import tensorflow as tf


def softmax(similarity, temperature):
    """-log softmax(similarity / temperature) of the right title: InfoNCE (van den Oord, Li and
    Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018)."""
    return -tf.nn.log_softmax(similarity / temperature, axis=1)[:, 0]
