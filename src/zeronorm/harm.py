"""From the weights that a training step poisoned back to the operations that did it.

The step is traced as one graph and run again from the weights of before it, with every floating-point value returned.
From the weights that it poisoned the harm is followed back, through non-finite values only, to the operations that
made something non-finite out of finite inputs. Those are guilty; whatever else is infinite on the way is not.
"""

import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

import keras
import numpy as np
import tensorflow as tf

from zeronorm import examiner, lineage, refusal, steptrace
from zeronorm.steptrace import Step

LITERALS = ("Const", "Fill", "ZerosLike", "OnesLike", "BroadcastTo")  # an infinity that comes from here is meant
WRITES = ("Assign", "ResourceApply", "ResourceSparseApply", "ResourceScatter", "ResourceStridedSliceAssign")
SELECTING = ("StridedSlice", "Slice", "GatherV2", "ResourceGather", "Split", "SplitV", "Unpack", "TensorListGetItem")
GROWING = ("MatMul", "BatchMatMulV2", "Einsum", "Conv2D", "Conv2DBackpropFilter", "Conv2DBackpropInput", "BiasAdd")
GROWING += ("Mul", "Square", "SquaredDifference", "Pow", "AddV2", "Add", "AddN", "Sub", "Sum", "Mean", "L2Loss", "Exp")
LARGE = examiner.LARGE  # an input of this size to one of GROWING: no singular point but an overflow
SINGULAR = {"RealDiv": (1,), "Div": (1,), "Xdivy": (1,), "Xlogy": (1,), "Pow": (0,)}  # inputs at which it is singular
ELEMENTS = 16  # of a guilty operation that are traced to their rows
ROWS = 32  # of one weight that are named; what was computed from more is no row's fault
AT_ONCE = 1e9  # bytes of values that one run of the step returns
ITERATIONS = 10_000  # of a loop that are followed at most


class Ended(Exception):
    """Something that cannot be computed, because a limit was reached, or of what the two below say: why."""


class Died(Ended):
    """The process that computed it has died."""


class Stays(Ended):
    """It can be run neither in another process nor in this one."""


class Here:
    """Where the functions of an examination run: in this process, without limits."""

    left_out: Sequence[str] = ()  # what a report has to say of it
    deaths: Sequence[str] = ()  # of processes: how
    at_once = AT_ONCE  # bytes of values that one run returns at most, as far as their sizes are known

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
        """Calls a function of tensors that returns tensors: (its values, what of the weights is not finite after it).

        arguments: tensors, arrays, or values of a run before. jit_compile: whether XLA compiles the function. kept: the
        places of the values that are needed in full, while others may be `unpacked`; None: of none anything is. undo:
        whether the state becomes what it was; else `restore` does that.
        """
        held = Held(state)
        try:
            found = function(*map(tf.convert_to_tensor, arguments))
            values = [
                value if number in kept or value.dtype == tf.variant else unpacked(*examiner.compacted(value))
                for number, value in (enumerate(found) if kept is not None else ())
            ]
            return values, lost(weights)
        finally:
            held.restore()

    def restore(self) -> None:
        """After runs that did not undo what they did: who asked for them holds the variables of this process."""


@dataclass(frozen=True)
class Subject:
    """A training step to examine, as it is just before it fails.

    step: of the batch. data: the batch, tensors in any nesting; their first axis counts its examples. weights: {name:
    variable} whose values are judged, the optimizer's slots among them. state: every variable that the step may change.
    optimizers: whose apply it calls. jit_compile: as the user trains. names: {weight: what each row stands for}.
    eager: whether the user's step is not compiled at all. inputs: how the report calls the tensors of the batch.
    compiled: what `Trial` has compiled of the step; subjects of one step may share it. place: where it is run,
    `Here` or an `apart.Apart`.
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

    def run(self, function: Callable, arguments: Sequence, jit_compile: bool, kept=None, undo: bool = True):
        """As `Here.run`, from and of the subject's variables."""
        return self.place.run(function, arguments, jit_compile, self.state, self.weights, kept, undo)

    @property
    def tensors(self) -> list[tf.Tensor]:
        """Those of the batch, flat."""
        return steptrace.flat(self.data)

    @property
    def batch(self) -> int | None:
        """How many examples the batch holds."""
        parts = (part for part in tf.nest.flatten(self.data) if part is not None)
        return next((int(part.shape[0]) for part in parts if part.shape.rank), None)

    def only(self, examples: Sequence[int]) -> "Subject":
        """The same step of these examples alone, repeated to fill the batch, so that every shape stays as it is."""
        chosen = np.resize(examples, self.batch)

        def part(tensor):
            counts = isinstance(tensor, tf.Tensor) and tensor.shape.rank and tensor.shape[0] == self.batch
            return tf.gather(tensor, chosen) if counts else tensor

        return replace(self, data=tf.nest.map_structure(part, self.data))


@dataclass(frozen=True)
class Guilty:
    """An operation that made something non-finite out of finite inputs.

    op_type: its kind; forward_op_type: of a gradient, the kind it differentiates, else its own. file, line, function,
    text: the user's line that made it, None where there is none. operation: its name in the graph, which begins with
    its layer's; forward_operation: of a gradient, the name of what it differentiates, else its own. birth: as in
    `Report`. kind: nan, inf, or large where they are finite and what is computed from them overflows. count: of its
    elements. shape: of its value. elements: the first few of them, by index. examples: positions in the batch. rows:
    {weight: row ids} that these elements were computed from; row_names: the same by name. weight: of birth weights,
    which variable holds it.
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


@dataclass(frozen=True)
class Findings:
    """What one way of running the step shows. guilty: in the order of the graph. swallowed: operations that got a NaN
    and gave something finite. lost: {weight: number of elements that the step loses}. loss_is_finite: whether every
    loss that was differentiated is."""

    guilty: tuple[Guilty, ...]
    swallowed: tuple[str, ...]
    lost: dict[str, int]
    loss_is_finite: bool


class Held:
    """The values of variables, to be put back any number of times."""

    def __init__(self, variables: Iterable[tf.Variable]):
        # a read shares the variable's memory until something writes it: what is frozen is not copied
        self.values = [(variable, tf.identity(variable)) for variable in variables]

    def restore(self) -> None:
        for variable, value in self.values:
            variable.assign(value)


def lost(weights: Mapping[str, tf.Variable]) -> dict[str, int]:
    """{weight: how many of its elements are not finite}, of those that have any."""
    found = {name: examiner.not_finite(variable) for name, variable in weights.items()}
    return {name: count for name, count in found.items() if count}


def newly(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """{weight: how many more elements are lost than before}."""
    more = {name: count - before.get(name, 0) for name, count in after.items()}
    return {name: count for name, count in more.items() if count > 0}


class Trial:
    """The step as a user would compute it, compiled once for each setting of the optimizers, to be taken any number of
    times from the subject's state."""

    def __init__(self, subject: Subject, jit_compile: bool):
        self.subject, self._before = subject, lost(subject.weights)
        self.refused = ""  # why the last step could not be computed, where it could not
        self.loss: str | None = None  # of the last step: NaN, infinite, "" where finite; None: none
        settings = ("clipnorm", "global_clipnorm", "clipvalue", "epsilon")
        pairs = ((o, getattr(o, "inner_optimizer", o)) for o in subject.optimizers)
        optimizers = [optimizer for pair in pairs for optimizer in pair]
        key = (jit_compile, *(getattr(o, name, None) for o in optimizers for name in settings))
        if subject.eager and not jit_compile:
            self._step = self._of_tensors
        else:
            made = tf.function(self._of_tensors, jit_compile=jit_compile, autograph=False)  # traced when it is called
            self._step = subject.compiled.setdefault(key, made)
        self._jit_compile = jit_compile
        # XLA ends the whole process over a text (TensorFlow 2.21: tensor.cc, DataTypeCanUseMemcpy)
        self._impossible = jit_compile and any(tensor.dtype == tf.string for tensor in subject.tensors)

    def _of_tensors(self, *tensors):
        return [steptrace.judged(self.subject.step)(steptrace.packed(self.subject.data, tensors))]

    def __call__(self, data=None) -> dict[str, int] | None:
        """What one step on `data`, else the subject's own, does to the weights: {weight: elements that it loses}. The
        state is as before afterwards. None if it cannot be computed so: XLA does not know every operation, and a kernel
        may refuse its input. Raises Ended."""
        if self._impossible:
            self.refused = "it takes no texts."
            return None
        self.refused, self.loss = "", None
        try:
            tensors = steptrace.flat(self.subject.data if data is None else data)
            [flags], after = self.subject.run(self._step, tensors, self._jit_compile, kept=(0,))
            nan, infinite = np.asarray(flags)
            self.loss = "NaN" if nan else "infinite" if infinite else ""
            return newly(after, self._before)
        except tf.errors.OpError as error:
            self.refused = refusal.sentence(error.message)
            return None


def examine(subject: Subject, traced: Step, jit_compile: bool) -> Findings:
    """Runs the step with every value returned, and follows the harm back to where it was born. The state is as before
    afterwards. traced: from the subject's step and batch."""
    before, after = lost(subject.weights), {}
    kept = {tensor.name for o in traced.graph.get_operations() if steptrace.called(o) for tensor in o.inputs}
    values: dict[str, tf.Tensor | np.ndarray | Packed] = {}
    for names in _portions(subject, traced, jit_compile):
        whole = [number for number, name in enumerate(names) if name in kept]
        found, after = subject.run(steptrace.runner(traced, names, jit_compile), subject.tensors, jit_compile, whole)
        values |= dict(zip(names, found, strict=True))
    after = newly(after, before)
    harm = _Harm(traced, subject, values, jit_compile, before, after)
    starts = [traced.graph.get_tensor_by_name(name) for name in (*harm.written(), *traced.losses)]
    finite = not harm.bad.intersection(traced.losses)
    guilty = _one_per_operation(harm.guilty(starts))
    moved: dict[str, np.ndarray] = {}
    of_values = [one.operation for one in guilty if one.examples and one.birth in ("forward", "gradient")]
    with suppress(Ended):  # what was found is kept
        moved = _moved(subject, traced, jit_compile, of_values)
    guilty = [replace(one, examples=harm.examples(one, moved)) if one.operation in of_values else one for one in guilty]
    return Findings(tuple(guilty), harm.swallowed(), after, finite)


def _moved(subject: Subject, traced: Step, jit_compile: bool, operations: Sequence[str]) -> dict[str, np.ndarray]:
    """{tensor: value} of the operations' outputs when every example has moved on by one place."""
    known = {operation.name: operation for operation in traced.graph.get_operations()}
    wanted = {
        t.name for name in operations if name in known for t in known[name].outputs if steptrace.is_number(t.dtype)
    }
    if not wanted or not subject.batch or subject.batch < 2:
        return {}
    rolled = subject.only(np.roll(np.arange(subject.batch), 1))
    values = {}
    for names in _portions(subject, traced, jit_compile):
        if wanted.intersection(names):
            found, _ = subject.run(steptrace.runner(traced, names, jit_compile), rolled.tensors, jit_compile, ())
            values |= {n: _array(value) for n, value in zip(names, found, strict=True) if n in wanted}
    return values


def _portions(subject: Subject, traced: Step, jit_compile: bool) -> Iterator[list[str]]:
    """What tells what happened in the step, as much of it as one run returns."""
    names = steptrace.values_of(traced.graph, jit_compile)
    return steptrace.portions(traced.graph, names, min(AT_ONCE, subject.place.at_once))


@dataclass(frozen=True)
class Packed:
    """A large value of which only what is not finite, or large, is told. kinds: as `examiner.compacted` has them."""

    shape: tuple[int, ...]
    dtype: np.dtype
    kinds: bytes
    largest: float

    def array(self) -> np.ndarray:
        """NaN and infinity where they were, `largest` where the value was finite and large, else 0."""
        kinds = np.frombuffer(zlib.decompress(self.kinds), np.uint8).reshape(self.shape)
        return np.array([0, np.inf, np.nan, self.largest], self.dtype)[kinds]


def unpacked(kind: str, *value):
    """What `examiner.compacted` made of a value: an array or, of a large one that is not finite, a `Packed`."""
    if kind == "array":
        return value[0]
    shape, dtype, *more = value
    dtype = tf.as_dtype(dtype).as_numpy_dtype
    return np.broadcast_to(dtype(more[0]), shape) if kind == "largest" else Packed(shape, dtype, *more)


def _array(value) -> np.ndarray:
    if isinstance(value, Packed):
        return value.array()
    return np.asarray(value.numpy() if tf.is_tensor(value) else value)  # a bfloat16 of rank 0 is no array yet


class _Arrays(Mapping):
    """{tensor: array} of values but lists of tensors; those that are packed are unpacked each time that they are asked
    for, because all at once may be too large."""

    def __init__(self, values: Mapping):
        packed = {n: v for n, v in values.items() if isinstance(v, Packed)}
        others = {n: v for n, v in values.items() if n not in packed and v.dtype != tf.variant}
        self._values = packed | {name: _array(value) for name, value in others.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return _array(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _one_per_operation(guilty: Iterable[Guilty]) -> tuple[Guilty, ...]:
    """The first of those that stand for one forward operation (a log's -inf, not its gradient's), or one variable."""
    kept: dict[str, Guilty] = {}
    for one in guilty:
        kept.setdefault(one.weight or one.forward_operation, one)
    return tuple(kept.values())


class _Harm:
    """The values of one run of a graph, and where the non-finite ones came from.

    The graph is a step's, or the body of a branch, a loop or a function that the step calls. before: {weight: elements
    that were lost before the step}; lost: those that the step loses.
    """

    def __init__(
        self, step: Step, subject: Subject, values: Mapping[str, tf.Tensor], jit_compile: bool, before: dict, lost: dict
    ):
        self.step, self.subject, self.jit_compile, self.before, self.lost = step, subject, jit_compile, before, lost
        self.tensors = values
        self.values = _Arrays(values)
        self.bad, self.nan = set(), set()
        for name, value in self.values.items():
            if steptrace.is_number(tf.as_dtype(value.dtype)) and not np.isfinite(value).all():
                self.bad.add(name)
                if np.isnan(value).any():
                    self.nan.add(name)
        self.operations = step.graph.get_operations()
        self.through_gradient: set[str] = set()  # operations between which and a weight there is a gradient's
        handles = {id(variable.handle): name for name, variable in subject.weights.items()}
        self.weight_of = {  # {placeholder of a handle: weight}
            name: handles[id(tensor)] for name, tensor in step.captured.items() if id(tensor) in handles
        }

    @cached_property
    def inputs(self) -> dict[str, list[str]]:
        """{operation: the floating-point tensors that its values come from}. What reads a variable that the step has
        written before comes from what was written."""
        found, written = {}, {}
        for operation in self.operations:
            inputs = [tensor.name for tensor in operation.inputs if steptrace.is_number(tensor.dtype)]
            resources = [tensor.op.name for tensor in operation.inputs if tensor.dtype == tf.resource]
            if operation.type.startswith(WRITES):
                for resource in resources:
                    written.setdefault(resource, []).extend(inputs)
            else:
                inputs += [tensor for resource in resources for tensor in written.get(resource, ())]
            found[operation.name] = inputs
        return found

    @cached_property
    def lookups(self) -> list[lineage.Lookup]:
        found = [lookup for lookup in lineage.lookups(self.step.graph) if lookup.placeholder in self.weight_of]
        return [lookup for lookup in found if lookup.ids in self.values]  # XLA may not return them

    def written(self) -> list[str]:
        """The non-finite values that were written to the weights that were lost. A branch or a function that writes a
        weight itself counts with what it is given."""
        found = []
        for operation in self.operations:
            if any(self.weight_of.get(tensor.op.name) in self.lost for tensor in operation.inputs) and (
                operation.type.startswith(WRITES) or steptrace.called(operation)
            ):
                found += [tensor for tensor in self.inputs[operation.name] if tensor in self.bad]
        return found

    def origins(self, starts: Iterable[tf.Tensor]) -> list[tuple[tf.Operation, bool]]:
        """The operations at which the way back from `starts`, through non-finite values, ends: in the graph's order.

        Beside each whether its own value is known to be non-finite. A list of tensors, as loops keep them, cannot be
        looked into: the way goes on through it, and what calls a body is an origin if something inside is.
        """
        found: dict[str, bool] = {}
        seen: set[tuple[str, bool, bool]] = set()
        starts = [tensor for tensor in starts if tensor.name in self.bad or tensor.dtype == tf.variant]
        waiting = [(tensor.op.name, tensor.name in self.bad, False) for tensor in starts]
        while waiting:
            name, certain, through = step = waiting.pop()
            if step in seen:
                continue
            seen.add(step)
            through = through or name in self.step.gradient
            if through:
                self.through_gradient.add(name)
            operation = self.step.graph.get_operation_by_name(name)
            bad = [tensor for tensor in self.inputs[name] if tensor in self.bad]
            lists = [tensor.op.name for tensor in operation.inputs if tensor.dtype == tf.variant]
            forward = self.step.forward(name)
            if certain and not bad and not lists and forward is not operation and forward.graph is self.step.graph:
                # the gradient of what was given a NaN (of Max: NaN equals nothing, so 0/0) is its consequence
                bad = [tensor.name for tensor in forward.inputs if tensor.name in self.nan]
            if self._turns_meant_infinity_into_nan(name, bad) or (certain and not bad and not lists):
                found[name] = True
            elif not bad and steptrace.called(operation):
                found.setdefault(name, False)
            waiting += [(tensor.split(":")[0], True, through) for tensor in bad if not found.get(name)]
            waiting += [(source, False, through) for source in lists]
        return [(operation, found[operation.name]) for operation in self.operations if operation.name in found]

    def _turns_meant_infinity_into_nan(self, name: str, bad: list[str]) -> bool:
        """Whether this is where a mask of infinities, harmless in itself, became NaN."""
        outputs = [t.name for t in self.step.graph.get_operation_by_name(name).outputs if t.name in self.nan]
        if not bad or not outputs or self.nan.intersection(bad):
            return False
        struck = set(self._examples_of(outputs[0]))
        return all(self._meant(tensor.split(":")[0], struck) for tensor in bad)

    def _meant(self, name: str, struck: set[int]) -> bool:
        """Whether every infinity that an operation's outputs hold was written down as one, or came to other examples
        too, which it did not harm. struck: the examples it turned into NaN."""
        waiting, seen = [name], set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            bad = [tensor for tensor in self.inputs[name] if tensor in self.bad]
            operation = self.step.graph.get_operation_by_name(name)
            if not bad and operation.type not in LITERALS:
                outputs = [tensor.name for tensor in operation.outputs if tensor.name in self.bad]
                if not struck or not struck < set(self._examples_of(outputs[0])):
                    return False
            waiting += [tensor.split(":")[0] for tensor in bad]
        return True

    def _examples_of(self, tensor: str) -> tuple[int, ...]:
        value = self.values[tensor]
        return self._examples(value.shape, np.argwhere(~np.isfinite(value)))

    def swallowed(self) -> tuple[str, ...]:
        """Operations with a NaN among their inputs and finite outputs, as 'Maximum at file:line'."""
        found = []
        for operation in self.operations:
            outputs = [tensor.name for tensor in operation.outputs if steptrace.is_number(tensor.dtype)]
            if operation.type in SELECTING or steptrace.called(operation):
                continue
            if outputs and not self.bad.intersection(outputs) and self.nan.intersection(self.inputs[operation.name]):
                line = self.step.line(operation.name)
                found.append(operation.type + (f" at {os.path.basename(line.file)}:{line.line}" if line else ""))
        return tuple(dict.fromkeys(found))

    def guilty(self, starts: Iterable[tf.Tensor]) -> list[Guilty]:
        """What there is to say of each operation at which the way back from `starts` ends."""
        found, closed = [], []
        for operation, certain in self.origins(starts):
            inner = self._inside(operation)
            if inner is not None:
                names = (f"{operation.name}/{name}" for name in (inner.operation, inner.forward_operation))
                found.append(replace(inner, **dict(zip(("operation", "forward_operation"), names, strict=True))))
            elif certain:
                found.append(self._of(operation))
            elif any(tensor.name in self.bad for tensor in operation.outputs):
                closed.append(operation)
        # a loop into which no way leads may only have passed on what came to it in a list: guilty if nobody else is
        return found or [self._of(operation) for operation in closed]

    def _of(self, operation: tf.Operation) -> Guilty:
        bad = [tensor.name for tensor in operation.outputs if tensor.name in self.bad]
        value = self.values[bad[0]] if bad else np.zeros(())
        where, kind = np.argwhere(~np.isfinite(value)), "nan" if np.isnan(value).any() else "inf"
        birth = self._birth(operation)
        if birth == "divergence" and self.source(operation) is not operation:
            operation = self.source(operation)
            value = self.values[operation.outputs[0].name]
            where, kind, birth = np.argwhere(np.abs(value) > LARGE), "large", self._birth(operation)
        elements = tuple(tuple(int(i) for i in index) for index in where[:ELEMENTS])
        line = self.step.line(operation.name)
        name, weight = operation.name, None
        if name in self.step.inputs and len(self.step.inputs) == len(self.subject.inputs):  # not a body's
            name = self.subject.inputs[self.step.inputs.index(name)]
        rows, examples = {}, ()
        if birth == "weights":
            weight = next((self.weight_of[t.op.name] for t in operation.inputs if t.op.name in self.weight_of), None)
            rows, examples = self._lost_rows(operation, where)
        elif birth == "optimizer":  # which works on whole weights
            rows = self._updated_rows(value.shape, where)
        elif birth != "divergence":  # in which no example and no row is at fault
            rows, examples = self._rows(operation, value.shape, elements), self._examples(value.shape, where)
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
            rows=rows,
            row_names={key: [_named(names[key], row) for row in ids] for key, ids in rows.items() if key in names},
            weight=weight,
        )

    def _inside(self, operation: tf.Operation) -> Guilty | None:
        """The guilty operation inside a branch, a loop or a function that is called; None of any other operation, and
        where the inside cannot be run by itself."""
        if not steptrace.called(operation):
            return None
        jit_compile = self.jit_compile or _must_compile(operation)
        given = [self.step.captured.get(tensor.op.name, self.tensors.get(tensor.name)) for tensor in operation.inputs]
        if any(tensor is None for tensor in given):
            return None
        held = Held(self.subject.state)

        def run(function, arguments, compiled, kept):
            return self.subject.run(function, arguments, compiled, kept, undo=False)[0]

        try:
            for body, arguments in steptrace.runs(self.step, operation, given, ITERATIONS, run):
                names = steptrace.values_of(body.graph, jit_compile)
                found = run(steptrace.runner(body, names, jit_compile), arguments, jit_compile, range(len(names)))
                values = dict(zip(names, found, strict=True))
                harm = _Harm(body, self.subject, values, jit_compile, self.before, self.lost)
                inner = [one for one in harm.guilty(body.graph.outputs) if one.birth != "data"]  # not made inside
                if inner:
                    grown = inner[0].birth == "divergence"
                    return inner[0] if grown else replace(inner[0], birth=self._birth(operation))
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, Ended):  # XLA cannot take it by itself
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
        if operation.type in LITERALS or any(self.weight_of.get(t.op.name) in self.before for t in operation.inputs):
            return "weights"
        if name in self.step.optimizer:
            return "optimizer"
        if operation.type in GROWING and self._large(operation):
            return "divergence"
        if name in self.step.gradient:
            return "gradient"
        seen = self.bad.intersection(self.step.losses)
        after = name in self.through_gradient or any(o.name in self.step.gradient for o in steptrace.above(operation))
        return "gradient" if after and not seen else "forward"

    def _large(self, operation: tf.Operation) -> list[str]:
        """The inputs of an operation that hold a finite value above LARGE."""
        finite = (tensor for tensor in self.inputs[operation.name] if tensor not in self.bad)
        return [t for t in finite if self.values[t].size and float(np.abs(self.values[t]).max()) > LARGE]

    def source(self, operation: tf.Operation) -> tf.Operation:
        """Of an operation that overflowed: where its large inputs came from, if that is the batch or an operation that
        made them of small ones at a singular point; else itself, which has grown."""
        waiting, seen = [operation], set()
        for each in waiting:
            large = self._large(each)
            made = each.inputs and not large and (each.type == "Exp" or each.type not in GROWING)
            batch = each.name in self.step.inputs and self.step.losses  # a body's inputs are no batch
            if batch or (made and not any(t.dtype == tf.resource for t in each.inputs)):
                return each
            for tensor in large:
                if tensor not in seen:
                    seen.add(tensor)
                    waiting.append(self.step.graph.get_tensor_by_name(tensor).op)
        return operation

    def _examples(self, shape: tuple[int, ...], where: np.ndarray, axis: int | None = None) -> tuple[int, ...]:
        """Positions in the batch of a value's non-finite elements, where an axis of it, else the first that may, counts
        the examples."""
        axes = self._axes(shape) if axis is None else [axis]
        if not axes or not len(where):
            return ()
        found = where[:, axes[0]] // (shape[axes[0]] // self.subject.batch)
        return tuple(int(example) for example in np.unique(found))

    def _axes(self, shape: tuple[int, ...]) -> list[int]:
        """Those that may count the examples: alone, or the first one examples x positions."""
        batch = self.subject.batch
        if not batch:
            return []
        return [n for n, size in enumerate(shape) if size == batch or (n == 0 and size and size % batch == 0)]

    def examples(self, one: Guilty, moved: Mapping[str, np.ndarray]) -> tuple[int, ...]:
        """Its examples, by the axis along which its non-finite elements move on as the examples do. moved: {tensor:
        value} when they have moved on by one place."""
        known = [name for name in moved if name.split(":")[0] == one.operation and name in self.bad]
        if not known:  # inside a branch or a loop
            return one.examples
        forward = self.step.forward(one.operation)
        if forward.graph is self.step.graph and not {o.name for o in steptrace.above(forward)}.intersection(
            self.step.inputs
        ):
            return ()  # it is computed from the weights alone
        before, after = (~np.isfinite(values[known[0]]) for values in (self.values, moved))
        for axis in self._axes(before.shape):
            was, now = (self._examples(mask.shape, np.argwhere(mask), axis) for mask in (before, after))
            if tuple(sorted((example + 1) % self.subject.batch for example in was)) == now:
                return was
        return ()

    def _lost_rows(self, operation: tf.Operation, where: np.ndarray) -> tuple[dict, tuple[int, ...]]:
        """Of a weight that held something non-finite before the step: its rows, and the examples that look them up."""
        for lookup in self.lookups:
            if any(tensor.op.name == lookup.placeholder for tensor in operation.inputs):
                ids = self.values[lookup.ids]
                bad = ~np.isfinite(self.values[operation.outputs[0].name])
                if operation.type == "ReadVariableOp":
                    rows = np.intersect1d(where[:, 0], ids)
                else:  # it has looked them up itself
                    rows = np.unique(ids[bad.reshape(*ids.shape, -1).any(axis=-1)])
                examples = np.unique(np.argwhere(np.isin(ids, rows))[:, 0])
                return {self.weight_of[lookup.placeholder]: rows.tolist()}, tuple(examples.tolist())
        return {}, ()

    def _updated_rows(self, shape: tuple[int, ...], where: np.ndarray) -> dict[str, list[int]]:
        """{embedding: rows} of an optimizer's value that has the shape of an embedding that was lost."""
        for weight in {self.weight_of[lookup.placeholder] for lookup in self.lookups} & self.lost.keys():
            if tuple(self.subject.weights[weight].shape) == shape:
                return {weight: np.unique(where[:, 0]).tolist()}
        return {}

    def _rows(self, operation: tf.Operation, shape: tuple[int, ...], elements: tuple) -> dict[str, list[int]]:
        """{weight: the rows that the elements were computed from}: of a gradient, those that the same element of the
        operation it differentiates was."""
        forward = self.step.forward(operation.name)
        if forward.graph is not self.step.graph:
            return {}
        above = {operation.name for operation in steptrace.above(forward)}
        batch, found = self.subject.tensors, {}
        singular = SINGULAR.get(forward.type, range(len(forward.inputs)))
        targets = [t for n, t in enumerate(forward.inputs) if n in singular and steptrace.is_number(t.dtype)]
        for lookup in self.lookups:
            rows: set[int] = set()
            for tensor in targets if lookup.operation in above else ():
                dye = lineage.Dye(self.step, lookup, self.values[lookup.ids], tensor.name, batch, self.subject.run)
                for element in elements if tensor.shape.rank is not None else ():
                    index = _broadcast(element, shape, tuple(tensor.shape))
                    if index is not None and len(rows) <= ROWS:
                        with suppress(Ended):  # what was found is kept
                            rows.update(dye.rows(index, ROWS).tolist())
            if 0 < len(rows) <= ROWS:
                weight = self.weight_of[lookup.placeholder]
                found[weight] = sorted(rows.union(found.get(weight, ())))
        return found


def _must_compile(operation: tf.Operation) -> bool:
    """Whether the function that is called is compiled by XLA wherever it is called from."""
    try:
        return bool(operation.get_attr("_XlaMustCompile"))
    except ValueError:  # it says nothing of it
        return False


def _named(names: Sequence[str], row: int) -> str:
    return str(names[row]) if row < len(names) else str(row)


def _broadcast(element: tuple[int, ...], shape: tuple[int, ...], of: tuple) -> tuple[int, ...] | None:
    """The index in a tensor of shape `of` from which an element of a result of that shape comes; None if the one is not
    broadcast to the other."""
    if len(of) > len(shape):
        return None
    pairs = list(zip(element[len(shape) - len(of) :], shape[len(shape) - len(of) :], of, strict=True))
    if any(size not in (1, whole) for _, whole, size in pairs):
        return None
    return tuple(0 if size == 1 else position for position, _, size in pairs)


def culprits(subject: Subject, trial: Trial) -> tuple[int, ...]:
    """The examples that make the step fail by themselves; none where every one does, or none."""
    batch = subject.batch
    if not batch or batch == 1:
        return ()
    found = lineage.those(np.arange(batch), lambda examples: bool(trial(subject.only(examples).data)))
    return () if len(found) == batch else tuple(int(example) for example in found)
