"""Adam by rows that are brought up to date when they are named, against Adam that moves every row
at every step: Keras's own, and the rule in float64."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from zeronorm import deferred, model, numerics, optimizers, similarity, training

ROWS, D, NAMED = 300, 8, 12
FLUSHED = {"never": (), "some": (1, 2, 40, 700), "each": range(1, 1500)}


def gradients(steps, seed=0, rows=ROWS):
    """Of each step the ids, of which some are rare and some come twice, and gradients between 1e-8
    and 1."""
    rng = np.random.default_rng(seed)
    often = 1 / np.arange(1, rows + 1) ** 1.1
    for _ in range(steps):
        ids = rng.choice(rows, NAMED, p=often / often.sum()).astype(np.int32)
        size = 10 ** rng.uniform(-8, 0, (NAMED, 1))
        yield ids, (size * rng.standard_normal((NAMED, D))).astype(np.float32)


def dense(start, taken, learning_rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Adam as Keras has it, in float64: of each step (table, norm of its update)."""
    w, m, v = start.astype(np.float64), np.zeros(start.shape), np.zeros(start.shape)
    for step, (ids, values) in enumerate(taken, 1):
        total, squares = np.zeros(w.shape), np.zeros(w.shape)
        np.add.at(total, ids, values.astype(np.float64))
        np.add.at(squares, ids, values.astype(np.float64) ** 2)
        m += (1 - beta_1) * (total - m)
        v += (1 - beta_2) * (squares - v)
        rate = learning_rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
        update = rate * m / (np.sqrt(v) + epsilon)
        w -= update
        yield w, np.linalg.norm(update)


class Trained:
    """A table under test. step: takes one; squares: the sum of squares that follows from what the
    steps measured."""

    def __init__(self, start, jit_compile=False, **options):
        self.variable = keras.Variable(start)
        self.optimizer = optimizers.Adam(**options)
        self.optimizer.build([self.variable])
        course = deferred.course_of(self.optimizer)
        self.table = deferred.Table(self.optimizer, self.variable, course)
        self.squares = float(np.sum(start.astype(np.float64) ** 2))

        @tf.function(jit_compile=jit_compile, autograph=False)
        def update(ids, values):
            with self.optimizer.by_rows(static_shapes=jit_compile):
                slices = tf.IndexedSlices(values, ids, tf.constant(start.shape))
                self.optimizer.apply([slices], [self.variable])

        @tf.function(autograph=False)
        def step(ids, values):
            watch = self.table.watch(ids)
            update(ids, values)
            change = watch.change()
            return change.growth(), change.squares()

        self._step = step

    def step(self, ids, values):
        """(norm of the table, norm of its update)."""
        growth, squares = self._step(tf.constant(ids), tf.constant(values))
        self.squares += float(growth)
        return np.sqrt(self.squares), np.sqrt(float(squares))


@pytest.mark.parametrize("jit_compile", [False, True], ids=["kernels", "xla"])
@pytest.mark.parametrize("flushed", FLUSHED.values(), ids=FLUSHED)
def test_the_table_is_adams_and_its_norms_are_exact_in_every_step(flushed, jit_compile):
    start = np.random.default_rng(1).normal(0, 0.3, (ROWS, D)).astype(np.float32)
    steps = 1500
    trained = Trained(start, jit_compile)
    pairs = zip(gradients(steps), dense(start, gradients(steps)), strict=True)
    for number, ((ids, values), (table, update)) in enumerate(pairs, 1):
        norm, moved = trained.step(ids, values)
        assert norm == pytest.approx(np.linalg.norm(table), rel=1e-7)
        assert moved == pytest.approx(update, rel=2e-5)
        if number in flushed:
            trained.table.flush()
    trained.table.flush()
    distance = np.abs(trained.variable.numpy() - table)
    assert distance.max() < 3e-6 and np.abs(table - start).max() > 0.1


@pytest.mark.parametrize(
    "betas", [(0.9, 0.999), (0.8, 0.998), (0.7, 0.998), (0.95, 0.9999)], ids=str
)
def test_the_norm_is_exact_where_every_step_moves_a_row_along_itself(betas):
    """Then what the series leaves out adds up."""
    options = dict(zip(("beta_1", "beta_2"), betas, strict=True)) | {"learning_rate": 0.01}
    start = np.random.default_rng(1).normal(0, 0.3, (ROWS, D)).astype(np.float32)
    rng = np.random.default_rng(0)
    taken = [
        (ids, (start[ids] * 10 ** rng.uniform(-4, 0, (NAMED, 1))).astype(np.float32))
        for ids, _ in gradients(900)
    ]
    trained = Trained(start, **options)
    for number, (ids, values) in enumerate(taken):
        norm, _ = trained.step(ids, values)
        if number % 300 == 299:
            trained.table.flush()
            table = trained.variable.numpy().astype(np.float64)
            assert norm == pytest.approx(np.linalg.norm(table), rel=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"learning_rate": 0.1},
        {"epsilon": 1e-3},
        {"beta_1": 0.8, "beta_2": 0.9995},
        {"beta_1": 0.95, "beta_2": 0.9999, "epsilon": 1e-8},
    ],
    ids=str,
)
@pytest.mark.parametrize("gap", [1, 5, 219, 220, 221, 1000])
def test_a_row_is_kerass_after_any_number_of_steps_that_do_not_name_it(options, gap):
    """Gradients of one size, of which Keras's own float32 is exact enough to compare."""
    rng = np.random.default_rng(0)
    start = rng.normal(0, 0.3, (3, D)).astype(np.float32)
    ids = [[0, 1, 1], [0, 2, 2], *[[2, 2, 2]] * gap, [0, 0, 1]]
    taken = [(np.int32(of), rng.standard_normal((3, D)).astype(np.float32)) for of in ids]
    trained = Trained(start, **options)
    for one in taken:
        trained.step(*one)
    trained.table.flush()
    *_, (table, _) = dense(start, taken, **options)
    moved = np.abs(table - start).max()
    # the first bias correction, 1 - b2, is off by float32's rounding of 1, Keras's too
    off = 6e-8 / (1 - options.get("beta_2", 0.999)) * moved + 3e-7
    np.testing.assert_allclose(trained.variable.numpy(), table, rtol=0, atol=off)
    reference, theirs = keras.Variable(start), keras.optimizers.Adam(**options)
    theirs.build([reference])

    @tf.function(autograph=False)
    def step(ids, values):
        theirs.apply([tf.IndexedSlices(values, ids, tf.constant([3, D]))], [reference])

    for of, values in taken:
        step(tf.constant(of), tf.constant(values))
    ours = (variable.numpy() for variable in trained.optimizer.variables[2:])
    for x, y in zip(ours, (v.numpy() for v in theirs.variables[2:]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(trained.variable.numpy(), reference.numpy(), rtol=0, atol=off)


def test_long_after_the_bias_correction_has_ended():
    start = np.ones((4, D), np.float32)
    trained = Trained(start, learning_rate=0.01)
    after = 30_000
    assert after > trained.table.course.horizon
    trained.optimizer.iterations.assign(after)
    trained.table.flush()
    before = trained.variable.numpy()
    trained.step(np.int32([1]), np.ones((1, D), np.float32))
    for _ in range(9):
        trained.step(np.int32([0]), np.ones((1, D), np.float32))
    trained.table.flush()
    age = np.arange(10)
    rate = 0.01 * (0.1 * 0.9**age) / (np.sqrt(0.001 * 0.999**age) + 1e-7)
    np.testing.assert_array_equal(before, start)
    np.testing.assert_allclose(trained.variable.numpy()[1], 1 - rate.sum(), rtol=1e-6)
    np.testing.assert_array_equal(trained.variable.numpy()[2:], start[2:])


def test_a_lost_row_is_in_every_later_norm_and_the_others_are_not_lost():
    start = np.ones((ROWS, D), np.float32)
    trained = Trained(start)
    lost = np.float32([[np.nan] * D, [0.5] * D])
    for number in range(600):
        ids = [7, 8] if number == 3 else [8, 9]
        norms = trained.step(np.int32(ids), lost if number == 3 else np.ones((2, D), np.float32))
        assert np.isfinite(norms).tolist() == [number < 3] * 2
    trained.table.flush()
    table = trained.variable.numpy()
    assert np.flatnonzero(~np.isfinite(table).all(axis=1)).tolist() == [7]


@pytest.mark.parametrize("size", [1e19, 1e25, 3e38])
def test_a_velocity_that_has_overflowed_stays_infinite_and_its_row_stays(size):
    start = np.ones((4, D), np.float32)
    trained, steps = Trained(start), 120_000  # 0.999 to this power is 0 in float32
    trained.step(np.int32([1]), np.full((1, D), size, np.float32))
    trained.table.flush()
    once = trained.variable.numpy()
    trained.optimizer.iterations.assign(steps)
    trained.table.flush()
    assert np.isfinite(once).all() and np.isfinite(trained.variable.numpy()).all()
    velocity = trained.table.velocity.numpy()[1]
    assert np.isinf(velocity).all() == (size > 1e20)


def all_graphs(graph):
    """A graph, and those of the functions that it calls."""
    yield graph
    for operation in graph.get_operations():
        for attribute in operation.node_def.attr.values():
            for function in (attribute.func, *attribute.list.func):
                if function.name:
                    yield from all_graphs(graph._get_function(function.name).graph)


def of_this_size(graph, rows):
    """(operations that make a tensor with so many rows, of how many)."""
    operations = [operation for each in all_graphs(graph) for operation in each.get_operations()]
    made = {
        operation.type
        for operation in operations
        for tensor in operation.outputs
        if tensor.shape.rank and rows in tensor.shape
    }
    return made, len(operations)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["kernels", "xla"])
def test_no_tensor_of_the_tables_size_is_in_a_step(jit_compile):
    rows = 100_003
    trained = Trained(np.zeros((rows, D), np.float32), jit_compile)
    arguments = tf.TensorSpec([NAMED], tf.int32), tf.TensorSpec([NAMED, D])
    made, operations = of_this_size(trained._step.get_concrete_function(*arguments).graph, rows)
    assert made == set() and operations > 200


@pytest.mark.parametrize("used", [numerics.KERNELS, numerics.XLA], ids=["kernels", "xla"])
@pytest.mark.parametrize("by_rows", [True, False], ids=["by rows", "whole tables"])
def test_no_tensor_of_the_tables_size_is_in_a_step_of_a_training(used, by_rows):
    """But where whole tables are updated."""
    rows, titles = 100_003, 70_001
    optimizer = optimizers.Adam(**({} if by_rows else {"weight_decay": 0.01}))
    ranker = model.build(
        n_words=rows,
        n_titles=titles,
        dim=D,
        margin=1.0,
        trainable_words=True,
        trainable_titles=True,
        similarity=partial(similarity.clamp_product, epsilon=1e-7),
        numerics=used,
        rows_only=by_rows,
        window=20,
        negatives=3,
        filters=4,
        width=5,
        dropout=0.2,
    )
    program = training.program(ranker, optimizer, used)
    shapes = ((2,), (2, 10, 20), (2, 10, 1), (2, 10, 3))
    arguments = [tf.TensorSpec(shape, tf.int32) for shape in shapes]
    stop_at = tf.TensorSpec([len(program.recording({}).tensors)], tf.bool)
    steps = tf.function(program.steps, autograph=False)
    graph = steps.get_concrete_function(*arguments, stop_at).graph
    made = set.union(*(of_this_size(graph, size)[0] for size in (rows, titles)))
    assert bool(made) != by_rows


SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)


@pytest.mark.parametrize(
    "made",
    [
        lambda: keras.optimizers.Adam(),
        lambda: keras.optimizers.SGD(),
        lambda: optimizers.Adam2017(),
        lambda: keras.optimizers.LossScaleOptimizer(optimizers.Adam()),
        lambda: optimizers.Adam(learning_rate=SCHEDULE),
        lambda: optimizers.Adam(weight_decay=0.01),
        lambda: optimizers.Adam(use_ema=True),
        lambda: optimizers.Adam(clipnorm=1.0),
        lambda: optimizers.Adam(clipvalue=1.0),
        lambda: optimizers.Adam(global_clipnorm=1.0),
        lambda: optimizers.Adam(gradient_accumulation_steps=2),
        lambda: optimizers.Adam(loss_scale_factor=8.0),
        lambda: optimizers.Adam(amsgrad=True),
        lambda: optimizers.Adam(epsilon=0.0),  # a row that was never named is 0/0
        lambda: optimizers.Adam(beta_1=0.5, beta_2=0.9),  # the series is too long
        lambda: optimizers.Adam(beta_2=0.997),  # the norm's is
        lambda: optimizers.Adam(beta_1=0.0),
        lambda: optimizers.Adam(beta_1=0.99),
        lambda: optimizers.Adam(beta_2=1 - 1e-7),
    ],
)
def test_where_the_course_is_not_known_whole_tables_are_updated(made):
    assert deferred.course_of(made()) is None
    assert deferred.course_of(optimizers.Adam()) is not None
