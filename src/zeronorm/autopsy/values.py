"""The values of one run of a graph: which of them are not finite, and what each was computed
from."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import tensorflow as tf

from zeronorm.autopsy import graph, rows
from zeronorm.autopsy.arrays import Arrays
from zeronorm.autopsy.graph import Step
from zeronorm.autopsy.subject import Subject

WRITES = (
    "Assign",
    "ResourceApply",
    "ResourceSparseApply",
    "ResourceScatter",
    "ResourceStridedSliceAssign",
)


class Values:
    """The graph is a step's, or the body of a branch, a loop or a function that the step calls.

    tensors: {name: value, as the run returned it};
    arrays: the same as NumPy has them.
    bad, nan: names of the tensors that hold something that is not finite, or a NaN.
    before: {weight: elements that were not finite before the step};
    lost: those that the step loses.
    weight_of: {placeholder of a variable's handle: weight}.
    """

    def __init__(
        self,
        step: Step,
        subject: Subject,
        tensors: Mapping[str, tf.Tensor],
        jit_compile: bool,
        before: dict,
        lost: dict,
    ):
        self.step, self.subject, self.jit_compile, self.before, self.lost = (
            step,
            subject,
            jit_compile,
            before,
            lost,
        )
        self.tensors = tensors
        self.arrays = Arrays(tensors)
        self.bad, self.nan = set(), set()
        for name, value in self.arrays.items():
            if graph.is_number(tf.as_dtype(value.dtype)) and not np.isfinite(value).all():
                self.bad.add(name)
                if np.isnan(value).any():
                    self.nan.add(name)
        self.operations = step.graph.get_operations()
        handles = {id(variable.handle): name for name, variable in subject.weights.items()}
        self.weight_of = {  # {placeholder of a handle: weight}
            name: handles[id(tensor)]
            for name, tensor in step.captured.items()
            if id(tensor) in handles
        }

    @cached_property
    def inputs(self) -> dict[str, list[str]]:
        """{operation: the floating-point tensors that its values come from}. What reads a variable
        that the step has written before comes from what was written."""
        found: dict[str, list[str]] = {}
        written: dict[str, list[str]] = {}
        for operation in self.operations:
            inputs = [tensor.name for tensor in operation.inputs if graph.is_number(tensor.dtype)]
            resources = [
                tensor.op.name for tensor in operation.inputs if tensor.dtype == tf.resource
            ]
            if operation.type.startswith(WRITES):
                for resource in resources:
                    written.setdefault(resource, []).extend(inputs)
            else:
                inputs += [tensor for resource in resources for tensor in written.get(resource, ())]
            found[operation.name] = inputs
        return found

    @cached_property
    def lookups(self) -> list[rows.Lookup]:
        found = [
            lookup
            for lookup in rows.lookups(self.step.graph)
            if lookup.placeholder in self.weight_of
        ]
        return [lookup for lookup in found if lookup.ids in self.arrays]  # XLA may not return them

    def examples_of(self, tensor: str) -> tuple[int, ...]:
        value = self.arrays[tensor]
        return self.examples(value.shape, np.argwhere(~np.isfinite(value)))

    def examples(
        self, shape: tuple[int, ...], where: np.ndarray, axis: int | None = None
    ) -> tuple[int, ...]:
        """Positions in the batch of a value's non-finite elements, where an axis of it, else the
        first that may, counts the examples."""
        batch, axes = self.subject.batch, self.axes(shape) if axis is None else [axis]
        if not batch or not axes or not len(where):
            return ()
        found = where[:, axes[0]] // (shape[axes[0]] // batch)
        return tuple(int(example) for example in np.unique(found))

    def axes(self, shape: tuple[int, ...]) -> list[int]:
        """Those that may count the examples: alone, or the first one examples x positions."""
        batch = self.subject.batch
        if not batch:
            return []
        return [
            n
            for n, size in enumerate(shape)
            if size == batch or (n == 0 and size and size % batch == 0)
        ]
