"""What makes a failing step finite, and what people try that does not: each tried on the step itself.

A rule belongs to a kind of operation. It is tried by changing what the operation is given, in the traced graph, for it
and for its gradient alike, and running the step as the user runs it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from zeronorm import steptrace
from zeronorm.harm import Died, Findings, Guilty, Held, Stays, Subject, Trial, lost, newly
from zeronorm.steptrace import Step

SMALL = 1e-7  # added where a zero is the trouble; Keras's default epsilon


@dataclass(frozen=True)
class Cure:
    """name: what to do. write: as code, where it is code. finite: whether the step is with it; None: not tried. folk:
    whether it is what people try first, and not a rule for the guilty operation. elsewhere: as finite, under the other
    of TensorFlow's kernels and XLA, of a rule that is put into the graph."""

    name: str
    write: str
    finite: bool | None
    folk: bool = False
    elsewhere: bool | None = None


@dataclass(frozen=True)
class Rule:
    """For one kind of forward operation. changes: (input, operation, constant): what is put before an input; none where
    the safe form cannot be put into the graph. The constants are for float32; see `_constant`."""

    name: str
    write: str
    changes: tuple[tuple[int, str, float], ...] = ()


def _inside(function: str) -> Rule:
    return Rule("epsilon inside, where the operation is singular", f"{function}(x + {SMALL:g})", ((0, "AddV2", SMALL),))


def _clipped(function: str, edge: float = 1 - 1e-6) -> Rule:
    write = f"{function}(tf.clip_by_value(x, {-edge:g}, {edge:g}))"
    return Rule("arguments kept inside the domain", write, ((0, "Minimum", edge), (0, "Maximum", -edge)))


def _bounded(function: str) -> Rule:
    return Rule("arguments kept from overflowing", f"{function}(tf.minimum(x, 80.0))", ((0, "Minimum", 80.0),))


_DENOMINATOR = Rule("epsilon in the denominator", f"x / (y + {SMALL:g})", ((1, "AddV2", SMALL),))
_MASK = Rule("a finite mask: a row that is masked throughout has no largest element", "tf.maximum(x, -1e9)", ())
_JITTER = Rule("a small multiple of the identity added to the matrix", "matrix + 1e-6 * tf.eye(n)")

RULES = {
    "Sqrt": _inside("tf.sqrt"),
    "Rsqrt": _inside("tf.math.rsqrt"),
    "Log": _inside("tf.math.log"),
    "Log1p": Rule("arguments kept above -1", "tf.math.log1p(tf.maximum(x, -1 + 1e-6))", ((0, "Maximum", -1 + 1e-6),)),
    "Reciprocal": Rule("epsilon in the denominator", f"1 / (x + {SMALL:g})", ((0, "AddV2", SMALL),)),
    "RealDiv": _DENOMINATOR,
    "Div": _DENOMINATOR,
    "DivNoNan": _DENOMINATOR,
    "Xdivy": _DENOMINATOR,
    "Xlogy": Rule(
        "epsilon inside, where the operation is singular", f"tf.math.xlogy(x, y + {SMALL:g})", ((1, "AddV2", SMALL),)
    ),
    "Pow": Rule("epsilon in the base", f"tf.pow(x + {SMALL:g}, y)", ((0, "AddV2", SMALL),)),
    "Prod": Rule("epsilon in the factors", f"tf.reduce_prod(x + {SMALL:g}, axis)", ((0, "AddV2", SMALL),)),
    "EuclideanNorm": Rule(
        "epsilon inside the root", f"tf.sqrt(tf.reduce_sum(x * x, axis) + {SMALL:g})", ((0, "AddV2", SMALL),)
    ),
    "Atan2": Rule("epsilon beside the origin", f"tf.atan2(y, x + {SMALL:g})", ((1, "AddV2", SMALL),)),
    "Acos": _clipped("tf.acos"),
    "Asin": _clipped("tf.asin"),
    "Atanh": _clipped("tf.atanh"),
    "Erfinv": _clipped("tf.math.erfinv"),
    "Acosh": Rule("arguments kept above 1", "tf.acosh(tf.maximum(x, 1 + 1e-6))", ((0, "Maximum", 1 + 1e-6),)),
    "Exp": _bounded("tf.exp"),
    "Expm1": _bounded("tf.math.expm1"),
    "Sinh": _bounded("tf.sinh"),
    "Cosh": _bounded("tf.cosh"),
    "Softmax": Rule(_MASK.name, "tf.nn.softmax(tf.maximum(x, -1e9))", ((0, "Maximum", -1e9),)),
    "LogSoftmax": Rule(_MASK.name, "tf.nn.log_softmax(tf.maximum(x, -1e9))", ((0, "Maximum", -1e9),)),
    "Cholesky": _JITTER,
    "MatrixInverse": _JITTER,
    "MatrixSolve": _JITTER,
    "SelfAdjointEigV2": Rule("distinct eigenvalues", "matrix + tf.linalg.diag(tf.range(n) * 1e-6)"),
    "Svd": Rule("distinct singular values", "matrix + noise of 1e-6"),
}


STRONGER = {  # where the rule is not enough
    "Pow": Rule("the base kept above zero", f"tf.pow(tf.maximum(x, {SMALL:g}), y)", ((0, "Maximum", SMALL),)),
}


def tried(subject: Subject, step: Step, found: Findings, trial: Trial) -> Iterator[Cure]:
    """The cures for the guilty operations and the folk remedies, most specific first. step: traced from the subject.
    trial: of the subject, as the user trains."""
    yield from _specific(subject, step, found.guilty, trial)
    yield from _folk(subject, step, found, trial)


def _specific(subject: Subject, step: Step, guilty: Sequence[Guilty], trial: Trial) -> Iterator[Cure]:
    birth, examples = guilty[0].birth, set(guilty[0].examples)
    if birth in ("forward", "gradient") or (birth == "optimizer" and guilty[0].file):
        yield from _rules(subject, step, [one for one in guilty if one.forward_op_type in RULES])
    elif birth == "optimizer":
        for optimizer in subject.optimizers:
            if getattr(optimizer, "epsilon", None) is not None:
                with _set(optimizer, "epsilon", SMALL):
                    finite = _finite(subject)
                yield Cure("the optimizer's own epsilon", f"epsilon={SMALL:g}", finite)
    elif birth == "data" and examples:
        kept = [example for example in range(subject.batch) if example not in examples]
        if kept:
            yield Cure("these examples left out", "", not trial(subject.only(kept).data))
    elif birth == "weights" and len(guilty[0].shape):  # a number, a learning rate say, is not mended by a zero
        held = Held(subject.weights.values())
        try:
            for variable, value in held.values:
                variable.assign(tf.where(tf.math.is_finite(value), value, tf.zeros_like(value)))
            finite = _finite(subject)
        finally:
            held.restore()
        yield Cure("the non-finite values of the weights replaced", "np.nan_to_num(weights)", finite)


def _rules(subject: Subject, step: Step, guilty: Sequence[Guilty]) -> Iterator[Cure]:
    """The rule of each kind of operation among the guilty, tried at all that are of it; where none is enough, all."""
    kinds: dict[str, list[Guilty]] = {}
    for one in guilty:
        kinds.setdefault(one.forward_op_type, []).append(one)
    known = {operation.name for operation in step.graph.get_operations()}  # others are inside a branch or loop
    changes: dict[str, Rule] = {}
    for kind, those in kinds.items():
        rule = RULES[kind]
        inside = [one.forward_operation for one in those if one.forward_operation in known]
        if kind in QUOTIENTS:  # an epsilon after a root leaves the root's own gradient singular
            roots = {root.name: RULES[root.type] for name in inside for root in _root_below(step, name)}
            if roots:
                write = next(iter(roots.values())).write
                yield Cure("epsilon inside the root below the quotient", write, *_verdicts(subject, step, roots))
        own = dict.fromkeys(inside, rule) if rule.changes else {}
        changes |= own
        write, elsewhere = _written(rule, step, inside), "" if inside else ", inside a loop, branch or function"
        verdicts = _verdicts(subject, step, own) if own else (None,)
        yield Cure(rule.name + elsewhere, write, *verdicts)
        if verdicts[0] is False and kind in STRONGER:
            own = dict.fromkeys(inside, STRONGER[kind])
            changes |= own
            write = _written(STRONGER[kind], step, inside)
            yield Cure(STRONGER[kind].name, write, *_verdicts(subject, step, own))
    if len(kinds) > 1 and changes:
        names = dict.fromkeys(rule.name for rule in changes.values())
        yield Cure("these together: " + "; ".join(names), "", *_verdicts(subject, step, changes))


QUOTIENTS = {"RealDiv": 1, "Div": 1, "DivNoNan": 1, "Reciprocal": 0}  # {kind: which input is the denominator}
NEAR = 12  # operations between a quotient and the root that its denominator comes from, at most


def _root_below(step: Step, operation: str) -> list[tf.Operation]:
    """The square roots that a quotient's denominator comes from, where they are near."""
    quotient = step.graph.get_operation_by_name(operation)
    below = quotient.inputs[QUOTIENTS[quotient.type]].op
    return [each for each in [below, *steptrace.above(below)[:NEAR]] if each.type in ("Sqrt", "Rsqrt")]


def _written(rule: Rule, step: Step, operations: Sequence[str]) -> str:
    """The rule as code, with the constants that the operation's type can hold."""
    text = rule.write
    for position, _, constant in rule.changes if operations else ():
        dtype = step.graph.get_operation_by_name(operations[0]).inputs[position].dtype
        used = _constant(constant, dtype)
        if used != constant:
            text = text.replace(f"{constant:g}", f"{used:g}").replace(f"{used:g}.0", f"{used:g}")
    return text


def _finite(subject: Subject) -> bool:
    """Whether the step, with what has been set, poisons no weight."""
    return not Trial(subject, subject.jit_compile)()


def _folk(subject: Subject, step: Step, found: Findings, trial: Trial) -> Iterator[Cure]:
    if found.guilty[0].birth == "divergence":
        yield Cure("a smaller learning rate, from the start: here it is too late for one", "", None, folk=True)
        return
    handles = {id(tensor) for tensor in step.captured.values()}
    used = [o for o in subject.optimizers if any(id(v.value.handle) in handles for v in o.variables)]
    for optimizer in used:
        of = f" ({optimizer.name})" if len(used) > 1 else ""
        if isinstance(optimizer.learning_rate, keras.Variable):
            rate = float(optimizer.learning_rate)
            if np.isfinite(rate):
                with _set(optimizer, "learning_rate", rate / 100):
                    finite = not trial()
                write = f"learning_rate={rate / 100:g}"
                yield Cure(f"a learning rate a hundred times smaller{of}", write, finite, folk=True)
        if optimizer.clipnorm is None and optimizer.global_clipnorm is None and optimizer.clipvalue is None:
            for option in ("clipnorm", "clipvalue"):
                with _set(optimizer, option, 1.0):
                    finite = _finite(subject)
                yield Cure(f"gradients clipped{of}", f"{option}=1.0", finite, folk=True)
    without = "steps left out whose loss is not finite" + ("" if found.loss_is_finite else ": this one teaches nothing")
    yield Cure(without, "", not found.loss_is_finite, folk=True)


@contextmanager
def _set(thing, attribute: str, value) -> Iterator[None]:
    before = getattr(thing, attribute)
    before = float(before) if isinstance(before, keras.Variable) else before
    setattr(thing, attribute, value)
    try:
        yield
    finally:
        setattr(thing, attribute, before)


def _verdicts(subject: Subject, step: Step, rules: Mapping[str, Rule]) -> tuple[bool | None, bool, bool | None]:
    """(whether the step is finite with the rules, False, whether under the other compiler): as `Cure` has them."""
    own, other = (_substituted(subject, step, rules, jit) for jit in (subject.jit_compile, not subject.jit_compile))
    loops = any(operation.type.endswith("While") for operation in step.graph.get_operations())
    if other is None and loops:  # XLA takes no loop that was traced for the kernels
        anew = steptrace.trace(subject.step, subject.data, subject.optimizers, not subject.jit_compile)
        if rules.keys() <= {operation.name for operation in anew.graph.get_operations()}:
            other = _substituted(subject, anew, rules, not subject.jit_compile)
    return own, False, other


def _substituted(subject: Subject, step: Step, rules: Mapping[str, Rule], jit_compile: bool) -> bool | None:
    """Whether the step is finite with each rule's changes before its forward operation and the gradient of that; None
    where it cannot be computed so."""
    if jit_compile and any(tensor.dtype == tf.string for tensor in subject.tensors):  # see harm.Trial
        return None
    before = lost(subject.weights)
    try:
        run = steptrace.runner(step, [], jit_compile, changed(step, rules))
        _, after = subject.run(run, subject.tensors, jit_compile)
        return not newly(after, before)
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, Died, Stays):
        return None


def changed(step: Step, rules: Mapping[str, Rule]):
    """The step's GraphDef with each rule's changes before its forward operation, for it and its gradient. rules:
    {forward operation: its rule}."""
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
            value.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(_constant(constant, tensor.dtype), tensor.dtype))
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
    if value == SMALL:
        return 1e-3  # its reciprocal and its square are in range
    if 0.9 < abs(value) < 1:
        return np.sign(value) * (1 - 1e-2)
    return float(np.clip(value, -1e4, 8))  # exp(8) = 3e3, whose square is in the gradient's range


def _canonical(tensor: str) -> str:
    return tensor.removesuffix(":0")
