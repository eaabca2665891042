"""What one run of a step shows: the operations that made something non-finite out of finite inputs,
and on whose account.

The step is run from the weights of before it with every floating-point value returned. From the
weights that it lost the way goes back, through non-finite values only, to where these were made
(`origins`); `blame` says of each what it is.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from zeronorm.autopsy import arrays, graph, origins, thresholds
from zeronorm.autopsy.blame import Blame, Guilty
from zeronorm.autopsy.graph import Step
from zeronorm.autopsy.subject import Ended, Subject, lost_since, nonfinite
from zeronorm.autopsy.values import Values


@dataclass(frozen=True)
class Findings:
    """What one way of running the step shows.

    guilty: in the order of the graph.
    swallowed: operations that got a NaN and gave something finite.
    lost: {weight: number of elements that the step loses}.
    loss_is_finite: whether every loss that was differentiated is.
    """

    guilty: tuple[Guilty, ...]
    swallowed: tuple[str, ...]
    lost: dict[str, int]
    loss_is_finite: bool


def find(subject: Subject, traced: Step, jit_compile: bool) -> Findings:
    """Runs the step with every value returned, and follows what is not finite back to where it was
    made. The state is as before afterwards.

    traced: from the subject's step and batch.
    """
    before, after = nonfinite(subject.weights), {}
    kept = {
        tensor.name for o in traced.graph.get_operations() if graph.called(o) for tensor in o.inputs
    }
    values: dict[str, tf.Tensor | np.ndarray | arrays.Packed] = {}
    for names in _portions(subject, traced, jit_compile):
        whole = [number for number, name in enumerate(names) if name in kept]
        found, after = subject.run(
            graph.runner(traced, names, jit_compile), subject.tensors, jit_compile, whole
        )
        values |= dict(zip(names, found, strict=True))
    after = lost_since(after, before)
    of_run = Values(traced, subject, values, jit_compile, before, after)
    starts = [
        traced.graph.get_tensor_by_name(name) for name in (*origins.written(of_run), *traced.losses)
    ]
    finite = not of_run.bad.intersection(traced.losses)
    blame = Blame(of_run)
    guilty = _one_per_operation(blame.guilty(starts))
    moved: dict[str, np.ndarray] = {}
    of_values = [
        one.operation for one in guilty if one.examples and one.birth in ("forward", "gradient")
    ]
    with suppress(Ended):  # what was found is kept
        moved = _moved(subject, traced, jit_compile, of_values)
    told = tuple(
        replace(one, examples=blame.examples(one, moved)) if one.operation in of_values else one
        for one in guilty
    )
    return Findings(told, origins.absorbed(of_run), after, finite)


def _moved(
    subject: Subject, traced: Step, jit_compile: bool, operations: Sequence[str]
) -> dict[str, np.ndarray]:
    """{tensor: value} of the operations' outputs when every example has moved on by one place."""
    known = {operation.name: operation for operation in traced.graph.get_operations()}
    wanted = {
        t.name
        for name in operations
        if name in known
        for t in known[name].outputs
        if graph.is_number(t.dtype)
    }
    if not wanted or not subject.batch or subject.batch < 2:
        return {}
    rolled = subject.only(np.roll(np.arange(subject.batch), 1))
    values: dict[str, np.ndarray] = {}
    for names in _portions(subject, traced, jit_compile):
        if wanted.intersection(names):
            found, _ = subject.run(
                graph.runner(traced, names, jit_compile), rolled.tensors, jit_compile, ()
            )
            values |= {
                n: arrays.as_array(value)
                for n, value in zip(names, found, strict=True)
                if n in wanted
            }
    return values


def _portions(subject: Subject, traced: Step, jit_compile: bool) -> Iterator[list[str]]:
    """What tells what happened in the step, as much of it as one run returns."""
    names = graph.values_of(traced.graph, jit_compile)
    return graph.portions(traced.graph, names, min(thresholds.AT_ONCE, subject.place.at_once))


def _one_per_operation(guilty: Iterable[Guilty]) -> tuple[Guilty, ...]:
    """The first of those that stand for one forward operation (a log's -inf, not its gradient's),
    or one variable."""
    kept: dict[str, Guilty] = {}
    for one in guilty:
        kept.setdefault(one.weight or one.forward_operation, one)
    return tuple(kept.values())
