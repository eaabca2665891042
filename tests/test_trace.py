"""A step as a graph: which operation a gradient belongs to, which line made it, and what the graph
computes."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import backprop

import zeronorm
from zeronorm.autopsy import graph as graphs
from zeronorm.autopsy import rows, trace
from zeronorm.autopsy import subject as subjects
from zeronorm.autopsy.subject import Snapshot, Subject


def distance(a, b):
    squares = tf.square(a - b)
    return tf.sqrt(tf.reduce_sum(squares, -1))  # the root


@pytest.fixture
def step():
    """(step of a batch, its optimizer, its weight, a batch) of a weight that is moved towards
    points."""
    weight = keras.Variable(np.float32([1, 2]), name="weight")
    optimizer = keras.optimizers.SGD(0.5)
    optimizer.build([weight])

    def one(points):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(distance(points, weight.value))
        optimizer.apply(tape.gradient(loss, [weight.value]), [weight])

    return one, optimizer, weight, tf.constant([[4.0, 6.0], [1.0, 3.0]])


def test_a_gradient_s_operation_leads_to_what_it_differentiates_and_its_line(step):
    one, optimizer, _, batch = step
    traced = trace.trace(one, batch, [optimizer])
    roots = [
        operation.name
        for operation in traced.graph.get_operations()
        if operation.type == "SqrtGrad"
    ]
    assert [traced.forward(root).type for root in roots] == ["Sqrt"]
    line = traced.line(roots[0])
    assert (line.file, line.function) == (__file__, "distance") and line.text.endswith("# the root")
    for operation in traced.graph.get_operations():
        if operation.name in traced.gradient and operation.type in (
            "Mul",
            "Neg",
            "Tile",
            "RealDiv",
        ):
            assert operation.name in traced.forward_of, operation
    assert {traced.graph.get_operation_by_name(name).type for name in traced.optimizer} >= {
        "AssignSubVariableOp"
    }
    assert [traced.graph.get_tensor_by_name(loss).op.type for loss in traced.losses] == ["Mean"]


def test_tracing_changes_nothing_and_leaves_nothing_behind(step):
    one, optimizer, weight, batch = step
    apply, gradient, rule = optimizer.apply, tf.GradientTape.gradient, backprop._gradient_function
    trace.trace(one, batch, [optimizer])
    assert (optimizer.apply, tf.GradientTape.gradient, backprop._gradient_function) == (
        apply,
        gradient,
        rule,
    )
    np.testing.assert_array_equal(weight, [1, 2])


class Own(keras.optimizers.SGD):
    def apply(self, grads, trainable_variables=None):
        return super().apply(grads, trainable_variables)


def given_an_apply():
    """An optimizer whose user has put an `apply` of their own on it."""
    made = keras.optimizers.SGD(0.5)
    apply = made.apply
    made.apply = lambda *arguments, **more: apply(*arguments, **more)
    return made


OPTIMIZERS = {
    "plain": lambda: [keras.optimizers.SGD(0.5)],
    "own_class": lambda: [Own(0.5)],
    "own_attribute": lambda: [given_an_apply()],
    "scaled": lambda: [keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())],
    "scaled_own_attribute": lambda: [keras.optimizers.LossScaleOptimizer(given_an_apply())],
    "two": lambda: [given_an_apply(), keras.optimizers.Adam()],
    "twice": lambda: [given_an_apply()] * 2,
}


def attributes(optimizers) -> list[dict]:
    """What everything that is patched holds, object by object: strong references, so that no id
    comes again."""
    inner = [each.inner_optimizer for each in optimizers if hasattr(each, "inner_optimizer")]
    classes = [cls for each in (*optimizers, *inner) for cls in type(each).__mro__]
    return [
        dict(vars(owner)) for owner in (*optimizers, *inner, *classes, tf.GradientTape, backprop)
    ]


def same(before: list[dict], after: list[dict]) -> bool:
    pairs = list(zip(before, after, strict=True))
    return all(
        was.keys() == now.keys() and all(was[name] is now[name] for name in was)
        for was, now in pairs
    )


@pytest.mark.parametrize("raises", [None, "before", "after"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_everything_patched_is_the_very_object_again(name, raises):
    """Also where tracing raises, before or after the optimizers were called."""
    weight, optimizers = keras.Variable(np.float32([1, 2])), OPTIMIZERS[name]()
    for optimizer in optimizers:
        optimizer.build([weight])

    def one(points):
        if raises == "before":
            raise RuntimeError("before")
        for optimizer in optimizers:
            with tf.GradientTape() as tape:
                loss = optimizer.scale_loss(tf.reduce_mean(distance(points, weight.value)))
            optimizer.apply(tape.gradient(loss, [weight.value]), [weight])
        if raises:
            raise RuntimeError("after")

    batch = tf.constant([[4.0, 6.0]])
    if not raises:  # TensorFlow keeps some things of the first call
        tf.function(one, autograph=False).get_concrete_function(batch)
    before = attributes(optimizers)
    traced = [lambda: trace.trace(one, batch, optimizers)]
    traced += [lambda: tf.function(trace.judged(one), autograph=False)(batch)]
    for of in traced:
        if raises:
            with pytest.raises(RuntimeError, match=raises):
                of()
        else:
            of()
        assert same(before, attributes(optimizers))


def test_cures_and_verdicts_leave_model_and_optimizer_as_they_were():
    """An optimizer in two models, with an `apply` and a clipnorm of the user's own, whose step
    loses a weight."""
    optimizer = given_an_apply()
    own = optimizer.apply
    models = [
        keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        for _ in range(2)
    ]
    optimizer.build([variable for model in models for variable in model.trainable_variables])
    for model in models:
        model.compile(optimizer, lambda y, p: tf.sqrt(tf.reduce_mean(tf.square(p - p), -1)))
        model.make_train_function()
    x = np.ones((2, 1), np.float32)
    zeronorm.examine(models[0], x, x)  # Keras builds metrics and losses in the first step
    owners = [*optimizers_and_models(optimizer, models)]
    before, weights = [dict(vars(owner)) for owner in owners], [m.get_weights() for m in models]
    found = zeronorm.examine(models[0], x, x)
    assert found.harmful and {cure.write for cure in found.cures} >= {
        "clipnorm=1.0",
        "clipvalue=1.0",
    }
    assert same(before, [dict(vars(owner)) for owner in owners]) and optimizer.apply is own
    for was, model in zip(weights, models, strict=True):
        np.testing.assert_array_equal(was, model.get_weights())


def optimizers_and_models(optimizer, models):
    return (
        optimizer,
        *models,
        *(layer for model in models for layer in model.layers),
        type(optimizer),
    )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_run_computes_the_step_and_returns_its_values(step, jit_compile):
    """Against the distances and the gradient by hand: 5 and 1; the mean of the unit vectors to the
    points."""
    one, optimizer, weight, batch = step
    traced = trace.trace(one, batch, [optimizer])
    [root] = [o.outputs[0].name for o in traced.graph.get_operations() if o.type == "Sqrt"]
    [distances] = graphs.runner(traced, [root], jit_compile)(batch)
    np.testing.assert_allclose(distances, [5, 1])
    np.testing.assert_allclose(
        weight, np.array([1, 2]) + 0.5 * np.mean([[0.6, 0.8], [0, 1]], axis=0), rtol=1e-6
    )


def test_a_pure_run_assigns_nothing(step):
    one, optimizer, weight, batch = step
    traced = trace.trace(one, batch, [optimizer])
    graphs.runner(traced, list(traced.losses), False, pure=True)(batch)
    np.testing.assert_array_equal(weight, [1, 2])


def test_the_interfaces_of_tensorflow_that_are_not_public_are_as_expected():
    """If this fails TensorFlow has changed: see _Observer.watching and called in
    zeronorm/autopsy."""
    names = [
        "op_name",
        "attr_tuple",
        "num_inputs",
        "inputs",
        "outputs",
        "out_grads",
        "skip_input_indices",
    ]
    found = list(inspect.signature(backprop._gradient_function).parameters)
    assert found == [*names, "forward_pass_name_scope"]
    assert callable(pywrap_tfe.TFE_Py_RegisterGradientFunction)
    graph = (
        tf.function(lambda x: tf.cond(x > 0, lambda: x, lambda: -x))
        .get_concrete_function(tf.constant(1.0))
        .graph
    )
    [branch] = [
        operation for operation in graph.get_operations() if operation.type in graphs.BODIES
    ]
    assert [len(body.outputs) for body in graphs.called(branch)] == [1, 1]
    compiled = tf.function(lambda x: x, jit_compile=True)
    graph = tf.function(lambda x: compiled(x)).get_concrete_function(tf.constant(1.0)).graph
    [call] = [operation for operation in graph.get_operations() if operation.type in graphs.BODIES]
    assert call.get_attr("_XlaMustCompile")  # see blame._must_compile


def test_the_interfaces_of_keras_that_are_not_documented_are_as_expected():
    """If this fails Keras has changed: see Steps in zeronorm/autopsy/keras_step.py, and fit.py
    beside it."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", "mse")
    model.make_train_function()
    batch = (tf.ones((2, 1)), tf.zeros((2, 1)))
    # any iterator of batches, not tf.data's alone
    assert float(model.train_function(iter([batch]))["loss"]) == 1
    assert {"x", "shuffle", "validation_split"} <= set(
        inspect.signature(keras.Model.fit).parameters
    )
    assert "train_function" in vars(model)


def test_a_row_is_found_where_no_number_shows_the_dependence():
    """The square of a zero row: value and derivative are 0, and still it depends on that row."""
    table = keras.Variable(np.float32([[0, 0], [1, 2], [3, 4]]), name="table")

    def one(ids):
        return tf.reduce_sum(tf.square(tf.gather(table.value, ids)), -1)

    ids = tf.constant([[1, 0], [2, 1]])
    traced = trace.trace(one, ids)
    [lookup] = rows.lookups(traced.graph)
    [squares] = [o.outputs[0].name for o in traced.graph.get_operations() if o.type == "Sum"]
    taint = rows.Taint(traced, lookup, ids.numpy(), squares, [ids])
    assert [taint.rows(element, 8).tolist() for element in ((0, 0), (0, 1), (1, 0), (1, 1))] == [
        [1],
        [0],
        [2],
        [1],
    ]


def test_a_run_for_its_values_alone_keeps_the_state_only_where_it_may_change(monkeypatch):
    table, counter = tf.Variable([1.0, 2.0]), tf.Variable(0.0)
    subject = Subject(lambda data: data, tf.ones([1]), {}, [table, counter], [], False)

    @tf.function
    def reads(x):
        return [tf.reduce_sum(table) + x]

    @tf.function
    def assigns(x):
        return [counter.assign_add(x)]

    @tf.function
    def calls(x):
        return [assigns(x)[0] + table[0]]

    @tf.function
    def branches(x):
        return [tf.cond(x > 0, lambda: counter.assign_add(x), lambda: x)]

    for function, value in ((assigns, 5.0), (calls, 6.0), (branches, 5.0)):
        for _ in range(2):
            [found] = subject.values(function, [tf.constant(5.0)])
            assert float(found) == value and counter.numpy() == 0
    held = []
    monkeypatch.setattr(subjects, "Snapshot", lambda state: held.append(state) or Snapshot(state))
    [found] = subject.values(reads, [tf.constant(5.0)])
    assert float(found) == 8 and held == [()]
