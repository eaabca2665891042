"""Every case of cases.py under three ways to watch a training, each in a fit of its own: what
zeronorm.Autopsy says, what tf.debugging.enable_check_numerics says, what TerminateOnNaN says.
Writes suite.json beside this file, and what example.py prints.

python experiments/autopsy/suite.py [--small --to FOLDER]
"""

import linecache
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from rich.progress import track

import cases
from zeronorm import Autopsy
from zeronorm.report import blocks, committed, script

HERE = Path(__file__).parent


def fit(case: cases.Case, *callbacks: keras.callbacks.Callback) -> None:
    model, arguments = case.make()
    model.jit_compile = case.jit_compile
    model.fit(
        **{"batch_size": cases.BATCH} | arguments,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )


def marked(file: str | None, line: int | None) -> bool:
    """Whether that is the line that the case marks as guilty."""
    if file is None or line is None:
        return False
    return file == cases.__file__ and "# guilty" in linecache.getline(file, line)


def autopsy(case: cases.Case) -> dict:
    watch = Autopsy(verbose=0)
    fit(case, watch)
    found = watch.report
    if found is None or not found.guilty:
        return {
            "says": "nothing" if found is None else "no operation",
            "alarm": bool(found and found.harmful),
        }
    first = found.guilty[0]
    line = (
        "marked" if marked(first.file, first.line) else "none" if first.file is None else "another"
    )
    right = {
        "step": case.step in (None, found.step),
        "birth": case.birth == found.birth,
        "operation": case.op in ("", first.forward_op_type),
        "line": line == ("marked" if case.marked else "none"),
        "examples": case.examples == first.examples,
        "rows": case.rows == {name.partition("/")[2]: rows for name, rows in first.rows.items()},
        "compilers": (case.kernels, case.xla) == (found.kernels, found.xla),
    }
    said = {"step": found.step, "birth": found.birth, "operation": first.op_type, "line": line}
    return {"says": said, "alarm": found.harmful, "right": right}


def check_numerics(case: cases.Case) -> dict:
    """What tf.debugging.enable_check_numerics says: its error's operation, and whether the marked
    line is among those that it lists."""
    tf.debugging.enable_check_numerics()
    try:
        fit(case)
        return {"says": "nothing", "alarm": False}
    except tf.errors.InvalidArgumentError as error:
        text = str(error)
        operation = re.search(r'graph op "(\w+)"', text)
        if operation is None:
            return {"says": "does not compile under XLA", "alarm": False}
        lines = re.findall(r'File "(.+)", line (\d+)', text)
        line = any(marked(file, int(number)) for file, number in lines)
        return {
            "says": {"operation": operation[1], "line": "marked" if line else "none"},
            "alarm": True,
        }
    finally:
        tf.debugging.disable_check_numerics()
        keras.backend.clear_session()


class Steps(keras.callbacks.Callback):
    """Counts the steps, and the elements of the weights that are lost when the training ends."""

    def on_train_begin(self, logs=None):
        self.steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1

    def on_train_end(self, logs=None):
        state = {variable.path: variable.value for variable in self.model.trainable_variables}
        self.lost = sum(
            int(tf.size(value)) - int(tf.math.count_nonzero(finite(value)))
            for value in state.values()
        )


def finite(value) -> tf.Tensor:
    return tf.cast(tf.math.is_finite(value), tf.int32)


def terminate_on_nan(case: cases.Case) -> dict:
    steps, stop = Steps(), keras.callbacks.TerminateOnNaN()
    with redirect_stdout(StringIO()) as printed:
        fit(case, stop, steps)
    stopped = "Invalid loss" in printed.getvalue()
    return {
        "says": {"step": steps.steps - 1, "lost": steps.lost} if stopped else "nothing",
        "alarm": stopped,
    }


def main(small: bool, to: Path) -> None:
    """small: the first bug and the first healthy case alone. to: the folder to write to."""
    rows = []
    chosen = [*cases.BUGS[:1], *cases.HEALTHY[:1]] if small else [*cases.BUGS, *cases.HEALTHY]
    for case in track(chosen, "Fitting each case three times"):
        row: dict[str, Any] = {
            "case": case.name,
            "thread": case.thread,
            "birth": case.birth,
            "jit_compile": case.jit_compile,
        }
        row |= {"kernels": case.kernels, "xla": case.xla, "operation": case.op}
        row |= {f.__name__: f(case) for f in (autopsy, check_numerics, terminate_on_nan)}
        rows.append(row)
    script.write(to, "suite", rows)
    if small:
        return
    root = HERE.parents[1]  # from where the report's paths are read
    command = [sys.executable, str(HERE.relative_to(root) / "example.py")]
    printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    (to / "example.txt").write_text(printed.strip() + "\n")
    if to == HERE:
        with suppress(committed.ReportError):
            blocks.refresh_readmes()


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__)))
