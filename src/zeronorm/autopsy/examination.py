"""The order of an autopsy: which operation, line, example and row made a weight non-finite, under
which compiler, and what makes the step finite."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import tensorflow as tf

from zeronorm.autopsy import cures as remedies
from zeronorm.autopsy import findings, graph, refusal, trace
from zeronorm.autopsy.blame import Guilty
from zeronorm.autopsy.findings import Findings
from zeronorm.autopsy.report import FIELDS, NAMES, Report, is_examined_under_xla
from zeronorm.autopsy.subject import Ended, Here, Subject, Trial, culprits


@graph.quiet()
def report(
    subject: Subject,
    step: int,
    outcomes: Mapping[bool, Mapping[str, int] | None] | None = None,
    traced: graph.Step | None = None,
    known_as: Callable[[Guilty, graph.Step], Guilty] = lambda guilty, step: guilty,
    loss_is_finite: bool | None = None,
    **more,
) -> Report:
    """The autopsy of one step: run under both numerics, and examined under the one it was trained
    with; under the other where only that one fails.

    step: its number in the training.
    outcomes, traced: {jit_compile: what Trial returns} and the traced step, where the caller knows
        them.
    known_as: another description of a guilty operation of the traced step.
    loss_is_finite: what the user's own step returned, where a fused kernel may have swallowed what
        the traced step shows.
    more: of Report's, what only the caller knows.
    """
    doing, trials = _Attempts(), {jit: Trial(subject, jit) for jit in (False, True)}
    outcomes = outcomes or {jit: doing(NAMES[jit], trial) for jit, trial in trials.items()}
    fails = {jit: None if outcome is None else bool(outcome) for jit, outcome in outcomes.items()}
    refusing = [jit for jit, outcome in fails.items() if outcome is None and trials[jit].refused]
    refused = {FIELDS[jit]: trials[jit].refused for jit in refusing}
    losses = {FIELDS[jit]: trial.loss for jit, trial in trials.items() if trial.loss is not None}
    trained = subject.jit_compile
    examined = is_examined_under_xla(trained, fails, losses)
    subject = replace(subject, jit_compile=examined)
    more |= {"refused": refused, "losses": losses}
    if FIELDS[examined] in refused:  # by both: there is nothing to look into
        more["left_out"] = doing.all_left_out(subject.place)
        return Report(step, "", False, (), None, None, trained, {}, **more)
    traced, found = _found(subject, traced, bool(outcomes[False]), doing)
    if traced:
        guilty = tuple(known_as(one, traced) for one in found.guilty)
        found = _told(subject, found, guilty, trials[examined], doing)
    own_loss = losses.get(FIELDS[examined])
    if loss_is_finite or own_loss == "":
        found = _with_finite_loss(found)
    _note_gaps(subject, found, bool(outcomes[examined]), doing)
    cures = ()
    if found.guilty and (outcomes[examined] or own_loss):
        cures = doing("the cures", remedies.tried, subject, traced, found, trials[examined]) or ()
    return Report(
        step=step,
        birth=found.guilty[0].birth if found.guilty else "",
        harmful=bool(outcomes[trained]),
        guilty=found.guilty,
        kernels=fails[False],
        xla=fails[True],
        jit_compile=trained,
        lost=_weights_first(outcomes[examined] or {}, subject.optimizers),
        swallowed=found.swallowed,
        cures=cures,
        left_out=doing.all_left_out(subject.place),
        **more,
    )


def _found(
    subject: Subject, traced: graph.Step | None, fails_in_kernels: bool, doing: "_Attempts"
) -> tuple[graph.Step | None, Findings]:
    """The traced step, None where it cannot be traced, and what one run of it shows."""
    examined = subject.jit_compile
    traced = traced or doing(
        "the step as a graph (none of it may read values in Python, as .numpy() does)",
        trace.trace,
        subject.step,
        subject.data,
        subject.optimizers,
        examined,
    )
    found = traced and doing(
        "the values of its operations", findings.find, subject, traced, examined
    )
    if not found and traced and examined and fails_in_kernels:  # XLA's process may have died of it
        found = doing("the values under the kernels", _under_kernels, subject)
    found = found or Findings((), (), {}, True)
    closed = not found.guilty or any(one.op_type in graph.BODIES for one in found.guilty)
    if traced and examined and fails_in_kernels and closed:
        found = doing("the inside of a loop", _from_kernels, subject, found) or found
    return traced, found


NO_ORIGIN = "the operation: the way back from the weights ends in what cannot be looked into"


def _with_finite_loss(found: Findings) -> Findings:
    """The same where the loss that was trained on is finite, whatever the traced step shows."""
    if found.loss_is_finite:
        return found
    hidden = "a fused kernel: the loss that was trained on is finite"
    return replace(found, loss_is_finite=True, swallowed=(*found.swallowed, hidden))


def _told(
    subject: Subject,
    found: Findings,
    guilty: tuple[Guilty, ...],
    trial: Trial,
    doing: "_Attempts",
) -> Findings:
    """The findings with these for what is guilty, and with its examples."""
    told = doing("the examples", _with_examples, subject, guilty, trial)
    return replace(found, guilty=told or guilty)


def _note_gaps(subject: Subject, found: Findings, fails: bool, doing: "_Attempts") -> None:
    """Notes names of weights that are none, and that a step fails of which nothing is guilty.

    fails: whether the examined step does.
    """
    unknown = set(subject.names).difference(subject.weights)
    if unknown:
        tables = [name for name, variable in subject.weights.items() if variable.shape.rank == 2]
        doing.left_out.append(
            f"names of {', '.join(sorted(unknown))}: no such weight; there are"
            f" {', '.join(tables[:8])}"
        )
    if fails and not (found.guilty or doing.left_out):
        doing.left_out.append(NO_ORIGIN)


def _weights_first(lost: Mapping[str, int], optimizers) -> dict[str, int]:
    """The same, the optimizers' variables last."""
    slots = tuple(f"{optimizer.name}/" for optimizer in optimizers)
    return dict(sorted(lost.items(), key=lambda item: bool(slots) and item[0].startswith(slots)))


CAME_ONCE = (
    "the step did not fail when it was repeated: it draws random numbers that no Keras seed fixes,"
    " or something besides the step, a callback perhaps, writes a weight"
)
WRITTEN = (
    "the operation: no step did it; something else, a callback perhaps, wrote a weight between two"
    " of them"
)


def unreached(step: int, jit_compile: bool, lost: Mapping[str, int], repeatable: bool) -> Report:
    """The report of a failure that did not come again when the steps were repeated.

    step: the last of them.
    repeatable: whether a step always does the same from the same state.
    """
    birth, why = ("weights", WRITTEN) if repeatable else ("", CAME_ONCE)
    return Report(step, birth, bool(lost), (), None, None, jit_compile, dict(lost), left_out=(why,))


class _Attempts:
    """Calls a function; where it raises notes what was being done, and gives None: a part of the
    report that cannot be had must not cost the rest, let alone the training."""

    def __init__(self):
        self.left_out: list[str] = []

    def __call__(self, doing: str, function: Callable, *arguments):
        try:
            return function(*arguments)
        except Ended as why:
            self._add(doing, f" could not be had: {why}")
            return None
        except Exception as error:
            said = str(error).splitlines()[0][:160] if str(error) else ""
            said = refusal.sentence(error.message) if isinstance(error, tf.errors.OpError) else said
            self.left_out.append(f"{doing} could not be had ({type(error).__name__}: {said})")
            return None

    def all_left_out(self, place: Here) -> tuple[str, ...]:
        """With what a report has to say of where it was computed, and which processes died of
        it."""
        self.left_out += place.left_out
        for how in dict.fromkeys(place.deaths):
            if not any(how in known for known in self.left_out):
                self.left_out.append(f"some of what was tried: {how}")
        return tuple(self.left_out)

    def _add(self, doing: str, because: str) -> None:
        """Notes a part, with those that could not be had for the same reason."""
        for number, known in enumerate(self.left_out):
            if known.endswith(because):
                self.left_out[number] = f"{known.removesuffix(because)}, {doing}{because}"
                return
        self.left_out.append(f"{doing}{because}")


def _under_kernels(subject: Subject) -> Findings:
    subject = replace(subject, jit_compile=False)
    return findings.find(
        subject, trace.trace(subject.step, subject.data, subject.optimizers), False
    )


def _from_kernels(subject: Subject, found: Findings) -> Findings:
    """The findings with what is guilty inside of loops that XLA does not let one into: as the
    kernels compute it, where the step fails as well."""
    inside = _under_kernels(subject)
    entered = [one for one in inside.guilty if one.op_type not in graph.BODIES]
    outside = [one for one in found.guilty if one.op_type not in graph.BODIES]
    return replace(found, guilty=tuple(outside or entered or found.guilty))


def _with_examples(
    subject: Subject, guilty: tuple[Guilty, ...], trial: Trial
) -> tuple[Guilty, ...]:
    """The same, and where the values of the first do not tell its examples, those found by
    trying."""
    if not guilty or guilty[0].birth not in ("forward", "gradient", "weights") or guilty[0].rows:
        return guilty
    if guilty[0].examples and len(guilty[0].examples) < (subject.batch or 0):
        return guilty
    return (
        replace(guilty[0], examples=culprits(subject, trial) or guilty[0].examples),
        *guilty[1:],
    )
