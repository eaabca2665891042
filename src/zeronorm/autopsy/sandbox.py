"""Runs the functions of an examination in a process of its own, which may die, within limits of
time and memory.

What an examination computes is more than the user's own step: the step under another compiler, with
every value returned, changed. A compiler may end the process over any of it. So the user's process
only traces, which makes a function's definition; `examiner.py`, started for it, gets the definition
and the values, and computes.
"""

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

import tensorflow as tf
from tensorflow.python.eager import cancellation

from zeronorm.autopsy import memory as memory_of
from zeronorm.autopsy import thresholds
from zeronorm.autopsy.child import Child, acquire, release
from zeronorm.autopsy.handover import Ledger, spec, value
from zeronorm.autopsy.subject import Ended, Here, Stays


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
        self.seconds, self.memory = seconds, memory or thresholds.SHARE * memory_of.free()
        self.jit_compile, self.left_out = jit_compile, _on_the_cpu()
        self.at_once = self.memory / 8
        self._end = time.monotonic() + seconds
        self._child: Child | None = None
        self._lives = thresholds.LIVES
        self.deaths: list[str] = []
        self._ledger = Ledger()

    def __enter__(self):
        with suppress(Stays):  # TensorFlow's import takes seconds, in which this process traces
            self._start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._child is None:
            return
        if kind is None or issubclass(kind, Exception):
            release(self._child)
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
            concrete = function.get_concrete_function(*map(spec, arguments))
            self._start()
            numbers = self._ledger.numbers([*state, *concrete.graph.variables])
            inputs = [
                self._ledger.input(argument, numbers)
                for argument in (*arguments, *concrete.captured_inputs)
            ]
            definitions = self._ledger.definitions(concrete)
            new = self._ledger.unsent()
            if new:
                self._ask("hold", new)
            if definitions:
                self._ask("define", definitions)
            returned = [
                self._ledger.how(number, tensor, kept)
                for number, tensor in enumerate(concrete.outputs)
            ]
            looked_at = {numbers[id(variable.handle)]: name for name, variable in weights.items()}
            name = concrete.function_def.signature.name
            values, counts = self._ask("run", name, inputs, returned, list(looked_at), undo)
        except Stays as why:
            return self._here(
                function, arguments, jit_compile, state, weights, kept, undo, str(why)
            )
        return [value(*one) for one in values], {looked_at[n]: count for n, count in counts.items()}

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
                    f"{thresholds.LIVES} processes that computed for this report have died, and no"
                    " more are started"
                )
            self._ledger = Ledger()
            try:
                self._child = acquire()
            except OSError as error:
                raise Stays(f"no process of its own could be started for it ({error})") from error

    def _stop(self) -> None:
        if self._child is not None:
            self._child.end()
        self._child = None

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


def check_limits(seconds, memory) -> None:
    """Raises ValueError if a limit is not a positive number."""
    for name, limit in (("seconds", seconds), ("memory", memory)):
        number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
        if not (number and limit > 0) and not (name == "memory" and limit is None):
            raise ValueError(f"{name} must be a positive number, not {limit!r}.")


def _on_the_cpu() -> list[str]:
    if not tf.config.list_logical_devices("GPU"):
        return []
    return ["what the GPU makes of the step: it was examined on the CPU, which may round otherwise"]
