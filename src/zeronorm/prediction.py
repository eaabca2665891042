"""The step at which a run will die, from the batch order and one probe of the similarity's gradient: before training.

Three facts make it exact (README, "Why it happens"):

1. The first batch that touches a zero title row makes that row NaN, if the similarity's gradient there is not finite.
   An inactive hinge does not help: it sends 0, and 0 * inf is NaN as well.
2. The first later batch that touches one of those rows again has a NaN similarity, and its gradient reaches z and with
   it every weight of the encoder.
3. A text whose words are all zero rows gives z = 0 as long as the biases are zero, that is in step 0 only; then the
   encoder itself stands at the singular point.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from zeronorm import singularity
from zeronorm.examples import Batch, Examples
from zeronorm.numerics import Numerics


@dataclass(frozen=True)
class Touch:
    """Steps, 0-based, or None where it does not come to pass in this training.

    first: the first batch that holds a zero title row, as positive or negative. again: the first batch after it that
    holds a title which was touched as a zero row before. zero_text: 0 if a text of the first batch has only zero rows.
    titles: ids of the zero titles in the first such batch.
    """

    first: int | None
    again: int | None
    zero_text: int | None
    titles: tuple[int, ...]


@dataclass(frozen=True)
class Probe:
    """Whether the similarity's gradients are finite, as the step's own numerics computes them.

    zero_title: d/d title where the title row is zero. text_of_zero_title: d/dz there. zero_text: d/dz where z is zero.
    """

    zero_title: bool
    text_of_zero_title: bool
    zero_text: bool


@dataclass(frozen=True)
class Prediction:
    """Steps, 0-based, of the first NaN in the title rows and in the encoder's weights; None where there will be none.

    titles: named in `touch`, they die first.
    """

    titles: int | None
    encoder: int | None

    @property
    def first(self) -> int | None:
        return min((step for step in (self.titles, self.encoder) if step is not None), default=None)


def touches(batches: Iterable[Batch], zero_titles: np.ndarray, zero_words: np.ndarray) -> Touch:
    """Reads the batch order. zero_titles: bool [titles]; zero_words: bool [words], the rows that are exactly zero."""
    first, touched, zero_text = None, np.zeros_like(zero_titles), None
    ids_of_first: tuple[int, ...] = ()
    for batch in batches:
        if batch.step == 0 and zero_words[batch.text].all(axis=1).any():
            zero_text = 0
        ids = np.unique(np.concatenate([batch.positive.ravel(), batch.negatives.ravel()]))
        if touched[ids].any():
            return Touch(first, batch.step, zero_text, ids_of_first)
        hit = ids[zero_titles[ids]]
        if first is None and len(hit):
            first, ids_of_first = batch.step, tuple(hit.tolist())
        touched[hit] = True
    return Touch(first, None, zero_text, ids_of_first)


def probe(similarity: Callable, numerics: Numerics) -> Probe:
    """Takes the gradient of `similarity` (of two float32 tensors [..., d]) at a zero row, compiled as the step is, for
    incoming gradients of 1 and of 0."""
    row, zero = [[1.0, 2.0]], [[0.0, 0.0]]
    taken = singularity.gradients(similarity, numerics)

    def finite(a, b, side):
        return all(np.isfinite(taken(a, b, upstream)[side]).all() for upstream in (0.0, 1.0))

    return Probe(
        zero_title=finite(row, zero, 1), text_of_zero_title=finite(row, zero, 0), zero_text=finite(zero, row, 0)
    )


def predict(touch: Touch, probe: Probe, trainable_titles: bool) -> Prediction:
    """Combines what the batch order holds with what the gradient does there."""
    titles = touch.first if trainable_titles and not probe.zero_title else None
    encoder = [
        None if probe.text_of_zero_title else touch.first,
        None if titles is None else touch.again,
        None if probe.zero_text else touch.zero_text,
    ]
    return Prediction(titles, min((step for step in encoder if step is not None), default=None))


@dataclass(frozen=True)
class Chance:
    """Of touching a zero title row, from the share of zero titles alone, before any negative is drawn.

    batch: probability that the first batch touches one. ever: that any does. first: the expected step, 0-based, of the
    first that does, given that one does; None where none can.
    """

    batch: float
    ever: float
    first: float | None


def chance(examples: Examples, zero_titles: np.ndarray, batch: int) -> Chance:
    """Over the random order and the random negatives of `examples`, whose right titles are given.

    With k of n titles zero, an example whose right title is not zero is clean with q = ((n - 1 - k) / (n - 1)) ^
    negatives; m batches of b examples, drawn without replacement from N of which N' have such a title, are all clean
    with S(m) = C(N', mb) / C(N, mb) * q ^ (mb). Later epochs repeat the first, so they touch nothing new.
    zero_titles: bool [titles].
    """
    count, others, k = len(examples), len(zero_titles) - 1, int(zero_titles.sum())
    good = int((~zero_titles[examples.positive[:, 0]]).sum())
    clean = max(others - k, 0) / others if others else 1.0
    sizes = np.minimum(np.arange(1, -(-count // batch) + 1) * batch, count)  # examples seen after each batch
    each = np.where(np.arange(count) < good, (good - np.arange(count)) / (count - np.arange(count)), 0)
    survival = (np.cumprod(each) * clean ** (examples.negatives.shape[1] * np.arange(1, count + 1)))[sizes - 1]
    ever = 1 - survival[-1]
    first = float(((survival - survival[-1]) / ever).sum()) if ever > 0 else None
    return Chance(batch=float(1 - survival[0]), ever=float(ever), first=first)
