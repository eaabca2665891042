"""A traced training step: the values of its operations, the source line of each, and how to run it,
or a part, again.

Nothing here belongs to one model. A step is any function of a batch that TensorFlow can trace.
"""

import linecache
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import keras
import numpy as np
import optree
import tensorflow as tf
import wrapt

LIBRARIES = tuple(  # whose files are passed over on the way to the user's line
    os.path.dirname(os.path.abspath(str(module.__file__))) + os.sep
    for module in (tf, keras, optree, wrapt, np)
)
# how TensorFlow names the gradient inside a body
GRADIENT_OF = re.compile(r"gradients/(.+)_grad/[^/]+$")
TRACERS = {
    os.path.join(os.path.dirname(os.path.abspath(__file__)), "trace.py")
}  # the file from whose frames a step begins


@dataclass(frozen=True)
class Line:
    """A line of source, as in a traceback."""

    file: str
    line: int
    function: str
    text: str


@dataclass(frozen=True)
class Step:
    """A traced step.

    graph: its operations, in the order of their making.
    inputs: the placeholders of the batch, in the order of its flattened tensors.
    captured: {placeholder: the tensor from outside that it stands for}, the handles of variables
        among them.
    forward_of: {operation of a gradient: the operation it differentiates}.
    gradient: the operations that a tape's gradient made.
    optimizer: those that an optimizer's apply made.
    losses: the tensors that were differentiated.
    bodies: the graphs of all branches, loops and functions. Operations and tensors are given by
        name.
    """

    graph: tf.Graph
    inputs: tuple[str, ...]
    captured: dict[str, tf.Tensor]
    forward_of: dict[str, str]
    gradient: frozenset[str]
    optimizer: frozenset[str]
    losses: tuple[str, ...]
    bodies: tuple[tf.Graph, ...] = ()
    runners: dict = field(default_factory=dict, repr=False)  # what `runner` has made of it

    def forward(self, operation: str) -> tf.Operation:
        """The operation that a gradient's operation differentiates, perhaps in another body; any
        other is its own."""
        if operation in self.forward_of:
            return self.graph.get_operation_by_name(self.forward_of[operation])
        found = GRADIENT_OF.search(operation)
        inside = found and found[1]
        for body in self.bodies if inside else ():
            for candidate in body.get_operations():
                if candidate.name == inside:
                    return candidate
        return self.graph.get_operation_by_name(operation)

    def line(self, operation: str) -> Line | None:
        """The user's line that made an operation, or the one it differentiates; None where none is
        in the step."""
        return user_line(self.forward(operation))


def user_line(operation: tf.Operation, past: tuple[str, ...] = ()) -> Line | None:
    """The innermost line of an operation's traceback that is neither TensorFlow's nor Keras's nor
    in one of the files `past` nor outside the step."""
    for frame in reversed(list(operation.traceback)):
        path = os.path.abspath(frame.filename)
        if path in TRACERS:
            return None
        if not path.startswith((*LIBRARIES, *past)) and not frame.filename.startswith("<frozen"):
            text = (frame.line or linecache.getline(frame.filename, frame.lineno)).strip()
            return Line(frame.filename, frame.lineno, frame.name, text)
    return None


def above(operation: tf.Operation) -> list[tf.Operation]:
    """The operations whose outputs an operation was computed from, the nearest first."""
    found, waiting = {}, [operation]
    for each in waiting:
        for tensor in each.inputs:
            if tensor.op.name not in found:
                found[tensor.op.name] = tensor.op
                waiting.append(tensor.op)
    return list(found.values())


def flat(data) -> list[tf.Tensor]:
    """The tensors of a batch, in any nesting; those that a ragged or sparse one consists of."""
    return [
        tensor for tensor in tf.nest.flatten(data, expand_composites=True) if tensor is not None
    ]


def packed(data, tensors: Sequence[tf.Tensor]):
    """The nesting of a batch around other tensors, which are as `flat` gives them."""
    given = iter(tensors)
    parts = tf.nest.flatten(data, expand_composites=True)
    whole = [None if part is None else next(given) for part in parts]
    return tf.nest.pack_sequence_as(data, whole, expand_composites=True)


def is_number(dtype: tf.DType) -> bool:
    """Whether it has a NaN."""
    return dtype.is_floating or dtype.is_complex


def values_of(graph: tf.Graph, jit_compile: bool) -> list[str]:
    """The tensors of a graph that tell what happened, in the order of their making: every
    floating-point one and, as far as XLA can return them if it is to run it, the ids of lookups,
    and what branches, loops and functions are given.
    """
    found = []
    for operation in graph.get_operations():
        if called(operation) or operation.type in ("ResourceGather", "GatherV2"):
            given = (tensor for tensor in operation.inputs if tensor.dtype != tf.resource)
            found += [tensor.name for tensor in given if not jit_compile or _returnable(tensor)]
        found += [tensor.name for tensor in operation.outputs if is_number(tensor.dtype)]
    return list(dict.fromkeys(found))


def _returnable(tensor: tf.Tensor) -> bool:
    """Whether XLA can return it: over a size that only the data decides, or a text, it may end the
    whole process (TensorFlow 2.21: xla/shape.cc and tensor.cc), and lists of tensors it does not
    return."""
    return tensor.shape.is_fully_defined() and tensor.dtype not in (
        tf.variant,
        tf.resource,
        tf.string,
    )


def _extremes(tensor: tf.Tensor) -> tf.Tensor:
    """A floating-point tensor reduced, along each axis whose size is not known, to one element: NaN
    or infinite where one is, else the largest magnitude. Of unknown rank, one element."""
    known = tensor.shape.rank is not None
    axes = [axis for axis, size in enumerate(tensor.shape) if size is None] if known else None
    magnitude = tf.abs(tensor)
    nan, infinite = tf.math.is_nan(magnitude), tf.math.is_inf(magnitude)
    finite = tf.where(nan | infinite, tf.zeros_like(magnitude), magnitude)
    some_nan, some_infinite = (
        tf.reduce_any(which, axes, keepdims=known) for which in (nan, infinite)
    )
    largest = tf.maximum(tf.reduce_max(finite, axes, keepdims=known), 0)  # of no element it is -inf
    largest = tf.where(some_infinite, tf.cast(np.inf, largest.dtype), largest)
    return tf.where(some_nan, tf.cast(np.nan, largest.dtype), largest)


@contextmanager
def quiet() -> Iterator[None]:
    """Without TensorFlow's warning of functions that are traced again and again, which is what an
    autopsy does."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def portions(graph: tf.Graph, names: Sequence[str], most: float) -> Iterator[list[str]]:
    """The tensors in groups of at most so many bytes, or of one; those of unknown size count
    nothing."""
    group: list[str] = []
    size = 0
    for name in names:
        tensor = graph.get_tensor_by_name(name)
        own = (tensor.shape.num_elements() or 0) * tensor.dtype.size
        if group and size + own > most:
            yield group
            group, size = [], 0
        group.append(name)
        size += own
    yield group


BODIES = {  # of the operations that call graphs: the attributes that name them
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
    "While": ("cond", "body"),
    "StatelessWhile": ("cond", "body"),
    "PartitionedCall": ("f",),
    "StatefulPartitionedCall": ("f",),
}


def bodies_of(graph: tf.Graph) -> Iterator[tf.Graph]:
    for operation in graph.get_operations():
        for body in called(operation):
            yield body
            yield from bodies_of(body)


def called(operation: tf.Operation) -> list[tf.Graph]:
    """The graphs that an operation calls: of a branch both, of a loop its condition and its body;
    [] of any other."""
    names = [operation.get_attr(attribute).name for attribute in BODIES.get(operation.type, ())]
    functions = [operation.graph._get_function(name) for name in names]
    return (
        []
        if any(function is None for function in functions)
        else [function.graph for function in functions]
    )


def runs(
    step: Step, operation: tf.Operation, given: list, most: int, run: Callable
) -> Iterator[tuple]:
    """(body as a Step, its arguments) of each run of a body, in order: one of a branch or function,
    of a loop as many as it makes, at most `most`.

    operation: of `step`;
    given: its inputs.
    run: calls a function with arguments, compiled by XLA or not, and returns its values, those at
        some places in full.
    """
    none: frozenset[str] = frozenset()
    bodies = called(operation)
    steps = [
        Step(b, tuple(t.op.name for t in b.inputs), {}, {}, none, none, (), step.bodies)
        for b in bodies
    ]
    if operation.type.endswith("If"):
        yield steps[0 if given[0] else 1], given[1:]
    elif operation.type.endswith("While"):
        passed = [n for n, tensor in enumerate(bodies[1].outputs) if tensor.dtype != tf.resource]
        goes_on = runner(steps[0], [bodies[0].outputs[0].name], False)
        once = runner(steps[1], [bodies[1].outputs[n].name for n in passed], False)
        for _ in range(most):
            if not run(goes_on, given, False, [0])[0]:
                return
            yield steps[1], given
            given = list(given)
            for n, value in zip(passed, run(once, given, False, range(len(passed))), strict=True):
                given[n] = value
    else:
        yield steps[0], given


def runner(
    step: Step,
    fetches: Sequence[str],
    jit_compile: bool,
    edited=None,
    given: Sequence[str] = (),
    pure: bool = False,
) -> Callable:
    """A function of the batch's tensors, and those of `given`, that runs the step and returns the
    tensors `fetches`.

    edited: a GraphDef to run instead of the step's own;
    given: names of further placeholders that it uses.
    pure: only what the fetches are computed from, and no assignment but those before it; else the
        whole step.
    """
    key = (
        tuple(fetches),
        jit_compile,
        edited and edited.SerializeToString(deterministic=True),
        tuple(given),
        pure,
    )
    if key not in step.runners:
        step.runners[key] = _runner(step, fetches, jit_compile, edited, given, pure)
    return step.runners[key]


def _runner(
    step: Step, fetches: Sequence[str], jit_compile: bool, edited, given: Sequence[str], pure: bool
) -> Callable:
    graph_def = tf.compat.v1.GraphDef()
    graph_def.CopyFrom(edited if edited is not None else step.graph.as_graph_def())
    outside = {*step.inputs, *step.captured, *given}
    if pure:
        graph_def = _needed(graph_def, fetches)
    inside = [node for node in graph_def.node if node.name not in outside]
    del graph_def.node[:]
    graph_def.node.extend(inside)
    used = {name.lstrip("^").split(":")[0] for node in inside for name in node.input}

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(*tensors):
        graph = tf.compat.v1.get_default_graph()
        known = dict(zip([*step.inputs, *given], tensors, strict=True))
        known |= {name: graph.capture(tensor) for name, tensor in step.captured.items()}
        mapped = {name: tensor for name, tensor in known.items() if name in used}
        computed = [name for name in fetches if name.split(":")[0] not in known]
        found = dict(
            zip(
                computed,
                tf.graph_util.import_graph_def(graph_def, mapped, computed, name=""),
                strict=True,
            )
        )
        fetched = [found[name] if name in found else known[name.split(":")[0]] for name in fetches]
        return [_extremes(t) if jit_compile and not _returnable(t) else t for t in fetched]

    return run


def _needed(graph_def, fetches: Sequence[str]):
    """The nodes that the fetches are computed from, control inputs included."""
    nodes = {node.name: node for node in graph_def.node}
    found, waiting = set(), [name.split(":")[0] for name in fetches]
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in found:
            found.add(name)
            waiting += [source.lstrip("^").split(":")[0] for source in nodes[name].input]
    kept = tf.compat.v1.GraphDef(library=graph_def.library, versions=graph_def.versions)
    kept.node.extend(node for node in graph_def.node if node.name in found)
    return kept


# of a variable, what leaves it as it is
READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "Identity")


def may_assign(graph: tf.Graph) -> bool:
    """Whether some operation of a graph may change a variable."""
    return any(
        operation.type not in READS and any(t.dtype == tf.resource for t in operation.inputs)
        for operation in graph.get_operations()
    )


def is_symbolic(tensor) -> bool:
    return isinstance(tensor, tf.Tensor) and tf.is_symbolic_tensor(tensor)
