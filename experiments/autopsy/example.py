"""A stranger's model: pictures and names, compared by cosine. One name has no vector.

In step 3 it comes up. `zeronorm.Autopsy` says which operation makes its row NaN, on which line and
for which example, and what cures it. `example.ipynb` is the same as a notebook.

python experiments/autopsy/example.py
"""

from zeronorm import Autopsy  # before TensorFlow, which then starts without its log

# isort: split
import keras
import numpy as np
import tensorflow as tf

ANIMALS = ["aardwolf", "bat", "cat", "dog", "eel", "fox", "gnu", "hen"]


def cosine(a, b):
    norms = tf.norm(a, axis=-1) * tf.norm(b, axis=-1)
    return tf.reduce_sum(a * b, axis=-1) / tf.maximum(norms, 1e-7)


def model() -> keras.Model:
    vectors = np.random.default_rng(0).standard_normal((len(ANIMALS), 16))
    vectors[0] = 0  # gensim had no vector for it
    picture, name = keras.Input((64,)), keras.Input((), dtype="int32")
    start = keras.initializers.Constant(vectors)
    row = keras.layers.Embedding(len(ANIMALS), 16, embeddings_initializer=start, name="animals")(
        name
    )
    similarity = keras.layers.Lambda(lambda pair: cosine(*pair))(
        [keras.layers.Dense(16)(picture), row]
    )
    made = keras.Model([picture, name], similarity)
    made.compile("adam", "mse", jit_compile=True)  # what "auto" becomes on a machine with a GPU
    return made


def main():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(1)
    pictures, names = rng.standard_normal((320, 64)), rng.integers(1, len(ANIMALS), 320)
    names[100] = 0
    watch = Autopsy(names={"animals/embeddings": ANIMALS})
    model().fit([pictures, names], np.ones(320), shuffle=False, verbose=0, callbacks=[watch])
    return watch.report


if __name__ == "__main__":
    main()
