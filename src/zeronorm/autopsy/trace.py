"""Traces a training step as one graph, and notes which operation each operation of a gradient
differentiates.

TensorFlow has no public way to tell that, so this replaces, while it traces and for the whole
process, the function that it asks for every operation it differentiates, `tf.GradientTape.gradient`
and the optimizers' `apply`: two threads must not trace at once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import keras
import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import backprop

from zeronorm.autopsy.graph import Step, bodies_of, flat, is_symbolic, packed


def trace(
    step: Callable,
    data,
    optimizers: Sequence[keras.optimizers.Optimizer] = (),
    jit_compile: bool = False,
) -> Step:
    """Traces `step(data)` without running it.

    data: a nested structure of tensors.
    optimizers: those whose apply the step calls; of Keras's own classes any is noticed.
    jit_compile: whether XLA is to run it, which shapes the gradients of branches and loops.
    """
    observer = _Observer()

    def traced(*tensors):
        with observer.watching(optimizers):
            step(packed(data, tensors))

    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=f"batch_{n}")
        for n, tensor in enumerate(flat(data))
    ]
    graph = (
        tf.function(traced, specs, autograph=False, jit_compile=jit_compile or None)
        .get_concrete_function()
        .graph
    )
    captured = {inner.op.name: outer for outer, inner in graph.captures}
    return Step(
        graph=graph,
        inputs=tuple(tensor.op.name for tensor in graph.inputs if tensor.op.name not in captured),
        captured=captured,
        forward_of=observer.forward_of,
        gradient=frozenset(observer.gradient),
        optimizer=frozenset(observer.optimizer),
        losses=tuple(dict.fromkeys(observer.losses)),
        bodies=tuple(bodies_of(graph)),
    )


@contextmanager
def replaced(owner, name: str, value) -> Iterator[None]:
    """Gives an object or a class another attribute until the block ends. Then it has the very
    object of before again, or no attribute of its own where it had none. Past `__setattr__`, by
    which Keras keeps track of what is set."""
    own = vars(owner)
    had, before = name in own, own.get(name)
    _put(owner, name, value)
    try:
        yield
    finally:
        if had:
            _put(owner, name, before)
        elif isinstance(owner, type):
            delattr(owner, name)
        else:
            vars(owner).pop(name, None)


def _put(owner, name: str, value) -> None:
    if isinstance(owner, type):
        setattr(owner, name, value)
    else:
        vars(owner)[name] = value


def judged(step: Callable) -> Callable:
    """The step, returning of the losses that it differentiates whether one is NaN and whether one
    is infinite: bool [2]. Those that are differentiated inside of a branch, a loop or a function
    are not seen."""

    def observed(data):
        losses, gradient, graph = [], tf.GradientTape.gradient, tf.compat.v1.get_default_graph()

        def noted(tape, target, *args, **kwargs):
            losses.extend(tf.nest.flatten(target, expand_composites=True))
            return gradient(tape, target, *args, **kwargs)

        with replaced(tf.GradientTape, "gradient", noted):
            step(data)
        seen = [loss for loss in losses if isinstance(loss, tf.Tensor) and loss.dtype.is_floating]
        seen = [loss for loss in seen if not is_symbolic(loss) or loss.graph is graph]
        looks = (tf.math.is_nan, tf.math.is_inf)
        found = [[tf.reduce_any(look(loss)) for look in looks] for loss in seen]
        return tf.reduce_any(tf.stack(found), axis=0) if found else tf.zeros([2], tf.bool)

    return observed


class _Observer:
    """Notes, while a step is traced, what a tape's gradient and an optimizer make, and of which
    operation."""

    def __init__(self):
        self.forward_of: dict[str, str] = {}
        self.gradient: set[str] = set()
        self.optimizer: set[str] = set()
        self.losses: list[str] = []
        self._claimed: set[str] = set()
        self._by_kind: dict[str, list[tf.Operation]] = defaultdict(list)
        self._indexed: dict[int, int] = {}

    @contextmanager
    def watching(self, optimizers: Sequence[keras.optimizers.Optimizer]) -> Iterator[None]:
        """Puts itself between the tape and its rules, and around the optimizers, until the block
        ends.

        TensorFlow has no public way to tell which operation a gradient's operations belong to; it
        asks one function for every operation it differentiates, and that one is replaced here
        (tests/test_trace.py fails if it changes).
        """
        tape_gradient, rule = tf.GradientTape.gradient, backprop._gradient_function
        whole = tf.compat.v1.get_default_graph()

        def gradient(tape, target, *args, **kwargs):
            with self._noting(self.gradient):
                found = tape_gradient(tape, target, *args, **kwargs)
            targets = [tensor for tensor in tf.nest.flatten(target) if is_symbolic(tensor)]
            # of no body
            self.losses += [tensor.name for tensor in targets if tensor.graph is whole]
            return found

        def differentiated(kind, attributes, number, inputs, outputs, out_grads, skipped, scope):
            graph = tf.compat.v1.get_default_graph()
            before = len(graph.get_operations())
            found = rule(kind, attributes, number, inputs, outputs, out_grads, skipped, scope)
            forward = self._forward(graph, kind, inputs or (), outputs or (), out_grads, scope)
            if forward is not None:
                self._claimed.add(forward)
                for operation in graph.get_operations()[before:]:
                    self.forward_of.setdefault(operation.name, forward)
            return found

        def noted(apply):
            def wrapped(*args, **kwargs):
                with self._noting(self.optimizer):
                    return apply(*args, **kwargs)

            return wrapped

        with ExitStack() as until:
            until.callback(pywrap_tfe.TFE_Py_RegisterGradientFunction, rule)
            pywrap_tfe.TFE_Py_RegisterGradientFunction(differentiated)
            until.enter_context(replaced(tf.GradientTape, "gradient", gradient))
            owners = [keras.optimizers.Optimizer, *optimizers]
            for owner, apply in [(owner, owner.apply) for owner in owners]:
                until.enter_context(replaced(owner, "apply", noted(apply)))
            yield

    @contextmanager
    def _noting(self, names: set[str]) -> Iterator[None]:
        graph = tf.compat.v1.get_default_graph()
        before = len(graph.get_operations())
        yield
        names.update(operation.name for operation in graph.get_operations()[before:])

    def _forward(self, graph, kind: str, inputs, outputs, out_grads, scope: str) -> str | None:
        """The operation that is differentiated: TensorFlow hands over its kind, its name scope, the
        gradients that come in and those of its inputs and outputs that the rule needs."""
        for tensor in outputs:
            if is_symbolic(tensor) and tensor.op.type == kind:
                return tensor.op.name
        given = {
            position: tensor.name for position, tensor in enumerate(inputs) if is_symbolic(tensor)
        }
        shapes = [tensor.shape for tensor in out_grads if isinstance(tensor, tf.Tensor)][:1]
        for operation in reversed(self._of_kind(graph, kind)):  # a tape goes backwards
            names = [tensor.name for tensor in operation.inputs]
            if (
                operation.name not in self._claimed
                and operation.name not in self.forward_of
                and operation.name.startswith(scope or "")
                and all(
                    position < len(names) and names[position] == name
                    for position, name in given.items()
                )
                and all(shape.is_compatible_with(operation.outputs[0].shape) for shape in shapes)
            ):
                return operation.name
        return None

    def _of_kind(self, graph, kind: str) -> list[tf.Operation]:
        operations = graph.get_operations()
        for operation in operations[self._indexed.get(id(graph), 0) :]:
            self._by_kind[f"{id(graph)} {operation.type}"].append(operation)
        self._indexed[id(graph)] = len(operations)
        return self._by_kind[f"{id(graph)} {kind}"]
