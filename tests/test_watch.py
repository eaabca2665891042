"""The callback harms nothing: not a healthy training, not one that dies, not one in which it fails
itself."""

import json
import subprocess
import sys
import types
import warnings
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

import cases
import zeronorm
from zeronorm import Autopsy
from zeronorm.autopsy import examination, examiner, findings, thresholds
from zeronorm.autopsy.subject import Trial


def case(name: str) -> cases.Case:
    return next(case for case in [*cases.BUGS, *cases.KINDS, *cases.HEALTHY] if case.name == name)


DYING = case("rmse_of_an_exact_prediction")


def convolutional():
    """A model with all that keeps state: dropout, moving statistics, slots, metrics; its last batch
    is smaller."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization(), keras.layers.Flatten()]
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), *layers, keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse", metrics=["mae"])
    x = cases.features(36, 37).reshape(-1, 6, 6, 1)
    return model, {"x": x, "y": x.mean(axis=(1, 2)), "epochs": 2, "verbose": 0, "batch_size": 8}


def everything(model: keras.Model) -> list[np.ndarray]:
    return [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]


@pytest.mark.parametrize(
    "options",
    [{}, {"steps_per_execution": 3}, {"run_eagerly": True}, {"jit_compile": True}],
    ids=lambda o: next(iter(o), ""),
)
def test_a_healthy_training_is_the_same_bit_by_bit(options):
    found = []
    for callbacks in ([], [Autopsy()]):
        model, arguments = convolutional()
        model.compile(model.optimizer, "mse", metrics=["mae"], **options)
        history = model.fit(**arguments, callbacks=callbacks)
        found.append((everything(model), history.history, model.train_function))
    (weights, history, _), (watched, watched_history, function) = found
    assert history == watched_history and callbacks[0].report is None
    for one, other in zip(weights, watched, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not hasattr(function, "__self__")  # the model's own again


def test_a_training_that_dies_and_goes_on_is_the_same_and_examined_once(monkeypatch):
    found, examined = [], []
    report = examination.report
    monkeypatch.setattr(
        examination, "report", lambda *a, **k: examined.append(a) or report(*a, **k)
    )
    for callbacks in ([], [Autopsy(then="go_on", verbose=0)]):
        model, arguments = DYING.make()
        model.fit(
            **arguments, batch_size=8, epochs=2, verbose=0, shuffle=False, callbacks=callbacks
        )
        found.append(everything(model))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(examined) == 1 and callbacks[0].report.harmful


BROKEN = {
    "find": (findings, "find"),
    "Trial": (Trial, "__call__"),
    "culprits": (examination, "culprits"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_fails_in_the_autopsy_is_said_and_costs_nothing(monkeypatch, broken):
    of = "global_norm_overflows" if broken == "culprits" else DYING.name
    owner, name = BROKEN[broken]
    monkeypatch.setattr(owner, name, lambda *arguments: 1 / 0)
    model, arguments = case(of).make()
    watch = Autopsy(verbose=0)
    model.fit(**arguments, batch_size=8, verbose=0, shuffle=False, callbacks=[watch])
    assert (
        watch.report.step == 1
        and watch.report.harmful
        and all(np.isfinite(w).all() for w in model.get_weights())
    )
    if broken != "culprits":  # which this case does not need
        assert any("ZeroDivisionError" in reason for reason in watch.report.left_out)


def test_random_numbers_that_no_seed_fixes_are_said():
    class Noisy(keras.layers.Layer):
        def call(self, x):
            drawn = tf.random.uniform(tf.shape(x))
            return x + tf.where(drawn < 0.002, tf.math.log(tf.zeros_like(drawn)), 0.0)

    model, arguments = cases.fitted([Noisy(), cases.dense()])
    watch = Autopsy(verbose=0)
    model.fit(**arguments, batch_size=8, epochs=60, verbose=0, callbacks=[watch])
    assert watch.report.harmful and all(np.isfinite(w).all() for w in model.get_weights())
    assert watch.report.guilty or examination.CAME_ONCE in watch.report.left_out


def test_a_weight_that_a_callback_wrote_is_no_steps_fault():
    class Writes(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.layers[0].set_weights(
                    [w * np.nan for w in self.model.layers[0].get_weights()]
                )

    model, arguments = cases.fitted([cases.dense()])
    watch = Autopsy(verbose=0)
    model.fit(**arguments, batch_size=8, verbose=0, callbacks=[Writes(), watch])
    assert (watch.report.step, watch.report.birth, watch.report.left_out) == (
        2,
        "weights",
        (examination.WRITTEN,),
    )
    assert str(watch.report).startswith("After step 2 values of these variables are non-finite:")
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_an_interrupted_fit_leaves_no_watch_behind():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model, arguments = DYING.make()
    watch = Autopsy()
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            **arguments, batch_size=8, verbose=0, shuffle=False, callbacks=[Interrupt(), watch]
        )
    model.fit(**arguments, batch_size=8, verbose=0, shuffle=False)
    assert watch.report is None and int(model.optimizer.iterations) == 5
    assert not hasattr(model.train_function, "__self__")


def test_two_at_once_are_refused_and_one_may_be_used_again():
    model, arguments = DYING.make()
    with pytest.raises(ValueError, match=r"Two zeronorm\.Autopsy callbacks in one fit"):
        model.fit(**arguments, verbose=0, callbacks=[Autopsy(), Autopsy()])
    watch = Autopsy(verbose=0)
    for _ in range(2):
        model, arguments = DYING.make()
        model.fit(**arguments, batch_size=8, verbose=0, shuffle=False, callbacks=[watch])
        assert watch.report.step == 1
    healthy, arguments = convolutional()
    healthy.fit(**arguments, callbacks=[watch])
    assert watch.report is None


def test_a_folder_that_is_not_there_is_said_before_the_training(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        Autopsy(capsule=tmp_path / "none" / "step.npz")


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda model, x, y: Autopsy(names=["a"]), "names must be a dict"),
        (lambda model, x, y: Autopsy(capsule=3), "capsule must be the name of a file, not 3"),
        (lambda model, x, y: zeronorm.examine(3, x, y), "takes a Keras model first, not int"),
        (
            lambda model, x, y: zeronorm.examine(model, x),
            r"this model's loss needs y: examine\(model, x, y\)",
        ),
        (
            lambda model, x, y: zeronorm.replay("step.npz", model),
            "takes a Keras model first, not str",
        ),
    ],
)
def test_what_cannot_be_examined_is_said_in_one_sentence(wrong, sentence):
    model, arguments = DYING.make()
    with pytest.raises(ValueError, match=sentence):
        wrong(model, arguments["x"], arguments["y"])


@pytest.mark.parametrize(
    "names, sentence",
    [
        ({"nowhere": ["a"]}, "the model has no weight 'nowhere'; those with rows are .*/kernel"),
        (lambda path: {path: ["a"]}, "must be a list of 4 names, one a row; it has 1"),
        (lambda path: {path: "abcd"}, "must be a list of 4 names, one a row; it is str"),
        (lambda path: {path: {0: "a"}}, "must be a list of 4 names, one a row; it is dict"),
    ],
)
def test_wrong_names_are_said_before_the_training(names, sentence):
    model, arguments = DYING.make()
    names = names(model.weights[0].path) if callable(names) else names
    with pytest.raises(ValueError, match=sentence):
        model.fit(**arguments, verbose=0, callbacks=[Autopsy(names=names)])
    assert int(model.optimizer.iterations) == 0


def test_the_json_is_strict_and_the_text_fits_a_terminal():
    model, arguments = case("cross_entropy_by_hand").make()
    watch = Autopsy(verbose=0)
    model.fit(**arguments, batch_size=8, verbose=0, shuffle=False, callbacks=[watch])
    found = json.loads(watch.report.to_json(), parse_constant=pytest.fail)
    assert found["history"][-1]["loss"] is None and found["guilty"][0]["examples"] == [5]
    lines = [
        line
        for line in str(watch.report).splitlines()
        if not line.startswith("    ") and ".py:" not in line
    ]
    assert max(map(len, lines)) <= 80


def test_another_compiler_can_be_asked_beforehand():
    """A healthy model under the kernels, of which XLA would make NaN; asking leaves it as it is."""
    model, arguments = case("root_in_the_dead_branch_under_kernels").make()
    model(arguments["x"][:1])
    batch = slice(8, 16)
    before = model.get_weights()
    found = zeronorm.examine(model, arguments["x"][batch], arguments["y"][batch])
    assert (found.kernels, found.xla, found.harmful, found.disagreement) == (
        False,
        True,
        False,
        True,
    )
    assert found.guilty[0].forward_op_type == "Sqrt" and found.guilty[0].examples == (5,)
    assert "Under XLA it would" in str(found)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    first = zeronorm.examine(model, arguments["x"][:8], arguments["y"][:8])
    assert (first.kernels, first.xla, first.guilty) == (
        False,
        False,
        (),
    ) and "Step 0 is finite." in str(first)


def test_a_batch_of_texts_is_not_given_to_xla():
    """Which would end the process (see subject.Trial)."""
    keras.utils.set_random_seed(0)
    words = tf.constant([["a"], ["b"], ["c"], ["a"]] * 8)
    lookup = keras.layers.StringLookup(vocabulary=["a", "b", "c"])
    layers = [
        keras.Input((1,), dtype="string"),
        lookup,
        keras.layers.Embedding(4, 2),
        keras.layers.Flatten(),
    ]
    model = keras.Sequential([*layers, cases.dense()])
    model.compile("sgd", "mse", jit_compile=False)
    y = cases.targets()
    y[cases.ROW] = np.nan
    watch = Autopsy(verbose=0)
    model.fit(words, y, batch_size=8, verbose=0, shuffle=False, callbacks=[watch])
    assert (watch.report.step, watch.report.birth, watch.report.xla) == (1, "data", None)
    assert watch.report.guilty[0].operation == "y" and watch.report.guilty[0].examples == (5,)


def with_tape(model, x, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x) - y))
    optimizer = keras.optimizers.SGD()
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)


def on_batch(model, x, y):
    model.train_on_batch(x, y)


def whole(hooks, step):
    """A loop by hand with all hooks, of which it ends after two steps."""
    hooks.on_train_begin()
    hooks.on_epoch_begin(0)
    batches_alone(hooks, step)
    hooks.on_epoch_end(0)
    hooks.on_train_end()


def batches_alone(hooks, step):
    for batch in range(2):
        hooks.on_train_batch_begin(batch)
        step()
        hooks.on_train_batch_end(batch)


def begin_alone(hooks, step):
    hooks.on_train_begin()
    step()


def epochs_alone(hooks, step):
    hooks.on_epoch_begin(0)
    step()
    hooks.on_epoch_end(0)


def ends_of_batches_alone(hooks, step):
    step()
    hooks.on_train_batch_end(0)


LOOPS = [whole, batches_alone, begin_alone, epochs_alone, ends_of_batches_alone]


def made(compiled: bool = True, built: bool = True, fitted: bool = False):
    """(model, x, y of which a step makes NaN)."""
    x, y = np.ones((8, 3), np.float32), np.ones((8, 1), np.float32)
    model = keras.Sequential([*([keras.Input((3,))] if built else []), keras.layers.Dense(1)])
    if compiled:
        model.compile("sgd", "mse", run_eagerly=True)  # which is quick
    if fitted:
        model.fit(x, y, verbose=0)
    return model, x, y * np.nan


@pytest.mark.parametrize("listed", [True, False], ids=["list", "alone"])
@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_a_loop_by_hand_is_told_what_watches_it_before_it_takes_a_step(loop, listed):
    """Whatever hooks it calls, however the model is made, whatever its step is: never silence,
    never a TypeError."""
    kinds = [(on_batch, True, built, fitted) for built in (True, False) for fitted in (True, False)]
    kinds += [(with_tape, compiled, True, compiled) for compiled in (True, False)]
    for step, *kind in kinds:
        model, x, y = made(*kind)
        watch = Autopsy(verbose=0)
        if listed:
            hooks = keras.callbacks.CallbackList([watch], model=model)
        else:
            hooks = watch
            watch.set_model(model)
        said = r"^zeronorm.Autopsy watches model.fit.*model\.fit\(x, y.*zeronorm\.examine"
        with pytest.raises(ValueError, match=said):
            loop(hooks, partial(step, model, x, y))
        assert not hasattr(model.train_function, "__self__") and watch.report is None


def test_hooks_without_a_model_or_after_a_fit_are_told_too():
    with pytest.raises(ValueError, match="no fit of this model is under way"):
        Autopsy().on_train_begin()
    model, x, y = made()
    watch = Autopsy(verbose=0)
    model.fit(x, x[:, :1], verbose=0, callbacks=[watch])
    with pytest.raises(ValueError, match="no fit of this model is under way"):
        batches_alone(watch, lambda: on_batch(model, x, y))
    with pytest.warns(UserWarning, match="did not see these training steps"):
        watch.on_train_end()


class OwnFit(keras.Sequential):
    """A model whose fit is a loop of its own, around a step of its own."""

    step, hooks = staticmethod(on_batch), staticmethod(whole)

    def fit(self, x, y, callbacks):
        self.hooks(
            keras.callbacks.CallbackList(callbacks, model=self), lambda: self.step(self, x, y)
        )


@pytest.mark.parametrize("step", [on_batch, with_tape], ids=lambda step: step.__name__)
def test_a_fit_of_the_models_own_whose_steps_are_not_seen_warns(step):
    def ends(hooks, step):
        hooks.on_train_begin()
        step()
        hooks.on_train_end()

    _, x, y = made()
    for hooks in (whole, ends):
        model = OwnFit([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=True)
        model.step, model.hooks = step, hooks
        with pytest.warns(UserWarning, match="did not see these training steps") as said:
            model.fit(x, y, callbacks=[Autopsy(verbose=0)])
        assert len(said) == 1  # once


def test_a_train_function_that_is_made_late_or_anew_is_watched():
    class Late(keras.Sequential):
        def make_train_function(self, force=False):
            if force:
                super().make_train_function(force=True)

    class Makes(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.make_train_function(force=True)

    _, x, y = made()
    for kind in (Late, keras.Sequential):
        for order in (1, -1):
            model = kind([keras.Input((3,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse", run_eagerly=True)
            watch = Autopsy(verbose=0)
            good = np.concatenate([x, x]), np.concatenate([x[:, :1], y])
            model.fit(
                *good, batch_size=8, shuffle=False, verbose=0, callbacks=[watch, Makes()][::order]
            )
            assert (watch.report.step, watch.report.birth) == (1, "data")
            assert not hasattr(model.train_function, "__self__")


def test_train_on_batch_within_a_watched_fit_does_not_end_the_watch():
    """A callback's own step, between those of fit, at either hook."""

    class Replays(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.train_on_batch(X, X[:, :1])

        def on_train_batch_end(self, batch, logs=None):
            self.model.train_on_batch(X, X[:, :1])

    X = np.ones((8, 3), np.float32)
    y = np.ones((24, 1), np.float32)
    y[17] = np.nan
    for order in (1, -1):
        model, _, _ = made()
        watch = Autopsy(verbose=0)
        callbacks = [watch, Replays()][::order]
        model.fit(np.ones((24, 3)), y, batch_size=8, shuffle=False, verbose=0, callbacks=callbacks)
        assert watch.report is not None and watch.report.harmful


def test_evaluate_and_predict_say_that_nothing_is_watched_and_validation_does_not():
    model, x, y = made()
    watch = Autopsy(verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(x, x[:, :1], verbose=0, callbacks=[watch], validation_data=(x, y))
    assert watch.report is None
    with pytest.warns(UserWarning, match="watches model.fit, and does nothing in evaluate"):
        model.evaluate(x, y, verbose=0, callbacks=[watch])
    with pytest.warns(UserWarning, match="watches model.fit, and does nothing in predict"):
        model.predict(x, verbose=0, callbacks=[watch])


def test_another_host_than_keras_is_named():
    class Trainer:
        pass

    with pytest.raises(
        ValueError, match=r"a callback of fit of a Keras 3\.\S+ model, not of .*Trainer\.$"
    ):
        keras.callbacks.CallbackList([Autopsy()], model=Trainer())
    with pytest.raises(ValueError, match="no fit of this model is under way"):
        Autopsy().on_train_begin({}, types.SimpleNamespace(), object(), model=Trainer())


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_than_tensorflow_is_said(backend, monkeypatch):
    model, x, y = made()
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    sentence = (
        rf"^zeronorm\.\w+ needs Keras on TensorFlow; this is {backend}: set"
        r" KERAS_BACKEND=tensorflow\.$"
    )
    for asks in (
        Autopsy,
        lambda: zeronorm.examine(model, x, y),
        lambda: zeronorm.examine(object(), x, y),
        lambda: zeronorm.replay(model, "step.npz"),
    ):
        with pytest.raises(ValueError, match=sentence):
            asks()
    assert (
        subprocess.run(
            [sys.executable, "-c", "import zeronorm"], env={"KERAS_BACKEND": backend}
        ).returncode
        == 0
    )


def test_two_devices_are_refused_by_all():
    model, x, y = made()
    model._distribute_strategy = types.SimpleNamespace(num_replicas_in_sync=2)
    for asks in (lambda: zeronorm.examine(model, x, y), lambda: zeronorm.replay(model, "step.npz")):
        with pytest.raises(
            ValueError, match="takes a model on one device; this one is distributed over several"
        ):
            asks()


def test_a_capsule_leaves_the_models_compiler_as_it_was(tmp_path):
    model, arguments = DYING.make()
    model.fit(
        **arguments,
        batch_size=8,
        verbose=0,
        shuffle=False,
        callbacks=[Autopsy(capsule=tmp_path / "a.npz", verbose=0)],
    )
    model.jit_compile = True
    assert not zeronorm.replay(model, tmp_path / "a.npz").jit_compile and model.jit_compile is True


MOVED = {  # a threshold of the autopsy: a value far from its own
    "HOLD_EVERY": 1,
    "KEPT_BATCHES": 1.0,
    "LARGE_VARIABLE": 1,
    "LOOK_EVERY": 1,
    "NUMBERS": 0,
    "AT_ONCE": 1.0,
    "ELEMENTS": 1,
    "ROWS": 1,
    "ITERATIONS": 1,
    "ROOT_WITHIN": 0,
    "POLL": 0.5,
    "IDLE_BYTES": 0.0,
    "SHOWN": 1,
}


@pytest.mark.parametrize("name", MOVED)
def test_no_threshold_decides_who_is_named(monkeypatch, name):
    monkeypatch.setattr(thresholds, name, MOVED[name])
    model, arguments = DYING.make()
    watch = Autopsy(verbose=0)
    model.fit(**arguments, batch_size=8, verbose=0, shuffle=False, callbacks=[watch])
    first = watch.report.guilty[0]
    assert (watch.report.step, watch.report.birth) == (DYING.step, DYING.birth)
    assert first.forward_op_type == DYING.op and "# guilty" in first.text
    assert first.examples == DYING.examples


def test_one_magnitude_is_large_on_both_sides():
    """The examiner imports nothing of this project, so it has its own."""
    assert examiner.LARGE == thresholds.LARGE_VALUE
