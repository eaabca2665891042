"""Runs the functions of an examination in a process of its own, which may die, within limits of
time and memory.

What an examination computes is more than the user's own step: the step under another compiler, with
every value returned, changed. A compiler may end the process over any of it. So the user's process
only traces, which makes a function's definition; `examiner.py`, started for it, gets the definition
and the values, and computes.
"""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import cancellation
from tensorflow.python.framework import config

from zeronorm.autopsy import arrays, examiner
from zeronorm.autopsy import memory as memory_of
from zeronorm.autopsy.subject import Died, Ended, Here, Stays

SECONDS = 300.0  # an examination takes at most, unless told otherwise
SHARE = 0.5  # of the memory that is free, which it takes at most, unless told otherwise
POLL = 0.02  # seconds between two looks at the time and the memory
LIVES = 4  # processes that one examination may cost
IDLE_BYTES = 5e8  # a process that has grown by more is not kept for the next examination
OF_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


class Sandbox:
    """Where the functions of one examination run, as `Here` is; used in a with statement.

    seconds: the whole examination takes at most.
    memory: bytes it takes at most beyond what TensorFlow takes by being imported; None: half of
        what is free.
    jit_compile: how the user trains, which is how a function that cannot be handed over, one that
        calls Python say, is run in this process, unless XLA would compile it.

    Raises ValueError if a limit is not a positive number.
    """

    def __init__(self, seconds: float, memory: float | None, jit_compile: bool):
        check_limits(seconds, memory)
        self.seconds, self.memory = seconds, memory or SHARE * memory_of.free()
        self.jit_compile, self.left_out = jit_compile, _on_the_cpu()
        self.at_once = self.memory / 8
        self._end = time.monotonic() + seconds
        self._child: _Child | None = None
        self._lives = LIVES
        self.deaths: list[str] = []
        self._forget()

    def __enter__(self):
        with suppress(Stays):  # TensorFlow's import takes seconds, in which this process traces
            self._start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._child is None:
            return
        if kind is None or issubclass(kind, Exception):
            _keep(self._child)
        else:  # an interruption
            self._child.end()
        self._child = None

    def run(
        self,
        function: tf.types.experimental.PolymorphicFunction,
        arguments: Sequence,
        jit_compile: bool,
        state: Sequence[tf.Variable],
        weights: Mapping[str, tf.Variable],
        kept: Collection[int] | None = None,
        undo: bool = True,
    ) -> tuple[list, dict[str, int]]:
        """As `Here.run`. Raises Ended if the process died, a limit was reached, or the function can
        be run neither apart nor here."""
        self._in_time()
        if not callable(getattr(function, "get_concrete_function", None)):
            return self._here(
                function, arguments, jit_compile, state, weights, kept, undo, "it is not compiled"
            )
        try:
            concrete = function.get_concrete_function(*map(_spec, arguments))
            self._start()
            numbers = self._numbers([*state, *concrete.graph.variables])
            inputs = [
                self._input(argument, numbers)
                for argument in (*arguments, *concrete.captured_inputs)
            ]
            definitions = self._definitions(concrete)
            self._hold()
            if definitions:
                self._ask("define", definitions)
            returned = [
                self._how(number, tensor, kept) for number, tensor in enumerate(concrete.outputs)
            ]
            looked_at = {numbers[id(variable.handle)]: name for name, variable in weights.items()}
            name = concrete.function_def.signature.name
            values, counts = self._ask("run", name, inputs, returned, list(looked_at), undo)
        except Stays as why:
            return self._here(
                function, arguments, jit_compile, state, weights, kept, undo, str(why)
            )
        return [_value(*value) for value in values], {
            looked_at[n]: count for n, count in counts.items()
        }

    def restore(self) -> None:
        """Gives the process's variables the values from before the runs that did not undo what they
        did."""
        if self._child is not None:
            self._ask("restore")

    def _here(self, function, arguments, jit_compile, state, weights, kept, undo, why: str):
        """The function run in this process, if it is run as the user trains and the kernels do
        it."""
        if jit_compile or self.jit_compile:
            raise Stays(
                f"{why}, so that only TensorFlow's kernels can run it, and only as it is trained"
            )
        canceled = cancellation.CancellationManager()
        timer = threading.Timer(max(0.0, self._end - time.monotonic()), canceled.start_cancel)
        timer.daemon = True
        timer.start()
        try:
            with cancellation.CancellationManagerContext(canceled):
                return Here().run(function, arguments, jit_compile, state, weights, kept, undo)
        except tf.errors.CancelledError:
            self._in_time()
            raise
        finally:
            timer.cancel()

    def _in_time(self) -> None:
        if time.monotonic() >= self._end:
            self._stop()
            self.deaths.append(self._limits(0.0))
            raise Ended(self.deaths[-1])

    def _start(self) -> None:
        if self._child is None:
            if not self._lives:
                raise Ended(
                    f"{LIVES} processes that computed for this report have died, and no more are"
                    " started"
                )
            self._forget()
            try:
                self._child = _taken()
            except OSError as error:
                raise Stays(f"no process of its own could be started for it ({error})") from error

    def _stop(self) -> None:
        if self._child is not None:
            self._child.end()
        self._child = None

    def _forget(self) -> None:
        self._variables: dict[int, tuple[int, tf.Variable]] = {}  # {id: (number, variable)}
        self._sent: dict[int, tf.Tensor] = {}  # {number: the value that the process has}
        self._defined: set[str] = set()
        self._kept = 0

    def _ask(self, *message):
        """What the process answers. Raises what went wrong there, or Ended."""
        child = self._child
        assert child is not None  # `_start` comes first
        try:
            child.ready(self._limits)
            kind, answer = child.ask(message, self._limits)
        except Ended as why:
            self._child, self._lives = None, self._lives - 1
            self.deaths.append(str(why))
            raise
        except BaseException:
            self._stop()
            raise
        if kind == "done":
            return answer
        if kind == "NotFoundError" and "Op type not registered" in answer:
            raise Stays("it uses an operation that TensorFlow does not have of itself")
        error = getattr(tf.errors, kind, None)
        raise RuntimeError(f"{kind}: {answer}") if error is None else error(None, None, answer)

    def _limits(self, grown: float) -> str:
        """Which limit is reached, where one is. grown: bytes by which the process has grown."""
        if time.monotonic() >= self._end:
            return f"the time limit was reached (seconds={self.seconds:g})"
        if grown > self.memory:
            return f"the memory limit was reached (memory={self.memory:.3g} bytes)"
        return ""

    def _numbers(self, variables: Sequence[tf.Variable]) -> dict[int, int]:
        """{id of its handle: number} of every variable."""
        for variable in variables:
            self._variables.setdefault(id(variable.handle), (len(self._variables), variable))
        return {handle: number for handle, (number, _) in self._variables.items()}

    def _input(self, value, numbers: Mapping[int, int]) -> tuple:
        if isinstance(value, Kept):
            return "kept", value.number
        if not tf.is_tensor(value):
            return "array", value, tf.as_dtype(value.dtype).name
        if id(value) in numbers:
            return "variable", numbers[id(value)]
        if value.dtype in (tf.resource, tf.variant):
            raise Stays("it uses a table or another object that cannot be handed over")
        return "array", value.numpy(), value.dtype.name

    def _definitions(self, concrete) -> list[bytes]:
        """Of the function and those that it calls, as far as the process does not know them."""
        name = concrete.function_def.signature.name
        if name in self._defined:
            return []
        found = {f.signature.name: f for f in concrete.graph.as_graph_def().library.function}
        found[name] = concrete.function_def
        kinds = {node.op for function in found.values() for node in function.node_def}
        if kinds.intersection(OF_PYTHON):
            raise Stays("it calls Python")
        new = found.keys() - self._defined
        self._defined |= new
        return [found[name].SerializeToString() for name in new]

    def _how(self, number: int, tensor: tf.Tensor, kept: Collection[int] | None):
        """How an output is handed over: see examiner.Examiner.run."""
        if kept is None:
            return "nothing"
        if tensor.dtype == tf.variant:
            self._kept += 1
            return self._kept
        return "whole" if number in kept else "compact"

    def _hold(self) -> None:
        """Gives the process the values of the variables that it does not have."""
        new = {}
        for number, variable in self._variables.values():
            value = variable.read_value()
            if number not in self._sent or not _same(self._sent[number], value):
                shape = None if variable.shape.rank is None else variable.shape.as_list()
                new[number] = (value.numpy(), variable.dtype.name, shape)
                self._sent[number] = value
        if new:
            self._ask("hold", new)


class Kept:
    """A list of tensors that stays in the process that made it."""

    dtype = tf.variant

    def __init__(self, number: int):
        self.number = number


def check_limits(seconds, memory) -> None:
    """Raises ValueError if a limit is not a positive number."""
    for name, value in (("seconds", seconds), ("memory", memory)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and value > 0) and not (name == "memory" and value is None):
            raise ValueError(f"{name} must be a positive number, not {value!r}.")


def _spec(value) -> tf.TensorSpec | tf.Tensor:
    if isinstance(value, Kept):
        return tf.TensorSpec(None, tf.variant)
    if tf.is_tensor(value) and value.dtype == tf.resource:
        return value
    return tf.TensorSpec(value.shape, value.dtype)


def _value(kind: str, *value):
    """What examiner.Examiner.run hands over, as an examination keeps it."""
    if kind == "nothing":
        return None
    if kind == "array":
        return value[0]
    return Kept(value[0]) if kind == "kept" else arrays.unpacked(kind, *value)


def _same(one: tf.Tensor, other: tf.Tensor) -> bool:
    """Whether two reads of a variable found the same value. As long as one is kept nothing else is
    put into its memory."""
    try:
        return _address(one) == _address(other)
    # texts, and types that only TensorFlow has
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        return np.array_equal(one.numpy(), other.numpy())


def _address(tensor: tf.Tensor) -> int:
    return np.frombuffer(memoryview(tensor).cast("B"), np.uint8).__array_interface__["data"][0]


def _on_the_cpu() -> list[str]:
    if not tf.config.list_logical_devices("GPU"):
        return []
    return ["what the GPU makes of the step: it was examined on the CPU, which may round otherwise"]


class _Child:
    """An examiner. Raises OSError if it cannot be started."""

    def __init__(self, settings: str):
        environment = os.environ | {
            "CUDA_VISIBLE_DEVICES": "-1",
            "HIP_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", examiner.__file__, settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # the terminal's Ctrl-C is for this process alone
        )
        # which leaves no dead process behind
        threading.Thread(target=self._process.wait, daemon=True).start()
        self.settings = settings
        self.base: float | None = None  # bytes that it takes before it computes

    def ask(self, message: tuple, limits: Callable[[float], str]):
        """(kind, answer). limits: of the bytes by which it has grown, which limit is reached.

        Raises Ended if one is, Died if the process has died; it has ended then.
        """
        answers: list = []
        thread = threading.Thread(target=self._exchange, args=(message, answers), daemon=True)
        thread.start()
        waiting = True
        while waiting:
            thread.join(POLL)
            waiting = thread.is_alive()
            reached = limits(self.grown())
            if reached:
                self.end()
                raise Ended(reached)
        if not answers:
            code = self._process.wait()
            how = f"with exit status {code}"
            if code < 0:
                how = f"by {signal.Signals(-code).name}"
            raise Died(f"the process that computed it ended {how}")
        return answers[0]

    def _exchange(self, message: tuple, answers: list) -> None:
        try:
            examiner.send(self._process.stdin, message)
            answers.append(examiner.receive(self._process.stdout))
        except (OSError, EOFError, ValueError):  # it has died
            pass

    def ready(self, limits: Callable[[float], str]) -> None:
        """Waits until it can compute, without anything of another examination; its memory is
        counted from here. limits and what is raised: as of `ask`."""
        if self.base is None:
            self.ask(("forget",), limits)
            self.base = self._bytes()

    def grown(self) -> float:
        return 0.0 if self.base is None else self._bytes() - self.base

    def _bytes(self) -> float:
        resident = memory_of.resident(self._process.pid)
        return math.nan if resident is None else resident  # it has died

    def end(self) -> None:
        """Ends it, and waits until it has."""
        self._process.kill()
        self._process.wait()
        for file in filter(None, (self._process.stdin, self._process.stdout)):
            with suppress(OSError):  # what was not read yet
                file.close()


@lru_cache(maxsize=1)
def _spare() -> list[_Child]:
    """The examiner that the last examination in this process has left: it ends by itself soon. To
    import TensorFlow takes longer than most examinations."""
    return []


def _taken() -> _Child:
    """An examiner, the one of the last examination if it is still there."""
    settings = _settings()
    while _spare():
        child = _spare().pop()
        child.base = None
        if child.settings != settings:
            child.end()
            continue
        with suppress(Ended):
            child.ready(lambda grown: "")
            return child
    return _Child(settings)


def _keep(child: _Child) -> None:
    if child.base is None or child.grown() > IDLE_BYTES or _spare():
        child.end()
        return
    with suppress(Ended):
        child.ask(("rest",), lambda grown: "")
        _spare().append(child)


def _settings() -> str:
    """Whom an examiner serves and, besides the environment, what decides how TensorFlow computes:
    as JSON."""
    threads = tf.config.threading
    return json.dumps(
        {
            "parent": os.getpid(),
            "threads": [
                threads.get_inter_op_parallelism_threads(),
                threads.get_intra_op_parallelism_threads(),
            ],
            "optimizer": tf.config.optimizer.get_experimental_options(),
            "jit": tf.config.optimizer.get_jit(),
            "deterministic": config.is_op_determinism_enabled(),
        }
    )
