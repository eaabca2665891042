"""The way back from the weights that a step lost, through values that are not finite, to where
these were made."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import tensorflow as tf

from zeronorm.autopsy import graph
from zeronorm.autopsy.values import WRITES, Values

# an infinity that comes from here is meant
LITERALS = ("Const", "Fill", "ZerosLike", "OnesLike", "BroadcastTo")
SELECTING = (
    "StridedSlice",
    "Slice",
    "GatherV2",
    "ResourceGather",
    "Split",
    "SplitV",
    "Unpack",
    "TensorListGetItem",
)


@dataclass(frozen=True)
class Origins:
    """Where the way back ends.

    operations: [(operation, whether its own value is known to be not finite), ...] in the graph's
        order.
    through_gradient: names of the operations between which and a weight there is a gradient's.
    """

    operations: list[tuple[tf.Operation, bool]]
    through_gradient: set[str]


def written(values: Values) -> list[str]:
    """The non-finite values that were written to the weights that were lost. A branch or a function
    that writes a weight itself counts with what it is given."""
    found = []
    for operation in values.operations:
        if any(
            values.weight_of.get(tensor.op.name) in values.lost for tensor in operation.inputs
        ) and (operation.type.startswith(WRITES) or graph.called(operation)):
            found += [tensor for tensor in values.inputs[operation.name] if tensor in values.bad]
    return found


def walk(values: Values, starts: Iterable[tf.Tensor]) -> Origins:
    """The operations at which the way back from `starts`, through non-finite values, ends: in the
    graph's order.

    Beside each whether its own value is known to be non-finite. A list of tensors, as loops keep
    them, cannot be looked into: the way goes on through it, and what calls a body is an origin if
    something inside is.
    """
    found: dict[str, bool] = {}
    through_gradient: set[str] = set()
    seen: set[tuple[str, bool, bool]] = set()
    starts = [
        tensor for tensor in starts if tensor.name in values.bad or tensor.dtype == tf.variant
    ]
    waiting = [(tensor.op.name, tensor.name in values.bad, False) for tensor in starts]
    while waiting:
        name, certain, through = state = waiting.pop()
        if state in seen:
            continue
        seen.add(state)
        through = through or name in values.step.gradient
        if through:
            through_gradient.add(name)
        operation = values.step.graph.get_operation_by_name(name)
        bad = [tensor for tensor in values.inputs[name] if tensor in values.bad]
        lists = [tensor.op.name for tensor in operation.inputs if tensor.dtype == tf.variant]
        forward = values.step.forward(name)
        if (
            certain
            and not bad
            and not lists
            and forward is not operation
            and forward.graph is values.step.graph
        ):
            # the gradient of what was given a NaN (of Max: NaN equals nothing, so 0/0) is its
            # consequence
            bad = [tensor.name for tensor in forward.inputs if tensor.name in values.nan]
        if _is_deliberate_infinity_turned_nan(values, name, bad) or (
            certain and not bad and not lists
        ):
            found[name] = True
        elif not bad and graph.called(operation):
            found.setdefault(name, False)
        waiting += [(tensor.split(":")[0], True, through) for tensor in bad if not found.get(name)]
        waiting += [(source, False, through) for source in lists]
    ends = [
        (operation, found[operation.name])
        for operation in values.operations
        if operation.name in found
    ]
    return Origins(ends, through_gradient)


def _is_deliberate_infinity_turned_nan(values: Values, name: str, bad: list[str]) -> bool:
    """Whether this is where a mask of infinities, harmless in itself, became NaN."""
    outputs = [
        t.name
        for t in values.step.graph.get_operation_by_name(name).outputs
        if t.name in values.nan
    ]
    if not bad or not outputs or values.nan.intersection(bad):
        return False
    affected = set(values.examples_of(outputs[0]))
    return all(_is_deliberate(values, tensor.split(":")[0], affected) for tensor in bad)


def _is_deliberate(values: Values, name: str, affected: set[int]) -> bool:
    """Whether every infinity that an operation's outputs hold was written down as one, or came to
    other examples too, which it did not harm.

    affected: the examples it turned into NaN.
    """
    waiting, seen = [name], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        bad = [tensor for tensor in values.inputs[name] if tensor in values.bad]
        operation = values.step.graph.get_operation_by_name(name)
        if not bad and operation.type not in LITERALS:
            outputs = [tensor.name for tensor in operation.outputs if tensor.name in values.bad]
            if not affected or not affected < set(values.examples_of(outputs[0])):
                return False
        waiting += [tensor.split(":")[0] for tensor in bad]
    return True


def absorbed(values: Values) -> tuple[str, ...]:
    """Operations with a NaN among their inputs and finite outputs, as 'Maximum at file:line'."""
    found = []
    for operation in values.operations:
        outputs = [tensor.name for tensor in operation.outputs if graph.is_number(tensor.dtype)]
        if operation.type in SELECTING or graph.called(operation):
            continue
        if (
            outputs
            and not values.bad.intersection(outputs)
            and values.nan.intersection(values.inputs[operation.name])
        ):
            line = values.step.line(operation.name)
            found.append(
                operation.type + (f" at {os.path.basename(line.file)}:{line.line}" if line else "")
            )
    return tuple(dict.fromkeys(found))
