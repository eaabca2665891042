"""The question's model, trained step by step by whatever TensorFlow this Python has.

    python probe.py start.npz > result.json

Python 2.7 to 3.13, TensorFlow 1.0 to today, NumPy, and nothing else: this file can be carried to
any machine. start.npz is what `zeronorm export` writes: the first weights and the batches of a run.

For each placement of epsilon and each compiler the answer holds what every step did: the loss, the
norm of every weight, and how many of its elements are not finite. Beside them stand the operations
alone: the gradient of each placement at a zero row, and what maximum, sqrt and rsqrt make of NaN
and of zero. A compiler that this TensorFlow does not have is said, with why.
"""

from __future__ import print_function

import argparse
import json
import os
import sys
import zipfile
from contextlib import contextmanager

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before it is imported
import tensorflow

FORMAT = "zeronorm start 1"

# the graphs and sessions of 1.x, which every release still has
tf = tensorflow
if hasattr(tensorflow, "compat") and hasattr(tensorflow.compat, "v1"):
    tf = tensorflow.compat.v1
if hasattr(tf, "disable_v2_behavior"):
    tf.disable_v2_behavior()
tf.logging.set_verbosity(tf.logging.ERROR)

WEIGHTS = (
    "words",
    "titles",
    "convolution/kernel",
    "convolution/bias",
    "dense/kernel",
    "dense/bias",
)


# --- the placements of epsilon, with the names and formulas of zeronorm.similarity -------------


def dot(a, b):
    return tf.reduce_sum(a * b, -1)


def square(x):
    return tf.reduce_sum(x * x, -1)


def norms(a, b):
    return tf.sqrt(square(a)) * tf.sqrt(square(b))


def unguarded(a, b, _):
    return dot(a, b) / norms(a, b)


def clamp_product(a, b, epsilon):
    return dot(a, b) / tf.maximum(norms(a, b), epsilon)


def add_to_product(a, b, epsilon):
    return dot(a, b) / (norms(a, b) + epsilon)


def add_to_norms(a, b, epsilon):
    return dot(a, b) / ((tf.sqrt(square(a)) + epsilon) * (tf.sqrt(square(b)) + epsilon))


def clamp_norms(a, b, epsilon):
    norm_a = tf.maximum(tf.sqrt(square(a)), epsilon)
    return dot(a, b) / (norm_a * tf.maximum(tf.sqrt(square(b)), epsilon))


def add_to_squares(a, b, epsilon):
    return dot(a, b) / tf.sqrt((square(a) + epsilon) * (square(b) + epsilon))


def clamp_squares(a, b, epsilon):
    def unit(x):
        return x * tf.expand_dims(tf.rsqrt(tf.maximum(square(x), epsilon)), -1)

    return dot(unit(a), unit(b))


def keras_normalize(a, b, epsilon):
    def unit(x):
        return x * tf.expand_dims(tf.minimum(tf.rsqrt(square(x)), 1.0 / epsilon), -1)

    return dot(unit(a), unit(b))


def divide_no_nan(a, b, _):
    math = getattr(tf, "math", None)
    divide = getattr(tf, "div_no_nan", None) or getattr(math, "divide_no_nan", None)
    if divide is None:
        raise NotImplementedError("this release has no divide_no_nan")
    return divide(dot(a, b), norms(a, b))


def single_where(a, b, _):
    of_pair = norms(a, b)
    quotient = dot(a, b) / of_pair
    return tf.where(of_pair > 0, quotient, tf.zeros_like(quotient))


def double_where(a, b, _):
    # where() did not broadcast before 2.0: the squares of a are those of every pair
    square_b = square(b)
    square_a = square(a) + tf.zeros_like(square_b)
    safe = tf.logical_and(square_a > 0, square_b > 0)
    one = tf.ones_like(square_b)
    of_pair = tf.sqrt(tf.where(safe, square_a, one)) * tf.sqrt(tf.where(safe, square_b, one))
    quotient = dot(a, b) / of_pair
    return tf.where(safe, quotient, tf.zeros_like(quotient))


PLACEMENTS = {
    function.__name__: function
    for function in (
        unguarded,
        clamp_product,
        add_to_product,
        add_to_norms,
        clamp_norms,
        add_to_squares,
        clamp_squares,
        keras_normalize,
        divide_no_nan,
        single_where,
        double_where,
    )
}


# --- compilers ---------------------------------------------------------------------------------


def by_kernels(function, number, *tensors):
    return [tf.constant(0)] + function(*tensors)


def by_xla(function, number, *tensors):
    """As one XLA cluster: a compiled function since 2.5, before that a compiled scope."""

    def witnessed(number, *tensors):
        # 1 if XLA computes it, which clamps the index; TensorFlow's own kernel on a CPU refuses it
        return [tf.gather(tf.constant([0, 1]), number + 2)] + function(*tensors)

    try:
        return tensorflow.function(witnessed, autograph=False, jit_compile=True)(number, *tensors)
    except (AttributeError, TypeError):  # no tf.function, or one without that argument
        pass
    if hasattr(tensorflow, "xla"):
        scope = tensorflow.xla.experimental.jit_scope
    else:
        from tensorflow.contrib.compiler import jit

        scope = jit.experimental_jit_scope
    with scope(compile_ops=True):
        return witnessed(number, *tensors)


COMPILERS = {"kernels": by_kernels, "xla": by_xla}
"""function and number, int32 [], and the function's tensors -> [1 if XLA ran, what the function
returns ...]."""


@contextmanager
def session():
    with tf.Graph().as_default():
        config = tf.ConfigProto(intra_op_parallelism_threads=2, inter_op_parallelism_threads=1)
        with tf.Session(config=config) as opened:
            yield opened


# --- the model ---------------------------------------------------------------------------------


class Start(object):
    """What `zeronorm export` wrote. about: its settings; weights: {name: float32}."""

    def __init__(self, path):
        with np.load(path, allow_pickle=False) as read:
            held = {name: read[name] for name in read.files}
        self.about = json.loads(str(held["about"]))
        if self.about["format"] != FORMAT:
            raise ValueError(self.about["format"])
        self.weights = {name: held["weights/" + name] for name in WEIGHTS}
        self.sizes = held["sizes"]
        self.parts = [held["text"], np.concatenate([held["positive"], held["negatives"]], 1)]
        self.kept, self.present = held.get("kept"), held.get("present")

    def batches(self, steps):
        """(text, titles, dropout's factors) of each step."""
        first = 0
        for size in self.sizes[:steps]:
            part = slice(first, first + size)
            text, titles = (x[part] for x in self.parts)
            filters = self.weights["dense/kernel"].shape[0]
            factors = np.ones((size, filters), np.float32)
            if self.kept is not None:
                kept = np.unpackbits(self.kept[part], axis=1)[:, :filters]
                factors = kept / np.float32(1 - self.about["dropout"])
            yield text, titles, factors.astype(np.float32)
            first += size


def losses(similarity, epsilon, margin, rows, factors, present):
    """float32 [batch]. rows: the six weights, of the embeddings those that the batch names."""
    words, titles, kernel, bias, dense, dense_bias = rows
    h = tf.tanh(tf.nn.conv1d(words, kernel, 1, "VALID") + bias)
    h = tf.tanh(tf.reduce_max(h, 1)) * factors
    z = tf.expand_dims(tf.matmul(h, dense) + dense_bias, 1)
    to_right = similarity(z, titles[:, :1], epsilon)
    to_others = similarity(z, titles[:, 1:], epsilon)
    hinges = tf.maximum(0.0, margin + to_others - to_right) * present[:, 1:] * present[:, :1]
    return tf.reduce_sum(hinges, 1)


def apply(about, gradients, variables, step):
    """The update of every trained weight, as one operation.

    gradients: {weight: float32 of its shape, or for an embedding (ids, one row for each)}.
    """
    settings, dense, squared = about["optimizer"], {}, {}
    for name, gradient in gradients.items():
        if isinstance(gradient, tuple):
            ids, rows = gradient
            count = int(variables[name].get_shape()[0])
            dense[name] = tf.unsorted_segment_sum(rows, ids, count)
            squared[name] = tf.unsorted_segment_sum(rows * rows, ids, count)
        else:
            dense[name], squared[name] = gradient, gradient * gradient
        if settings.get("squares") == "of their sum":  # as the paper, and as Keras did before 3
            squared[name] = dense[name] * dense[name]
    new = []
    for name, gradient in dense.items():
        variable, rate = variables[name], settings["learning_rate"]
        if settings["name"] == "sgd":
            new.append((variable, variable - rate * gradient))
            continue
        beta_1, beta_2 = settings["beta_1"], settings["beta_2"]
        m, v = (tf.Variable(tf.zeros(variable.get_shape())) for _ in range(2))
        m_new = beta_1 * m + (1 - beta_1) * gradient
        v_new = beta_2 * v + (1 - beta_2) * squared[name]
        rate = rate * tf.sqrt(1 - tf.pow(beta_2, step)) / (1 - tf.pow(beta_1, step))
        moved = variable - rate * m_new / (tf.sqrt(v_new) + settings["epsilon"])
        new += [(m, m_new), (v, v_new), (variable, moved)]
    with tf.control_dependencies([value for _, value in new]):  # all are read before one is written
        return tf.group(*[tf.assign(variable, value) for variable, value in new])


def trained(start, name, compiler, steps):
    """What each step did, with the placement of that name."""
    about, similarity = start.about, PLACEMENTS[name]
    # another placement than the run's own has the usual epsilon
    epsilon = about["epsilon"] if name == about["similarity"] else about["epsilons"].get(name)
    trains = [weight for weight in WEIGHTS if weight in about["trained"]]
    with session() as opened:
        text, titles = (tf.placeholder(tf.int32, (None, x.shape[1])) for x in start.parts)
        factors = tf.placeholder(tf.float32, (None, start.weights["dense/kernel"].shape[0]))
        number = tf.placeholder(tf.int32, ())
        given = {weight: tf.placeholder(tf.float32, x.shape) for weight, x in start.weights.items()}
        variables = {weight: tf.Variable(given[weight]) for weight in WEIGHTS}
        named = {"words": text, "titles": titles}
        rows = [
            tf.gather(variables[weight], named[weight]) if weight in named else variables[weight]
            for weight in WEIGHTS
        ]
        present = tf.ones_like(titles, tf.float32)
        if start.present is not None:
            present = tf.gather(tf.constant(start.present, tf.float32), titles)

        def forward_and_gradients(factors, present, *rows):
            loss = losses(similarity, epsilon, about["margin"], rows, factors, present)
            into = [rows[WEIGHTS.index(weight)] for weight in trains]
            return [tf.reduce_mean(loss)] + tf.gradients(tf.reduce_mean(loss), into)

        tensors = [factors, present] + [tf.identity(x) for x in rows]
        outputs = COMPILERS[compiler](forward_and_gradients, number, *tensors)
        ran_xla, loss = outputs[:2]
        gradients = {}
        for weight, gradient in zip(trains, outputs[2:]):
            if weight in named:
                ids, width = tf.reshape(named[weight], [-1]), start.weights[weight].shape[1]
                gradient = (ids, tf.reshape(gradient, [-1, width]))
            gradients[weight] = gradient
        update = apply(about, gradients, variables, tf.cast(number, tf.float32) + 1.0)
        initial = {given[weight]: x for weight, x in start.weights.items()}
        opened.run(tf.global_variables_initializer(), initial)

        xla_steps, losses_seen = 0, []
        norms_seen = {weight: [] for weight in WEIGHTS}  # type: dict
        nonfinite = {weight: [] for weight in WEIGHTS}  # type: dict
        for step, (some, pairs, dropped) in enumerate(start.batches(steps)):
            feed = {text: some, titles: pairs, factors: dropped, number: step}
            ran, value, _ = opened.run([ran_xla, loss, update], feed)
            xla_steps += int(ran)
            losses_seen.append(said(value))
            for weight, array in zip(WEIGHTS, opened.run([variables[name] for name in WEIGHTS])):
                norms_seen[weight].append(said(norm(array)))
                nonfinite[weight].append(int(np.sum(~np.isfinite(array))))
    return {
        "loss": losses_seen,
        "norms": norms_seen,
        "nonfinite": nonfinite,
        "start": {weight: norm(x) for weight, x in start.weights.items()},
        "xla_steps": xla_steps,
    }


def norm(value):
    return float(np.sqrt(np.sum(np.square(value, dtype=np.float64))))


def said(value):
    """A number, or a word where JSON has none."""
    value = float(value)
    return value if np.isfinite(value) else str(value)


# --- the operations alone ----------------------------------------------------------------------


def cosine_at_zero(name, epsilon, compiler):
    """[value, norm of the gradient] of a cosine at a zero row b: a is (1, 1, 1, 1), the incoming
    gradient 1."""

    def both(a, b):
        value = PLACEMENTS[name](a, b, epsilon)
        return [value, tf.gradients(value, b)[0]]

    value, gradient = computed(compiler, both, np.ones((1, 4)), np.zeros((1, 4)))
    return [said(value[0]), said(norm(gradient))]


LANES = 35  # more than any vector register holds, and not a multiple of one: the last are scalar


def maximum_of_nan(compiler):
    """{operation: {operands: [the value in each lane, then what reaches either operand of an
    incoming 1]}}; one letter a lane: 0, 1, or N for NaN."""
    zero, nan = np.zeros(LANES), np.full(LANES, np.nan)
    operands = {
        "0, NaN": (zero, nan),
        "NaN, 0": (nan, zero),
        "scalar 0, NaN": (zero[0], nan),
        "NaN, scalar 0": (nan, zero[0]),
    }
    found = {}
    for operation in (tf.maximum, tf.minimum):

        def both(x, y, operation=operation):
            value = operation(x, y)
            return [value] + tf.gradients(value, [x, y])

        found[operation.__name__] = {
            name: [letters(value) for value in computed(compiler, both, *pair)]
            for name, pair in operands.items()
        }
    return found


def letters(lanes):
    return "".join("N" if np.isnan(x) else "%g" % x for x in np.ravel(lanes))


def roots(compiler):
    """{operation: {"x, incoming gradient": [value, gradient]}}."""
    found = {}
    for operation in (tf.sqrt, tf.rsqrt):

        def both(x, dy, operation=operation):
            value = operation(x)
            return [value] + tf.gradients(value, x, dy)

        pairs = [(x, dy) for x in (0.0, 1e-40, 1e-30, 4.0, np.inf, np.nan) for dy in (0.0, 1.0)]
        values = computed(compiler, both, *np.transpose(pairs))
        found[operation.__name__] = {
            "%g, %g" % pair: [said(value) for value in both_values]
            for pair, both_values in zip(pairs, np.transpose(values))
        }
    return found


def computed(compiler, function, *arrays):
    """What a function of float32 tensors gives, none of which is known to the compiler."""
    with session() as opened:
        tensors = [tf.placeholder(tf.float32, np.shape(array)) for array in arrays]
        number = tf.placeholder(tf.int32, ())
        feed = dict(zip(tensors + [number], list(arrays) + [0]))
        return opened.run(COMPILERS[compiler](function, number, *tensors), feed)[1:]


# --- the command -------------------------------------------------------------------------------


def attempt(function, *arguments):
    """What it returns, or {"failed": one line}."""
    try:
        return function(*arguments)
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        if "is not in [0, 2)" in line:
            line = "XLA did not compute it: this release's package has none for the CPU"
        print("%s %s: %s" % (function.__name__, arguments[1:3], line), file=sys.stderr)
        return {"failed": line}


def asked():
    """What the command line asks for; one sentence where it cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("start", help="what `zeronorm export` wrote")
    parser.add_argument("--steps", type=int, default=20, help="of training; default: 20")
    parser.add_argument("--compilers", default="kernels,xla", help="default: kernels,xla")
    parser.add_argument("--similarity", default="own", help="placements, or all")
    wanted = parser.parse_args()
    if wanted.steps < 1:
        parser.error("--steps %d must be at least 1" % wanted.steps)
    wanted.compilers = wanted.compilers.split(",")
    try:
        wanted.start = Start(wanted.start)
    except (IOError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipfile):
        there = os.path.isfile(wanted.start)
        parser.error(
            ("%s is no file that zeronorm export wrote" if there else "there is no file %s")
            % wanted.start
        )
    own = [wanted.start.about["similarity"]]
    wanted.similarity = {"own": own, "all": sorted(PLACEMENTS)}.get(
        wanted.similarity, wanted.similarity.split(",")
    )
    for option, choices in (("compilers", COMPILERS), ("similarity", PLACEMENTS)):
        for name in getattr(wanted, option):
            if name not in choices:
                choose = ", ".join(sorted(choices))
                parser.error("--%s %s is unknown: use some of %s" % (option, name, choose))
    return wanted


def main():
    wanted = asked()
    start, names = wanted.start, wanted.similarity
    found = {
        "tensorflow": tensorflow.__version__,
        "numpy": np.__version__,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "optimizer": start.about["optimizer"],
        "compilers": {},
    }
    for compiler in wanted.compilers:
        found["compilers"][compiler] = {
            "training": {
                name: attempt(trained, start, name, compiler, wanted.steps) for name in names
            },
            "cosine at a zero row": {
                name: attempt(cosine_at_zero, name, start.about["epsilons"].get(name), compiler)
                for name in names
            },
            "of NaN": attempt(maximum_of_nan, compiler),
            "roots": attempt(roots, compiler),
        }
    json.dump(found, sys.stdout, indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
