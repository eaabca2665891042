"""From an element of a value in the step's graph to the rows of embeddings it was computed from.

NaN is the dye: it is added to what one position of a lookup returns. What it reaches was computed from that position,
also where numbers cannot show it, as in the square of a zero.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from zeronorm import steptrace

PASSING = ("Identity", "Cast", "ReadVariableOp")  # between a variable and the lookup in it


@dataclass(frozen=True)
class Lookup:
    """A gather of rows from a weight: its name, that of the tensor of its ids, that of the weight's placeholder."""

    operation: str
    ids: str
    placeholder: str


def lookups(graph: tf.Graph) -> list[Lookup]:
    """Every gather of rows from a variable."""
    found = []
    for operation in graph.get_operations():
        if operation.type not in ("ResourceGather", "GatherV2"):
            continue
        source = operation.inputs[0]
        while source.op.type in PASSING:
            source = source.op.inputs[0]
        if source.dtype == tf.resource:
            found.append(Lookup(operation.name, operation.inputs[1].name, source.op.name))
    return found


def above(operation: tf.Operation) -> set[str]:
    """Names of the operations whose outputs an operation was computed from."""
    found, waiting = set(), [operation]
    while waiting:
        for tensor in waiting.pop().inputs:
            if tensor.op.name not in found:
                found.add(tensor.op.name)
                waiting.append(tensor.op)
    return found


class Dye:
    """A lookup whose result can be dyed. targets: the tensors in which to look for the dye, of one shape."""

    def __init__(self, step: steptrace.Step, lookup: Lookup, ids: tuple[int, ...], targets: Sequence[str]):
        graph_def = step.graph.as_graph_def()
        output, dyed = lookup.operation, f"{lookup.operation}/dyed"
        for node in graph_def.node:
            for number, name in enumerate(node.input):
                if name in (output, f"{output}:0"):
                    node.input[number] = dyed
        tensor = step.graph.get_tensor_by_name(f"{output}:0")
        added = graph_def.node.add(name=dyed, op="AddV2", input=[output, "dye"])
        added.attr["T"].type = tensor.dtype.as_datatype_enum
        self._run = steptrace.runner(step, targets, False, edited=graph_def, given=["dye"], pure=True)
        self._wide, self._dtype = ids + (1,) * (tensor.shape.rank - len(ids)), tensor.dtype
        self._ids = ids
        shape = step.graph.get_tensor_by_name(targets[0]).shape
        self._by_example = bool(ids and shape.rank and shape[0] == ids[0])

    def positions(self, element: Sequence[int], batch: Sequence[tf.Tensor]) -> np.ndarray:
        """int [n, rank of the ids]: the positions that `element` of a target was computed from. Those of other examples
        are not tried where the first axis of the ids and of the target is the same."""
        every = np.argwhere(np.ones(self._ids, bool))
        if self._by_example:
            every = every[every[:, 0] == element[0]]

        def reaches(some: np.ndarray) -> bool:
            dye = np.zeros(self._ids, np.float32)
            dye[tuple(some.T)] = np.nan
            found = self._run(*batch, tf.cast(dye.reshape(self._wide), self._dtype))
            return any(np.isnan(value.numpy()[tuple(element)]) for value in found)

        return those(every, reaches)


def those(every: np.ndarray, holds: Callable[[np.ndarray], bool]) -> np.ndarray:
    """The members for which `holds`, which is asked of groups of them: halving."""
    if not len(every) or not holds(every):
        return every[:0]
    if len(every) == 1:
        return every
    half = len(every) // 2
    return np.concatenate([those(every[:half], holds), those(every[half:], holds)])
