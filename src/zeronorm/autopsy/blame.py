"""What there is to say of an operation that made something non-finite: how it came about, whose
line, examples, rows."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import tensorflow as tf

from zeronorm.autopsy import graph, origins, rows, thresholds
from zeronorm.autopsy.subject import Ended, Snapshot
from zeronorm.autopsy.values import Values

GROWING = (
    "MatMul",
    "BatchMatMulV2",
    "Einsum",
    "Conv2D",
    "Conv2DBackpropFilter",
    "Conv2DBackpropInput",
    "BiasAdd",
    "Mul",
    "Square",
    "SquaredDifference",
    "Pow",
    "AddV2",
    "Add",
    "AddN",
    "Sub",
    "Sum",
    "Mean",
    "L2Loss",
    "Exp",
)
# inputs at which it is singular
SINGULAR = {"RealDiv": (1,), "Div": (1,), "Xdivy": (1,), "Xlogy": (1,), "Pow": (0,)}


@dataclass(frozen=True)
class Guilty:
    """An operation that made something non-finite out of finite inputs.

    op_type: its kind;
    forward_op_type: of a gradient, the kind it differentiates, else its own.
    file, line, function, text: the user's line that made it, None where there is none.
    operation: its name in the graph, which begins with its layer's;
    forward_operation: of a gradient, the name of what it differentiates, else its own.
    birth: as in `Report`.
    kind: nan, inf, or large where they are finite and what is computed from them overflows.
    count: of its elements.
    shape: of its value.
    elements: the first few of them, by index.
    examples: positions in the batch.
    rows: {weight: row ids} that these elements were computed from;
    row_names: the same by name.
    weight: of birth weights, which variable holds it.
    """

    op_type: str
    forward_op_type: str
    file: str | None
    line: int | None
    function: str | None
    text: str | None
    operation: str
    forward_operation: str
    birth: str
    kind: str
    count: int
    shape: tuple[int, ...] = ()
    elements: tuple[tuple[int, ...], ...] = ()
    examples: tuple[int, ...] = ()
    rows: dict[str, list[int]] = field(default_factory=dict)
    row_names: dict[str, list[str]] = field(default_factory=dict)
    weight: str | None = None


class Blame:
    """Of the operations at which the way back through the values of one run ends."""

    def __init__(self, values: Values):
        self.values, self.step, self.subject = values, values.step, values.subject
        self._through_gradient: set[str] = set()

    def guilty(self, starts: Iterable[tf.Tensor]) -> list[Guilty]:
        """What there is to say of each operation at which the way back from `starts` ends."""
        back = origins.walk(self.values, starts)
        self._through_gradient |= back.through_gradient
        found, closed = [], []
        for operation, certain in back.operations:
            inner = self._inside(operation)
            if inner is not None:
                found.append(
                    replace(
                        inner,
                        operation=f"{operation.name}/{inner.operation}",
                        forward_operation=f"{operation.name}/{inner.forward_operation}",
                    )
                )
            elif certain:
                found.append(self._of(operation))
            elif any(tensor.name in self.values.bad for tensor in operation.outputs):
                closed.append(operation)
        # a loop into which no way leads may only have passed on what came to it in a list: guilty
        # if nobody else is
        return found or [self._of(operation) for operation in closed]

    def _of(self, operation: tf.Operation) -> Guilty:
        bad = [tensor.name for tensor in operation.outputs if tensor.name in self.values.bad]
        value = self.values.arrays[bad[0]] if bad else np.zeros(())
        where, kind = np.argwhere(~np.isfinite(value)), "nan" if np.isnan(value).any() else "inf"
        birth = self._birth(operation)
        if birth == "divergence" and _source(self.values, operation) is not operation:
            operation = _source(self.values, operation)
            value = self.values.arrays[operation.outputs[0].name]
            where, kind, birth = (
                np.argwhere(np.abs(value) > thresholds.LARGE_VALUE),
                "large",
                self._birth(operation),
            )
        elements = tuple(tuple(int(i) for i in index) for index in where[: thresholds.ELEMENTS])
        line = self.step.line(operation.name)
        name, weight = operation.name, None
        # not a body's
        if name in self.step.inputs and len(self.step.inputs) == len(self.subject.inputs):
            name = self.subject.inputs[self.step.inputs.index(name)]
        ids: dict[str, list[int]] = {}
        examples: tuple[int, ...] = ()
        if birth == "weights":
            weight = next(
                (
                    self.values.weight_of[t.op.name]
                    for t in operation.inputs
                    if t.op.name in self.values.weight_of
                ),
                None,
            )
            ids, examples = _lost_rows(self.values, operation, where)
        elif birth == "optimizer":  # which works on whole weights
            ids = _updated_rows(self.values, value.shape, where)
        elif birth != "divergence":  # in which no example and no row is at fault
            ids = _rows_of(self.values, operation, value.shape, elements)
            examples = self.values.examples(value.shape, where)
        names = self.subject.names
        return Guilty(
            op_type=operation.type,
            forward_op_type=self.step.forward(operation.name).type,
            **(asdict(line) if line else dict.fromkeys(("file", "line", "function", "text"))),
            operation=name,
            forward_operation=self.step.forward(operation.name).name,
            birth=birth,
            kind=kind,
            count=len(where),
            shape=tuple(value.shape),
            elements=elements,
            examples=examples,
            rows=ids,
            row_names={
                key: [_named(names[key], row) for row in ids[key]] for key in ids if key in names
            },
            weight=weight,
        )

    def _inside(self, operation: tf.Operation) -> Guilty | None:
        """The guilty operation inside a branch, a loop or a function that is called; None of any
        other operation, and where the inside cannot be run by itself."""
        if not graph.called(operation):
            return None
        jit_compile = self.values.jit_compile or _must_compile(operation)
        given = [
            self.step.captured.get(tensor.op.name, self.values.tensors.get(tensor.name))
            for tensor in operation.inputs
        ]
        if any(tensor is None for tensor in given):
            return None
        held = Snapshot(self.subject.state)

        def run(function, arguments, compiled, kept):
            return self.subject.run(function, arguments, compiled, kept, undo=False)[0]

        try:
            for body, arguments in graph.runs(
                self.step, operation, given, thresholds.ITERATIONS, run
            ):
                names = graph.values_of(body.graph, jit_compile)
                found = run(
                    graph.runner(body, names, jit_compile),
                    arguments,
                    jit_compile,
                    range(len(names)),
                )
                tensors = dict(zip(names, found, strict=True))
                values = Values(
                    body, self.subject, tensors, jit_compile, self.values.before, self.values.lost
                )
                inside = Blame(values).guilty(body.graph.outputs)
                inner = [one for one in inside if one.birth != "data"]  # which was not made inside
                if inner:
                    grown = inner[0].birth == "divergence"
                    return inner[0] if grown else replace(inner[0], birth=self._birth(operation))
        # XLA cannot take it by itself
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, Ended):
            return None
        finally:
            held.restore()
            with suppress(Ended):
                self.subject.place.restore()
        return None

    def _birth(self, operation: tf.Operation) -> str:
        name = operation.name
        if name in self.step.inputs:
            return "data"
        if operation.type in origins.LITERALS or any(
            self.values.weight_of.get(t.op.name) in self.values.before for t in operation.inputs
        ):
            return "weights"
        if name in self.step.optimizer:
            return "optimizer"
        if operation.type in GROWING and _large_inputs(self.values, operation):
            return "divergence"
        if name in self.step.gradient:
            return "gradient"
        seen = self.values.bad.intersection(self.step.losses)
        after = name in self._through_gradient or any(
            o.name in self.step.gradient for o in graph.above(operation)
        )
        return "gradient" if after and not seen else "forward"

    def examples(self, one: Guilty, moved: Mapping[str, np.ndarray]) -> tuple[int, ...]:
        """Its examples, by the axis along which its non-finite elements move on as the examples do.

        moved: {tensor: value} when they have moved on by one place.
        """
        known = [
            name
            for name in moved
            if name.split(":")[0] == one.operation and name in self.values.bad
        ]
        if not known:  # inside a branch or a loop
            return one.examples
        forward = self.step.forward(one.operation)
        if forward.graph is self.step.graph and not {
            o.name for o in graph.above(forward)
        }.intersection(self.step.inputs):
            return ()  # it is computed from the weights alone
        before, after = (~np.isfinite(of[known[0]]) for of in (self.values.arrays, moved))
        batch = self.subject.batch
        for axis in self.values.axes(before.shape):
            assert batch  # else no axis counts the examples
            was, now = (
                self.values.examples(mask.shape, np.argwhere(mask), axis)
                for mask in (before, after)
            )
            if tuple(sorted((example + 1) % batch for example in was)) == now:
                return was
        return ()


def _large_inputs(values: Values, operation: tf.Operation) -> list[str]:
    """The inputs of an operation that hold a finite value above thresholds.LARGE_VALUE."""
    finite = (tensor for tensor in values.inputs[operation.name] if tensor not in values.bad)
    return [
        t
        for t in finite
        if values.arrays[t].size and float(np.abs(values.arrays[t]).max()) > thresholds.LARGE_VALUE
    ]


def _source(values: Values, operation: tf.Operation) -> tf.Operation:
    """Of an operation that overflowed: where its large inputs came from, if that is the batch
    or an operation that made them of small ones at a singular point; else itself, which has
    grown."""
    waiting, seen = [operation], set()
    for each in waiting:
        large = _large_inputs(values, each)
        made = each.inputs and not large and (each.type == "Exp" or each.type not in GROWING)
        # a body's inputs are no batch
        batch = each.name in values.step.inputs and values.step.losses
        if batch or (made and not any(t.dtype == tf.resource for t in each.inputs)):
            return each
        for tensor in large:
            if tensor not in seen:
                seen.add(tensor)
                waiting.append(values.step.graph.get_tensor_by_name(tensor).op)
    return operation


def _must_compile(operation: tf.Operation) -> bool:
    """Whether the function that is called is compiled by XLA wherever it is called from."""
    try:
        return bool(operation.get_attr("_XlaMustCompile"))
    except ValueError:  # it says nothing of it
        return False


def _named(names: Sequence[str], row: int) -> str:
    return str(names[row]) if row < len(names) else str(row)


def _lost_rows(
    values: Values, operation: tf.Operation, where: np.ndarray
) -> tuple[dict, tuple[int, ...]]:
    """Of a weight that held something non-finite before the step: its rows, and the examples that
    look them up."""
    for lookup in values.lookups:
        if any(tensor.op.name == lookup.placeholder for tensor in operation.inputs):
            ids = values.arrays[lookup.ids]
            bad = ~np.isfinite(values.arrays[operation.outputs[0].name])
            if operation.type == "ReadVariableOp":
                rows = np.intersect1d(where[:, 0], ids)
            else:  # it has looked them up itself
                rows = np.unique(ids[bad.reshape(*ids.shape, -1).any(axis=-1)])
            examples = np.unique(np.argwhere(np.isin(ids, rows))[:, 0])
            return {values.weight_of[lookup.placeholder]: rows.tolist()}, tuple(examples.tolist())
    return {}, ()


def _updated_rows(
    values: Values, shape: tuple[int, ...], where: np.ndarray
) -> dict[str, list[int]]:
    """{embedding: rows} of an optimizer's value that has the shape of an embedding that was
    lost."""
    for weight in {
        values.weight_of[lookup.placeholder] for lookup in values.lookups
    } & values.lost.keys():
        if tuple(values.subject.weights[weight].shape) == shape:
            return {weight: np.unique(where[:, 0]).tolist()}
    return {}


def _rows_of(
    values: Values, operation: tf.Operation, shape: tuple[int, ...], elements: tuple
) -> dict[str, list[int]]:
    """{weight: the rows that the elements were computed from}: of a gradient, those that the same
    element of the operation it differentiates was."""
    forward = values.step.forward(operation.name)
    if forward.graph is not values.step.graph:
        return {}
    above = {operation.name for operation in graph.above(forward)}
    batch = values.subject.tensors
    found: dict[str, list[int]] = {}
    singular = SINGULAR.get(forward.type, range(len(forward.inputs)))
    targets = [
        t for n, t in enumerate(forward.inputs) if n in singular and graph.is_number(t.dtype)
    ]
    for lookup in values.lookups:
        ids: set[int] = set()
        for tensor in targets if lookup.operation in above else ():
            taint = rows.Taint(
                values.step,
                lookup,
                values.arrays[lookup.ids],
                tensor.name,
                batch,
                values.subject.values,
            )
            for element in elements if tensor.shape.rank is not None else ():
                index = _broadcast(element, shape, tuple(tensor.shape))
                if index is not None and len(ids) <= thresholds.ROWS:
                    with suppress(Ended):  # what was found is kept
                        ids.update(taint.rows(index, thresholds.ROWS).tolist())
        if 0 < len(ids) <= thresholds.ROWS:
            weight = values.weight_of[lookup.placeholder]
            found[weight] = sorted(ids.union(found.get(weight, ())))
    return found


def _broadcast(
    element: tuple[int, ...], shape: tuple[int, ...], of: tuple
) -> tuple[int, ...] | None:
    """The index in a tensor of shape `of` from which an element of a result of that shape comes;
    None if the one is not broadcast to the other."""
    if len(of) > len(shape):
        return None
    pairs = list(
        zip(element[len(shape) - len(of) :], shape[len(shape) - len(of) :], of, strict=True)
    )
    if any(size not in (1, whole) for _, whole, size in pairs):
        return None
    return tuple(0 if size == 1 else position for position, _, size in pairs)
