"""A Keras model's training step: what it reads and writes, how its tensors are called, taking it
and watching it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from zeronorm.autopsy import capsule as capsules
from zeronorm.autopsy import graph, thresholds
from zeronorm.autopsy.subject import Subject, lost_since, nonfinite

UNREPEATABLE = (
    "Random",
    "TruncatedNormal",
    "ParameterizedTruncatedNormal",
    "Multinomial",
    "PyFunc",
    "EagerPyFunc",
)


def subject_of(model: keras.Model, batch, names: dict[str, list[str]] | None = None) -> Subject:
    """A compiled model's training step on a batch, as an autopsy takes it."""
    if model.run_eagerly:
        state = _known(model)
    else:
        step = tf.function(model.train_step, autograph=False)
        state = _captured(step.get_concrete_function(batch))
    return Subject(
        step=model.train_step,
        data=batch,
        weights=_weights(model, state),
        state=state,
        optimizers=_optimizers(model),
        jit_compile=bool(model.jit_compile),
        names=names or {},
        eager=bool(model.run_eagerly),
        inputs=_inputs(batch),
    )


def capsule_of(subject: Subject, step: int) -> capsules.Capsule:
    """The subject's step, to be written to a file."""
    state = tuple((name, variable.numpy()) for name, variable in kept_of(subject))
    return capsules.Capsule(step, subject.jit_compile, state, subject.data)


def kept_of(subject: Subject) -> list[tuple[str, tf.Variable]]:
    """(name, variable) of what a capsule holds of the state: all but the numbers that metrics
    own."""
    weights = {id(variable) for variable in subject.weights.values()}
    others = [v for v in subject.state if id(v) not in weights and not graph.is_number(v.dtype)]
    return [*subject.weights.items(), *((variable.name, variable) for variable in others)]


@dataclass(frozen=True)
class Record:
    """A step that was taken: its number, how many examples of the epoch came before, the numbers
    before it that other callbacks may have changed (a learning rate), the batch."""

    step: int
    first: int
    numbers: Sequence[tf.Tensor]
    batch: object


class Steps:
    """A model's training steps, watched.

    train: the model's own train_function. variables: what a step may change.
    """

    def __init__(self, model: keras.Model, train: Callable, iterator):
        self.model, self.train = model, train
        if model.run_eagerly:
            optimizer = model.optimizer
            if optimizer is not None and not optimizer.built and model.trainable_variables:
                optimizer.build(model.trainable_variables)
            self._compiled, self._again, self._graph = self._take, self._logged, None
            self.variables = _known(model)
        else:
            specs = [iterator.element_spec]
            plain = all(isinstance(spec, tf.TensorSpec) for spec in tf.nest.flatten(specs))
            self._again = tf.function(
                self._logged, input_signature=specs if plain else None, autograph=False
            )
            unwatched = tf.function(
                lambda iterator: self._logged(_batch(iterator)), autograph=False
            )
            function = unwatched.get_concrete_function(iterator)
            # some are made only now
            self.variables, self._graph = _captured(function), function.graph
            if model.steps_per_execution == 1:
                self._compiled = tf.function(self._take, autograph=False)
            # the data may end between two of the steps, and a compiled step moves its counters all
            # the same
            else:
                signature = specs if plain else None
                looks = {t: partial(self._taken, thorough=t) for t in (False, True)}
                looks = {
                    t: tf.function(look, input_signature=signature, autograph=False)
                    for t, look in looks.items()
                }
                self._compiled = lambda iterator, thorough: looks[thorough](_batch(iterator))
        trained = {id(variable.value) for variable in model.trainable_variables}
        numbers = [
            v
            for v in self.weights().values()
            if v.shape.num_elements() == 1 and id(v) not in trained
        ]
        self._numbers = numbers[: thresholds.NUMBERS]
        self._any_large = any(
            v.shape.num_elements() >= thresholds.LARGE_VARIABLE for v in self.weights().values()
        )

    def weights(self) -> dict[str, tf.Variable]:
        """{name: variable} of those whose values are judged."""
        return _weights(self.model, self.variables)

    def repeatable(self) -> bool:
        """Whether a step is known to do the same whenever it is taken from the same state: Keras's
        own random numbers are part of the state, those of tf.random are not, and of Python's
        nothing is known."""
        if self._graph is None:
            return False
        graph = self._graph.as_graph_def()
        nodes = [
            *graph.node,
            *(node for function in graph.library.function for node in function.node_def),
        ]
        return not any(node.op.startswith(UNREPEATABLE) for node in nodes)

    def norms(self) -> dict[str, float]:
        trainable = {id(variable.value) for variable in self.model.trainable_variables}
        found = {
            name: variable for name, variable in self.weights().items() if id(variable) in trainable
        }
        return {
            f"norm/{name}": float(tf.norm(tf.cast(variable, tf.float32)))
            for name, variable in found.items()
        }

    def take(self, iterator, thorough: bool):
        """One step: (logs, whether [weights, loss] are finite, the numbers before it, its batch).
        Raises StopIteration or OutOfRangeError at the end of the data.

        thorough: whether large weights are looked at too.
        """
        return self._compiled(iterator, thorough or not self._any_large)

    def _take(self, iterator, thorough: bool):
        return self._taken(_batch(iterator), thorough)

    def _taken(self, batch, thorough: bool):
        numbers = [tf.identity(variable) for variable in self._numbers]
        logs = self._logged(batch)
        return logs, self._flags(logs, thorough), numbers, batch

    def _logged(self, batch):
        return self.train(iter([batch]))

    def _flags(self, logs, thorough: bool):
        sums = [
            tf.nn.l2_loss(tf.cast(variable, tf.float32))
            for variable in self.weights().values()
            if thorough or variable.shape.num_elements() < thresholds.LARGE_VARIABLE
        ]
        weights = tf.reduce_all(tf.math.is_finite(tf.stack(sums))) if sums else tf.constant(True)
        loss = logs.get("loss") if isinstance(logs, dict) else None
        return tf.stack(
            [weights, tf.constant(True) if loss is None else tf.reduce_all(tf.math.is_finite(loss))]
        )

    def fails(self, record: Record, before: dict[str, int], loss_only: bool) -> tuple[bool, bool]:
        """Takes a step again, from the present state: (whether it loses a weight or, if loss_only,
        the loss; whether the loss is finite)."""
        for variable, value in zip(self._numbers, record.numbers, strict=True):
            variable.assign(value)
        logs = self._again(record.batch)
        loss = logs.get("loss") if isinstance(logs, dict) else None  # a mean over the epoch's steps
        loss_is_finite = loss is not None and bool(np.isfinite(loss).all())
        fails = (
            not loss_is_finite if loss_only else bool(lost_since(nonfinite(self.weights()), before))
        )
        return fails, loss_is_finite


def _batch(iterator):
    """The next one. What Keras passes as an Optional stands for None."""
    batch = iterator.get_next() if hasattr(iterator, "get_next") else next(iterator)
    return tf.nest.map_structure(
        lambda part: None if isinstance(part, tf.experimental.Optional) else part, batch
    )


def _optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Those that the model's attributes hold, in lists and dicts too."""

    def held(value) -> Iterator:
        if isinstance(value, keras.optimizers.Optimizer):
            yield value
        elif isinstance(value, dict):
            for part in value.values():
                yield from held(part)
        elif isinstance(value, (list, tuple)):
            for part in value:
                yield from held(part)

    return _unique(held(vars(model)))


def _captured(function) -> list[tf.Variable]:
    """The variables that a traced step reads or writes, those of custom loops and optimizers too,
    as it meets them."""
    order = {id(outer): number for number, (outer, _) in enumerate(function.graph.captures)}
    return sorted(
        _unique(function.variables), key=lambda variable: order.get(id(variable.handle), len(order))
    )


def _known(model: keras.Model) -> list[tf.Variable]:
    """The variables that the model and its optimizers own up to."""
    groups = [
        model.variables,
        model.metrics_variables,
        *(optimizer.variables for optimizer in _optimizers(model)),
    ]
    return _unique(variable.value for group in groups for variable in group)


def _weights(model: keras.Model, state: Sequence[tf.Variable]) -> dict[str, tf.Variable]:
    """{name: variable} of the numbers among the variables that no metric owns: Keras's paths where
    it has one."""
    optimizers = [variable for optimizer in _optimizers(model) for variable in optimizer.variables]
    paths = {id(variable.value): variable.path for variable in [*model.variables, *optimizers]}
    metrics = {id(variable.value) for variable in model.metrics_variables}
    found: dict[str, tf.Variable] = {}
    for variable in state:
        if id(variable) not in metrics and graph.is_number(variable.dtype):
            path = name = paths.get(id(variable), variable.name.removesuffix(":0"))
            number = 1
            while name in found:
                number += 1
                name = f"{path}#{number}"
            found[name] = variable
    return found


def _inputs(batch) -> list[str]:
    """How the tensors of a batch are called: x, y and sample_weight, with the key or place of each
    part."""
    parts = (
        dict(zip(("x", "y", "sample_weight"), batch, strict=False))
        if isinstance(batch, tuple)
        else {"x": batch}
    )

    def named(name: str, value) -> Iterator[str]:
        if isinstance(value, dict):
            for key in sorted(value):
                yield from named(f"{name}[{key!r}]", value[key])
        elif isinstance(value, (list, tuple)):
            for number, part in enumerate(value):
                yield from named(f"{name}[{number}]", part)
        else:
            yield from [name] * len(graph.flat(value))

    return [name for part, value in parts.items() for name in named(part, value)]


def bytes_of(batch) -> int:
    tensors = tf.nest.flatten(batch, expand_composites=True)
    return sum(
        int(tf.size(tensor)) * max(tensor.dtype.size, 1) for tensor in tensors if tensor is not None
    )


def size_of(batch) -> int:
    return next(
        (int(t.shape[0]) for t in tf.nest.flatten(batch) if t is not None and t.shape.rank), 0
    )


def _unique(items):
    return list({id(item): item for item in items}.values())
