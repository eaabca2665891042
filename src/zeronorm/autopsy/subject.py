"""A training step to examine: what it reads and changes, where its functions run, and taking it
again."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import keras
import numpy as np
import tensorflow as tf

from zeronorm.autopsy import arrays, examiner, graph, refusal, rows, thresholds, trace


class Ended(Exception):
    """Something that cannot be computed, because a limit was reached, or of what the two below say:
    why."""


class Died(Ended):
    """The process that computed it has died."""


class Stays(Ended):
    """It can be run neither in another process nor in this one."""


class Here:
    """Where the functions of an examination run: in this process, without limits."""

    left_out: Sequence[str] = ()  # what a report has to say of it
    deaths: Sequence[str] = ()  # of processes: how
    # bytes of values that one run returns at most, as far as their sizes are known
    at_once = thresholds.AT_ONCE

    def run(
        self,
        function: Callable,
        arguments: Sequence,
        jit_compile: bool,
        state: Sequence[tf.Variable],
        weights: Mapping[str, tf.Variable],
        kept: Collection[int] | None = None,
        undo: bool = True,
    ) -> tuple[list, dict[str, int]]:
        """Calls a function of tensors that returns tensors: (its values, what of the weights is not
        finite after it).

        arguments: tensors, arrays, or values of a run before.
        jit_compile: whether XLA compiles the function.
        kept: the places of the values that are needed in full, while others may be `unpacked`;
            None: of none anything is.
        undo: whether the state becomes what it was; else `restore` does that.
        """
        held = Snapshot(state)
        try:
            found = function(*map(tf.convert_to_tensor, arguments))
            if kept is None:
                return [], nonfinite(weights)
            values = [
                value
                if number in kept or value.dtype == tf.variant
                else arrays.unpacked(*examiner.compacted(value))
                for number, value in enumerate(found)
            ]
            return values, nonfinite(weights)
        finally:
            held.restore()

    def restore(self) -> None:
        """After runs that did not undo what they did: who asked for them holds the variables of
        this process."""


@dataclass(frozen=True)
class Subject:
    """A training step to examine, as it is just before it fails.

    step: of the batch.
    data: the batch, tensors in any nesting; their first axis counts its examples.
    weights: {name: variable} whose values are judged, the optimizer's slots among them.
    state: every variable that the step may change.
    optimizers: whose apply it calls.
    jit_compile: as the user trains.
    names: {weight: what each row stands for}.
    eager: whether the user's step is not compiled at all.
    inputs: how the report calls the tensors of the batch.
    compiled: what `Trial` has compiled of the step; subjects of one step may share it.
    place: where it is run, `Here` or a `sandbox.Sandbox`.
    """

    step: Callable
    data: object
    weights: Mapping[str, tf.Variable]
    state: Sequence[tf.Variable]
    optimizers: Sequence[keras.optimizers.Optimizer]
    jit_compile: bool
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    eager: bool = False
    inputs: Sequence[str] = ()
    compiled: dict = field(default_factory=dict, repr=False)
    place: Here = field(default_factory=Here, repr=False)

    def run(
        self,
        function: Callable,
        arguments: Sequence,
        jit_compile: bool,
        kept=None,
        undo: bool = True,
    ):
        """As `Here.run`, from and of the subject's variables."""
        return self.place.run(
            function, arguments, jit_compile, self.state, self.weights, kept, undo
        )

    def values(
        self, function: tf.types.experimental.PolymorphicFunction, arguments: Sequence
    ) -> list:
        """What a function returns that is run for its values alone, by TensorFlow's kernels: no
        weight is judged, and the state is kept only where the function may change it."""
        tensors = list(map(tf.convert_to_tensor, arguments))
        concrete = function.get_concrete_function(*tensors)
        state = self.state if graph.may_assign(concrete.graph) else ()
        return self.place.run(function, tensors, False, state, {}, [0], undo=bool(state))[0]

    @property
    def tensors(self) -> list[tf.Tensor]:
        """Those of the batch, flat."""
        return graph.flat(self.data)

    @property
    def batch(self) -> int | None:
        """How many examples the batch holds."""
        parts = (part for part in tf.nest.flatten(self.data) if part is not None)
        return next((int(part.shape[0]) for part in parts if part.shape.rank), None)

    def only(self, examples: Sequence[int] | np.ndarray) -> "Subject":
        """The same step of these examples alone, repeated to fill the batch, so that every shape
        stays as it is."""
        batch = self.batch
        assert batch is not None  # it has examples
        chosen = np.resize(np.asarray(examples), batch)

        def part(tensor):
            counts = (
                isinstance(tensor, tf.Tensor) and tensor.shape.rank and tensor.shape[0] == batch
            )
            return tf.gather(tensor, chosen) if counts else tensor

        return replace(self, data=tf.nest.map_structure(part, self.data))


class Snapshot:
    """The values of variables, to be put back any number of times."""

    def __init__(self, variables: Iterable[tf.Variable]):
        # a read shares the variable's memory until something writes it: what is frozen is not
        # copied
        self.values = [(variable, tf.identity(variable)) for variable in variables]

    def restore(self) -> None:
        for variable, value in self.values:
            variable.assign(value)


def nonfinite(weights: Mapping[str, tf.Variable]) -> dict[str, int]:
    """{weight: how many of its elements are not finite}, of those that have any."""
    found = {name: examiner.not_finite(variable) for name, variable in weights.items()}
    return {name: count for name, count in found.items() if count}


def lost_since(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """{weight: how many more elements are lost than before}."""
    more = {name: count - before.get(name, 0) for name, count in after.items()}
    return {name: count for name, count in more.items() if count > 0}


class Trial:
    """The step as a user would compute it, compiled once for each setting of the optimizers, to be
    taken any number of times from the subject's state."""

    def __init__(self, subject: Subject, jit_compile: bool):
        self.subject, self._before = subject, nonfinite(subject.weights)
        self.refused = ""  # why the last step could not be computed, where it could not
        self.loss: str | None = None  # of the last step: NaN, infinite, "" where finite; None: none
        settings = ("clipnorm", "global_clipnorm", "clipvalue", "epsilon")
        pairs = ((o, getattr(o, "inner_optimizer", o)) for o in subject.optimizers)
        optimizers = [optimizer for pair in pairs for optimizer in pair]
        key = (jit_compile, *(getattr(o, name, None) for o in optimizers for name in settings))
        if subject.eager and not jit_compile:
            self._step = self._of_tensors
        else:
            # traced when it is called
            made = tf.function(self._of_tensors, jit_compile=jit_compile, autograph=False)
            self._step = subject.compiled.setdefault(key, made)
        self._jit_compile = jit_compile
        # XLA ends the whole process over a text (TensorFlow 2.21: tensor.cc, DataTypeCanUseMemcpy)
        self._impossible = jit_compile and any(
            tensor.dtype == tf.string for tensor in subject.tensors
        )

    def _of_tensors(self, *tensors):
        return [trace.judged(self.subject.step)(graph.packed(self.subject.data, tensors))]

    def __call__(self, data=None) -> dict[str, int] | None:
        """What one step on `data`, else the subject's own, does to the weights: {weight: elements
        that it loses}. The state is as before afterwards. None if it cannot be computed so: XLA
        does not know every operation, and a kernel may refuse its input. Raises Ended."""
        if self._impossible:
            self.refused = "it takes no texts."
            return None
        self.refused, self.loss = "", None
        try:
            tensors = graph.flat(self.subject.data if data is None else data)
            [flags], after = self.subject.run(self._step, tensors, self._jit_compile, kept=(0,))
            nan, infinite = np.asarray(flags)
            self.loss = "NaN" if nan else "infinite" if infinite else ""
            return lost_since(after, self._before)
        except tf.errors.OpError as error:
            self.refused = refusal.sentence(error.message)
            return None


def culprits(subject: Subject, trial: Trial) -> tuple[int, ...]:
    """The examples that make the step fail by themselves; none where every one does, or none."""
    batch = subject.batch
    if not batch or batch == 1:
        return ()
    found = rows.those(np.arange(batch), lambda examples: bool(trial(subject.only(examples).data)))
    return () if len(found) == batch else tuple(int(example) for example in found)
