"""The autopsy of a training step: which operation, line, example and row poisoned a weight, under which compiler, and
what makes the step finite."""

import json
import math
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from zeronorm import cures as remedies
from zeronorm import harm, steptrace
from zeronorm.harm import Guilty, Subject


@dataclass(frozen=True)
class Report:
    """What an autopsy found.

    step: 0-based training step at which a weight was, or would have been, poisoned. birth: forward, gradient,
    optimizer, data, weights or divergence; "" where nothing is non-finite, or nothing could be followed. harmful:
    whether a weight was poisoned as it was trained. guilty: most likely first; of a step that only the other compiler
    poisons, those of that one. kernels, xla: whether the step fails under each; None where it cannot be computed so.
    jit_compile: how it was trained. lost: {weight: elements that became non-finite, under the same}. swallowed:
    operations that got a NaN and gave something finite. cures: what makes the step finite, and what does not. history:
    [{step, loss, norm/WEIGHT}, ...] of the steps before, the loss as Keras shows it. positions: of the first guilty
    operation's examples in the data set, where it was passed as arrays unshuffled. left_out: what could not be done,
    and why.
    """

    step: int
    birth: str
    harmful: bool
    guilty: tuple[Guilty, ...]
    kernels: bool | None
    xla: bool | None
    jit_compile: bool
    lost: dict[str, int]
    swallowed: tuple[str, ...] = ()
    cures: tuple[remedies.Cure, ...] = ()
    history: tuple[dict, ...] = ()
    positions: tuple[int, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def examined_under(self) -> str:
        """Who computed the values and the cures: as trained, or, where that is finite, the one that fails."""
        xla = self.jit_compile != (self.disagreement and not self.harmful)
        return "XLA" if xla else "the kernels"

    @property
    def disagreement(self) -> bool:
        """Whether the step fails under one of TensorFlow's kernels and XLA, and not under the other."""
        return None not in (self.kernels, self.xla) and self.kernels != self.xla

    def to_json(self) -> str:
        """The report as JSON text: its fields by name, tuples as lists, a number that is not finite as null."""
        return json.dumps(_plain(asdict(self)), indent=1, allow_nan=False, ensure_ascii=False)

    def verdicts(self) -> Iterator[tuple[str, bool | None, bool]]:
        """(who computes, whether the step fails, whether it was trained so) of each numerics it was tried under."""
        yield "TensorFlow's kernels", self.kernels, not self.jit_compile
        yield "XLA", self.xla, self.jit_compile

    def about(self, number: int) -> Iterator[str]:
        """Lines on the examples and rows of a guilty operation, by its place in `guilty`."""
        guilty, positions = self.guilty[number], self.positions if number == 0 else ()
        if guilty.examples:
            where = f"; in the data set {_some(positions)}" if positions else ""
            yield from _wrapped(f"  examples of the batch: {_some(guilty.examples)}{where}")
        for weight, rows in guilty.rows.items():
            names = guilty.row_names.get(weight, [])
            named = [f"{row} {name!r}" for row, name in zip(rows, names, strict=True)] if names else rows
            yield from _wrapped(f"  rows of {weight}: {_some(named)}")

    def endings(self) -> Iterator[str]:
        """Lines at the end."""
        yield from ()

    def __str__(self) -> str:
        """The report as plain text, at most 80 columns wide but for the user's own lines."""
        return "\n".join(_lines(self))

    def _repr_markdown_(self) -> str:
        """The report in a notebook."""
        return f"```text\n{self}\n```"


NAMES = {False: "the step under TensorFlow's kernels", True: "the step under XLA"}


@steptrace.quiet()
def report(
    subject: Subject,
    step: int,
    outcomes: Mapping[bool, Mapping[str, int] | None] | None = None,
    traced: steptrace.Step | None = None,
    known_as: Callable[[Guilty, steptrace.Step], Guilty] = lambda guilty, step: guilty,
    loss_is_finite: bool | None = None,
    **more,
) -> Report:
    """The autopsy of one step: run under both numerics, and examined under the one it was trained with; under the other
    where only that one fails.

    step: its number in the training. outcomes, traced: {jit_compile: what harm.Trial returns} and the traced step,
    where the caller knows them. known_as: another description of a guilty operation of the traced step.
    loss_is_finite: what the user's own step returned, where a fused kernel may have swallowed what the traced step
    shows. more: of Report's, what only the caller knows.
    """
    doing = _Attempts()
    trials = {jit: harm.Trial(subject, jit) for jit in (False, True)}
    if outcomes is None:
        outcomes = {jit: doing(NAMES[jit], trial) for jit, trial in trials.items()}
    trained = subject.jit_compile
    if not outcomes[trained] and outcomes[not trained]:
        subject = replace(subject, jit_compile=not trained)
    examined = subject.jit_compile
    traced = traced or doing(
        "the step as a graph (none of it may read values in Python, as .numpy() does)",
        steptrace.trace,
        subject.step,
        subject.data,
        subject.optimizers,
        examined,
    )
    found = traced and doing("the values of its operations", harm.examine, subject, traced, examined)
    if not found and traced and examined and outcomes[False]:  # XLA's process may have died of it
        found = doing("the values under the kernels", _under_kernels, subject)
    found = found or harm.Findings((), (), {}, True)
    closed = not found.guilty or any(one.op_type in steptrace.BODIES for one in found.guilty)
    if traced and examined and outcomes[False] and closed:
        found = doing("the inside of a loop", _from_kernels, subject, found) or found
    guilty = tuple(known_as(one, traced) for one in found.guilty)
    guilty = doing("the examples", _with_examples, subject, guilty, trials[examined]) or guilty
    found = replace(found, guilty=guilty)
    if loss_is_finite and not found.loss_is_finite:
        hidden = "a fused kernel: the loss that was trained on is finite"
        found = replace(found, loss_is_finite=True, swallowed=(*found.swallowed, hidden))
    unknown = set(subject.names).difference(subject.weights)
    if unknown:
        tables = [name for name, variable in subject.weights.items() if variable.shape.rank == 2]
        doing.left_out.append(
            f"names of {', '.join(sorted(unknown))}: no such weight; there are {', '.join(tables[:8])}"
        )
    if outcomes[examined] and not guilty and not doing.left_out:
        doing.left_out.append("the operation: the way back from the weights ends in what cannot be looked into")
    doing.left_out += [
        f"{NAMES[jit]}: {trial.refused}" for jit, trial in trials.items() if outcomes[jit] is None and trial.refused
    ]
    doing.left_out += subject.place.left_out
    cures: list[remedies.Cure] = []
    if found.guilty and outcomes[examined]:
        tried = remedies.tried(subject, traced, found, trials[examined])
        doing("some of the cures", cures.extend, tried)  # those before one that could not be had are kept
    for how in dict.fromkeys(subject.place.deaths):
        if not any(how in known for known in doing.left_out):
            doing.left_out.append(f"some of what was tried: {how}")
    return Report(
        step=step,
        birth=found.guilty[0].birth if found.guilty else "",
        harmful=bool(outcomes[trained]),
        guilty=found.guilty,
        **{name: None if outcomes[jit] is None else bool(outcomes[jit]) for name, jit in (("kernels", 0), ("xla", 1))},
        jit_compile=trained,
        lost=_weights_first(outcomes[examined] or {}, subject.optimizers),
        swallowed=found.swallowed,
        cures=tuple(cures),
        left_out=tuple(doing.left_out),
        **more,
    )


def _weights_first(lost: Mapping[str, int], optimizers) -> dict[str, int]:
    """The same, the optimizers' variables last."""
    slots = tuple(f"{optimizer.name}/" for optimizer in optimizers)
    return dict(sorted(lost.items(), key=lambda item: bool(slots) and item[0].startswith(slots)))


CAME_ONCE = (
    "the step did not fail when it was repeated: it draws random numbers that no Keras seed fixes, or something "
    "besides the step, a callback perhaps, writes a weight"
)


WRITTEN = "the operation: no step did it; something else, a callback perhaps, wrote a weight between two of them"


def unreached(step: int, jit_compile: bool, lost: Mapping[str, int], repeatable: bool) -> Report:
    """The report of a failure that did not come again when the steps were repeated. step: the last of them. repeatable:
    whether a step always does the same from the same state."""
    birth, why = ("weights", WRITTEN) if repeatable else ("", CAME_ONCE)
    return Report(step, birth, bool(lost), (), None, None, jit_compile, dict(lost), left_out=(why,))


class _Attempts:
    """Calls a function; where it raises notes what was being done, and gives None: a part of the report that cannot be
    had must not cost the rest, let alone the training."""

    def __init__(self):
        self.left_out: list[str] = []

    def __call__(self, doing: str, function: Callable, *arguments):
        try:
            return function(*arguments)
        except harm.Ended as why:
            self._add(doing, f" could not be had: {why}")
            return None
        except Exception as error:
            said = str(error).splitlines()[0][:160] if str(error) else ""
            self.left_out.append(f"{doing} could not be had ({type(error).__name__}: {said})")
            return None

    def _add(self, doing: str, because: str) -> None:
        """Notes a part, with those that could not be had for the same reason."""
        for number, known in enumerate(self.left_out):
            if known.endswith(because):
                self.left_out[number] = f"{known.removesuffix(because)}, {doing}{because}"
                return
        self.left_out.append(f"{doing}{because}")


def _under_kernels(subject: Subject) -> harm.Findings:
    subject = replace(subject, jit_compile=False)
    return harm.examine(subject, steptrace.trace(subject.step, subject.data, subject.optimizers), False)


def _from_kernels(subject: Subject, found: harm.Findings) -> harm.Findings:
    """The findings with what is guilty inside of loops that XLA does not let one into: as the kernels compute it, where
    the step fails as well."""
    inside = _under_kernels(subject)
    entered = [one for one in inside.guilty if one.op_type not in steptrace.BODIES]
    outside = [one for one in found.guilty if one.op_type not in steptrace.BODIES]
    return replace(found, guilty=tuple(outside or entered or found.guilty))


def _with_examples(subject: Subject, guilty: tuple[Guilty, ...], trial: harm.Trial) -> tuple[Guilty, ...]:
    """The same, and where the values of the first do not tell its examples, those found by trying."""
    if not guilty or guilty[0].birth not in ("forward", "gradient", "weights") or guilty[0].rows:
        return guilty
    if guilty[0].examples and len(guilty[0].examples) < subject.batch:
        return guilty
    return (replace(guilty[0], examples=harm.culprits(subject, trial) or guilty[0].examples), *guilty[1:])


BORN = {
    "forward": "in the forward pass",
    "gradient": "in the gradient",
    "optimizer": "in the optimizer's own update; the gradients are finite",
    "data": "in the data: the batch holds it",
    "weights": "before the step: the weights or the optimizer's slots hold it",
    "divergence": "of divergence: no operation is singular, the numbers have become too large",
    "": "where this report could not follow",
}
SHOWN = 5  # examples and rows that the text lists


def _lines(report: Report) -> Iterator[str]:
    weights = ", ".join(f"{name} ({count})" for name, count in list(report.lost.items())[:SHOWN])
    weights += f" and {len(report.lost) - SHOWN} more" if len(report.lost) > SHOWN else ""
    if report.harmful and report.kernels is None and report.xla is None:
        yield from _wrapped(f"After step {report.step} values of these variables are non-finite: {weights}.")
    elif report.harmful:
        yield from _wrapped(f"Step {report.step} made values of these variables non-finite: {weights}.")
    elif report.disagreement:
        other = "TensorFlow's kernels" if report.jit_compile else "XLA"
        yield from _wrapped(
            f"Step {report.step} is finite as it was trained. Under {other} it would make values of these variables "
            f"non-finite: {weights}."
        )
    elif report.guilty:
        yield from _wrapped(f"Step {report.step} has a non-finite loss, and poisons no weight.")
    else:
        yield from _wrapped(f"Step {report.step} is finite.")
    if report.lost or report.guilty:
        yield f"Born {BORN[report.birth]}."
    for reason in report.left_out:
        yield from _wrapped(f"Not in this report: {reason}.")
    shown: dict[tuple, int] = {}  # one of each line and kind: a rule that is applied to every variable, say
    for number, guilty in enumerate(report.guilty):
        what = (guilty.op_type, guilty.forward_op_type, guilty.file, guilty.line)
        shown.setdefault(what if guilty.file else number, number)
    for number in list(shown.values())[:SHOWN]:
        yield ""
        yield from _guilty_lines(report.guilty[number])
        yield from report.about(number)
    more = len(report.guilty) - min(len(shown), SHOWN)
    if more:
        yield f"and {more} more operation{'s' if more > 1 else ''}"
    yield ""
    for name, fails, trained in report.verdicts():
        yield f"{name}: {VERDICTS[fails]}{' (as trained)' if trained else ''}"
    if report.swallowed:
        yield from _wrapped(f"A NaN was swallowed on the way by {', '.join(report.swallowed[:SHOWN])}.")
    if report.cures:
        yield ""
        under = report.examined_under
        other = "the kernels" if under == "XLA" else "XLA"
        yield f"Tried on this step, under {under}:"
        for cure in report.cures:
            verdict = {True: "finite", False: "fails", None: "not tried"}[cure.finite]
            there = {True: f"; finite under {other}", False: f"; fails under {other}", None: ""}[cure.elsewhere]
            if cure.write and not cure.folk:
                yield from _wrapped(f"  {verdict:9}  {cure.name}{there}", indent=13)
                yield f"{'':13}{cure.write}"
            else:
                said = f": {cure.write}" if cure.write else ""
                yield from _wrapped(f"  {verdict:9}  {cure.name}{said}", indent=13)
    yield from report.endings()


VERDICTS = {True: "fails", False: "finite", None: "cannot be computed"}


def _guilty_lines(guilty: Guilty) -> Iterator[str]:
    forward = f", the gradient of {guilty.forward_op_type}" if guilty.op_type != guilty.forward_op_type else ""
    what = {"nan": "NaN", "inf": "infinite", "large": "finite, but so large that what follows overflows,"}[guilty.kind]
    who = f"{guilty.op_type}{forward}: {what} in {guilty.count} of its elements, in {guilty.operation}"
    if guilty.birth == "data":
        with_class = ", to which class_weight counts" if guilty.operation == "sample_weight" else ""
        who = f"The batch's {guilty.operation}{with_class}: {what} in {guilty.count} of its elements"
    yield from _wrapped(who)
    if guilty.file:
        yield f"  {_near(guilty.file)}:{guilty.line}, in {guilty.function}"
        yield f"    {guilty.text}"
    elif guilty.birth in ("forward", "gradient", "optimizer"):
        yield "  on no line of yours: Keras calls it"
    if guilty.weight:
        yield from _wrapped(f"  held by {guilty.weight}")


def _near(file: str) -> str:
    """A path as one would type it here."""
    here = os.getcwd() + os.sep
    return file.removeprefix(here)


def _some(items) -> str:
    more = len(items) - SHOWN
    return ", ".join(map(str, items[:SHOWN])) + (f" and {more} more" if more > 0 else "")


def _plain(value):
    """For JSON, which has no NaN and no infinity."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _wrapped(text: str, indent: int | None = None) -> list[str]:
    indent = len(text) - len(text.lstrip()) + 2 if indent is None else indent
    return textwrap.wrap(text, 80, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
