"""What is handed to an examiner, and what it hands back.

A value that the examiner has is not sent again, and one that it is only to give back later stays
there.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import tensorflow as tf

from zeronorm.autopsy import arrays
from zeronorm.autopsy.subject import Stays

OF_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


class Kept:
    """A list of tensors that stays in the process that made it."""

    dtype = tf.variant

    def __init__(self, number: int):
        self.number = number


class Ledger:
    """What one examiner knows: variables by number, the functions that were defined, the values
    that it keeps."""

    def __init__(self):
        self._variables: dict[int, tuple[int, tf.Variable]] = {}  # {id: (number, variable)}
        self._sent: dict[int, tf.Tensor] = {}  # {number: the value that the process has}
        self._defined: set[str] = set()
        self._kept = 0

    def numbers(self, variables: Sequence[tf.Variable]) -> dict[int, int]:
        """{id of its handle: number} of every variable."""
        for variable in variables:
            self._variables.setdefault(id(variable.handle), (len(self._variables), variable))
        return {handle: number for handle, (number, _) in self._variables.items()}

    def input(self, value, numbers: Mapping[int, int]) -> tuple:
        if isinstance(value, Kept):
            return "kept", value.number
        if not tf.is_tensor(value):
            return "array", value, tf.as_dtype(value.dtype).name
        if id(value) in numbers:
            return "variable", numbers[id(value)]
        if value.dtype in (tf.resource, tf.variant):
            raise Stays("it uses a table or another object that cannot be handed over")
        return "array", value.numpy(), value.dtype.name

    def definitions(self, concrete) -> list[bytes]:
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

    def how(self, number: int, tensor: tf.Tensor, kept: Collection[int] | None):
        """How an output is handed over: see examiner.Examiner.run."""
        if kept is None:
            return "nothing"
        if tensor.dtype == tf.variant:
            self._kept += 1
            return self._kept
        return "whole" if number in kept else "compact"

    def unsent(self) -> dict[int, tuple]:
        """{number: (value, dtype, shape)} of the variables whose value the process does not have;
        from now on it has."""
        new = {}
        for number, variable in self._variables.values():
            value = variable.read_value()
            if number not in self._sent or not _same(self._sent[number], value):
                shape = None if variable.shape.rank is None else variable.shape.as_list()
                new[number] = (value.numpy(), variable.dtype.name, shape)
                self._sent[number] = value
        return new


def spec(value) -> tf.TensorSpec | tf.Tensor:
    if isinstance(value, Kept):
        return tf.TensorSpec(None, tf.variant)
    if tf.is_tensor(value) and value.dtype == tf.resource:
        return value
    return tf.TensorSpec(value.shape, value.dtype)


def value(kind: str, *value):
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
    except (TypeError, ValueError, RuntimeError):
        return np.array_equal(one.numpy(), other.numpy())


def _address(tensor: tf.Tensor) -> int:
    return np.frombuffer(memoryview(tensor).cast("B"), np.uint8).__array_interface__["data"][0]
