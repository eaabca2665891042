"""The autopsy as a Keras callback: watches any model's `fit`, and keeps what is needed to examine the step that fails.

The user's own compiled step runs unchanged, inside a function that also looks whether what it left is finite and hands
back the batch it took. Once in a while the variables are held, which copies only what changes, and the batches since
then are kept: from these the failing step is reached again.
"""

import re
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from zeronorm import apart, autopsy, harm, steptrace
from zeronorm import capsule as capsules

EVERY = 50  # steps between two times that the variables are held
MEMORY = 256e6  # bytes of batches that are kept at most
LARGE = 250_000  # elements of a variable that is looked at in every LARGE_EVERY-th step only, or when the loss is lost
LARGE_EVERY = 10
UNREPEATABLE = ("Random", "TruncatedNormal", "ParameterizedTruncatedNormal", "Multinomial", "PyFunc", "EagerPyFunc")
NUMBERS = 64  # variables of one element that are noted before each step


class Autopsy(keras.callbacks.Callback):
    """Finds what makes a weight NaN or infinite: `model.fit(..., callbacks=[zeronorm.Autopsy()])`.

    then: what to do after a weight was poisoned: "stop" puts the last finite weights back and ends the training;
    "go_on" trains on as if nobody had watched. names: {weight's path: what each row stands for}, for the report.
    capsule: a file to write the failing step to, for `replay`. verbose: 1 prints the report, 0 does not. seconds: that
    the examination takes at most. memory: bytes that it takes at most, by default half of what is free then.

    The examination computes in a process of its own, on the CPU, so that nothing it tries can end the training.

    `report` is None where nothing fired, else an `autopsy.Report`; of a step that poisons a weight it replaces that of
    one that did not. After a weight was poisoned nothing is watched any more.

    Raises ValueError at the start of a training that is distributed over several devices or has two of these, and where
    `names` are not the rows of a weight of the model, if it is built.
    """

    def __init__(
        self,
        then: str = "stop",
        names: dict[str, list[str]] | None = None,
        capsule: str | Path | None = None,
        verbose: int = 1,
        seconds: float = apart.SECONDS,
        memory: float | None = None,
    ):
        super().__init__()
        apart.check_limits(seconds, memory)
        if then not in ("stop", "go_on"):
            raise ValueError(f"then must be 'stop' or 'go_on', not {then!r}.")
        if not isinstance(names or {}, Mapping):
            raise ValueError("names must be a dict: {a weight's path: what each of its rows stands for}.")
        if not isinstance(capsule, (str, Path, type(None))):
            raise ValueError(f"capsule must be the name of a file, not {capsule!r}.")
        if capsule is not None and not Path(capsule).absolute().parent.is_dir():
            raise ValueError(
                f"capsule={str(capsule)!r}: there is no folder {Path(capsule).absolute().parent}; make it."
            )
        self.then, self.names, self.capsule, self.verbose = then, names or {}, capsule, verbose
        self.limits = (seconds, memory)
        self.report: autopsy.Report | None = None
        self._steps: _Steps | None = None

    def on_train_begin(self, logs=None) -> None:
        model = self.model
        if model.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError("zeronorm.Autopsy watches a model on one device; this one is distributed over several.")
        if model.built:
            _check_names(self.names, {variable.path: variable.shape for variable in model.variables})
        other = getattr(model.train_function, "__self__", None)
        if isinstance(other, Autopsy):
            if other._fresh:
                raise ValueError("Two zeronorm.Autopsy callbacks in one fit: leave one out.")
            other._release()  # of a fit that was interrupted
        self.report, self._over = None, False
        self._fresh = self._begun = True
        self._train = model.train_function
        model.train_function = self._watched
        self._step, self._seen, self._batches, self._held, self._lost = 0, 0, deque(), None, None
        self._past: deque[tuple[int, object]] = deque(maxlen=EVERY)  # (step, loss), not read before it is needed
        self._in_order = _in_order()

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self._held, self._seen = None, 0

    def on_train_batch_begin(self, batch, logs=None) -> None:
        self._begun = True

    def on_train_end(self, logs=None) -> None:
        self._release()

    def _release(self) -> None:
        """Leaves the model as it was before it was watched."""
        if getattr(self.model.train_function, "__self__", None) is self:
            self.model.train_function = self._train
        self._over, self._held, self._batches = True, None, deque()

    def _watched(self, iterator):
        """As the model's own train_function: some steps, and their logs."""
        self._fresh = False
        if not self._begun:  # another fit than the one that was watched, which was interrupted
            self._release()
        self._begun = False
        if self._over:
            return self._train(iterator)
        try:
            return self._several(iterator)
        except (StopIteration, tf.errors.OutOfRangeError):  # the end of the data
            raise
        except BaseException:
            self._release()
            raise

    def _several(self, iterator):
        if self._lost is None:
            try:
                if self._steps is None or self._steps.train is not self._train:
                    with steptrace.quiet():
                        self._steps = _Steps(self.model, self._train, iterator)
            except Exception as error:
                self._release()
                logs = self._train(iterator)  # where the model itself is at fault it says so
                warnings.warn(
                    f"zeronorm.Autopsy cannot watch this model ({type(error).__name__}: {error}).", stacklevel=2
                )
                return logs
            self._lost = harm.lost(self._steps.weights())  # before the training; what is lost from the start is no news
        logs = None
        for _ in range(self.model.steps_per_execution):
            try:
                with steptrace.quiet() if self._step < 2 else nullcontext():  # each fit has a trace of its own
                    logs = self._one(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                if logs is None:
                    raise
                break
            if self._over:
                break
        return logs

    def _one(self, iterator):
        if self._held is None or len(self._batches) >= self._room:
            self._held, self._room = harm.Held(self._steps.variables), EVERY
            self._batches.clear()
        logs, flags, numbers, batch = self._steps.take(iterator, thorough=self._step % LARGE_EVERY == 0)
        if not self._batches:
            self._room = max(1, min(EVERY, int(MEMORY / max(_bytes(batch), 1))))
        self._batches.append(_Taken(self._step, self._seen, numbers, batch))
        self._past.append((self._step, logs.get("loss") if isinstance(logs, dict) else None))
        self._step += 1
        self._seen += _size(batch)
        weights_finite, loss_finite = flags.numpy()
        if not (weights_finite and (loss_finite or self.report)):
            newly = harm.newly(harm.lost(self._steps.weights()), self._lost)
            if newly or not (loss_finite or self.report):
                self._fire(not newly)
        return logs

    def _fire(self, weights_finite: bool) -> None:
        """Something became non-finite in the steps since the variables were held: reach the first of them again, and
        examine it."""
        after = harm.Held(self._steps.variables)
        lost = harm.newly(harm.lost(self._steps.weights()), self._lost)
        self._held.restore()
        before, norms = self._held, {}
        try:
            with steptrace.quiet():
                for taken in self._batches:
                    before = harm.Held(self._steps.variables)
                    norms[taken.step] = self._steps.norms()
                    fails, loss_is_finite = self._steps.fails(taken, self._lost, loss_only=weights_finite)
                    if fails:
                        again = harm.newly(harm.lost(self._steps.weights()), self._lost)
                        before.restore()
                        self._examine(taken, norms, again, loss_is_finite)
                        break
                else:
                    before = harm.Held(self._steps.variables)
                    jit_compile, repeatable = bool(self.model.jit_compile), self._steps.repeatable()
                    self._found(autopsy.unreached(self._step - 1, jit_compile, lost, repeatable))
        finally:
            if weights_finite or self.then == "go_on":
                after.restore()
            else:
                before.restore()
                self.model.stop_training = True
            if not weights_finite:
                self._release()

    def _examine(self, taken: "_Taken", norms: dict, lost: dict[str, int], loss_is_finite: bool) -> None:
        """The report of a step, from the state before it. norms: of the weights before the steps up to it. lost: the
        weights that it lost. loss_is_finite: whether its loss was."""
        losses = {step: None if loss is None else float(np.mean(loss)) for step, loss in self._past}
        history = tuple({"step": step, "loss": losses.get(step), **found} for step, found in norms.items())
        with apart.Apart(*self.limits, bool(self.model.jit_compile)) as place:
            subject = subject_of(self.model, taken.batch, self.names)
            problem = self.capsule and _problem(capsule_of(subject, taken.step).save, self.capsule)
            subject = replace(subject, place=place)
            found = autopsy.report(subject, taken.step, loss_is_finite=loss_is_finite, history=history)
        if lost and not found.harmful:
            computed = (found.xla if found.jit_compile else found.kernels) is not None and not place.left_out
            why = (autopsy.CAME_ONCE,) if computed else ()  # else it is said already
            found = replace(found, harmful=True, lost=lost, left_out=(*found.left_out, *why))
        if problem:
            found = replace(found, left_out=(*found.left_out, f"the capsule was not written: {problem}"))
        examples = found.guilty[0].examples if found.guilty else ()
        if self._in_order:
            found = replace(found, positions=tuple(taken.first + example for example in examples))
        elif examples:
            why = "the examples' places in the data set: fit was not given arrays with shuffle=False"
            found = replace(found, left_out=(*found.left_out, why))
        self._found(found, written=bool(self.capsule and not problem))

    def _found(self, report: autopsy.Report, written: bool = False) -> None:
        if self.report is None or (report.harmful and not self.report.harmful):
            self.report = report
            if self.verbose:
                print(f"\n{report}")
                if report.harmful and self.then == "stop":
                    print("The last finite weights are back in the model; the training ends here.")
                if written:
                    print(f"The step is in {self.capsule}.")


def examine(
    model: keras.Model,
    x,
    y=None,
    sample_weight=None,
    names=None,
    seconds: float = apart.SECONDS,
    memory: float | None = None,
) -> autopsy.Report:
    """The report of one training step, taken from the model as it is, which is left as it is: also where nothing is NaN
    yet, to ask what another compiler would make of it (`Report.kernels`, `Report.xla`).

    model: compiled. x, y, sample_weight: one batch, as `fit` takes them, or x a tf.data.Dataset, of which the first
    batch is taken. names, seconds, memory: as `Autopsy` takes them. Raises ValueError if the model is not compiled, or
    its loss lacks y.
    """
    _check_model(model, "zeronorm.examine")
    if isinstance(x, tf.data.Dataset):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(next(iter(x)))
    if y is None and model.loss is not None and type(model).train_step is keras.Model.train_step:
        raise ValueError("zeronorm.examine takes a training step, and this model's loss needs y: examine(model, x, y).")
    data = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
    data = tf.nest.map_structure(tf.convert_to_tensor, data if isinstance(data, tuple) else (data,))
    if not model.built:
        model(data[0])
    step = int(model.optimizer.iterations) if model.optimizer is not None else 0
    with apart.Apart(seconds, memory, bool(model.jit_compile)) as place:
        return autopsy.report(replace(subject_of(model, data, names), place=place), step)


def replay(
    model: keras.Model,
    path: str | Path,
    names: dict[str, list[str]] | None = None,
    seconds: float = apart.SECONDS,
    memory: float | None = None,
) -> autopsy.Report:
    """The report of the step in a capsule, which `Autopsy(capsule=path)` wrote, on this machine.

    model: built and compiled as it was trained; its weights and optimizer state become those before the step. names,
    seconds, memory: as `Autopsy` takes them. Raises CapsuleError if the file is none or of another model, ValueError if
    the model is no compiled one.
    """
    _check_model(model, "zeronorm.replay")
    found = capsules.load(path)
    model.jit_compile = found.jit_compile
    try:
        subject = subject_of(model, found.batch, names)
    except Exception as error:
        said = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()[0]  # Keras writes in colours
        raise capsules.CapsuleError(f"The capsule is of another model: its batch does not fit ({said}).") from error
    found.restore(_kept(subject))
    with apart.Apart(seconds, memory, subject.jit_compile) as place:
        return autopsy.report(replace(subject, place=place), found.step)


def _check_model(model, who: str) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(f"{who} takes a Keras model first, not {type(model).__name__}.")
    if not model.compiled:
        raise ValueError(f"{who} takes a training step of a compiled model: call model.compile first.")


def _check_names(names: Mapping, shapes: Mapping[str, Sequence]) -> None:
    for path, rows in names.items():
        if path not in shapes:
            tables = [path for path, shape in shapes.items() if len(shape) == 2]
            raise ValueError(f"names: the model has no weight '{path}'; those with rows are {', '.join(tables[:8])}.")
        listed = not isinstance(rows, (str, Mapping)) and hasattr(rows, "__len__")
        if not listed or len(rows) != shapes[path][0]:
            given = f"has {len(rows)}" if listed else f"is {type(rows).__name__}"
            raise ValueError(f"names['{path}'] must be a list of {shapes[path][0]} names, one a row; it {given}.")


def subject_of(model: keras.Model, batch, names: dict[str, list[str]] | None = None) -> harm.Subject:
    """A compiled model's training step on a batch, as an autopsy takes it."""
    if model.run_eagerly:
        state = _known(model)
    else:
        step = tf.function(model.train_step, autograph=False)
        state = _captured(step.get_concrete_function(batch))
    return harm.Subject(
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


def capsule_of(subject: harm.Subject, step: int) -> capsules.Capsule:
    """The subject's step, to be written to a file."""
    state = tuple((name, variable.numpy()) for name, variable in _kept(subject))
    return capsules.Capsule(step, subject.jit_compile, state, subject.data)


def _kept(subject: harm.Subject) -> list[tuple[str, tf.Variable]]:
    """(name, variable) of what a capsule holds of the state: all but the numbers that metrics own."""
    weights = {id(variable) for variable in subject.weights.values()}
    others = [v for v in subject.state if id(v) not in weights and not steptrace.is_number(v.dtype)]
    return [*subject.weights.items(), *((variable.name, variable) for variable in others)]


@dataclass(frozen=True)
class _Taken:
    """A step that was taken: its number, how many examples of the epoch came before, the numbers before it that other
    callbacks may have changed (a learning rate), the batch."""

    step: int
    first: int
    numbers: Sequence[tf.Tensor]
    batch: object


class _Steps:
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
            self._again = tf.function(self._logged, input_signature=specs if plain else None, autograph=False)
            unwatched = tf.function(lambda iterator: self._logged(_batch(iterator)), autograph=False)
            function = unwatched.get_concrete_function(iterator)
            self.variables, self._graph = _captured(function), function.graph  # some are made only now
            if model.steps_per_execution == 1:
                self._compiled = tf.function(self._take, autograph=False)
            else:  # the data may end between two of the steps, and a compiled step moves its counters all the same
                signature = specs if plain else None
                looks = {t: partial(self._taken, thorough=t) for t in (False, True)}
                looks = {t: tf.function(look, input_signature=signature, autograph=False) for t, look in looks.items()}
                self._compiled = lambda iterator, thorough: looks[thorough](_batch(iterator))
        trained = {id(variable.value) for variable in model.trainable_variables}
        numbers = [v for v in self.weights().values() if v.shape.num_elements() == 1 and id(v) not in trained]
        self._numbers = numbers[:NUMBERS]
        self._any_large = any(v.shape.num_elements() >= LARGE for v in self.weights().values())

    def weights(self) -> dict[str, tf.Variable]:
        """{name: variable} of those whose values are judged."""
        return _weights(self.model, self.variables)

    def repeatable(self) -> bool:
        """Whether a step is known to do the same whenever it is taken from the same state: Keras's own random numbers
        are part of the state, those of tf.random are not, and of Python's nothing is known."""
        if self._graph is None:
            return False
        graph = self._graph.as_graph_def()
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        return not any(node.op.startswith(UNREPEATABLE) for node in nodes)

    def norms(self) -> dict[str, float]:
        trainable = {id(variable.value) for variable in self.model.trainable_variables}
        found = {name: variable for name, variable in self.weights().items() if id(variable) in trainable}
        return {f"norm/{name}": float(tf.norm(tf.cast(variable, tf.float32))) for name, variable in found.items()}

    def take(self, iterator, thorough: bool):
        """One step: (logs, whether [weights, loss] are finite, the numbers before it, its batch). Raises
        StopIteration or OutOfRangeError at the end of the data. thorough: whether large weights are looked at too."""
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
            if thorough or variable.shape.num_elements() < LARGE
        ]
        weights = tf.reduce_all(tf.math.is_finite(tf.stack(sums))) if sums else tf.constant(True)
        loss = logs.get("loss") if isinstance(logs, dict) else None
        return tf.stack([weights, tf.constant(True) if loss is None else tf.reduce_all(tf.math.is_finite(loss))])

    def fails(self, taken: _Taken, before: dict[str, int], loss_only: bool) -> tuple[bool, bool]:
        """Takes a step again, from the present state: (whether it loses a weight or, if loss_only, the loss; whether
        the loss is finite)."""
        for variable, value in zip(self._numbers, taken.numbers, strict=True):
            variable.assign(value)
        logs = self._again(taken.batch)
        loss = logs.get("loss") if isinstance(logs, dict) else None  # a mean over the epoch's steps
        loss_is_finite = loss is not None and bool(np.isfinite(loss).all())
        fails = not loss_is_finite if loss_only else bool(harm.newly(harm.lost(self.weights()), before))
        return fails, loss_is_finite


def _batch(iterator):
    """The next one. What Keras passes as an Optional stands for None."""
    batch = iterator.get_next() if hasattr(iterator, "get_next") else next(iterator)
    return tf.nest.map_structure(lambda part: None if isinstance(part, tf.experimental.Optional) else part, batch)


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
    """The variables that a traced step reads or writes, those of custom loops and optimizers too, as it meets them."""
    order = {id(outer): number for number, (outer, _) in enumerate(function.graph.captures)}
    return sorted(_unique(function.variables), key=lambda variable: order.get(id(variable.handle), len(order)))


def _known(model: keras.Model) -> list[tf.Variable]:
    """The variables that the model and its optimizers own up to."""
    groups = [model.variables, model.metrics_variables, *(optimizer.variables for optimizer in _optimizers(model))]
    return _unique(variable.value for group in groups for variable in group)


def _weights(model: keras.Model, state: Sequence[tf.Variable]) -> dict[str, tf.Variable]:
    """{name: variable} of the numbers among the variables that no metric owns: Keras's paths where it has one."""
    optimizers = [variable for optimizer in _optimizers(model) for variable in optimizer.variables]
    paths = {id(variable.value): variable.path for variable in [*model.variables, *optimizers]}
    metrics = {id(variable.value) for variable in model.metrics_variables}
    found: dict[str, tf.Variable] = {}
    for variable in state:
        if id(variable) not in metrics and steptrace.is_number(variable.dtype):
            path = name = paths.get(id(variable), variable.name.removesuffix(":0"))
            number = 1
            while name in found:
                number += 1
                name = f"{path}#{number}"
            found[name] = variable
    return found


def _inputs(batch) -> list[str]:
    """How the tensors of a batch are called: x, y and sample_weight, with the key or place of each part."""
    parts = dict(zip(("x", "y", "sample_weight"), batch, strict=False)) if isinstance(batch, tuple) else {"x": batch}

    def named(name: str, value) -> Iterator[str]:
        if isinstance(value, dict):
            for key in sorted(value):
                yield from named(f"{name}[{key!r}]", value[key])
        elif isinstance(value, (list, tuple)):
            for number, part in enumerate(value):
                yield from named(f"{name}[{number}]", part)
        else:
            yield from [name] * len(steptrace.flat(value))

    return [name for part, value in parts.items() for name in named(part, value)]


def _problem(function: Callable, *arguments) -> str:
    """What went wrong in calling it; nothing where nothing did."""
    try:
        function(*arguments)
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _bytes(batch) -> int:
    tensors = tf.nest.flatten(batch, expand_composites=True)
    return sum(int(tf.size(tensor)) * max(tensor.dtype.size, 1) for tensor in tensors if tensor is not None)


def _size(batch) -> int:
    return next((int(t.shape[0]) for t in tf.nest.flatten(batch) if t is not None and t.shape.rank), 0)


def _in_order() -> bool:
    """Whether the `fit` that is under way was given arrays and shuffle=False. A callback is not told, so this reads the
    arguments where fit has them."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "fit" and {"x", "shuffle", "validation_split"} <= frame.f_locals.keys():
            arrays = tf.nest.flatten(frame.f_locals["x"])
            return not frame.f_locals["shuffle"] and all(isinstance(x, (np.ndarray, tf.Tensor)) for x in arrays)
        frame = frame.f_back
    return False


def _unique(items):
    return list({id(item): item for item in items}.values())
