"""From an element of a value in the step's graph to the rows of embeddings it was computed from.

NaN is the taint: it is added to what one position of a lookup returns. What it reaches was computed
from that position, also where numbers cannot show it, as in the square of a zero.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from zeronorm.autopsy import graph

PASSING = ("Identity", "Cast", "ReadVariableOp")  # between a variable and the lookup in it


@dataclass(frozen=True)
class Lookup:
    """A gather of rows from a weight: its name, that of the tensor of its ids, that of the weight's
    placeholder."""

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


class Taint:
    """A lookup whose result can be tainted.

    ids: int, the rows that it looks up.
    target: the tensor in which to look for the taint.
    batch: the step's own.
    run: calls a function as `subject.Subject.values` does, in this process by default.
    """

    def __init__(
        self,
        step: graph.Step,
        lookup: Lookup,
        ids: np.ndarray,
        target: str,
        batch: Sequence[tf.Tensor],
        run: Callable = lambda function, arguments: function(*arguments),
    ):
        graph_def = step.graph.as_graph_def()
        output, tainted = lookup.operation, f"{lookup.operation}/tainted"
        fetched = f"{tainted}:0" if target == f"{output}:0" else target
        for node in graph_def.node:
            for number, name in enumerate(node.input):
                if name in (output, f"{output}:0"):
                    node.input[number] = tainted
        tensor = step.graph.get_tensor_by_name(f"{output}:0")
        added = graph_def.node.add(name=tainted, op="AddV2", input=[output, "taint"])
        added.attr["T"].type = tensor.dtype.as_datatype_enum
        function = graph.runner(
            step, [fetched], False, edited=graph_def, given=["taint"], pure=True
        )
        self._run = lambda arguments: run(function, arguments)
        self._wide, self._dtype = ids.shape + (1,) * (tensor.shape.rank - ids.ndim), tensor.dtype
        self._ids, self._batch = ids, batch
        shape = step.graph.get_tensor_by_name(target).shape
        self._by_example = bool(ids.ndim and shape.rank and shape[0] == ids.shape[0])

    def rows(self, element: Sequence[int], most: int) -> np.ndarray:
        """The rows that `element` of the target was computed from; more than `most`, not all of
        them, if there are more. Those of other examples do not count where the first axis of the
        ids and of the target is the same."""
        counted = np.ones(self._ids.shape, bool)
        if self._by_example:
            counted &= (np.arange(len(self._ids)) == element[0]).reshape(
                -1, *(1,) * (self._ids.ndim - 1)
            )

        def reaches(some: np.ndarray) -> bool:
            taint = np.where(counted & np.isin(self._ids, some), np.nan, 0).reshape(self._wide)
            [found] = self._run([*self._batch, tf.cast(taint, self._dtype)])
            return bool(np.isnan(np.asarray(found)[tuple(element)]))

        return those(np.unique(self._ids[counted]), reaches, most)


def those(
    every: np.ndarray, holds: Callable[[np.ndarray], bool], most: float = np.inf
) -> np.ndarray:
    """The members for which `holds`, which is asked of groups of them: halving. It ends with more
    than `most`."""
    if not len(every) or not holds(every):
        return every[:0]
    if len(every) == 1:
        return every
    half = len(every) // 2
    found = those(every[:half], holds, most)
    if len(found) > most:
        return found
    return np.concatenate([found, those(every[half:], holds, most - len(found))])
