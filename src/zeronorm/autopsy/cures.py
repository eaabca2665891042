"""What makes a failing step finite, and what people try that does not: each tried on the step
itself.

A rule belongs to a kind of operation. It is tried by changing what the operation is given, in the
traced graph, for it and for its gradient alike, and running the step as the user runs it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from zeronorm.autopsy import graph, thresholds, trace
from zeronorm.autopsy.blame import Guilty
from zeronorm.autopsy.findings import Findings
from zeronorm.autopsy.graph import Step
from zeronorm.autopsy.rules import IN_ROOT, RULES, SMALL, STRONGER, Rule
from zeronorm.autopsy.subject import (
    Died,
    Ended,
    Snapshot,
    Stays,
    Subject,
    Trial,
    lost_since,
    nonfinite,
)


@dataclass(frozen=True)
class Cure:
    """name: what to do.
    write: as code, where it is code.
    finite: whether the step with it loses no weight and not the loss; None: not tried.
    folk: whether it is what people try first, and not a rule for the guilty operation.
    elsewhere: as finite, under the other of TensorFlow's kernels and XLA, of a rule that is put
        into the graph.
    leaves: in words, what is wrong with it where no weight is lost: what becomes of the loss, or
        why it was not tried."""

    name: str
    write: str
    finite: bool | None
    folk: bool = False
    elsewhere: bool | None = None
    leaves: str = ""


def tried(subject: Subject, step: Step, found: Findings, trial: Trial) -> tuple[Cure, ...]:
    """The cures for the guilty operations and the folk remedies, most specific first.

    step: traced from the subject.
    trial: of the subject, as the user trains.
    """
    becomes, cures = "becomes" if found.loss_is_finite else "stays", []
    groups = _specific(subject, step, found.guilty, trial), _folk(subject, step, found, trial)
    for group in groups:
        try:
            for cure in group:
                of_loss = cure.leaves in ("NaN", "infinite")
                left = f"the loss {becomes} {cure.leaves}" if of_loss else cure.leaves
                cures.append(replace(cure, leaves=left))
        except Ended:  # no more is computed; the report says why
            break
        except Exception as error:  # what was tried before it stands
            cures.append(Cure("further ones", "", None, leaves=_could_not(error)))
    return tuple(cures)


def _could_not(error: Exception) -> str:
    said = str(error).splitlines()[0][:80] if str(error) else ""
    return f"it could not be ({type(error).__name__}: {said})"


def _cure(name: str, write: str, outcome: Callable[[], Mapping], folk: bool = False) -> Cure:
    """A cure that is tried.

    outcome: gives what the trial says of Cure's finite, elsewhere and leaves. Where it raises the
        cure is one that was not tried: the others are not lost by it.
    """
    try:
        return Cure(name, write, folk=folk, **outcome())
    except Exception as error:
        # a limit, which holds for all
        if isinstance(error, Ended) and not isinstance(error, (Died, Stays)):
            raise
        return Cure(name, write, None, folk, leaves=_could_not(error))


def _outcome(trial: Trial, data=None) -> dict:
    """What a trial's step, on `data`, else its own, says of a cure."""
    lost = trial(data)
    if lost is None:
        return {"finite": None, "leaves": f"refused: {trial.refused}"}
    return {"finite": not lost and not trial.loss, "leaves": "" if lost else trial.loss}


def _specific(
    subject: Subject, step: Step, guilty: Sequence[Guilty], trial: Trial
) -> Iterator[Cure]:
    birth = guilty[0].birth
    kept = [example for example in range(subject.batch or 0) if example not in guilty[0].examples]
    ruled = [one for one in guilty if one.forward_op_type in RULES]
    inside = birth in ("forward", "gradient") or (birth == "optimizer" and guilty[0].file)
    if inside and ruled:
        yield from _rules(subject, step, ruled)
    elif birth == "optimizer" and not inside:
        for optimizer in subject.optimizers:
            if getattr(optimizer, "epsilon", None) is not None:
                outcome = partial(_with, subject, optimizer, "epsilon", SMALL)
                yield _cure("the optimizer's own epsilon", f"epsilon={SMALL:g}", outcome)
    elif (inside or birth == "data") and guilty[0].examples and kept:
        yield _cure("these examples left out", "", lambda: _outcome(trial, subject.only(kept).data))
    # a number, a learning rate say, is not mended by a zero
    elif birth == "weights" and len(guilty[0].shape):
        name = "the non-finite values of the weights replaced"
        yield _cure(name, "np.nan_to_num(weights)", lambda: _replaced(subject))


def _replaced(subject: Subject) -> dict:
    """What comes of the step where zeros stand for the weights' non-finite values."""
    held = Snapshot(subject.weights.values())
    try:
        for variable, value in held.values:
            variable.assign(tf.where(tf.math.is_finite(value), value, tf.zeros_like(value)))
        return _outcome(Trial(subject, subject.jit_compile))
    finally:
        held.restore()


def _rules(subject: Subject, step: Step, guilty: Sequence[Guilty]) -> Iterator[Cure]:
    """The rule of each kind of operation among the guilty, tried at all that are of it, and a
    stronger one where that is not enough; of several kinds, also all together."""
    kinds: dict[str, list[Guilty]] = {}
    for one in guilty:
        kinds.setdefault(one.forward_op_type, []).append(one)
    # others are inside a branch or loop
    known = {operation.name for operation in step.graph.get_operations()}
    changes: dict[str, Rule] = {}

    def attempt(name: str, write: str, rules: Mapping[str, Rule]) -> Cure:
        untried = {"finite": None}
        return _cure(name, write, lambda: _verdicts(subject, step, rules) if rules else untried)

    for kind, those in kinds.items():
        rule = RULES[kind]
        inside = [one.forward_operation for one in those if one.forward_operation in known]
        if kind in QUOTIENTS:  # an epsilon after a root leaves the root's own gradient singular
            roots = {root.name: root.type for name in inside for root in _root_below(step, name)}
            below = {
                "epsilon inside the root": RULES,
                "the root's argument kept above zero": STRONGER,
            }
            for name, rules in below.items() if roots else ():
                at_roots = {root: rules[of] for root, of in roots.items()}
                write = next(iter(at_roots.values())).write
                cure = attempt(f"{name} below the quotient", write, at_roots)
                yield cure
                if cure.finite is not False:
                    break
        own = dict.fromkeys(inside, rule) if rule.changes else {}
        elsewhere = "" if inside else ", inside a loop, branch or function"
        cure = attempt(rule.name + elsewhere, _written(rule, step, inside), own)
        yield cure
        if cure.finite is False and kind in STRONGER:
            own = dict.fromkeys(inside, STRONGER[kind])
            yield attempt(STRONGER[kind].name, _written(STRONGER[kind], step, inside), own)
        changes |= own
    if len(kinds) > 1 and changes:
        names = dict.fromkeys(rule.name for rule in changes.values())
        yield attempt("these together: " + "; ".join(names), "", changes)


# {kind: which input is the denominator}
QUOTIENTS = {"RealDiv": 1, "Div": 1, "DivNoNan": 1, "Reciprocal": 0}


def _root_below(step: Step, operation: str) -> list[tf.Operation]:
    """The square roots that a quotient's denominator comes from, where they are near."""
    quotient = step.graph.get_operation_by_name(operation)
    below = quotient.inputs[QUOTIENTS[quotient.type]].op
    return [
        each
        for each in [below, *graph.above(below)[: thresholds.ROOT_WITHIN]]
        if each.type in ("Sqrt", "Rsqrt")
    ]


def _written(rule: Rule, step: Step, operations: Sequence[str]) -> str:
    """The rule as code, with the constants that the operation's type can hold."""
    text = rule.write
    for position, _, constant in rule.changes if operations else ():
        dtype = step.graph.get_operation_by_name(operations[0]).inputs[position].dtype
        used = _constant(constant, dtype)
        if used != constant:
            text = text.replace(f"{constant:g}", f"{used:g}").replace(f"{used:g}.0", f"{used:g}")
    return text


def _with(subject: Subject, optimizer, attribute: str, value) -> dict:
    """What comes of the step where an optimizer has another setting."""
    with trace.replaced(optimizer, attribute, value):
        return _outcome(Trial(subject, subject.jit_compile))


def _slower(trial: Trial, rate: keras.Variable, value: float) -> dict:
    """What comes of the step with another learning rate."""
    held = Snapshot([rate.value])
    try:
        rate.assign(value)
        return _outcome(trial)
    finally:
        held.restore()


def _folk(subject: Subject, step: Step, found: Findings, trial: Trial) -> Iterator[Cure]:
    if found.guilty[0].birth == "divergence":
        yield Cure(
            "a smaller learning rate, from the start: here it is too late for one",
            "",
            None,
            folk=True,
        )
        return
    handles = {id(tensor) for tensor in step.captured.values()}
    used = [
        o for o in subject.optimizers if any(id(v.value.handle) in handles for v in o.variables)
    ]
    for optimizer in used or subject.optimizers:
        of = f" ({optimizer.name})" if len(used) > 1 else ""
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # it is the one that clips
        if isinstance(optimizer.learning_rate, keras.Variable):
            rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
            if np.isfinite(rate):
                slower = partial(_slower, trial, optimizer.learning_rate, rate / 100)
                name = f"a learning rate a hundred times smaller{of}"
                yield _cure(name, f"learning_rate={rate / 100:g}", slower, folk=True)
        if (
            optimizer.clipnorm is None
            and optimizer.global_clipnorm is None
            and optimizer.clipvalue is None
        ):
            for option in ("clipnorm", "clipvalue"):
                clipped = partial(_with, subject, optimizer, option, 1.0)
                yield _cure(f"gradients clipped{of}", f"{option}=1.0", clipped, folk=True)
    without = "steps left out whose loss is not finite" + (
        "" if found.loss_is_finite else ": this one teaches nothing"
    )
    yield Cure(without, "", not found.loss_is_finite, folk=True)


def _verdicts(subject: Subject, step: Step, rules: Mapping[str, Rule]) -> dict:
    """Whether the step is finite with the rules, also under the other compiler: as `Cure` has
    it."""
    own, other = (
        _substituted(subject, step, rules, jit)
        for jit in (subject.jit_compile, not subject.jit_compile)
    )
    loops = any(operation.type.endswith("While") for operation in step.graph.get_operations())
    if other[0] is None and loops:  # XLA takes no loop that was traced for the kernels
        anew = trace.trace(subject.step, subject.data, subject.optimizers, not subject.jit_compile)
        if rules.keys() <= {operation.name for operation in anew.graph.get_operations()}:
            other = _substituted(subject, anew, rules, not subject.jit_compile)
    return {"finite": own[0], "elsewhere": other[0], "leaves": own[1]}


def _substituted(
    subject: Subject, step: Step, rules: Mapping[str, Rule], jit_compile: bool
) -> tuple[bool | None, str]:
    """Whether the step is finite with each rule's changes before its forward operation and the
    gradient of that, None where it cannot be computed so; and what the loss is (NaN, infinite)
    where it is that alone which is lost."""
    # see subject.Trial
    if jit_compile and any(tensor.dtype == tf.string for tensor in subject.tensors):
        return None, ""
    before, edited = nonfinite(subject.weights), changed(step, rules)
    losses = [name for name in step.losses if step.graph.get_tensor_by_name(name).dtype.is_floating]
    looks = [_look(edited, step, loss, kind) for kind in ("IsNan", "IsInf") for loss in losses]
    try:
        run = graph.runner(step, looks, jit_compile, edited)
        found, after = subject.run(run, subject.tensors, jit_compile, range(len(looks)))
        nan, infinite = (any(bool(each) for each in some) for some in np.array_split(found, 2))
        gone = lost_since(after, before)
        loss = "NaN" if nan else "infinite" if infinite else ""
        return not gone and not loss, "" if gone else loss
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, Died, Stays):
        return None, ""


def _look(graph_def, step: Step, loss: str, kind: str) -> str:
    """Puts into the graph whether any element of a loss is NaN or infinite (`kind`), a bool of rank
    0, and names it: no value of a size that only the data decides, which XLA returns wrongly."""
    dtype = step.graph.get_tensor_by_name(loss).dtype.as_datatype_enum
    name = f"{loss.replace(':', '_')}/cure_{kind}"
    for part, value in (("flat", [-1]), ("axis", [0])):
        constant = graph_def.node.add(name=f"{name}/{part}", op="Const")
        constant.attr["dtype"].type = tf.int32.as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.int32))
    given = [_canonical(loss), f"{name}/flat"]
    flat = graph_def.node.add(name=f"{name}/row", op="Reshape", input=given)
    flat.attr["T"].type = dtype
    flat.attr["Tshape"].type = tf.int32.as_datatype_enum
    graph_def.node.add(name=f"{name}/each", op=kind, input=[flat.name]).attr["T"].type = dtype
    some = graph_def.node.add(name=name, op="Any", input=[f"{name}/each", f"{name}/axis"])
    some.attr["Tidx"].type = tf.int32.as_datatype_enum
    return f"{name}:0"


def changed(step: Step, rules: Mapping[str, Rule]):
    """The step's GraphDef with each rule's changes before its forward operation, for it and its
    gradient.

    rules: {forward operation: its rule}.
    """
    graph_def = step.graph.as_graph_def()
    nodes = {node.name: node for node in graph_def.node}
    for operation, rule in rules.items():
        forward = step.graph.get_operation_by_name(operation)
        users = [operation, *(name for name, of in step.forward_of.items() if of == operation)]
        replaced: dict[str, str] = {}
        for number, (position, kind, constant) in enumerate(rule.changes):
            tensor = forward.inputs[position]
            name = f"{operation}/cure_{number}"
            value = graph_def.node.add(name=f"{name}/constant", op="Const")
            value.attr["dtype"].type = tensor.dtype.as_datatype_enum
            value.attr["value"].tensor.CopyFrom(
                tf.make_tensor_proto(_constant(constant, tensor.dtype), tensor.dtype)
            )
            source = replaced.get(_canonical(tensor.name), _canonical(tensor.name))
            put = graph_def.node.add(name=name, op=kind, input=[source, value.name])
            put.attr["T"].type = tensor.dtype.as_datatype_enum
            replaced[_canonical(tensor.name)] = name
        for node in (nodes[name] for name in users if name in nodes):
            for number, source in enumerate(node.input):
                node.input[number] = replaced.get(_canonical(source), source)
    return graph_def


def _constant(value: float, dtype: tf.DType) -> float:
    """A rule's constant in a type of less precision or range than float32."""
    if dtype not in (tf.float16, tf.bfloat16):
        return value
    if value in (SMALL, IN_ROOT):
        return 1e-3  # its reciprocal and its square are in range
    if 0.9 < abs(value) < 1:
        return np.sign(value) * (1 - 1e-2)
    return float(np.clip(value, -1e4, 8))  # exp(8) = 3e3, whose square is in the gradient's range


def _canonical(tensor: str) -> str:
    return tensor.removesuffix(":0")
