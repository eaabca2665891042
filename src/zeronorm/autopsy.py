"""The autopsy of a training step: which operation, line, example and row poisoned a weight, under which compiler, and
what makes the step finite."""

import json
from dataclasses import asdict, dataclass, replace

from zeronorm import cures as remedies
from zeronorm import harm, steptrace
from zeronorm.harm import Guilty, Subject


@dataclass(frozen=True)
class Report:
    """What an autopsy found.

    step: 0-based training step at which a weight was, or would have been, poisoned. birth: forward, gradient,
    optimizer, data, weights or divergence. harmful: whether a weight was. guilty: most likely first. kernels, xla:
    whether the step fails under each; None where it cannot be computed so. jit_compile: how it was trained. lost:
    {weight: non-finite elements after the step}. swallowed: operations that got a NaN and gave something finite. cures:
    what makes the step finite, and what does not. history: [{step, loss, norm/WEIGHT}, ...] of the steps before.
    positions: of the guilty examples in the data set, where it was passed as arrays unshuffled.
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

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def report(subject: Subject, step: int, **more) -> Report:
    """The autopsy of one step: examined under the numerics it was trained with, run under the other one too.

    step: its number in the training. more: of Report's, what only the caller knows.
    """
    outcomes = {jit: harm.outcome(subject, jit) for jit in (False, True)}
    traced = steptrace.trace(subject.step, subject.data, subject.optimizers)
    found = harm.examine(subject, traced, subject.jit_compile)
    guilty = _with_examples(subject, found.guilty)
    return Report(
        step=step,
        birth=guilty[0].birth if guilty else "",
        harmful=bool(outcomes[subject.jit_compile]),
        guilty=guilty,
        **{name: None if outcomes[jit] is None else bool(outcomes[jit]) for name, jit in (("kernels", 0), ("xla", 1))},
        jit_compile=subject.jit_compile,
        lost=outcomes[subject.jit_compile] or {},
        swallowed=found.swallowed,
        cures=remedies.tried(subject, traced, guilty[0]) if guilty and outcomes[subject.jit_compile] else (),
        **more,
    )


def _with_examples(subject: Subject, guilty: tuple[Guilty, ...]) -> tuple[Guilty, ...]:
    """The same, and where the values of the first do not tell its examples, those found by trying."""
    if not guilty or guilty[0].examples or guilty[0].birth not in ("forward", "gradient"):
        return guilty
    return (replace(guilty[0], examples=harm.culprits(subject)), *guilty[1:])
