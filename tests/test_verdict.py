"""What the report says of a step that one of the compilers refuses, or that loses the loss alone,
as trained under each; and which cures it calls finite: those that leave weights and loss finite
when they are written out by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import zeronorm
from zeronorm.autopsy import cures, examination
from zeronorm.autopsy.subject import Subject

SIZE = 4  # examples of a batch


def subject(loss, jit_compile: bool, x, weights=(1.0,), eager: bool = False) -> Subject:
    """A step of gradient descent on loss(x * weight, x), x [SIZE]."""
    weight, optimizer = (
        keras.Variable(np.float32(weights), name="weight"),
        keras.optimizers.SGD(0.1),
    )
    optimizer.build([weight])

    def step(data):
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(loss(data * weight.value, data))
        optimizer.apply(tape.gradient(value, [weight.value]), [weight])

    state = [weight.value, *(variable.value for variable in optimizer.variables)]
    inputs = {"weights": {"weight": weight.value}, "state": state, "optimizers": [optimizer]}
    return Subject(
        step,
        tf.constant(x, tf.float32),
        jit_compile=jit_compile,
        eager=eager,
        inputs=["x"],
        **inputs,
    )


def labels(h, x):  # the third is 4 of 0..3
    labelled = tf.where(x > 2, 4, 1)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        labelled, h[:, None] * [1.0, 2.0, 3.0, 4.0]
    )


def probabilities(h, x):
    labelled = tf.where(x > 2, 4, 1)
    return keras.losses.sparse_categorical_crossentropy(
        labelled, tf.nn.softmax(h[:, None] * [1.0, 2.0, 3.0, 4.0])
    )


def ids(h, x):
    return h * tf.gather([1.0, 2.0, 3.0, 4.0], tf.where(x > 2, 7, 1))


def inverse(h, x):
    return tf.linalg.inv(h[:, None, None] * tf.where(x > 2, 0.0, 1.0)[:, None, None] * tf.eye(2))


def inverse_unlearned(h, x):  # the loss is lost, and no weight by it
    return h + tf.stop_gradient(inverse(h, x)[:, 0, 0])


def asserted(h, x):
    with tf.control_dependencies([tf.debugging.assert_less(x, 2.0, message="too large")]):
        return tf.identity(h)


def text(h, x):
    return h + tf.strings.to_number(tf.strings.as_string(tf.stop_gradient(h)))


def text_and_root(h, x):
    return text(h, x) + tf.sqrt(h - x)


def text_and_log(h, x):  # of -1
    return text(h, x) + tf.stop_gradient(tf.math.log(h - x - 1.0))


def text_asserted(h, x):
    return asserted(text(h, x), x)


def healthy(h, x):
    return tf.square(h)


def log_unlearned(h, x):
    return h + tf.stop_gradient(tf.math.log(h - 3.0))


RANGE = "Received a label value of 4 which is outside the valid range of [0, 4)"
REFUSE = "TensorFlow's kernels refuse this step: "
XLA = "XLA refuses this step: it has no kernel for AsString"
LOST = "it makes values of these variables non-finite: weight (1); the loss is NaN."
# loss: ({trained under XLA: how the report begins}, (kernels, xla), losses, examples of the first
# guilty operation)
MADE = "Step 0 made values of these variables non-finite: weight (1)."
UNLEARNED = "Step 0 has a non-finite loss, and poisons no weight."
CASES = {
    labels: ((f"{REFUSE}{RANGE}. Under XLA {LOST}", MADE), (None, True), {"xla": "NaN"}, (2,)),
    probabilities: (
        (f"{REFUSE}{RANGE}. Under XLA {LOST}", MADE),
        (None, True),
        {"xla": "NaN"},
        (2,),
    ),
    ids: (
        (f"{REFUSE}indices[2] = 7 is not in [0, 4). Under XLA it is finite.", "Step 0 is finite."),
        (None, False),
        {"xla": ""},
        (),
    ),
    inverse: (
        (f"{REFUSE}Input is not invertible. Under XLA {LOST}", MADE),
        (None, True),
        {"xla": "NaN"},
        (2,),
    ),
    inverse_unlearned: (
        (
            (
                f"{REFUSE}Input is not invertible. Under XLA it poisons no weight, but the loss is"
                " NaN."
            ),
            UNLEARNED,
        ),
        (None, False),
        {"xla": "NaN"},
        (2,),
    ),
    asserted: (
        (f"{REFUSE}assertion failed: [too large", "Step 0 is finite."),
        (None, False),
        {"xla": ""},
        (),
    ),
    text: (
        ("Step 0 is finite.", f"{XLA}. Under TensorFlow's kernels it is finite."),
        (False, None),
        {"kernels": ""},
        (),
    ),
    text_and_root: (
        (
            MADE,
            (
                f"{XLA}. Under TensorFlow's kernels it makes values of these variables non-finite:"
                " weight (1)."
            ),
        ),
        (True, None),
        {"kernels": ""},
        None,
    ),
    text_and_log: (
        (
            UNLEARNED,
            f"{XLA}. Under TensorFlow's kernels it poisons no weight, but the loss is NaN.",
        ),
        (False, None),
        {"kernels": "NaN"},
        None,
    ),
    text_asserted: (
        (
            f"{REFUSE}assertion failed: [too large",
            f"{XLA}. TensorFlow's kernels refuse it too: assertion failed: [too large",
        ),
        (None, None),
        {},
        (),
    ),
    healthy: (("Step 0 is finite.",) * 2, (False, False), {"kernels": "", "xla": ""}, ()),
    log_unlearned: ((UNLEARNED,) * 2, (False, False), {"kernels": "NaN", "xla": "NaN"}, None),
}


@pytest.mark.parametrize("jit_compile", [False, True], ids=["kernels", "xla"])
@pytest.mark.parametrize("loss", CASES, ids=lambda loss: loss.__name__)
def test_a_verdict_needs_a_verdict(loss, jit_compile, monkeypatch):
    monkeypatch.setattr(cures, "tried", lambda *arguments: ())
    openings, (kernels, xla), losses, examples = CASES[loss]
    found = examination.report(subject(loss, jit_compile, [1, 2, 3, 1]), 0)
    text_of = " ".join(str(found).split())
    assert text_of.startswith(openings[jit_compile])
    assert (found.kernels, found.xla, found.losses) == (kernels, xla, losses)
    assert set(found.refused) == {
        name for name, fails in (("kernels", kernels), ("xla", xla)) if fails is None
    }
    assert examples is None or (found.guilty[0].examples if found.guilty else ()) == examples
    assert bool(found.guilty) == (True in (kernels, xla) or "NaN" in losses.values())
    assert "Graph execution error" not in text_of and "{{" not in found.to_json()
    own = (kernels, xla)[jit_compile]
    assert ("Step 0 is finite." in text_of) == (
        own is False and losses[("kernels", "xla")[jit_compile]] == ""
    )
    assert found.harmful == bool(own)
    for reason in found.refused.values():  # said once, wherever it was not trained
        assert text_of.count(reason.removesuffix(".")) == 1


def test_an_eager_step_is_judged_as_a_compiled_one(monkeypatch):
    monkeypatch.setattr(cures, "tried", lambda *arguments: ())
    for loss, opening in (
        (labels, f"{REFUSE}{RANGE}."),
        (log_unlearned, UNLEARNED),
        (healthy, "Step 0 is finite."),
    ):
        found = examination.report(subject(loss, False, [1, 2, 3, 1], eager=True), 0)
        assert " ".join(str(found).split()).startswith(opening)


def test_examine_says_who_refuses_and_what_the_other_makes_of_it():
    """A label out of range, before the model moves to a GPU; the cures are those of the compiler
    that computes it."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found = zeronorm.examine(model, np.ones((4, 3), "float32"), np.array([0, 1, 4, 0]))
    said = " ".join(str(found).split())
    assert said.startswith(
        f"{REFUSE}{RANGE}. Under XLA it makes values of these variables non-finite: "
    )
    assert "Tried on this step, under XLA: finite these examples left out" in said
    assert "TensorFlow's kernels: refuse the step (as trained) XLA: fails" in said
    assert found.guilty[0].examples == (2,) and not found.left_out


DOMAINS = {  # kind: (loss of h, a place at the edge or beyond it)
    "Sqrt": (tf.sqrt, -3),
    "Rsqrt": (tf.math.rsqrt, -3),
    "Log": (tf.math.log, -1e-4),
    "Log1p": (tf.math.log1p, -3),
    "Xlogy": (lambda h: tf.math.xlogy(2.0, h), -3),
    "Pow": (lambda h: tf.pow(h, 0.5), -3),
    "RealDiv": (lambda h: 1.0 / h, 0),
    "Acos": (lambda h: tf.acos(h / 2), -4),
    "Erfinv": (lambda h: tf.math.erfinv(h / 2), 2),
    "Acosh": (lambda h: tf.acosh(h + 1), -3),
    "Sinh": (tf.sinh, -100),
}


def written_out(write: str, kind: str, place: float) -> bool:
    """Whether value and gradient of a cure, as a user would write it, are finite at a place:
    eagerly."""
    h = tf.constant(place, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(h)
        argument = {"Acos": h / 2, "Erfinv": h / 2, "Acosh": h + 1}.get(kind, h)
        names = {"tf": tf, "x": argument, "y": argument}
        names |= {"Xlogy": {"x": 2.0}, "RealDiv": {"x": 1.0}, "Pow": {"y": 0.5}}.get(kind, {})
        value = eval(write, names)
    return bool(np.isfinite([value, tape.gradient(value, h)]).all())


@pytest.mark.parametrize("kind", DOMAINS)
def test_a_cure_is_finite_where_it_is_finite_written_out(kind, monkeypatch):
    monkeypatch.setattr(cures, "_folk", lambda *arguments: ())
    function, place = DOMAINS[kind]
    found = examination.report(subject(lambda h, x: function(h), False, [1, 1, place, 1]), 0)
    assert found.guilty[0].forward_op_type == kind and not found.left_out
    for cure in found.cures:
        assert cure.finite == cure.elsewhere == written_out(cure.write, kind, place), cure
        assert cure.leaves in ("", "the loss stays NaN", "the loss stays infinite")
    assert [cure.finite for cure in found.cures] == [False] * (len(found.cures) - 1) + [True]


@pytest.mark.parametrize(("kind", "epsilon"), [("Sqrt", "1e-05"), ("Log", "1e-07")])
def test_a_rule_that_is_enough_is_the_only_one(kind, epsilon, monkeypatch):
    monkeypatch.setattr(cures, "_folk", lambda *arguments: ())
    found = examination.report(subject(lambda h, x: DOMAINS[kind][0](h), False, [1, 1, 0, 1]), 0)
    assert [(cure.finite, cure.elsewhere) for cure in found.cures] == [(True, True)]
    assert f"+ {epsilon}" in found.cures[0].write


def one_pass(h, x):
    """The deviation as the root of E[x^2] - E[x]^2, which rounding makes negative."""
    return tf.sqrt(tf.reduce_mean(tf.square(h)) - tf.square(tf.reduce_mean(h)) - 1e-3)


def root_and_log(h, x):
    """A weight is lost by the root of a zero, the loss by the logarithm of a negative number."""
    return tf.sqrt(tf.square(h - x)) + tf.stop_gradient(tf.math.log(h - 3.0))


@pytest.mark.parametrize("jit_compile", [False, True], ids=["kernels", "xla"])
def test_what_leaves_the_loss_lost_is_no_cure_and_says_so(jit_compile):
    found = examination.report(subject(log_unlearned, jit_compile, [1, 2, 3, 1]), 0)
    first, second = [cure for cure in found.cures if not cure.folk]
    assert (first.write, first.finite, first.leaves) == (
        "tf.math.log(x + 1e-07)",
        False,
        "the loss stays NaN",
    )
    assert (second.write, second.finite, second.elsewhere) == (
        "tf.math.log(tf.maximum(x, 1e-07))",
        True,
        True,
    )
    folk = [cure for cure in found.cures if cure.folk]
    assert [cure.finite for cure in folk] == [False, False, False, True]
    assert [cure.leaves for cure in folk] == ["the loss stays NaN"] * 3 + [""]
    assert "clipnorm=1.0; the loss stays NaN" in " ".join(str(found).split())


def test_what_rounding_makes_negative_and_two_kinds_of_guilty(monkeypatch):
    monkeypatch.setattr(cures, "_folk", lambda *arguments: ())
    found = examination.report(subject(one_pass, False, [1, 1, 1, 1]), 0)
    writes = ["tf.sqrt(x + 1e-05)", "tf.sqrt(tf.maximum(x, 1e-05))"]
    assert [cure.write for cure in found.cures] == writes
    assert [cure.finite for cure in found.cures] == [False, True]
    found = examination.report(subject(root_and_log, False, [1, 2, 3, 1]), 0)
    assert {cure.finite for cure in found.cures[:-1]} == {False}  # the root or the logarithm alone
    assert found.cures[-1].name.startswith("these together: ") and found.cures[-1].finite


def test_examples_left_out_are_no_cure_where_the_loss_stays_lost():
    """A NaN in one example, and in another the logarithm of a negative number, which costs no
    weight."""
    found = examination.report(
        subject(lambda h, x: h + tf.stop_gradient(tf.math.log(x - 1.5)), False, [2, np.nan, 1, 2]),
        0,
    )
    [cure] = [cure for cure in found.cures if not cure.folk]
    assert (cure.name, cure.finite, cure.leaves) == (
        "these examples left out",
        False,
        "the loss stays NaN",
    )


def root(h, x):
    return tf.sqrt(tf.square(h - x))


def test_a_cure_that_cannot_be_tried_costs_no_other(monkeypatch):
    monkeypatch.setattr(cures, "_slower", lambda *arguments: 1 / 0)
    found = examination.report(subject(root, False, [1, 2, 3, 1]), 0)
    slower = found.cures[1]
    assert [cure.finite for cure in found.cures][:2] == [True, None] and len(found.cures) == 5
    assert slower.leaves == "it could not be (ZeroDivisionError: division by zero)"
    monkeypatch.setattr(cures, "_folk", lambda *arguments: (1 / 0 for _ in range(1)))
    first, further = examination.report(subject(root, False, [1, 2, 3, 1]), 0).cures
    assert first.finite and further.leaves == slower.leaves


def test_one_device_under_a_strategy_is_as_one_without():
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)]
        )
        model.compile("adam", lambda y, p: tf.sqrt(tf.reduce_mean(tf.square(y - p), -1)))
    x = np.float32([[1], [2], [3], [4]])
    found = zeronorm.examine(model, x, x + np.float32([[1], [0], [1], [1]]))
    assert found.harmful and found.guilty[0].examples == (1,) and not found.left_out
    assert found.cures[0].write == "tf.sqrt(x + 1e-05)" and found.cures[0].finite
    assert None not in [cure.finite for cure in found.cures]
