"""The autopsy names the cause of bugs whose cause is known, and leaves healthy models alone."""

import linecache

import keras
import numpy as np
import pytest
import tensorflow as tf

import cases
from zeronorm import Autopsy, replay
from zeronorm.autopsy import CapsuleError


def fitted(case: cases.Case, *callbacks, **more):
    """The case's model after a fit with the callbacks."""
    model, arguments = case.make()
    model.jit_compile = case.jit_compile
    batch = {"batch_size": cases.BATCH} | arguments | more
    model.fit(**batch, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


def lost(model: keras.Model) -> int:
    """How many elements of its weights are not finite."""
    return sum(int((~np.isfinite(weights)).sum()) for weights in model.get_weights())


class FirstLoss(keras.callbacks.Callback):
    """The oracle: looks at every weight after every step, as numpy arrays."""

    def on_train_begin(self, logs=None):
        self.step, self.lost_in, self.before = -1, None, lost(self.model)

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.lost_in is None and lost(self.model) > self.before:
            self.lost_in = self.step


def with_most_slow(found: list[cases.Case]) -> list:
    """As parameters: one in four is left to `make check`."""
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if number % 4 else [])
        for number, case in enumerate(found)
    ]


@pytest.mark.parametrize("case", with_most_slow([*cases.BUGS, *cases.KINDS]))
def test_names_the_cause(case):
    # one fit for both: a watched one is bit by bit the same, which tests/test_watch.py shows
    oracle, watch = FirstLoss(), Autopsy(then="go_on", verbose=0)
    fitted(case, oracle, watch)
    report = watch.report
    assert report is not None
    assert (
        report.harmful
        == (case.xla if case.jit_compile else case.kernels)
        == (oracle.lost_in is not None)
    )
    assert case.step in (None, report.step) and oracle.lost_in in (None, report.step)
    first = report.guilty[0]
    assert (report.birth, case.op or first.forward_op_type) == (case.birth, first.forward_op_type)
    assert (report.kernels, report.xla) == (case.kernels, case.xla)
    assert first.examples == case.examples
    assert {weight.partition("/")[2]: rows for weight, rows in first.rows.items()} == case.rows
    assert report.positions == tuple(
        report.step * cases.BATCH + example for example in case.examples
    )
    if case.marked:
        assert first.file == cases.__file__ and "# guilty" in linecache.getline(
            first.file, first.line
        )
    else:
        assert first.line is None


@pytest.mark.parametrize("case", cases.HEALTHY, ids=lambda case: case.name)
def test_leaves_the_healthy_alone(case):
    watch = Autopsy(verbose=0)
    fitted(case, watch)
    assert watch.report is None or not watch.report.harmful


def test_the_model_keeps_its_last_finite_weights_or_goes_on():
    [case] = [case for case in cases.BUGS if case.name == "rmse_of_an_exact_prediction"]
    stopped, gone_on = (
        fitted(case, Autopsy(verbose=0)),
        fitted(case, Autopsy(then="go_on", verbose=0)),
    )
    assert int(stopped.optimizer.iterations) == case.step and not lost(stopped)
    assert int(gone_on.optimizer.iterations) == 4 and lost(gone_on)


@pytest.mark.parametrize(
    "options",
    [{"steps_per_execution": 3}, {"run_eagerly": True}],
    ids=lambda options: next(iter(options)),
)
def test_however_it_is_compiled(options):
    [case] = [case for case in cases.BUGS if case.name == "rmse_of_an_exact_prediction"]
    model, arguments = case.make()
    model.compile(model.optimizer, model.loss, **options)
    watch = Autopsy(verbose=0)
    model.fit(**arguments, batch_size=cases.BATCH, shuffle=False, verbose=0, callbacks=[watch])
    assert (watch.report.step, watch.report.guilty[0].examples) == (case.step, case.examples)


def exact(p, y):
    return tf.sqrt(tf.reduce_mean(tf.square(y - p), -1))  # the root


def in_a_function(y, p):
    return tf.function(exact)(p, y)


def in_a_branch(y, p):
    return tf.cond(tf.reduce_sum(p) > -1e9, lambda: exact(p, y), lambda: tf.reduce_sum(p, -1))


def in_a_loop(y, p):
    return tf.while_loop(
        lambda i, _: i < 3,
        lambda i, sum_: (i + 1, sum_ + exact(p, y)),
        (0, tf.zeros(tf.shape(p)[0])),
    )[1]


def in_a_map(y, p):
    return tf.map_fn(lambda pair: exact(*pair), (p, y), fn_output_signature=tf.float32)


@pytest.mark.parametrize(
    "loss", [in_a_function, in_a_branch, in_a_loop, in_a_map], ids=lambda loss: loss.__name__
)
def test_enters_what_a_step_calls(loss):
    x, y = cases.features(), cases.targets()
    x[cases.ROW], y[cases.ROW] = 0, 0
    model, arguments = cases.fitted([cases.dense(use_bias=False)], loss, x, y)
    watch = Autopsy(verbose=0)
    model.fit(**arguments, batch_size=cases.BATCH, shuffle=False, verbose=0, callbacks=[watch])
    first = watch.report.guilty[0]
    assert (watch.report.step, watch.report.birth, first.forward_op_type) == (
        cases.STEP,
        "gradient",
        "Sqrt",
    )
    assert (first.file, first.text) == (
        __file__,
        "return tf.sqrt(tf.reduce_mean(tf.square(y - p), -1))  # the root",
    )
    assert first.examples == (cases.EXAMPLE,)


class Shares(keras.layers.Layer):
    def call(self, x):
        return x / tf.reduce_sum(tf.abs(x), -1, keepdims=True)  # the quotient


def after_a_recurrence():
    """The NaN comes back into the loop in a list of tensors."""
    x = np.ones((4 * cases.BATCH, 3, 2), np.float32)
    x[cases.ROW] = 0
    return cases.fitted([keras.layers.SimpleRNN(3, use_bias=False), Shares(), cases.dense()], x=x)


def before_a_maximum():
    """The gradient of Max asks which element equals it; a NaN equals none, so that it divides 0 by
    0."""
    x = np.ones((4 * cases.BATCH, 3, 2), np.float32)
    x[cases.ROW] = 0
    layers = [
        keras.layers.Conv1D(2, 1, use_bias=False),
        Shares(),
        keras.layers.GlobalMaxPooling1D(),
        cases.dense(),
    ]
    return cases.fitted(layers, x=x)


@pytest.mark.parametrize(
    "make", [after_a_recurrence, before_a_maximum], ids=lambda make: make.__name__
)
def test_names_nobody_who_only_passed_it_on(make):
    model, arguments = make()
    watch = Autopsy(verbose=0)
    model.fit(**arguments, batch_size=cases.BATCH, shuffle=False, verbose=0, callbacks=[watch])
    assert [one.text for one in watch.report.guilty] == [
        "return x / tf.reduce_sum(tf.abs(x), -1, keepdims=True)  # the quotient"
    ]
    cure = watch.report.cures[0]
    assert (cure.write, cure.finite, cure.elsewhere) == ("x / (y + 1e-07)", True, True)


def test_a_cure_beside_a_loop_is_tried_under_xla_too():
    """Which cannot compile the gradient of a lookup that a loop reads, as it was traced for the
    kernels."""
    x = np.ones((4 * cases.BATCH, 6), np.int32)
    x[cases.ROW] = 0
    table = keras.layers.Embedding(
        2, 2, embeddings_initializer=keras.initializers.Constant(np.array([[0, 0], [1, 2]]))
    )
    recurrent = keras.layers.LSTM(3, use_bias=False, return_sequences=True)
    layers = [table, recurrent, Shares(), keras.layers.GlobalAveragePooling1D(), cases.dense()]
    model, arguments = cases.fitted(layers, x=x)
    watch = Autopsy(verbose=0)
    model.fit(**arguments, batch_size=cases.BATCH, shuffle=False, verbose=0, callbacks=[watch])
    cure = watch.report.cures[0]
    assert (cure.write, cure.finite, cure.elsewhere) == ("x / (y + 1e-07)", True, True)


def test_a_stronger_rule_is_tried_where_the_first_is_not_enough():
    class Power(keras.layers.Layer):
        def call(self, x):
            return tf.pow(x, 0.5)

    x = np.ones((4 * cases.BATCH, 2), np.float32)
    x[cases.ROW] = -1
    model, arguments = cases.fitted([Power(), cases.dense()], x=x)
    watch = Autopsy(verbose=0)
    model.fit(**arguments, batch_size=cases.BATCH, shuffle=False, verbose=0, callbacks=[watch])
    first, second = [cure for cure in watch.report.cures if not cure.folk]
    assert (first.write, first.finite) == ("tf.pow(x + 1e-07, y)", False)
    assert (second.write, second.finite) == ("tf.pow(tf.maximum(x, 1e-07), y)", True)


def test_a_capsule_replays_the_step_elsewhere(tmp_path):
    [case] = [case for case in cases.BUGS if case.name == "siamese_of_equal_and_similar"]
    watch = Autopsy(capsule=tmp_path / "step.npz", verbose=0)
    fitted(case, watch)
    fresh, _ = case.make()
    found = replay(fresh, tmp_path / "step.npz")
    here, there = found.guilty[0], watch.report.guilty[0]
    assert (here.line, here.elements, here.examples) == (there.line, there.elements, there.examples)
    assert (found.step, found.xla, found.kernels) == (case.step, True, False)
    other, _ = cases.fitted([cases.dense()])
    with pytest.raises(CapsuleError, match="another model"):
        replay(other, tmp_path / "step.npz")
    (tmp_path / "none.npz").write_text("no capsule")
    with pytest.raises(CapsuleError, match="is no capsule:"):
        replay(fresh, tmp_path / "none.npz")
