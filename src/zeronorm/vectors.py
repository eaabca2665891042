"""gensim vectors -> the two embedding matrices as people build them: zeros, filled where gensim has
the word."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from zeronorm import vectorfiles
from zeronorm.corpus import Corpus
from zeronorm.vectorfiles import VectorsError

# norms between which the squares of a float32 row are in float32's range
PRECISE = (1e-15, 1e15)


def word2vec(corpus: Corpus, dim: int, min_count: int, window: int, epochs: int, seed: int):
    """gensim KeyedVectors of a Word2Vec model trained on the corpus's train and validation windows.

    One worker, so that the same seed gives the same bits. Words rarer than `min_count` get no
    vector.
    """
    from gensim.models import Word2Vec

    sentences = [
        corpus.windows[position] for position in np.union1d(corpus.train, corpus.validation)
    ]
    try:
        model = Word2Vec(
            sentences,
            vector_size=dim,
            min_count=min_count,
            window=window,
            epochs=epochs,
            seed=seed,
            workers=1,
        )
    # gensim: "you must first build vocabulary before training the model"
    except RuntimeError as error:
        raise VectorsError(
            f"No word of the corpus is as frequent as vectors.source.min_count={min_count}: lower"
            " it, or give more text."
        ) from error
    return model.wv


def keyed_vectors(corpus: Corpus, path: str, format: str | None = None):
    """gensim KeyedVectors read from a file.

    format: null (found from the file's bytes), word2vec (text), word2vec_binary, glove (text
        without a header), fasttext (Facebook's .bin, without its subword vectors), any of them
        compressed by gzip, bzip2 or xz; or gensim (KeyedVectors.save), a pickle, which is opened
        only when it is asked for by name.
    """
    return vectorfiles.read(path, format)


def matrix(vectors, names: list[str], dtype: str) -> np.ndarray:
    """[len(names), d]: zeros, filled with the vector of each name that `vectors` holds as one
    token.

    Names are lower-cased, as the reader lower-cases the text. A name of several words is no token,
    so its row stays zero; so does the row of a name rarer than min_count. That is how the zero rows
    of the question arise.
    """
    rows = np.zeros((len(names), vectors.vector_size), dtype=dtype)
    for row, name in zip(rows, names, strict=True):
        token = name.lower()
        if token and token in vectors.key_to_index:
            row[:] = vectors[token]
    return rows


def zero_rows(rows: np.ndarray) -> np.ndarray:
    """bool [n]: which rows of [n, d] are exactly zero."""
    return np.logical_not(np.any(rows, axis=1))


def digest(rows: np.ndarray) -> str:
    """SHA-256 of a matrix [n, d] as a model starts from it, in float32: two runs with the same one
    had the same."""
    with np.errstate(over="ignore"):  # float64 rows that float32 has no room for are inf there
        cast = np.ascontiguousarray(rows, dtype="<f4")
    return hashlib.sha256(str(cast.shape).encode() + cast.tobytes()).hexdigest()


def _norms(rows: np.ndarray) -> np.ndarray:
    """float [n], in the rows' own precision, and in float64 where a square leaves its range."""
    with np.errstate(over="ignore", under="ignore"):
        norms = np.linalg.norm(rows, axis=1)
        odd = ~((norms > PRECISE[0]) & (norms < PRECISE[1]))
        norms[odd] = np.linalg.norm(rows[odd].astype(np.float64), axis=1)
    return norms


def normalised(rows: np.ndarray) -> np.ndarray:
    """Rows divided by their norm; zero rows stay zero."""
    norms = _norms(rows)[:, np.newaxis]
    return rows / np.where(norms > 0, norms, 1).astype(rows.dtype)


def float32(rows: np.ndarray) -> np.ndarray:
    """As the model has them. What float32 cannot hold becomes 0 or infinite: `classes` says of
    which rows."""
    with np.errstate(over="ignore", under="ignore"):
        return rows.astype(np.float32)


def rescaled(rows: np.ndarray, norm: float) -> np.ndarray:
    """The matrix times one factor, so that its non-zero rows have this mean norm."""
    norms = _norms(rows)
    mean = norms[norms > 0].mean() if (norms > 0).any() else 1.0
    return (rows * (norm / mean)).astype(rows.dtype)


def uniform(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> np.ndarray:
    """float32 `shape`, uniform in [-scale, scale]."""
    return rng.uniform(-scale, scale, size=shape).astype(np.float32)


def _noise(titles, zero, words, words_of, rng):
    """A random direction, with the norm of a random other row."""
    norms = _norms(titles[~zero])
    directions = rng.standard_normal((zero.sum(), titles.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * rng.choice(norms, size=(zero.sum(), 1))


def _mean(titles, zero, words, words_of, rng):
    """The mean of the rows that are not zero."""
    return np.broadcast_to(titles[~zero].mean(axis=0), (zero.sum(), titles.shape[1]))


def _title_words(titles, zero, words, words_of, rng):
    """The mean of the vectors of the title's words; noise where none of them has one."""
    rows = _noise(titles, zero, words, words_of, rng)
    for row, title in zip(rows, np.flatnonzero(zero), strict=True):
        known = [words[word] for word in words_of[title] if words[word].any()]
        if known:
            row[:] = np.mean(known, axis=0)
    return rows


REPAIRS = {"noise": _noise, "mean": _mean, "title_words": _title_words}


class Named(Protocol):
    """What a corpus, or a moment of a run, calls its words and titles."""

    @property
    def vocabulary(self) -> Sequence[str]: ...

    @property
    def titles(self) -> Sequence[str]: ...


def repaired(
    rule: str, titles: np.ndarray, words: np.ndarray, corpus: Named, rng: np.random.Generator
) -> np.ndarray:
    """`titles` [n, d] with its zero rows filled by a rule of REPAIRS: noise, mean or title_words.

    Raises VectorsError if the rule is unknown, or if every row is zero and there is nothing to go
    by.
    """
    if rule not in REPAIRS:
        raise VectorsError(f"init.repair={rule} is unknown: use one of {', '.join(REPAIRS)}.")
    zero = zero_rows(titles)
    if zero.all():
        raise VectorsError(
            f"Every title row is zero, so init.repair={rule} has no row to go by: lower"
            " vectors.source.min_count, or use init=uniform."
        )
    ids = {word: number for number, word in enumerate(corpus.vocabulary)}
    words_of = [
        [ids[word] for word in title.lower().split() if word in ids] for title in corpus.titles
    ]
    filled = titles.copy()
    filled[zero] = REPAIRS[rule](titles, zero, words, words_of, rng)
    return filled


def with_zero_share(
    titles: np.ndarray, share: float, rng: np.random.Generator, norm: float = 0.0
) -> np.ndarray:
    """`titles` [n, d] with exactly round(share * n) zero rows, or rows of that norm.

    All zero rows are filled with noise first; then the rows to be zero are the first of a random
    order, so that with the same `rng` a larger share contains the smaller one. With a norm they
    keep their directions.
    """
    zero = zero_rows(titles)
    if zero.all():
        raise VectorsError(
            "Every title row is zero, so vectors.zero_share has no row to fill the others by."
        )
    planted = titles.copy()
    order = rng.permutation(len(titles))
    planted[zero] = _noise(titles, zero, None, None, rng)
    chosen = order[: round(share * len(titles))]
    planted[chosen] = normalised(planted[chosen].astype(np.float64)) * norm
    return planted


def with_zero_words(words: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """`words` [n, d] with round(share * n) rows of a random order set to zero, besides those that
    are."""
    planted = words.copy()
    planted[rng.permutation(len(words))[: round(share * len(words))]] = 0
    return planted


CLASSES = ("zero", "small", "large", "non-finite")


def classes(rows: np.ndarray) -> np.ndarray:
    """Of each row of [n, d], one of CLASSES: by whether its norm is 0, below 1, at least 1, or not
    finite.

    Of a float32 matrix, as the model has it: what is small or large in float64 may be 0 or infinite
    there.
    """
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    return np.select(
        [~np.isfinite(norms), norms == 0, norms < 1], ["non-finite", "zero", "small"], "large"
    )


def audit(rows: np.ndarray, dtype: str) -> dict:
    """Shape, zero rows, non-finite values, smallest, median and largest norm of the non-zero rows
    of a matrix [n, d].

    dtype: of the matrix before it was cast to the model's float32.
    """
    zero = zero_rows(rows)
    finite = np.isfinite(rows).all(axis=1)
    norms = np.linalg.norm(rows[finite & ~zero].astype(np.float64), axis=1)
    return {
        "rows": len(rows),
        "dim": rows.shape[1],
        "dtype": dtype,
        "zero_rows": int(zero.sum()),
        "nonfinite_values": int((~np.isfinite(rows)).sum()),
        "smallest_norm": float(norms.min()) if len(norms) else None,
        "median_norm": float(np.median(norms)) if len(norms) else None,
        "largest_norm": float(norms.max()) if len(norms) else None,
    }
