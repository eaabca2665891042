"""Is my library affected? The cosine, normalising and distance functions that people call, at a
zero row, at a tiny one and at a huge one: value and gradient, compiled and not.

    python affected.py > result.json

Python 3, NumPy, and whichever of TensorFlow, Keras, PyTorch, JAX, Optax and sentence-transformers
this Python has; of Keras the backend that KERAS_BACKEND names. A function is called as its users
call it, on a batch of two rows of four: the first is (1, 2, 3, 4), the second the row in question,
times 1. A gradient is that of the sum of what it returns.
"""

import importlib.util
import json
import os
import sys
import warnings
from importlib.metadata import version

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore")

ROWS = {"zero": 0.0, "1e-20": 1e-20, "1e20": 1e20}
"""Each of the second row's four elements."""

UNIT = "x * rsqrt(max(sum(x * x), 1e-12))"
ROOT = "sqrt(max(sum(x * x), 1e-12))"
"""What is safe, in each library's own words: unit rows, of which a cosine is the product, and a
norm or distance."""

USUAL = np.array([[1, 2, 3, 4], [1, 2, 3, 4]], np.float32)


def of_tensorflow():
    """{function: (call of two tensors, or of one)}, how to differentiate, and how to compile."""
    import tensorflow as tf

    def gradient(function, *arrays):
        tensors = [tf.constant(array) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors[-1])
            value = function(*tensors)
        return value.numpy(), tf.convert_to_tensor(tape.gradient(value, tensors[-1])).numpy()

    def compiled(function, *arrays):
        @tf.function(jit_compile=True, autograph=False)
        def both(*tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors[-1])
                value = function(*tensors)
            return value, tape.gradient(value, tensors[-1])

        return [x.numpy() for x in both(*map(tf.constant, arrays))]

    functions = {
        "tf.math.l2_normalize(x, -1)": lambda x: tf.math.l2_normalize(x, -1),
        "tf.linalg.normalize(x, axis=-1)[0]": lambda x: tf.linalg.normalize(x, axis=-1)[0],
        "tf.norm(x, axis=-1)": lambda x: tf.norm(x, axis=-1),
        "tf.norm(a - b, axis=-1), a = b": lambda a, b: tf.norm(a * b - b * a, axis=-1),
        "tf.math.reduce_euclidean_norm(x, -1)": lambda x: tf.math.reduce_euclidean_norm(x, -1),
        "tf.clip_by_norm(x, 1.0, axes=-1)": lambda x: tf.clip_by_norm(x, 1.0, axes=-1),
        ROOT: lambda x: tf.sqrt(tf.maximum(tf.reduce_sum(x * x, -1), 1e-12)),
    }
    safe = dict.fromkeys(functions, ROOT)
    safe["tf.linalg.normalize(x, axis=-1)[0]"] = "tf.math.l2_normalize(x, -1)"
    return f"TensorFlow {tf.__version__}", functions, safe, {"kernels": gradient, "XLA": compiled}


def of_keras():
    import keras

    backend = keras.backend.backend()
    ways = {"tensorflow": of_tensorflow, "jax": of_jax, "torch": of_torch}[backend]()[-1]
    cosine = keras.losses.CosineSimilarity(reduction=None)
    dot = keras.layers.Dot(-1, normalize=True)
    unit = keras.layers.UnitNormalization()
    functions = {
        "keras.losses.cosine_similarity(a, b)": keras.losses.cosine_similarity,
        "keras.losses.CosineSimilarity()(a, b)": cosine,
        "keras.layers.Dot(-1, normalize=True)([a, b])": lambda a, b: dot([a, b]),
        "keras.layers.UnitNormalization()(x)": unit,
        "keras.ops.normalize(x, -1)": lambda x: keras.ops.normalize(x, -1),
        "keras.utils.normalize(x, -1)": lambda x: keras.utils.normalize(x, -1),
        "keras.ops.norm(x, axis=-1)": lambda x: keras.ops.norm(x, axis=-1),
        UNIT: lambda x: (
            x * keras.ops.rsqrt(keras.ops.maximum(keras.ops.sum(x * x, -1, keepdims=True), 1e-12))
        ),
        ROOT: lambda x: keras.ops.sqrt(keras.ops.maximum(keras.ops.sum(x * x, -1), 1e-12)),
    }
    safe = dict.fromkeys(functions, UNIT) | {"keras.ops.norm(x, axis=-1)": ROOT}
    return f"Keras {keras.__version__} on {backend}", functions, safe, ways


def of_torch():
    import torch
    from torch.nn import functional as F

    def gradient(function, *arrays):
        tensors = [torch.tensor(array) for array in arrays]
        tensors[-1].requires_grad_(True)
        value = function(*tensors)
        value.sum().backward()
        return value.detach().numpy(), tensors[-1].grad.numpy()

    def compiled(function, *arrays):
        return gradient(torch.compile(function), *arrays)

    functions = {
        "F.cosine_similarity(a, b)": lambda a, b: F.cosine_similarity(a, b),
        "F.normalize(x)": lambda x: F.normalize(x),
        "F.cosine_embedding_loss(a, b, y)": lambda a, b: F.cosine_embedding_loss(
            a, b, torch.ones(2), reduction="none"
        ),
        "F.pairwise_distance(a, b), a = b": lambda a, b: F.pairwise_distance(b.detach(), b),
        "torch.cdist(x, x)": lambda a, b: torch.cdist(b.detach(), b),
        "torch.linalg.norm(x, dim=-1)": lambda x: torch.linalg.norm(x, dim=-1),
        "(x * x).sum(-1).sqrt()": lambda x: (x * x).sum(-1).sqrt(),
        "x / x.norm(dim=-1, keepdim=True)": lambda x: x / x.norm(dim=-1, keepdim=True),
        UNIT: lambda x: x * (x * x).sum(-1, keepdim=True).clamp_min(1e-12).rsqrt(),
        ROOT: lambda x: (x * x).sum(-1).clamp_min(1e-12).sqrt(),
    }
    safe = dict.fromkeys(functions, UNIT) | dict.fromkeys(
        ("F.pairwise_distance(a, b), a = b", "torch.cdist(x, x)", "(x * x).sum(-1).sqrt()"),
        ROOT,
    )
    return (
        f"PyTorch {torch.__version__}",
        functions,
        safe,
        {"eager": gradient, "compiled": compiled},
    )


def of_jax():
    import jax
    from jax import numpy as jnp

    def both(function):
        def value_and_gradient(*arrays):
            def total(last):
                value = function(*arrays[:-1], last)
                return value.sum(), value

            (_, value), found = jax.value_and_grad(total, has_aux=True)(arrays[-1])
            return value, found

        return value_and_gradient

    def gradient(function, *arrays):
        with jax.disable_jit():
            return [np.array(x) for x in both(function)(*map(jnp.asarray, arrays))]

    def compiled(function, *arrays):
        return [np.array(x) for x in jax.jit(both(function))(*map(jnp.asarray, arrays))]

    functions = {
        "jnp.linalg.norm(x, axis=-1)": lambda x: jnp.linalg.norm(x, axis=-1),
        "x / jnp.linalg.norm(x, axis=-1, keepdims=True)": lambda x: (
            x / jnp.linalg.norm(x, axis=-1, keepdims=True)
        ),
        "jnp.where(n > 0, x / n, 0)": lambda x: jnp.where(
            jnp.linalg.norm(x, axis=-1, keepdims=True) > 0,
            x / jnp.linalg.norm(x, axis=-1, keepdims=True),
            0.0,
        ),
        UNIT: lambda x: x * jax.lax.rsqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-12)),
        ROOT: lambda x: jnp.sqrt(jnp.maximum((x * x).sum(-1), 1e-12)),
    }
    safe = dict.fromkeys(functions, UNIT) | {"jnp.linalg.norm(x, axis=-1)": ROOT}
    return f"JAX {jax.__version__}", functions, safe, {"eager": gradient, "compiled": compiled}


def of_optax():
    import optax

    functions = {
        "optax.cosine_similarity(a, b)": lambda a, b: optax.cosine_similarity(a, b),
        "optax.cosine_similarity(a, b, epsilon=1e-12)": lambda a, b: optax.cosine_similarity(
            a, b, epsilon=1e-12
        ),
        "optax.safe_norm(x, 1e-6, axis=-1)": lambda x: optax.safe_norm(x, 1e-6, axis=-1),
    }
    safe = {
        "optax.cosine_similarity(a, b)": "optax.cosine_similarity(a, b, epsilon=1e-12)",
    }
    return f"Optax {optax.__version__}", functions, safe, of_jax()[-1]


def of_sentence_transformers():
    from sentence_transformers import util

    functions = {
        "util.cos_sim(a, b)": lambda a, b: util.cos_sim(a, b),
        "util.pairwise_cos_sim(a, b)": lambda a, b: util.pairwise_cos_sim(a, b),
        "util.normalize_embeddings(x)": lambda x: util.normalize_embeddings(x),
        "util.euclidean_sim(a, b), a = b": lambda a, b: util.euclidean_sim(b.detach(), b),
    }
    name = f"sentence-transformers {version('sentence-transformers')}"
    safe = {"util.euclidean_sim(a, b), a = b": ROOT}
    return name, functions, safe, of_torch()[-1]


LIBRARIES = {
    "tensorflow": of_tensorflow,
    "keras": of_keras,
    "torch": of_torch,
    "jax": of_jax,
    "optax": of_optax,
    "sentence_transformers": of_sentence_transformers,
}


def tried(way, function, size):
    """{"value": ..., "gradient": ...} of the row in question, numbers or words, or {"failed":
    ...}."""
    row = np.ones((1, 4), np.float32) * np.float32(size)
    x = np.concatenate([USUAL[:1], row])
    arrays = [USUAL, x] if takes_two(function) else [x]
    try:
        value, gradient = (np.array(found, np.float32) for found in way(function, *arrays))
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
    if value.shape == (2, 2):  # each row with each
        value = np.diagonal(value)
    return {"value": kind(value[1]), "gradient": kind(gradient[1])}


def takes_two(function):
    """Whether it compares two batches. Layers and losses are called by what they are."""
    code = getattr(function, "__code__", None)
    return code.co_argcount > 1 if code else "Normalization" not in type(function).__name__


def kind(values):
    """NaN, inf, or the largest magnitude."""
    values = np.ravel(values)
    if np.isnan(values).any():
        return "nan"
    return "inf" if np.isinf(values).any() else float(np.abs(values).max())


def main():
    rows = []
    for module, make in LIBRARIES.items():
        if importlib.util.find_spec(module) is None:
            continue
        name, functions, safe, ways = make()
        for function, call in functions.items():
            found = {
                way: {size: tried(used, call, of) for size, of in ROWS.items()}
                for way, used in ways.items()
            }
            rows.append(
                {"library": name, "function": function, "safe": safe.get(function, "")}
                | {"found": found}
            )
    python = ".".join(map(str, sys.version_info[:3]))
    print(json.dumps({"python": python, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
