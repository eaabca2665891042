"""The autopsy as a Keras callback: watches any model's `fit`, and keeps what is needed to examine
the step that fails.

The user's own compiled step runs unchanged, inside a function that also looks whether what it left
is finite and hands back the batch it took. Once in a while the variables are held, which copies
only what changes, and the batches since then are kept: from these the failing step is reached
again.
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import tensorflow as tf

from zeronorm.autopsy import capsule as capsules
from zeronorm.autopsy import examination, fit, graph, html, sandbox, thresholds
from zeronorm.autopsy.flight import Reached
from zeronorm.autopsy.hold import Hold
from zeronorm.autopsy.keras_step import capsule_of, kept_of, subject_of
from zeronorm.autopsy.report import Report

INSTEAD = (
    "call model.fit(x, y, batch_size=len(x), callbacks=[watch]) on each batch in place of the"
    " loop's own step, or zeronorm.examine(model, x, y) before a step; both take a compiled model"
)
NO_FIT = f"zeronorm.Autopsy watches model.fit, and no fit of this model is under way: {INSTEAD}."
UNWATCHED = (
    f"zeronorm.Autopsy did not see these training steps, which are not model.fit's own: {INSTEAD}."
)
NO_TRAINING = (
    "zeronorm.Autopsy watches model.fit, and does nothing in {}, which changes no weight: leave it"
    " out here, or ask zeronorm.examine(model, x, y) about a training step."
)


class Autopsy(keras.callbacks.Callback):
    """Finds what makes a weight NaN or infinite: `model.fit(..., callbacks=[zeronorm.Autopsy()])`.

    then: what to do after a weight was poisoned: "stop" puts the last finite weights back and ends
        the training; "go_on" trains on as if nobody had watched.
    names: {weight's path: what each row stands for}, for the report.
    capsule: a file to write the failing step to, for `replay`.
    verbose: 1 prints the report, 0 does not.
    seconds: that the examination takes at most.
    memory: bytes that it takes at most, by default half of what is free then.

    The examination computes in a process of its own, on the CPU, so that nothing it tries can end
    the training.

    `report` is None where nothing fired, else a `Report`; of a step that poisons a weight it
    replaces that of one that did not. After a weight was poisoned nothing is watched any more.

    Raises ValueError where Keras does not run on TensorFlow; at the start of a training that is not
    `fit` of a Keras model, is distributed over several devices or has two of these; and where
    `names` are not the rows of a weight of the model, if it is built. Warns where steps are taken
    that it cannot see.
    """

    def __init__(
        self,
        then: str = "stop",
        names: dict[str, list[str]] | None = None,
        capsule: str | Path | None = None,
        verbose: int = 1,
        seconds: float = thresholds.SECONDS,
        memory: float | None = None,
    ):
        super().__init__()
        _check_backend("zeronorm.Autopsy")
        sandbox.check_limits(seconds, memory)
        _check_arguments(then, names, capsule)
        self.then, self.names, self.capsule, self.verbose = then, names or {}, capsule, verbose
        self.limits = (seconds, memory)
        self.report: Report | None = None
        self._in_order = False  # whether the examples come as they lie in the user's arrays
        self._hold: Hold | None = None  # of the fit under way, or of the last one
        self._under_way = False
        self._of: int | None = None  # steps of the fit, where they are known
        self._warned = False

    def __repr__(self) -> str:
        who = f": {self.report.brief or 'nobody named'}" if self.report else ""
        return f"{type(self).__name__}({self._state()}{who})"

    def _repr_html_(self) -> str:
        """The callback in a notebook: what it has seen, and its report."""
        return html.of_watch(f"{type(self).__name__}: {self._state()}", self.report)

    def set_model(self, model) -> None:
        if model is not None and not isinstance(model, keras.Model):
            raise ValueError(
                f"zeronorm.Autopsy is a callback of fit of a Keras {keras.__version__} model, not"
                f" of {type(model).__module__}.{type(model).__qualname__}."
            )
        super().set_model(model)

    def on_train_begin(self, logs=None, *others, **more) -> None:
        model = self.model
        if not isinstance(model, keras.Model) or not fit.is_of(model):
            raise ValueError(NO_FIT)
        _check_one_device(model, "zeronorm.Autopsy")
        if model.built:
            _check_names(
                self.names, {variable.path: variable.shape for variable in model.variables}
            )
        other = getattr(model.train_function, "__self__", None)
        if isinstance(other, Hold):
            if other.fresh:
                raise ValueError("Two zeronorm.Autopsy callbacks in one fit: leave one out.")
            other.release()  # of a fit that was interrupted
        self.report, self._under_way, self._warned = None, True, False
        self._in_order, self._of = fit.is_in_order(), fit.steps(self.params)
        known = self._hold.steps if self._hold else None
        self._hold = Hold(model, self._look, known)

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self._held().flight.begin_epoch()

    def on_train_batch_begin(self, batch, logs=None) -> None:
        self._held().begin_batch()

    def on_train_batch_end(self, batch, logs=None) -> None:
        hold = self._held()
        if not (hold.over or hold.called):
            self._warn(UNWATCHED)

    def on_train_end(self, logs=None) -> None:
        hold = self._hold if self._under_way else None
        if hold is None or not (hold.over or hold.flight.step or fit.keras_arguments()):
            self._warn(UNWATCHED)
        if hold is not None:
            hold.release()
        self._under_way = False
        report = self.report  # here, because Keras has redrawn its progress bar since the step
        if self.verbose and hold is not None and report and report.harmful and self.then == "stop":
            said = _step(report, self._of)
            print(f"Stopped in {said}; the last finite weights are back in the model.", flush=True)

    def on_test_begin(self, logs=None) -> None:
        if not fit.is_of(self.model):
            warnings.warn(NO_TRAINING.format("evaluate"), stacklevel=2)

    def on_predict_begin(self, logs=None) -> None:
        if not fit.is_of(self.model):
            warnings.warn(NO_TRAINING.format("predict"), stacklevel=2)

    def _held(self) -> Hold:
        """The hold on the model of the fit under way."""
        if self._hold is None or not self._under_way:
            raise ValueError(NO_FIT)
        return self._hold

    def _warn(self, sentence: str) -> None:
        """Once a training."""
        if not self._warned:
            warnings.warn(sentence, stacklevel=3)
        self._warned = True

    def _state(self) -> str:
        if self._hold is None:
            return "has watched nothing yet"
        if self.report is None:
            steps = f"{self._hold.flight.step} steps" + (f" of {self._of}" if self._of else "")
            return f"{'watches' if self._under_way else 'watched'} {steps}, nothing found"
        ends = {"stop": "stopped in", "go_on": "trained on after"}[self.then]
        return f"{ends if self.report.harmful else 'found'} {_step(self.report, self._of)}"

    def _look(self, weights_finite: bool, loss_finite: bool) -> None:
        """After a step. A loss that is lost is examined once."""
        new_loss = not (loss_finite or self.report)
        if new_loss or not weights_finite:
            lost = self._held().flight.lost()
            if lost or new_loss:
                self._fire(lost)

    def _fire(self, lost: dict[str, int]) -> None:
        """Something became non-finite in the steps since the variables were held: reach the first
        of them again, and examine it.

        lost: {weight: elements}; empty where it is the loss alone.
        """
        hold = self._held()
        flight = hold.flight
        ends = flight.rewind()
        try:
            with graph.quiet():
                reached = flight.reach(ends, loss_only=not lost)
                if reached is not None:
                    self._examine(reached)
                else:
                    jit_compile, repeatable = bool(self.model.jit_compile), flight.repeatable()
                    last = flight.step - 1
                    self._found(examination.unreached(last, jit_compile, lost, repeatable))
        finally:
            if not lost or self.then == "go_on":
                ends.after.restore()
            else:
                ends.before.restore()
                self.model.stop_training = True
            if lost:
                hold.release()

    def _examine(self, reached: Reached) -> None:
        """The report of a step, from the state before it."""
        record = reached.record
        with sandbox.Sandbox(*self.limits, bool(self.model.jit_compile)) as place:
            subject = subject_of(self.model, record.batch, self.names)
            save = capsule_of(subject, record.step).save
            problem = _problem(save, self.capsule) if self.capsule else ""
            subject = replace(subject, place=place)
            found = examination.report(
                subject,
                record.step,
                loss_is_finite=reached.loss_is_finite,
                history=reached.history,
            )
        self._found(
            _completed(found, reached, self._in_order, problem, cut=bool(place.left_out)),
            written=bool(self.capsule and not problem),
        )

    def _found(self, report: Report, written: bool = False) -> None:
        if self.report is None or (report.harmful and not self.report.harmful):
            self.report = report
            if self.verbose:
                print(f"\n{report}")
                if written:
                    print(f"The step is in {self.capsule}.")


def examine(
    model: keras.Model,
    x,
    y=None,
    sample_weight=None,
    names=None,
    seconds: float = thresholds.SECONDS,
    memory: float | None = None,
) -> Report:
    """The report of one training step, taken from the model as it is, which is left as it is: also
    where nothing is NaN yet, to ask what another compiler would make of it (`Report.kernels`,
    `Report.xla`).

    model: compiled.
    x, y, sample_weight: one batch, as `fit` takes them, or x a tf.data.Dataset, of which the first
        batch is taken.
    names, seconds, memory: as `Autopsy` takes them.
    Raises ValueError if the model is not compiled, or its loss lacks y.
    """
    _check_model(model, "zeronorm.examine")
    if isinstance(x, tf.data.Dataset):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(next(iter(x)))
    if y is None and model.loss is not None and type(model).train_step is keras.Model.train_step:
        raise ValueError(
            "zeronorm.examine takes a training step, and this model's loss needs y: examine(model,"
            " x, y)."
        )
    data = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
    data = tf.nest.map_structure(tf.convert_to_tensor, data if isinstance(data, tuple) else (data,))
    optimizer = model.optimizer
    with model.distribute_strategy.scope():  # in which variables are made
        if not model.built:
            model(data[0])
        if isinstance(optimizer, keras.optimizers.Optimizer) and tf.distribute.has_strategy():
            optimizer.build(model.trainable_variables)
    step = 0 if optimizer is None else int(keras.ops.convert_to_numpy(optimizer.iterations))
    with sandbox.Sandbox(seconds, memory, bool(model.jit_compile)) as place:
        return examination.report(replace(subject_of(model, data, names), place=place), step)


def replay(
    model: keras.Model,
    path: str | Path,
    names: dict[str, list[str]] | None = None,
    seconds: float = thresholds.SECONDS,
    memory: float | None = None,
) -> Report:
    """The report of the step in a capsule, which `Autopsy(capsule=path)` wrote, on this machine.

    model: built and compiled as it was trained; its weights and optimizer state become those before
        the step.
    names, seconds, memory: as `Autopsy` takes them.
    Raises CapsuleError if the file is none or of another model, ValueError if the model is no
    compiled one.
    """
    _check_model(model, "zeronorm.replay")
    found = capsules.load(path)
    try:
        subject = replace(subject_of(model, found.batch, names), jit_compile=found.jit_compile)
    except Exception as error:
        # Keras writes in colours
        said = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()[0]
        raise capsules.CapsuleError(
            f"The capsule is of another model: its batch does not fit ({said})."
        ) from error
    found.restore(kept_of(subject))
    with sandbox.Sandbox(seconds, memory, subject.jit_compile) as place:
        return examination.report(replace(subject, place=place), found.step)


def _completed(found: Report, reached: Reached, in_order: bool, problem: str, cut: bool) -> Report:
    """The report of a step, with what is known of its fit.

    in_order: whether the examples come as they lie in the user's arrays.
    problem: why the capsule was not written; "" where it was, or was not to be.
    cut: whether the examination ended before its end.
    """
    left_out = list(found.left_out)
    if reached.lost and not found.harmful:
        computed = (found.xla if found.jit_compile else found.kernels) is not None and not cut
        left_out += [examination.CAME_ONCE] * computed  # else it is said already
        found = replace(found, harmful=True, lost=reached.lost)
    if problem:
        left_out.append(f"the capsule was not written: {problem}")
    examples = found.guilty[0].examples if found.guilty else ()
    positions: tuple[int, ...] = ()
    if in_order:
        positions = tuple(reached.record.first + example for example in examples)
    elif examples:
        left_out.append(
            "the examples' places in the data set: fit was not given arrays with shuffle=False"
        )
    return replace(found, positions=positions, left_out=tuple(left_out))


def _step(report: Report, of: int | None) -> str:
    """Its step, counted from 0, and of how many, where that is known."""
    return f"step {report.step}" + (f" of {of}" if of else "")


def _check_arguments(then, names, capsule) -> None:
    if then not in ("stop", "go_on"):
        raise ValueError(f"then must be 'stop' or 'go_on', not {then!r}.")
    if not isinstance(names or {}, Mapping):
        raise ValueError(
            "names must be a dict: {a weight's path: what each of its rows stands for}."
        )
    if not isinstance(capsule, (str, Path, type(None))):
        raise ValueError(f"capsule must be the name of a file, not {capsule!r}.")
    if capsule is not None and not Path(capsule).absolute().parent.is_dir():
        raise ValueError(
            f"capsule={str(capsule)!r}: there is no folder {Path(capsule).absolute().parent};"
            " make it."
        )


def _check_backend(who: str) -> None:
    if keras.backend.backend() != "tensorflow":
        now, then = keras.backend.backend(), "set KERAS_BACKEND=tensorflow"
        raise ValueError(f"{who} needs Keras on TensorFlow; this is {now}: {then}.")


def _check_one_device(model: keras.Model, who: str) -> None:
    if model.distribute_strategy.num_replicas_in_sync > 1:
        which = "this one is distributed over several"
        raise ValueError(f"{who} takes a model on one device; {which}.")


def _check_model(model, who: str) -> None:
    _check_backend(who)
    if not isinstance(model, keras.Model):
        raise ValueError(f"{who} takes a Keras model first, not {type(model).__name__}.")
    if not model.compiled:
        raise ValueError(
            f"{who} takes a training step of a compiled model: call model.compile first."
        )
    _check_one_device(model, who)


def _check_names(names: Mapping, shapes: Mapping[str, Sequence]) -> None:
    for path, rows in names.items():
        if path not in shapes:
            tables = [path for path, shape in shapes.items() if len(shape) == 2]
            raise ValueError(
                f"names: the model has no weight '{path}'; those with rows are"
                f" {', '.join(tables[:8])}."
            )
        listed = not isinstance(rows, (str, Mapping)) and hasattr(rows, "__len__")
        if not listed or len(rows) != shapes[path][0]:
            given = f"has {len(rows)}" if listed else f"is {type(rows).__name__}"
            raise ValueError(
                f"names['{path}'] must be a list of {shapes[path][0]} names, one a row; it {given}."
            )


def _problem(function: Callable, *arguments) -> str:
    """What went wrong in calling it; nothing where nothing did."""
    try:
        function(*arguments)
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
