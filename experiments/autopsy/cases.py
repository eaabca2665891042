"""NaN bugs that people have reported, re-created in small, and healthy models that look like one.

A case makes a compiled model and what it is fitted on. Its cause is known beforehand: the kind of
birth, the operation, the line (marked `# guilty`), the step, the example of the batch and the row
of the embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

BATCH = 8
STEP, EXAMPLE = 1, 5  # where a fault that lies in one example is put
ROW = STEP * BATCH + EXAMPLE


@dataclass(frozen=True)
class Case:
    """name, thread: what was reported, where.
    make: () -> (compiled model, arguments of its fit).
    birth: None of a healthy one.
    op: kind of the guilty operation, of a gradient the one it differentiates.
    kernels, xla: whether the step poisons a weight under each; where neither, the loss alone is
        lost.
    marked: whether its line is the user's.
    step: None where only training tells."""

    name: str
    thread: str
    make: Callable[[], tuple[keras.Model, dict]]
    birth: str | None
    op: str = ""
    kernels: bool = True
    xla: bool = True
    jit_compile: bool = False
    marked: bool = True
    step: int | None = STEP
    examples: tuple[int, ...] = (EXAMPLE,)
    rows: dict[str, list[int]] = field(default_factory=dict)


BUGS: list[Case] = []
HEALTHY: list[Case] = []


def bug(thread: str, birth: str, op: str, **expected):
    def add(make):
        BUGS.append(Case(make.__name__, thread, make, birth, op, **expected))
        return make

    return add


def healthy(thread: str, jit_compile: bool = False):
    def add(make):
        HEALTHY.append(
            Case(
                make.__name__, thread, make, None, kernels=False, xla=False, jit_compile=jit_compile
            )
        )
        return make

    return add


def features(width: int = 4, count: int = 4 * BATCH) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 1, (count, width)).astype(np.float32)


def targets(width: int = 1, count: int = 4 * BATCH) -> np.ndarray:
    return np.random.default_rng(1).uniform(0.2, 0.8, (count, width)).astype(np.float32)


def fitted(layers, loss="mse", x=None, y=None, optimizer="sgd", **more) -> tuple[keras.Model, dict]:
    keras.utils.set_random_seed(0)
    x, y = features() if x is None else x, targets() if y is None else y
    model = keras.Sequential([keras.Input(x.shape[1:], dtype=str(x.dtype)), *layers])
    model.compile(optimizer, loss)
    return model, {"x": x, "y": y, **more}


def dense(width: int = 1, **more) -> keras.layers.Dense:
    return keras.layers.Dense(width, **{"kernel_initializer": "ones", **more})


# ------------------------------------------------------------------------------------------------
# forward


@bug("https://github.com/aymericdamien/TensorFlow-Examples/issues/383", "forward", "Log")
def cross_entropy_by_hand():
    def loss(y, p):
        return -tf.reduce_sum(y * tf.math.log(p), -1)  # guilty

    x = features()
    x[ROW] = 300
    kernel = keras.initializers.Constant(np.array([[1, 0, -1]] * 4))
    y = np.tile(np.array([1, 0, 0], np.float32), (len(x), 1))
    return fitted([keras.layers.Dense(3, "softmax", kernel_initializer=kernel)], loss, x, y)


@bug(
    "https://github.com/pkmital/tensorflow_tutorials/issues/23",
    "forward",
    "Log",
    kernels=False,
    xla=False,
)
def log_of_tanh():
    def loss(y, p):
        return -tf.reduce_mean(y * tf.math.log(1e-10 + p), -1)  # guilty

    x = features()
    x[ROW] *= -1
    return fitted([dense(activation="tanh")], loss, x)


@bug(
    "https://github.com/keras-team/keras/issues/590",
    "forward",
    "Log",
    kernels=False,
    xla=False,
    marked=False,
)
def poisson_of_a_negative_rate():
    x = features()
    x[ROW] *= -1
    return fitted([dense()], "poisson", x)


class RowNormalised(keras.layers.Layer):
    def call(self, x):
        return x / tf.norm(x, ord=1, axis=-1, keepdims=True)  # guilty


@bug("https://github.com/tensorflow/tensorflow/issues/35257", "forward", "RealDiv")
def normalised_zero_row():
    x = features()
    x[ROW] = 0
    return fitted([RowNormalised(), dense()], x=x)


class Standardised(keras.layers.Layer):
    def call(self, x):
        centred = x - tf.reduce_mean(x, axis=(1, 2, 3), keepdims=True)
        return centred / tf.math.reduce_std(x, axis=(1, 2, 3), keepdims=True)  # guilty


@bug("https://github.com/vanvalenlab/deepcell-tf/pull/446", "forward", "RealDiv")
def flat_image():
    x = features(36).reshape(-1, 6, 6, 1)
    x[ROW] = 0.5
    return fitted(
        [Standardised(), keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D(), dense()],
        x=x,
    )


class MaskedAttention(keras.layers.Layer):
    """Scores of the positions whose feature is positive."""

    def __init__(self, log_of_mask: bool):
        super().__init__()
        self.scores, self.log_of_mask = keras.layers.Dense(1), log_of_mask

    def call(self, x):
        mask = tf.cast(x[:, :, 0] > 0, tf.float32)
        off = tf.math.log(mask) if self.log_of_mask else tf.where(mask > 0, 0.0, -np.inf)
        weights = tf.nn.softmax(self.scores(x)[:, :, 0] + off)  # guilty
        return tf.reduce_sum(weights[:, :, None] * x, 1)


def sequences(masked_throughout: bool) -> np.ndarray:
    x = features(5 * 3).reshape(-1, 5, 3)
    x[:, 3:] = 0
    if masked_throughout:
        x[ROW] = 0
    return x


@bug("https://github.com/allenai/allennlp/issues/890", "forward", "Softmax")
def log_of_an_empty_mask():
    return fitted([MaskedAttention(log_of_mask=True), dense()], x=sequences(True))


@bug("https://github.com/pytorch/pytorch/issues/25110", "forward", "Softmax")
def attention_to_nothing():
    return fitted([MaskedAttention(log_of_mask=False), dense()], x=sequences(True))


class SoftmaxByHand(keras.layers.Layer):
    def call(self, x):
        grown = tf.exp(x)  # guilty
        return grown / tf.reduce_sum(grown, -1, keepdims=True)


@bug("https://github.com/psychopa4/PFNL/issues/9", "forward", "Exp")
def softmax_by_hand():
    x = features()
    x[ROW] = 100
    return fitted([dense(3), SoftmaxByHand(), dense()], x=x)


@bug("https://github.com/fizyr/keras-retinanet/issues/706", "forward", "Pow")
def focal_weight_of_a_rounded_probability():
    def loss(y, p):
        weight = tf.pow(1 - 1.000001 * p, 0.5)  # guilty
        return -tf.reduce_sum(y * weight * tf.math.log(p + 1e-7), -1)

    x = features()
    x[ROW] = 100
    return fitted(
        [dense(activation="sigmoid", bias_initializer=keras.initializers.Constant(-3))], loss, x
    )


def directions() -> tuple[np.ndarray, np.ndarray]:
    x, y = features(3), targets(3)
    x[:, 0], y[:, 1] = 0, 0
    x[ROW] = y[ROW] = [1, 0, 0]
    return x, y


def cosine(a, b):
    return tf.reduce_sum(a * b, -1) / (tf.norm(a, axis=-1) * tf.norm(b, axis=-1))


@bug("https://github.com/yuanming-hu/fc4/issues/33", "forward", "Acos")
def angle_of_a_rounded_cosine():
    def loss(y, p):
        return tf.acos(1.000001 * cosine(y, p))  # guilty

    x, y = directions()
    return fitted([dense(3, kernel_initializer="identity", use_bias=False)], loss, x, y)


@bug(
    "https://github.com/keras-team/keras/issues/8508", "forward", "RealDiv", examples=(), xla=False
)
def f1_without_positives():
    def loss(y, p):
        hits = tf.reduce_sum(y * p)
        return 1 - 2 * hits / (tf.reduce_sum(y) + tf.reduce_sum(p))  # guilty

    x, y = features(), targets()
    x[STEP * BATCH : (STEP + 1) * BATCH] *= -1
    y[STEP * BATCH : (STEP + 1) * BATCH] = 0
    return fitted([dense(activation="relu", use_bias=False)], loss, x, y)


@bug("https://github.com/nasa/delta/pull/115", "forward", "RealDiv", xla=False)
def dice_of_an_empty_mask():
    def loss(y, p):
        both = tf.reduce_sum(y, -1) + tf.reduce_sum(p, -1)
        return 1 - 2 * tf.reduce_sum(y * p, -1) / both  # guilty

    x, y = features(), targets(3)
    x[ROW], y[ROW] = 0, 0
    return fitted([dense(3, activation="relu", use_bias=False)], loss, x, y)


@bug("https://github.com/keras-team/keras/pull/11643", "forward", "RealDiv", xla=False)
def mean_over_an_empty_mask():
    def loss(y, p):
        mask = tf.cast(y >= 0, tf.float32)
        return tf.reduce_sum(mask * tf.square(y - p), -1) / tf.reduce_sum(mask, -1)  # guilty

    y = targets(3)
    y[ROW] = -1
    return fitted([dense(3)], loss, y=y)


class SquaresInHalf(keras.layers.Layer):
    def call(self, x):
        return tf.reduce_mean(x * x, -1, keepdims=True)  # guilty


@bug("https://github.com/keras-team/keras/issues/22586", "forward", "Mul")
def squares_overflow_in_float16():
    x = features().astype(np.float16)
    x[ROW] = 300
    return fitted([SquaresInHalf(dtype="float16"), dense(dtype="float16")], x=x)


# ------------------------------------------------------------------------------------------------
# gradient


def siamese(similar: float):
    keras.utils.set_random_seed(0)
    left, right = keras.Input((4,)), keras.Input((4,))
    encode = keras.layers.Dense(3)

    class Distance(keras.layers.Layer):
        def call(self, a, b):
            return tf.sqrt(tf.reduce_sum(tf.square(a - b), -1, keepdims=True))  # guilty

    def loss(y, d):
        return tf.reduce_mean(y * tf.square(d) + (1 - y) * tf.square(tf.maximum(1 - d, 0)), -1)

    model = keras.Model([left, right], Distance()(encode(left), encode(right)))
    model.compile("sgd", loss)
    a, b, y = features(), features()[::-1].copy(), targets().round()
    a[ROW], y[ROW] = b[ROW], similar
    return model, {"x": [a, b], "y": y}


@bug("https://github.com/keras-team/keras/issues/9097", "gradient", "Sqrt")
def siamese_of_equal_but_dissimilar():
    return siamese(0.0)


@bug(
    "https://github.com/keras-team/keras/pull/6223",
    "gradient",
    "Sqrt",
    kernels=False,
    jit_compile=True,
)
def siamese_of_equal_and_similar():
    return siamese(1.0)


@bug("https://github.com/keras-team/keras/issues/6644", "gradient", "Sqrt")
def rmse_of_an_exact_prediction():
    def loss(y, p):
        return tf.sqrt(tf.reduce_mean(tf.square(y - p), -1))  # guilty

    x, y = features(), targets()
    x[ROW], y[ROW] = 0, 0
    return fitted([dense(use_bias=False)], loss, x, y)


@bug("https://github.com/keras-team/keras/issues/2960", "gradient", "Sqrt")
def deviation_of_a_constant():
    def loss(y, p):
        spread = tf.reduce_mean(tf.square(p - tf.reduce_mean(p, -1, keepdims=True)), -1)
        return tf.reduce_mean(tf.square(y - p), -1) + tf.sqrt(spread)  # guilty

    x = features()
    x[ROW] = 0
    return fitted(
        [dense(3, kernel_initializer="glorot_uniform", use_bias=False)], loss, x, targets(3)
    )


class Ratio(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x):
        below = self.scale * x
        return tf.where(below != 0, 1 / below, tf.zeros_like(below))  # guilty


@bug("https://github.com/tensorflow/tensorflow/issues/20091", "gradient", "RealDiv")
def quotient_in_the_dead_branch():
    x = features(1)
    x[ROW] = 0
    return fitted([Ratio(), dense()], x=x)


class EluByHand(keras.layers.Layer):
    def call(self, x):
        return tf.where(x > 0, x, tf.exp(x) - 1)  # guilty


@bug("https://github.com/tensorflow/tensorflow/issues/38349", "gradient", "Exp")
def exponential_in_the_dead_branch():
    x = features()
    x[ROW] = 100
    return fitted([dense(3), EluByHand(), dense()], x=x)


class Gamma(keras.layers.Layer):
    def call(self, x):
        return tf.pow(tf.clip_by_value(x, 0.0, 1.0), 1 / 2.4)  # guilty


@bug("https://github.com/tensorflow/tensorflow/issues/2295", "gradient", "Pow")
def power_at_zero():
    x = features() / 4
    x[ROW] = 0
    return fitted([dense(3, use_bias=False), Gamma(), dense()], x=x)


@bug("https://github.com/tensorflow/tensorflow/issues/57786", "gradient", "Acos")
def angle_of_equal_directions():
    def loss(y, p):
        return tf.acos(cosine(y, p))  # guilty

    x, y = directions()
    return fitted([dense(3, kernel_initializer="identity", use_bias=False)], loss, x, y)


@bug("https://github.com/tensorflow/tensorflow/issues/50854", "gradient", "Atan2")
def angle_of_zero():
    def loss(y, p):
        return tf.square(y[:, 0] - tf.atan2(p[:, 1], p[:, 0]))  # guilty

    x = features()
    x[ROW] = 0
    return fitted([dense(2, kernel_initializer="glorot_uniform", use_bias=False)], loss, x)


class Sinc(keras.layers.Layer):
    def build(self, shape):
        self.cutoff = self.add_weight(shape=(), initializer="ones", name="cutoff")

    def call(self, x):
        return keras.ops.sinc(x * self.cutoff)  # guilty


@bug("https://github.com/tensorflow/tensorflow/issues/127226", "gradient", "RealDiv")
def sinc_at_zero():
    x = features()
    x[ROW, 2] = 0
    return fitted([Sinc(), dense()], x=x)


class MultipliedMask(keras.layers.Layer):
    def call(self, scores, mask):
        return tf.nn.softmax(scores * tf.where(mask > 0, 1.0, -np.inf))  # guilty


@bug("https://github.com/tensorflow/tensorflow/issues/11756", "gradient", "Mul")
def mask_that_multiplies():
    keras.utils.set_random_seed(0)
    text, mask = keras.Input((4,)), keras.Input((3,))
    model = keras.Model([text, mask], dense()(MultipliedMask()(dense(3)(text), mask)))
    model.compile("sgd", "mse")
    kept = np.ones((4 * BATCH, 3), np.float32)
    kept[ROW, 1] = 0
    return model, {"x": [features(), kept], "y": targets()}


@bug(
    "https://github.com/keras-team/keras/pull/23093",
    "gradient",
    "Rsqrt",
    kernels=False,
    jit_compile=True,
    marked=False,
    rows={"embedding/embeddings": [0]},
)
def unit_norm_of_a_zero_row():
    matrix = np.random.default_rng(2).standard_normal((20, 4))
    matrix[0] = 0
    x = np.random.default_rng(3).integers(1, 20, (4 * BATCH, 3)).astype(np.int32)
    x[ROW, 1] = 0
    lookup = keras.layers.Embedding(
        20, 4, embeddings_initializer=keras.initializers.Constant(matrix), name="embedding"
    )
    return fitted([lookup, keras.layers.UnitNormalization(), keras.layers.Flatten(), dense()], x=x)


class RootOfPositive(keras.layers.Layer):
    def call(self, x):
        return tf.where(x > 0, tf.sqrt(x), tf.zeros_like(x))  # guilty


def root_of_positive():
    x = features()
    x[ROW] = 0
    return fitted([dense(3, use_bias=False), RootOfPositive(), dense()], x=x)


@bug(
    "https://github.com/tensorflow/tensorflow/issues/118674",
    "gradient",
    "Sqrt",
    kernels=False,
    jit_compile=True,
)
def root_in_the_dead_branch():
    return root_of_positive()


class LogOfExp(keras.layers.Layer):
    def call(self, x):
        grown = tf.exp(x)  # guilty
        return tf.math.log(grown)


@bug("https://github.com/jax-ml/jax/issues/38097", "forward", "Exp")
def log_of_an_overflow():
    x = features()
    x[ROW] = 30
    return fitted([dense(3), LogOfExp(), dense()], x=x)


class Critic(keras.Model):
    """A gradient penalty: the norm of the output's gradient, differentiated again."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = dense(3, activation="relu", use_bias=False), dense(use_bias=False)

    def call(self, x):
        return self.out(self.hidden(x))

    def train_step(self, data):
        x, _ = data
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(x)
                score = self(x, training=True)
            slopes = tf.sqrt(tf.reduce_sum(tf.square(inner.gradient(score, x)), -1))  # guilty
            loss = tf.reduce_mean(tf.square(slopes - 1))
        gradients = outer.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


@bug("https://github.com/tdeboissiere/DeepLearningImplementations/issues/68", "gradient", "Sqrt")
def gradient_penalty_of_a_dead_unit():
    keras.utils.set_random_seed(0)
    x = features()
    x[ROW] *= -1
    model = Critic()
    model.compile("sgd")
    model(x[:1])
    return model, {"x": x, "y": targets()}


# ------------------------------------------------------------------------------------------------
# optimizer


@bug(
    "https://github.com/keras-team/keras/issues/11860",
    "optimizer",
    "RealDiv",
    marked=False,
    step=0,
    examples=(),
    rows={"embedding/embeddings": [8, 9]},
)
def adam_without_epsilon():
    x = np.random.default_rng(3).integers(0, 8, (4 * BATCH, 3)).astype(np.int32)
    x[0], x[1], x[2] = (0, 1, 2), (3, 4, 5), (6, 7, 0)
    lookup = keras.layers.Embedding(10, 4, name="embedding")
    return fitted(
        [lookup, keras.layers.Flatten(), dense()], x=x, optimizer=keras.optimizers.Adam(epsilon=0.0)
    )


@keras.saving.register_keras_serializable("zeronorm_cases")
class Cycle(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        return 0.01 * (1 - step / (100 * tf.math.ceil(step / 100)))  # guilty

    def get_config(self):
        return {}


@bug(
    "https://github.com/tensorflow/tensorflow/pull/13271",
    "optimizer",
    "RealDiv",
    step=0,
    examples=(),
)
def learning_rate_of_the_first_step():
    return fitted([dense()], optimizer=keras.optimizers.SGD(Cycle()))


@bug(
    "https://github.com/tensorflow/tensorflow/issues/21363",
    "optimizer",
    "Square",
    marked=False,
    examples=(),
)
def global_norm_overflows():
    weight = np.ones(4 * BATCH, np.float32)
    weight[ROW] = 1e21
    return fitted(
        [dense()], optimizer=keras.optimizers.SGD(global_clipnorm=1.0), sample_weight=weight
    )


class Unsafe(keras.optimizers.SGD):
    """Scales by the gradient's own size, without epsilon."""

    def update_step(self, gradient, variable, learning_rate):
        variable.assign_sub(learning_rate * gradient / tf.abs(gradient))  # guilty


@bug(
    "https://github.com/taki0112/RAdam-Tensorflow/pull/7",
    "optimizer",
    "RealDiv",
    step=0,
    examples=(),
)
def own_optimizer_without_epsilon():
    x = features()
    x[:, 2] = 0
    return fitted([dense()], x=x, optimizer=Unsafe())


# ------------------------------------------------------------------------------------------------
# data and weights


@bug(
    "https://github.com/danielegrattarola/keras-gat/issues/14", "data", "Placeholder", marked=False
)
def nan_in_the_features():
    x = features()
    x[ROW, 2] = np.nan
    return fitted([dense(3, activation="tanh"), dense()], x=x)


class Clamped(keras.layers.Layer):
    def call(self, x):
        return tf.nn.relu6(x)


@bug(
    "https://github.com/tensorflow/tensorflow/issues/119628",
    "data",
    "Placeholder",
    xla=False,
    marked=False,
)
def nan_that_xla_drops():
    x = features()
    x[ROW, 2] = np.nan
    return fitted([Clamped(), dense()], x=x)


@bug("https://github.com/tensorflow/tensorflow/issues/46145", "data", "Placeholder", marked=False)
def infinity_in_the_features():
    x = features()
    x[ROW, 2] = np.inf
    return fitted([dense(3), dense()], x=x)


@bug("https://github.com/ragulpr/wtte-rnn/issues/50", "data", "Placeholder", marked=False)
def missing_target_of_weight_zero():
    y, weight = targets(), np.ones(4 * BATCH, np.float32)
    y[ROW], weight[ROW] = np.nan, 0
    return fitted([dense()], y=y, sample_weight=weight)


@bug("https://github.com/keras-team/keras/issues/16108", "data", "Placeholder", marked=False)
def nan_padding_under_a_mask():
    keras.utils.set_random_seed(0)
    x = features(5 * 4).reshape(-1, 5, 4)
    x[ROW, 3:] = np.nan
    mask = np.ones((len(x), 5, 5), bool)
    mask[:, :, 3:] = False
    given, kept = keras.Input((5, 4)), keras.Input((5, 5), dtype="bool")
    attended = keras.layers.MultiHeadAttention(1, 4)(given, given, attention_mask=kept)
    model = keras.Model([given, kept], dense()(keras.layers.GlobalAveragePooling1D()(attended)))
    model.compile("sgd", "mse")
    return model, {"x": [x, mask], "y": targets()}


@bug(
    "https://github.com/dmlc/gluon-cv/issues/1052",
    "weights",
    "ReadVariableOp",
    marked=False,
    step=0,
    examples=(),
)
def pretrained_channel():
    images = features(36).reshape(-1, 6, 6, 1)
    layers = [
        keras.layers.Conv2D(3, 3, name="first"),
        keras.layers.GlobalAveragePooling2D(),
        dense(),
    ]
    model, arguments = fitted(layers, x=images)
    kernel = np.array(model.get_layer("first").kernel)
    kernel[..., 1] = np.nan
    model.get_layer("first").kernel.assign(kernel)
    return model, arguments


def with_a_nan_row(looked_up: bool):
    x = np.random.default_rng(3).integers(0, 12, (4 * BATCH, 3)).astype(np.int32)
    if looked_up:
        x[ROW, 1] = 13
    lookup = keras.layers.Embedding(20, 4, name="embedding")
    model, arguments = fitted([lookup, keras.layers.Flatten(), dense()], x=x)
    matrix = np.array(lookup.embeddings)
    matrix[13] = np.nan
    lookup.embeddings.assign(matrix)
    return model, arguments


@bug(
    "https://github.com/keras-team/keras/issues/1360",
    "weights",
    "ReadVariableOp",
    marked=False,
    rows={"embedding/embeddings": [13]},
)
def pretrained_row():
    return with_a_nan_row(looked_up=True)


@bug(
    "https://github.com/Rikorose/DeepFilterNet/issues/30",
    "weights",
    "ReadVariableOp",
    marked=False,
    step=0,
    examples=(),
)
def resumed_slot():
    model, arguments = fitted([dense(3), dense()], optimizer="adam")
    model.optimizer.build(model.trainable_variables)
    slot = next(variable for variable in model.optimizer.variables if "velocity" in variable.path)
    slot.assign(np.full(slot.shape, np.nan))
    return model, arguments


# ------------------------------------------------------------------------------------------------
# divergence


@bug(
    "https://github.com/keras-team/keras/issues/3040",
    "divergence",
    "",
    marked=False,
    step=None,
    examples=(),
)
def learning_rate_too_large():
    x = np.arange(200, dtype=np.float32)[:, None]
    return fitted([dense()], x=x, y=2 * x, optimizer=keras.optimizers.SGD(0.001), batch_size=1)


@bug(
    "https://github.com/tensorflow/tensorflow/issues/12030",
    "divergence",
    "",
    step=None,
    examples=(),
)
def one_outlier():
    def loss(y, p):
        return 5 * tf.square(y - p)  # guilty

    x = np.array([[1], [2], [3], [4], [35]], np.float32)
    return fitted([dense()], loss, x, 2 * x, keras.optimizers.SGD(0.01), batch_size=5, epochs=40)


@bug(
    "https://github.com/rstudio-conf-2020/dl-keras-tf/issues/9",
    "divergence",
    "",
    marked=False,
    step=None,
    examples=(),
)
def targets_in_dollars():
    x = np.random.default_rng(0).standard_normal((304, 10)).astype(np.float32)
    y = (2e5 + 5e4 * np.random.default_rng(1).standard_normal((304, 1))).astype(np.float32)
    layers = [keras.layers.Dense(64), keras.layers.Dense(64), keras.layers.Dense(1)]
    return fitted(layers, x=x, y=y, optimizer=keras.optimizers.SGD(0.1))


# ------------------------------------------------------------------------------------ kinds that
# the above do not touch


class Applied(keras.layers.Layer):
    """A function as a layer, behind a trainable scale."""

    def __init__(self, function: Callable, **more):
        super().__init__(**more)
        self.function = function

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x):
        return self.function(self.scale * x)


def with_row(value: float, width: int = 4) -> np.ndarray:
    x = features(width)
    x[ROW] = value
    return x


@bug("https://github.com/keras-team/keras/issues/16552", "forward", "MatMul", marked=False)
def mixed_float16_without_loss_scale():
    first = keras.layers.Dense(
        3, kernel_initializer=keras.initializers.Constant(100.0), dtype="mixed_float16"
    )
    return fitted([first, dense()], x=with_row(200.0))


def group_lasso(weights):
    return 0.01 * tf.reduce_sum(tf.norm(weights, axis=0))  # guilty


@bug(
    "https://github.com/tensorflow/tensorflow/issues/3307", "gradient", "Sqrt", step=0, examples=()
)
def group_lasso_of_as_many_units_as_examples():
    kernel = np.ones((4, BATCH))
    kernel[:, 2] = 0
    start = keras.initializers.Constant(kernel)
    return fitted(
        [
            keras.layers.Dense(BATCH, kernel_initializer=start, kernel_regularizer=group_lasso),
            dense(),
        ]
    )


@bug(
    "https://github.com/tensorflow/tensorflow/issues/30199",
    "gradient",
    "Sqrt",
    step=0,
    examples=tuple(range(BATCH)),
)
def distances_between_all_pairs():
    def loss(y, p):
        apart = tf.reduce_sum(tf.square(p[:, None] - p[None]), -1)
        return tf.reduce_mean(tf.sqrt(apart), -1)  # guilty

    return fitted([dense(3, kernel_initializer="glorot_uniform")], loss, y=targets(3))


@bug(
    "https://github.com/keras-team/keras/issues/13221",
    "divergence",
    "",
    marked=False,
    step=0,
    examples=(),
)
def exploding_recurrence():
    grows = keras.initializers.Identity(6.0)
    layer = keras.layers.SimpleRNN(3, activation=None, recurrent_initializer=grows)
    return fitted([layer, dense()], x=features(120 * 2).reshape(-1, 120, 2))


@bug("https://github.com/keras-team/keras/issues/18152", "forward", "RealDiv", marked=False)
def average_of_padding():
    x = np.random.default_rng(3).integers(1, 20, (4 * BATCH, 3)).astype(np.int32)
    x[ROW] = 0
    lookup = keras.layers.Embedding(20, 4, mask_zero=True, name="embedding")
    return fitted([lookup, keras.layers.GlobalAveragePooling1D(), dense()], x=x)


KINDS: list[Case] = []  # no thread stands for these: each a way in which a report could go wrong


def kind(birth: str, op: str, **expected):
    def add(make):
        KINDS.append(Case(make.__name__, "", make, birth, op, **expected))
        return make

    return add


class Cell(keras.layers.Layer):
    """One step of a recurrence that ends in a function."""

    def __init__(self, function: Callable):
        super().__init__()
        self.function, self.state_size, self.output_size = function, 3, 3

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), initializer="ones", name="kernel")

    def call(self, x, states):
        h = self.function(tf.matmul(x, self.kernel) + 0.5 * states[0])
        return h, [h]


def recurrence():
    def unit(h):
        return h / tf.norm(h, axis=-1, keepdims=True)  # guilty

    x = features(5 * 4).reshape(-1, 5, 4)
    x[ROW] = 0
    return fitted([keras.layers.RNN(Cell(unit)), dense()], x=x)


@kind("forward", "RealDiv")
def inside_a_recurrence():
    return recurrence()


@kind("forward", "RealDiv", jit_compile=True)
def inside_a_recurrence_that_xla_hides():
    return recurrence()


@kind("gradient", "RealDiv")
def backward_of_a_custom_gradient():
    @tf.custom_gradient
    def length(x):
        norm = tf.sqrt(tf.reduce_sum(x * x, -1, keepdims=True))
        return norm, lambda upstream: upstream * x / norm  # guilty

    return fitted([dense(3, use_bias=False), Applied(length), dense()], x=with_row(0))


class Adversaries(keras.Model):
    """Two optimizers, in a dict, which build themselves in the first step."""

    def __init__(self):
        super().__init__()
        self.generator, self.critic = dense(4), dense(activation="sigmoid")

    def compile(self, **optimizers):
        super().compile()
        self.optimizers = optimizers

    def call(self, x):
        return self.critic(self.generator(x))

    def train_step(self, data):
        x, _ = data
        with tf.GradientTape(persistent=True) as tape:
            real, fake = self.critic(x), self.critic(self.generator(0.1 * x))
            caught = -tf.reduce_mean(tf.math.log(1 - real) + tf.math.log(fake + 1e-7))  # guilty
            fooled = -tf.reduce_mean(tf.math.log(1 - fake + 1e-7))
        for name, layer, loss in (
            ("critic", self.critic, caught),
            ("generator", self.generator, fooled),
        ):
            weights = layer.trainable_weights
            self.optimizers[name].apply_gradients(
                zip(tape.gradient(loss, weights), weights, strict=True)
            )
        return {"caught": caught, "fooled": fooled}


@kind("forward", "Log")
def two_optimizers_that_build_late():
    keras.utils.set_random_seed(0)
    model, x = Adversaries(), with_row(20)
    model(x[:1])
    model.compile(critic=keras.optimizers.Adam(), generator=keras.optimizers.Adam())
    return model, {"x": x, "y": targets()}


@kind("forward", "RealDiv")
def phase_of_silence():
    def phase(x):
        spectrum = tf.signal.fft(tf.cast(x, tf.complex64))
        unit = spectrum / tf.cast(tf.abs(spectrum), tf.complex64)  # guilty
        return tf.math.real(unit)

    return fitted([Applied(phase), dense()], x=with_row(0))


@kind("data", "Placeholder", marked=False)
def fill_value_left_in():
    x = features()
    x[ROW, 2] = 9.96921e36
    return fitted([keras.layers.BatchNormalization(), dense()], x=x)


@kind("forward", "UnsortedSegmentMax")
def maximum_over_no_neighbours():
    def pooled(x):
        owner = tf.where(x[:, 0] > 0, tf.range(tf.shape(x)[0]), 0)
        return tf.math.unsorted_segment_max(x, owner, BATCH)  # guilty

    return fitted([Applied(pooled), dense()], x=with_row(-1.0))


@kind("forward", "RealDiv")
def examples_on_the_second_axis():
    def normalised(x):
        x = tf.transpose(x, [1, 0, 2])  # 16 positions, which is a multiple of the batch
        x = x / tf.reduce_sum(x, -1, keepdims=True)  # guilty
        return tf.reduce_mean(x, 0)

    x = features(16 * 4).reshape(-1, 16, 4)
    x[ROW, 6] = 0
    return fitted([Applied(normalised), dense()], x=x)


class Table(keras.layers.Layer):
    """An embedding of its own making, looked up by flat ids."""

    def build(self, shape):
        matrix = np.random.default_rng(2).standard_normal((20, 4))
        matrix[7] = 0
        self.table = self.add_weight(
            shape=(20, 4), initializer=keras.initializers.Constant(matrix), name="table"
        )

    def call(self, ids):
        found = keras.ops.take(self.table, tf.reshape(ids, [-1]), axis=0)
        found = found / tf.norm(found, axis=-1, keepdims=True)  # guilty
        return tf.reshape(found, [-1, 12])


@kind("forward", "RealDiv", rows={"words/table": [7]})
def row_of_an_own_table():
    x = np.random.default_rng(3).integers(8, 20, (4 * BATCH, 3)).astype(np.int32)
    x[ROW, 1] = 7
    return fitted([Table(name="words"), dense()], x=x)


# ------------------------------------------------------------------------------------------------
# healthy


@healthy("https://github.com/pytorch/pytorch/issues/6864")
def mask_of_minus_infinity():
    return fitted([MaskedAttention(log_of_mask=False), dense()], x=sequences(False))


@healthy("https://github.com/facebookresearch/swav/issues/47")
def loss_scale_that_skips_a_step():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=2.0**40)
    layers = [
        keras.layers.Dense(3, dtype="mixed_float16"),
        keras.layers.Dense(1, dtype="mixed_float16"),
    ]
    return fitted(layers, optimizer=optimizer)


class SafeLog(keras.layers.Layer):
    def call(self, x):
        positive = x > 0
        return tf.where(
            positive, tf.math.log(tf.where(positive, x, tf.ones_like(x))), tf.zeros_like(x)
        )


@healthy("https://github.com/tensorflow/tensorflow/pull/38467", jit_compile=True)
def double_where():
    x = features()
    x[ROW] = 0
    return fitted([dense(3, use_bias=False), SafeLog(), dense()], x=x)


@healthy("https://github.com/tensorflow/tensorflow/issues/118674")
def root_in_the_dead_branch_under_kernels():
    return root_of_positive()


@healthy("https://github.com/keras-team/keras/issues/3033")
def metric_of_nothing():
    def precision(y, p):
        return tf.reduce_sum(tf.zeros_like(p)) / tf.reduce_sum(tf.zeros_like(p))

    model, arguments = fitted([dense()])
    model.compile("sgd", "mse", metrics=[precision])
    return model, arguments


@healthy("https://www.tensorflow.org/api_docs/python/tf/math/divide_no_nan", jit_compile=True)
def mean_over_an_empty_mask_without_nan():
    def loss(y, p):
        mask = tf.cast(y >= 0, tf.float32)
        return tf.math.divide_no_nan(
            tf.reduce_sum(mask * tf.square(y - p), -1), tf.reduce_sum(mask, -1)
        )

    y = targets(3)
    y[ROW] = -1
    return fitted([dense(3)], loss, y=y)


@healthy("https://github.com/hill-a/stable-baselines/pull/505", jit_compile=True)
def masked_actions():
    def loss(y, p):
        logits = tf.where(tf.constant([True, True, False]), p, -np.inf)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(y[:, 0], tf.int32), logits)

    return fitted([dense(3)], loss, y=targets().round())


@healthy("https://github.com/keras-team/keras/issues/23075")
def reciprocal_root_that_is_clamped():
    x = features()
    x[ROW] = 0
    return fitted([dense(3, use_bias=False), keras.layers.UnitNormalization(), dense()], x=x)


@healthy("https://github.com/tensorflow/tensorflow/issues/21363")
def global_norm_of_no_gradient():
    y = targets()
    optimizer = keras.optimizers.SGD(global_clipnorm=1.0)
    return fitted(
        [dense(3), dense()], y=y, optimizer=optimizer, sample_weight=np.zeros(len(y), np.float32)
    )


@healthy("https://github.com/keras-team/keras/issues/1360")
def nan_row_that_is_never_looked_up():
    return with_a_nan_row(looked_up=False)
