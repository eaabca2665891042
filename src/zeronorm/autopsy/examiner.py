"""The process in which an examination computes. It holds variables, and runs functions that it is
given.

It may die: a compiler may end it, and who started it does so when it takes too long or too much
memory. So it is a program of its own, which imports nothing of the user's and nothing else of this
project, writes nothing to the terminal, leaves a GPU alone, and ends with the process that started
it:

python -P examiner.py SETTINGS

Messages go through its standard input and output, each the pickle of a tuple after its length.
SETTINGS: JSON, as `sandbox` writes it.
"""

import json
import math
import os
import pickle
import signal
import struct
import sys
import threading
import time
import zlib

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import function_pb2
from tensorflow.python.eager import context

LENGTH = struct.Struct(">Q")  # before each message
COMPACT = 1e6  # bytes above which a value is not handed over as it is
LARGE = 1e10  # thresholds.LARGE_VALUE: of a finite value that exceeds it it is told where
REST = 30  # seconds after an examination in which another may begin before the process ends
ASKS = 0.5  # seconds between two looks whether the process that started this one is still there


def send(file, message: tuple) -> None:
    """Writes one message."""
    data = pickle.dumps(message, protocol=5)
    file.write(LENGTH.pack(len(data)))
    file.write(data)
    file.flush()


def receive(file) -> tuple:
    """Reads one message. Raises EOFError if there is none, or half of one."""
    return pickle.loads(_exactly(file, LENGTH.unpack(_exactly(file, LENGTH.size))[0]))


def _exactly(file, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data


def not_finite(variable) -> int:
    """How many elements of a variable, floating-point or complex, are not finite."""
    complex_ = variable.dtype.is_complex
    parts = [tf.math.real(variable), tf.math.imag(variable)] if complex_ else [variable]
    finite = tf.reduce_all([tf.math.is_finite(part) for part in parts], axis=0)
    if tf.reduce_all(finite):
        return 0
    return int(tf.size(finite)) - int(tf.math.count_nonzero(finite))


def compacted(value: tf.Tensor) -> tuple:
    """A value as it is handed over.

    ("array", its array); of a large one ("largest", shape, dtype, its largest magnitude) if it is
    finite, and ("kinds", shape, dtype, compressed, largest) if not: a byte an element, 0 finite, 1
    infinite, 2 NaN, 3 finite above LARGE.
    """
    size = int(tf.size(value)) * max(value.dtype.size, 1)
    if size < COMPACT or not value.dtype.is_floating:
        return "array", np.asarray(value.numpy())
    infinite, nan = tf.math.is_inf(value), tf.math.is_nan(value)
    magnitude = tf.where(infinite | nan, tf.zeros_like(value), tf.abs(value))
    largest = tf.reduce_max(magnitude).numpy()
    if largest <= LARGE and not tf.reduce_any(infinite | nan):
        return "largest", tuple(value.shape), value.dtype.name, largest
    kinds = (
        tf.cast(infinite, tf.uint8)
        + 2 * tf.cast(nan, tf.uint8)
        + 3 * tf.cast(magnitude > LARGE, tf.uint8)
    )
    return (
        "kinds",
        tuple(value.shape),
        value.dtype.name,
        zlib.compress(kinds.numpy().tobytes(), 1),
        largest,
    )


class Examiner:
    """Variables and functions, each by the name or number that the asking process gave it."""

    def __init__(self):
        self.functions: set[str] = set()
        self.forget()

    def forget(self) -> None:
        """Everything."""
        for name in self.functions:
            context.context().remove_function(name)
        self.functions.clear()
        self.variables: dict[int, tf.Variable] = {}
        self.before: dict[int, tf.Tensor] = {}
        self.kept: dict[int, tf.Tensor] = {}
        self.until = math.inf  # when the process ends by itself, by time.monotonic

    def rest(self) -> None:
        """Forgets, and ends the process soon if nothing else is asked of it."""
        self.forget()
        self.until = time.monotonic() + REST

    def hold(self, values: dict) -> None:
        """Makes or sets variables; `restore` gives them these values.

        values: {number: (array, dtype, shape)}.
        """
        for number, (value, dtype, shape) in values.items():
            if number not in self.variables:
                made = tf.Variable(value, trainable=False, dtype=dtype, shape=tf.TensorShape(shape))
                self.variables[number] = made
            else:
                self.variables[number].assign(value)
            self.before[number] = tf.identity(self.variables[number])

    def define(self, definitions: list[bytes]) -> None:
        """Makes functions known. definitions: serialised FunctionDefs."""
        for definition in definitions:
            function = function_pb2.FunctionDef.FromString(definition)
            context.context().add_function_def(function)
            self.functions.add(function.signature.name)

    def run(
        self, name: str, arguments: list, returned: list, weights: list[int], undo: bool
    ) -> tuple:
        """Calls a function: (its values, {variable: elements that are not finite after it}).

        arguments: ("variable", number), ("kept", number) or ("array", array, dtype).
        returned: for each output "whole", "compact", "nothing" or a number to keep it by; what is
            kept is handed over as well, but for lists of tensors.
        weights: the variables to look at.
        undo: whether the variables become what they were.
        """
        try:
            found = context.context().call_function(
                name.encode(), [self._tensor(*of) for of in arguments], len(returned)
            )
            values = [self._returned(*pair) for pair in zip(found or (), returned, strict=True)]
            counts = {number: not_finite(self.variables[number]) for number in weights}
            return values, {number: count for number, count in counts.items() if count}
        finally:
            if undo:
                self.restore()

    def restore(self) -> None:
        """Gives every variable the value that it was given last."""
        for number, variable in self.variables.items():
            variable.assign(self.before[number])

    def _tensor(self, kind: str, value, dtype: str = "") -> tf.Tensor:
        if kind == "variable":
            return self.variables[value].handle
        return self.kept[value] if kind == "kept" else tf.constant(value, dtype)

    def _returned(self, value: tf.Tensor, how) -> tuple:
        if how == "nothing":
            return ("nothing",)
        if how == "compact":
            return compacted(value)
        if isinstance(how, int):
            self.kept[how] = value
            return "kept", how
        return "array", np.asarray(value.numpy())


def _ends_with(parent: int, examiner: Examiner) -> None:
    """Ends this process when the one that started it has ended, or when it has rested."""
    while os.getppid() == parent and time.monotonic() < examiner.until:
        time.sleep(ASKS)
    os._exit(0)


def _configure(threads: list[int], optimizer: dict, jit: str, deterministic: bool) -> None:
    """Makes TensorFlow compute as it does in the process that asks."""
    tf.config.threading.set_inter_op_parallelism_threads(threads[0])
    tf.config.threading.set_intra_op_parallelism_threads(threads[1])
    tf.config.optimizer.set_experimental_options(optimizer)
    if jit:
        tf.config.optimizer.set_jit(jit)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def main(settings: dict) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a graph prints is no answer
    parent = settings.pop("parent")
    _configure(**settings)
    examiner = Examiner()
    threading.Thread(target=_ends_with, args=(parent, examiner), daemon=True).start()
    while True:
        try:
            what, *arguments = receive(asked)
        except EOFError:
            return
        try:
            answer = "done", getattr(examiner, what)(*arguments)
        except Exception as error:
            answer = type(error).__name__, str(getattr(error, "message", error))
        send(answers, answer)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
