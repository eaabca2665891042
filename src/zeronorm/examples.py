"""Examples -> batches, reproducible from a seed: the order that the prediction reads and the
training follows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zeronorm.corpus import Corpus


@dataclass(frozen=True)
class Examples:
    """text: int32 [n, window];
    positive: int32 [n, 1];
    negatives: int32 [n, k], title ids; with k = 0 a batch's are the other right titles of it."""

    text: np.ndarray
    positive: np.ndarray
    negatives: np.ndarray

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True)
class Batch:
    """One step's examples. `step` counts from 0 over the whole training, `batch` within its
    `epoch`."""

    step: int
    epoch: int
    batch: int
    text: np.ndarray
    positive: np.ndarray
    negatives: np.ndarray


def draw(
    corpus: Corpus, count: int | None, negatives: int, seed: int, left_out: np.ndarray | None = None
) -> Examples:
    """The first `count` train examples in a random order that the corpus alone decides (so that
    every seed trains on the same part of the data), each with `negatives` other titles, drawn
    uniformly once per example, as the question passed them to fit; with negatives = 0 none.

    left_out: bool [titles], titles that none of the `count` examples may hold, as right title or as
        negative; examples whose right title is one are dropped.

    Raises ValueError if the train split has fewer than `count`, or if fewer than two titles are
    left.
    """
    order = np.random.default_rng(0).permutation(corpus.train)
    if count is not None and count > len(order):
        raise ValueError(
            f"examples={count} is more than the {len(order)} examples of the train split: use"
            " fewer."
        )
    order = order[:count]
    kept = np.arange(len(corpus.titles)) if left_out is None else np.flatnonzero(~left_out)
    if len(kept) < 2:
        raise ValueError(
            f"training.zero_titles=left_out leaves {len(kept)} of {len(corpus.titles)} titles: no"
            " negatives."
        )
    order = order[np.isin(corpus.title[order], kept)]
    if not len(order):
        raise ValueError(
            "training.zero_titles=left_out leaves no example: every right title is a zero row."
        )
    positive = corpus.title[order][:, None]
    # a draw from the other titles that are kept: the places from the right title's on move up by
    # one
    places = np.random.default_rng(seed).integers(0, len(kept) - 1, size=(len(order), negatives))
    places += places >= np.searchsorted(kept, positive)
    return Examples(corpus.text[order], positive, kept[places].astype(np.int32))


def batches(
    examples: Examples, epochs: int, batch: int, shuffle: bool, seed: int
) -> Iterator[Batch]:
    """The batches of every epoch, each epoch in a new order if `shuffle`; the last batch of an
    epoch may be smaller."""
    rng = np.random.default_rng(seed)
    step = 0
    for epoch in range(epochs):
        order = rng.permutation(len(examples)) if shuffle else np.arange(len(examples))
        for number, start in enumerate(range(0, len(order), batch)):
            chosen = order[start : start + batch]
            positive, negatives = examples.positive[chosen], examples.negatives[chosen]
            yield Batch(
                step,
                epoch,
                number,
                examples.text[chosen],
                positive,
                negatives if negatives.shape[1] else in_batch(positive),
            )
            step += 1


def in_batch(positive: np.ndarray) -> np.ndarray:
    """int32 [batch, batch - 1]: for each example the right titles, int32 [batch, 1], of the others,
    from the next one on."""
    size = len(positive)
    others = (np.arange(size)[:, None] + np.arange(1, size)) % size
    return positive[others, 0]


def steps_per_epoch(count: int, batch: int) -> int:
    return -(-count // batch)
