"""Nothing that an examination computes can end, stop or fill the process that asked for it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf

import cases
import data_sized
import zeronorm
from zeronorm import Autopsy, autopsy
from zeronorm.autopsy import arrays, examiner, thresholds
from zeronorm.autopsy import child as children

[DYING] = [case for case in cases.BUGS if case.name == "rmse_of_an_exact_prediction"]


def script(path: Path, *arguments: str) -> str:
    """What a script prints, in a process of its own that must survive."""
    command = [sys.executable, str(path), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=3600, cwd=path.parent)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


@pytest.fixture(scope="module")
def grid() -> dict:
    """{compiler: {graph: [whether its line is named, what the report says it could not see]}}, from
    one process."""
    return json.loads(script(Path(data_sized.__file__)).splitlines()[-1])


@pytest.mark.slow  # XLA compiles them twice
@pytest.mark.parametrize("compiler", ["kernels", "xla"])
@pytest.mark.parametrize("of", data_sized.GRAPHS, ids=lambda of: of.name)
def test_sizes_that_the_data_decides(grid, of, compiler):
    named, said = grid[compiler][of.name]
    assert named or any("xla" in reason.lower() for reason in said)
    if compiler == "kernels" or of.xla:
        assert named


def test_there_are_forty_graphs_of_which_xla_takes_many():
    assert len(data_sized.GRAPHS) >= 40 and sum(of.xla for of in data_sized.GRAPHS) >= 15


EXAMPLE = """
import keras, numpy as np, psutil, tensorflow as tf
import zeronorm

class Active(keras.layers.Layer):
    def call(self, h):
        rows = tf.boolean_mask(h, h[:, 0] > 0)
        self.add_loss(1e-3 * tf.reduce_sum(tf.sqrt(tf.reduce_sum(rows * rows, -1))))
        return h

def loss(t, p):
    return tf.math.log(p - t * 1e9)  # guilty

print("begun")  # no main guard: a copy of this script would print it too
rng = np.random.default_rng(0)
X = rng.standard_normal((64, 6)).astype("float32")
Y = rng.standard_normal((64, 1)).astype("float32")
x = keras.Input((6,))
m = keras.Model(x, keras.layers.Dense(1)(Active()(keras.layers.Dense(4, "relu")(x))))
m.compile("adam", loss=loss, jit_compile=True)
watch = zeronorm.Autopsy(verbose=0)
m.fit(X, Y, batch_size=8, shuffle=False, callbacks=[watch], verbose=0)
first = watch.report.guilty[0]
print([child.pid for child in psutil.Process().children(recursive=True)])
print(first.text, first.examples == tuple(np.flatnonzero(Y[:8, 0] > 0)), watch.report.left_out)
"""


def test_a_training_goes_on_whose_examination_ended_the_process(tmp_path):
    """XLA aborts where a value of a size that only the data decides is returned. The script has no
    main guard."""
    (tmp_path / "script.py").write_text(EXAMPLE)
    begun, children, found = script(tmp_path / "script.py").splitlines()
    assert begun == "begun" and found == "return tf.math.log(p - t * 1e9)  # guilty True ()"
    for pid in json.loads(children):
        assert ends(pid)


def ends(pid: int) -> bool:
    """Whether a process has ended, or does so soon."""
    try:
        psutil.Process(pid).wait(timeout=20)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def fitted(**limits) -> autopsy.Report:
    """The report of a training that dies; its weights must be the last finite ones."""
    model, arguments = DYING.make()
    watch = Autopsy(verbose=0, **limits)
    model.fit(**arguments, batch_size=8, verbose=0, shuffle=False, callbacks=[watch])
    assert int(model.optimizer.iterations) == DYING.step and finite(model)
    assert watch.report.harmful and watch.report.step == DYING.step and watch.report.lost
    return watch.report


def finite(model: keras.Model) -> bool:
    return all(np.isfinite(weights).all() for weights in model.get_weights())


@pytest.fixture
def asked(monkeypatch):
    """asked(do): calls do(examiner, what, examination) before anything is asked of one, and gives
    the list of these."""
    ask, seen = children.Child.ask, []

    def install(do):
        def asking(child, message, limits):
            seen.append(child)
            do(child, message[0], getattr(limits, "__self__", None))
            return ask(child, message, limits)

        monkeypatch.setattr(children.Child, "ask", asking)
        return seen

    return install


def test_the_time_limit_is_said_and_costs_nothing():
    report = fitted(seconds=1e-3)
    assert [
        reason
        for reason in report.left_out
        if "the time limit was reached (seconds=0.001)" in reason
    ]
    assert "the time limit was reached" in " ".join(str(report).split())


def test_the_memory_limit_is_said_and_costs_nothing(monkeypatch):
    monkeypatch.setattr(thresholds, "LIVES", 1)
    report = fitted(memory=1)
    assert [
        reason
        for reason in report.left_out
        if "the memory limit was reached (memory=1 bytes)" in reason
    ]
    assert report.kernels is report.xla is None


def test_what_is_found_before_the_time_is_up_is_kept(asked):
    """The step in another order of its examples loops for ever, as it never did in the training."""

    class Halving(keras.layers.Layer):
        def call(self, x):
            bound, shrinks = tf.reduce_max(x) / 2, x[5, 0]
            last = tf.while_loop(lambda a: a > bound, lambda a: [a * shrinks], [tf.reduce_max(x)])[
                0
            ]
            return x * 0.0 + tf.math.log(x - x + last - last)  # guilty

    x = np.ones((8, 2), np.float32)
    x[5] = 0.4
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,), batch_size=8), Halving(), cases.dense()])
    model.compile("sgd", "mse")
    runs = []

    def end_soon(child, what, examination):
        runs.append(what) if what == "run" else None
        # after each compiler's, and the one that finds the operation
        if what == "run" and len(runs) == 4:
            examination._end = time.monotonic() + 1

    asked(end_soon)
    report = zeronorm.examine(model, x, np.ones((8, 1), np.float32))
    assert report.guilty[0].text.endswith("# guilty") and len(runs) == 4
    assert any("the time limit was reached" in reason for reason in report.left_out)


def test_an_examiner_that_is_killed_is_replaced(asked):
    """The step cannot be had under the kernels, which are asked first; everything else can."""
    killed = []

    def kill(child, what, examination):
        if what == "run" and not killed:
            killed.append(child._process.pid)
            os.kill(child._process.pid, signal.SIGKILL)

    asked(kill)
    report = fitted()
    assert (report.kernels, report.xla) == (None, True)
    assert report.guilty[0].forward_op_type == "Sqrt"
    sentence = (
        "the step under TensorFlow's kernels could not be had: the process that computed it ended"
        " by SIGKILL"
    )
    assert sentence in report.left_out


def test_an_interruption_reaches_the_user_and_leaves_no_process(asked):
    def interrupt(child, what, examination):
        # the terminal's Ctrl-C does not reach it
        assert os.getsid(child._process.pid) != os.getsid(0)
        if what == "run":
            os.kill(os.getpid(), signal.SIGINT)

    examiners = asked(interrupt)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    model, arguments = DYING.make()
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(**arguments, batch_size=8, verbose=0, shuffle=False, callbacks=[Autopsy()])
    finally:
        signal.signal(signal.SIGINT, handler)
    assert finite(model) and not hasattr(model.train_function, "__self__")
    assert ends(examiners[0]._process.pid) and examiners[0] not in children.spare()


def test_a_healthy_training_starts_nothing(monkeypatch):
    monkeypatch.setattr(children, "Child", lambda *arguments: pytest.fail("a process was started"))
    model, arguments = cases.fitted([cases.dense()])
    model.fit(**arguments, batch_size=8, verbose=0, callbacks=[watch := Autopsy(verbose=0)])
    assert watch.report is None


@pytest.mark.parametrize(
    "limits", [{"seconds": 0}, {"seconds": "1"}, {"memory": -1}, {"memory": True}]
)
def test_a_limit_that_is_none_is_said_before_the_training(limits):
    with pytest.raises(ValueError, match=r"(seconds|memory) must be a positive number, not"):
        Autopsy(**limits)


def test_a_step_that_nothing_can_take_elsewhere_is_examined_as_it_is_trained(monkeypatch):
    """Where no process can be started."""

    def refuse(settings):
        raise OSError("no room")

    for child in list(children.spare()):
        children.spare().remove(child)
        child.end()
    monkeypatch.setattr(children, "Child", refuse)
    report = fitted()
    assert (report.kernels, report.xla) == (True, None)
    assert report.guilty[0].forward_op_type == "Sqrt" and report.cures[0].finite
    assert any(
        "no process of its own could be started for it (no room)" in reason
        for reason in report.left_out
    )


def test_a_large_value_travels_as_what_is_asked_of_it():
    """Against numpy: where it is NaN, where infinite, its largest magnitude; and a finite one as
    that alone."""
    value = np.random.default_rng(0).standard_normal((600, 600)).astype(np.float32)
    largest = arrays.unpacked(*examiner.compacted(tf.constant(value)))
    assert largest.shape == value.shape and (largest == np.abs(value).max()).all()
    value[3, 4], value[5, 6], value[7, 8] = np.nan, -np.inf, 2e10
    packed = arrays.unpacked(*examiner.compacted(tf.constant(value)))
    assert len(packed.kinds) < value.nbytes / 100
    array = packed.array()
    np.testing.assert_array_equal(np.isnan(array), np.isnan(value))
    np.testing.assert_array_equal(np.isinf(array), np.isinf(value))
    assert np.argwhere(array == np.float32(2e10)).tolist() == [[7, 8]] and array.dtype == np.float32
