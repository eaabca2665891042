"""What makes a failing step finite, and what people try that does not: each tried on the step itself.

A rule belongs to a kind of operation. It is tried by changing what the operation is given, in the traced graph, for it
and for its gradient alike, and running the step as the user runs it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from zeronorm import steptrace
from zeronorm.harm import Died, Ended, Findings, Guilty, Held, Stays, Subject, Trial, lost, newly
from zeronorm.steptrace import Step

SMALL = 1e-7  # added where a zero is the trouble; Keras's default epsilon


@dataclass(frozen=True)
class Cure:
    """name: what to do. write: as code, where it is code. finite: whether the step with it loses no
    weight and not the loss; None: not tried. folk: whether it is what people try first, and not a rule
    for the guilty operation. elsewhere: as finite, under the other of TensorFlow's kernels and XLA, of a
    rule that is put into the graph. leaves: in words, what is wrong with it where no weight is lost: what
    becomes of the loss, or why it was not tried."""

    name: str
    write: str
    finite: bool | None
    folk: bool = False
    elsewhere: bool | None = None
    leaves: str = ""


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


def _both_bounded(function: str) -> Rule:
    write = f"{function}(tf.clip_by_value(x, -80.0, 80.0))"
    changes = ((0, "Minimum", 80.0), (0, "Maximum", -80.0))
    return Rule("arguments kept from overflowing on either side", write, changes)


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


def _kept_above_zero(write: str, position: int = 0, what: str = "argument") -> Rule:
    write = write.format(f"{SMALL:g}")
    return Rule(f"the {what} kept above zero", write, ((position, "Maximum", SMALL),))


STRONGER = {  # where the rule is not enough: arguments that lie beyond the edge of the domain
    "Sqrt": _kept_above_zero("tf.sqrt(tf.maximum(x, {}))"),
    "Rsqrt": _kept_above_zero("tf.math.rsqrt(tf.maximum(x, {}))"),
    "Log": _kept_above_zero("tf.math.log(tf.maximum(x, {}))"),
    "Xlogy": _kept_above_zero("tf.math.xlogy(x, tf.maximum(y, {}))", 1),
    "Pow": _kept_above_zero("tf.pow(tf.maximum(x, {}), y)", what="base"),
    "Sinh": _both_bounded("tf.sinh"),
    "Cosh": _both_bounded("tf.cosh"),
}


def tried(subject: Subject, step: Step, found: Findings, trial: Trial) -> tuple[Cure, ...]:
    """The cures for the guilty operations and the folk remedies, most specific first. step: traced
    from the subject. trial: of the subject, as the user trains."""
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
    """A cure that is tried. outcome: gives what the trial says of Cure's finite, elsewhere and leaves.
    Where it raises the cure is one that was not tried: the others are not lost by it."""
    try:
        return Cure(name, write, folk=folk, **outcome())
    except Exception as error:
        if isinstance(error, Ended) and not isinstance(error, (Died, Stays)):  # a limit, which holds for all
            raise
        return Cure(name, write, None, folk, leaves=_could_not(error))


def _outcome(trial: Trial, data=None) -> dict:
    """What a trial's step, on `data`, else its own, says of a cure."""
    lost = trial(data)
    if lost is None:
        return {"finite": None, "leaves": f"refused: {trial.refused}"}
    return {"finite": not lost and not trial.loss, "leaves": "" if lost else trial.loss}


def _specific(subject: Subject, step: Step, guilty: Sequence[Guilty], trial: Trial) -> Iterator[Cure]:
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
    elif birth == "weights" and len(guilty[0].shape):  # a number, a learning rate say, is not mended by a zero
        name = "the non-finite values of the weights replaced"
        yield _cure(name, "np.nan_to_num(weights)", lambda: _replaced(subject))


def _replaced(subject: Subject) -> dict:
    """What comes of the step where zeros stand for the weights' non-finite values."""
    held = Held(subject.weights.values())
    try:
        for variable, value in held.values:
            variable.assign(tf.where(tf.math.is_finite(value), value, tf.zeros_like(value)))
        return _outcome(Trial(subject, subject.jit_compile))
    finally:
        held.restore()


def _rules(subject: Subject, step: Step, guilty: Sequence[Guilty]) -> Iterator[Cure]:
    """The rule of each kind of operation among the guilty, tried at all that are of it, and a stronger
    one where that is not enough; of several kinds, also all together."""
    kinds: dict[str, list[Guilty]] = {}
    for one in guilty:
        kinds.setdefault(one.forward_op_type, []).append(one)
    known = {operation.name for operation in step.graph.get_operations()}  # others are inside a branch or loop
    changes: dict[str, Rule] = {}

    def attempt(name: str, write: str, rules: Mapping[str, Rule]) -> Cure:
        untried = {"finite": None}
        return _cure(name, write, lambda: _verdicts(subject, step, rules) if rules else untried)

    for kind, those in kinds.items():
        rule = RULES[kind]
        inside = [one.forward_operation for one in those if one.forward_operation in known]
        if kind in QUOTIENTS:  # an epsilon after a root leaves the root's own gradient singular
            roots = {root.name: root.type for name in inside for root in _root_below(step, name)}
            below = {"epsilon inside the root": RULES, "the root's argument kept above zero": STRONGER}
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


def _with(subject: Subject, optimizer, attribute: str, value) -> dict:
    """What comes of the step where an optimizer has another setting."""
    with steptrace.replaced(optimizer, attribute, value):
        return _outcome(Trial(subject, subject.jit_compile))


def _slower(trial: Trial, rate: keras.Variable, value: float) -> dict:
    """What comes of the step with another learning rate."""
    held = Held([rate.value])
    try:
        rate.assign(value)
        return _outcome(trial)
    finally:
        held.restore()


def _folk(subject: Subject, step: Step, found: Findings, trial: Trial) -> Iterator[Cure]:
    if found.guilty[0].birth == "divergence":
        yield Cure("a smaller learning rate, from the start: here it is too late for one", "", None, folk=True)
        return
    handles = {id(tensor) for tensor in step.captured.values()}
    used = [o for o in subject.optimizers if any(id(v.value.handle) in handles for v in o.variables)]
    for optimizer in used or subject.optimizers:
        of = f" ({optimizer.name})" if len(used) > 1 else ""
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # it is the one that clips
        if isinstance(optimizer.learning_rate, keras.Variable):
            rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
            if np.isfinite(rate):
                slower = partial(_slower, trial, optimizer.learning_rate, rate / 100)
                name = f"a learning rate a hundred times smaller{of}"
                yield _cure(name, f"learning_rate={rate / 100:g}", slower, folk=True)
        if optimizer.clipnorm is None and optimizer.global_clipnorm is None and optimizer.clipvalue is None:
            for option in ("clipnorm", "clipvalue"):
                clipped = partial(_with, subject, optimizer, option, 1.0)
                yield _cure(f"gradients clipped{of}", f"{option}=1.0", clipped, folk=True)
    without = "steps left out whose loss is not finite" + ("" if found.loss_is_finite else ": this one teaches nothing")
    yield Cure(without, "", not found.loss_is_finite, folk=True)


def _verdicts(subject: Subject, step: Step, rules: Mapping[str, Rule]) -> dict:
    """Whether the step is finite with the rules, also under the other compiler: as `Cure` has it."""
    own, other = (_substituted(subject, step, rules, jit) for jit in (subject.jit_compile, not subject.jit_compile))
    loops = any(operation.type.endswith("While") for operation in step.graph.get_operations())
    if other[0] is None and loops:  # XLA takes no loop that was traced for the kernels
        anew = steptrace.trace(subject.step, subject.data, subject.optimizers, not subject.jit_compile)
        if rules.keys() <= {operation.name for operation in anew.graph.get_operations()}:
            other = _substituted(subject, anew, rules, not subject.jit_compile)
    return {"finite": own[0], "elsewhere": other[0], "leaves": own[1]}


def _substituted(subject: Subject, step: Step, rules: Mapping[str, Rule], jit_compile: bool) -> tuple[bool | None, str]:
    """Whether the step is finite with each rule's changes before its forward operation and the gradient
    of that, None where it cannot be computed so; and what the loss is (NaN, infinite) where it is that
    alone which is lost."""
    if jit_compile and any(tensor.dtype == tf.string for tensor in subject.tensors):  # see harm.Trial
        return None, ""
    before, edited = lost(subject.weights), changed(step, rules)
    losses = [name for name in step.losses if step.graph.get_tensor_by_name(name).dtype.is_floating]
    looks = [_look(edited, step, loss, kind) for kind in ("IsNan", "IsInf") for loss in losses]
    try:
        run = steptrace.runner(step, looks, jit_compile, edited)
        found, after = subject.run(run, subject.tensors, jit_compile, range(len(looks)))
        nan, infinite = (any(bool(each) for each in some) for some in np.array_split(found, 2))
        gone = newly(after, before)
        loss = "NaN" if nan else "infinite" if infinite else ""
        return not gone and not loss, "" if gone else loss
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, Died, Stays):
        return None, ""


def _look(graph_def, step: Step, loss: str, kind: str) -> str:
    """Puts into the graph whether any element of a loss is NaN or infinite (`kind`), a bool of rank 0,
    and names it: no value of a size that only the data decides, which XLA returns wrongly."""
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
