"""What makes a kind of operation finite: one rule for each, as code and as a change of the
graph."""

from dataclasses import dataclass

SMALL = 1e-7  # added where a zero is the trouble; Keras's default epsilon
# added inside a root: with 1e-7 the first gradient at a row of zeros is so large that Adam lets it
# learn less from then on (experiments/epsilon_size)
IN_ROOT = 1e-5


@dataclass(frozen=True)
class Rule:
    """For one kind of forward operation.

    changes: (input, operation, constant): what is put before an input; none where the safe form
        cannot be put into the graph. The constants are for float32; see `_constant`.
    """

    name: str
    write: str
    changes: tuple[tuple[int, str, float], ...] = ()


def _inside(function: str, small: float) -> Rule:
    return Rule(
        "epsilon inside, where the operation is singular",
        f"{function}(x + {small:g})",
        ((0, "AddV2", small),),
    )


def _clipped(function: str, edge: float = 1 - 1e-6) -> Rule:
    write = f"{function}(tf.clip_by_value(x, {-edge:g}, {edge:g}))"
    return Rule(
        "arguments kept inside the domain", write, ((0, "Minimum", edge), (0, "Maximum", -edge))
    )


def _both_bounded(function: str) -> Rule:
    write = f"{function}(tf.clip_by_value(x, -80.0, 80.0))"
    changes = ((0, "Minimum", 80.0), (0, "Maximum", -80.0))
    return Rule("arguments kept from overflowing on either side", write, changes)


def _bounded(function: str) -> Rule:
    return Rule(
        "arguments kept from overflowing",
        f"{function}(tf.minimum(x, 80.0))",
        ((0, "Minimum", 80.0),),
    )


_DENOMINATOR = Rule("epsilon in the denominator", f"x / (y + {SMALL:g})", ((1, "AddV2", SMALL),))
_MASK = Rule(
    "a finite mask: a row that is masked throughout has no largest element",
    "tf.maximum(x, -1e9)",
    (),
)
_JITTER = Rule("a small multiple of the identity added to the matrix", "matrix + 1e-6 * tf.eye(n)")

RULES = {
    "Sqrt": _inside("tf.sqrt", IN_ROOT),
    "Rsqrt": _inside("tf.math.rsqrt", IN_ROOT),
    "Log": _inside("tf.math.log", SMALL),
    "Log1p": Rule(
        "arguments kept above -1",
        "tf.math.log1p(tf.maximum(x, -1 + 1e-6))",
        ((0, "Maximum", -1 + 1e-6),),
    ),
    "Reciprocal": Rule(
        "epsilon in the denominator", f"1 / (x + {SMALL:g})", ((0, "AddV2", SMALL),)
    ),
    "RealDiv": _DENOMINATOR,
    "Div": _DENOMINATOR,
    "DivNoNan": _DENOMINATOR,
    "Xdivy": _DENOMINATOR,
    "Xlogy": Rule(
        "epsilon inside, where the operation is singular",
        f"tf.math.xlogy(x, y + {SMALL:g})",
        ((1, "AddV2", SMALL),),
    ),
    "Pow": Rule("epsilon in the base", f"tf.pow(x + {SMALL:g}, y)", ((0, "AddV2", SMALL),)),
    "Prod": Rule(
        "epsilon in the factors", f"tf.reduce_prod(x + {SMALL:g}, axis)", ((0, "AddV2", SMALL),)
    ),
    "EuclideanNorm": Rule(
        "epsilon inside the root",
        f"tf.sqrt(tf.reduce_sum(x * x, axis) + {IN_ROOT:g})",
        ((0, "AddV2", IN_ROOT),),
    ),
    "Atan2": Rule(
        "epsilon beside the origin", f"tf.atan2(y, x + {SMALL:g})", ((1, "AddV2", SMALL),)
    ),
    "Acos": _clipped("tf.acos"),
    "Asin": _clipped("tf.asin"),
    "Atanh": _clipped("tf.atanh"),
    "Erfinv": _clipped("tf.math.erfinv"),
    "Acosh": Rule(
        "arguments kept above 1", "tf.acosh(tf.maximum(x, 1 + 1e-6))", ((0, "Maximum", 1 + 1e-6),)
    ),
    "Exp": _bounded("tf.exp"),
    "Expm1": _bounded("tf.math.expm1"),
    "Sinh": _bounded("tf.sinh"),
    "Cosh": _bounded("tf.cosh"),
    "Softmax": Rule(_MASK.name, "tf.nn.softmax(tf.maximum(x, -1e9))", ((0, "Maximum", -1e9),)),
    "LogSoftmax": Rule(
        _MASK.name, "tf.nn.log_softmax(tf.maximum(x, -1e9))", ((0, "Maximum", -1e9),)
    ),
    "Cholesky": _JITTER,
    "MatrixInverse": _JITTER,
    "MatrixSolve": _JITTER,
    "SelfAdjointEigV2": Rule("distinct eigenvalues", "matrix + tf.linalg.diag(tf.range(n) * 1e-6)"),
    "Svd": Rule("distinct singular values", "matrix + noise of 1e-6"),
}


def _kept_above_zero(
    write: str, position: int = 0, what: str = "argument", least: float = SMALL
) -> Rule:
    write = write.format(f"{least:g}")
    return Rule(f"the {what} kept above zero", write, ((position, "Maximum", least),))


STRONGER = {  # where the rule is not enough: arguments that lie beyond the edge of the domain
    "Sqrt": _kept_above_zero("tf.sqrt(tf.maximum(x, {}))", least=IN_ROOT),
    "Rsqrt": _kept_above_zero("tf.math.rsqrt(tf.maximum(x, {}))", least=IN_ROOT),
    "Log": _kept_above_zero("tf.math.log(tf.maximum(x, {}))"),
    "Xlogy": _kept_above_zero("tf.math.xlogy(x, tf.maximum(y, {}))", 1),
    "Pow": _kept_above_zero("tf.pow(tf.maximum(x, {}), y)", what="base"),
    "Sinh": _both_bounded("tf.sinh"),
    "Cosh": _both_bounded("tf.cosh"),
}
