"""Per-step measurements, made inside the compiled step, and the NaN events that follow from them.

`measure` is part of the step's graph: it adds reductions over tensors the step has anyway. `Recording` lives on the
host and receives the measurements of many steps at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import tensorflow as tf

from zeronorm.examples import Batch

KINDS = ("nan", "+inf", "-inf")
FORWARD = ("z", "similarity", "loss")
EMBEDDINGS = ("words", "titles")


def norm(x):
    """Euclidean norm of a tensor or of an IndexedSlices whose repeated rows are summed first. float32 [].

    Non-finite if any element is, and above 1.8e19, where the square of a float32 overflows.
    """
    x = summed(x) if isinstance(x, tf.IndexedSlices) else x
    return tf.sqrt(2.0 * tf.nn.l2_loss(x))


def summed(slices: tf.IndexedSlices):
    """The rows of an embedding's gradient, rows of the same id added up: float32 [n, d], unused rows zero.

    slices.indices: int [n]; slices.values: float32 [n, d]. All shapes are static, so that XLA can compile it, and no
    tensor of the embedding's size is made.
    """
    order = tf.argsort(slices.indices)
    ids = tf.gather(slices.indices, order)
    segment = tf.concat([[0], tf.cumsum(tf.cast(ids[1:] != ids[:-1], tf.int32))], axis=0)
    return tf.math.unsorted_segment_sum(tf.gather(slices.values, order), segment, num_segments=slices.values.shape[0])


def count_nonfinite(x):
    """int32 [3]: how many elements are NaN, +inf and -inf. Infinities are told apart only where there are any."""
    x = summed(x) if isinstance(x, tf.IndexedSlices) else x

    def count(mask):
        return tf.reduce_sum(tf.cast(mask, tf.int32))

    bad, nan = count(~tf.math.is_finite(x)), count(tf.math.is_nan(x))
    plus = tf.cond(bad > nan, lambda: count(x == np.inf), lambda: 0)
    return tf.stack([nan, plus, bad - nan - plus])


def nonfinite_rows(values, ids):
    """ids int32 [n] where the row of values [n, d] has a non-finite element, -1 elsewhere."""
    finite = tf.reduce_all(tf.math.is_finite(values), axis=1)
    return tf.where(finite, -1, tf.cast(ids, tf.int32))


def measure(forward: dict, gradients: dict, before: dict, after: dict) -> dict:
    """The measurements of one step.

    forward: {name in FORWARD: tensor}. gradients, before, after: {name of a trained weight: gradient, value before the
    update, value after it}; the gradient of an embedding is an IndexedSlices.

    Returns {"loss": float32 [], "norm", "norm/grad", "norm/update": float32 [weights], "nonfinite": int32 [forward + 3
    weights, 3], "rows/gradient/<embedding>", "rows/weight/<embedding>": int32 [touched rows], -1 where finite}. The
    counts are taken only in a step with something non-finite; a finite norm proves that there is nothing to count.
    """
    updates = {name: after[name] - before[name] for name in gradients}
    phases = (forward, gradients, updates, {name: after[name] for name in gradients})
    tensors = [tensor for phase in phases for tensor in phase.values()]
    norms = [norm(tensor) for tensor in tensors]
    of_weights = tf.reshape(tf.stack(norms[len(forward) :]), [3, len(gradients)])
    touched = {
        name: gradients[name]
        for name in EMBEDDINGS
        if name in gradients and isinstance(gradients[name], tf.IndexedSlices)
    }

    def details():
        counts = [
            tf.cond(tf.math.is_finite(n), lambda: tf.zeros([3], tf.int32), partial(count_nonfinite, tensor))
            for n, tensor in zip(norms, tensors, strict=True)
        ]
        rows = {}
        for name, slices in touched.items():
            rows[f"rows/gradient/{name}"] = nonfinite_rows(slices.values, slices.indices)
            rows[f"rows/weight/{name}"] = nonfinite_rows(tf.gather(after[name], slices.indices), slices.indices)
        return {"nonfinite": tf.stack(counts), **rows}

    def nothing():
        rows = {}
        for name, slices in touched.items():
            none = tf.fill([slices.values.shape[0]], -1)
            rows |= {f"rows/gradient/{name}": none, f"rows/weight/{name}": none}
        return {"nonfinite": tf.zeros([len(tensors), 3], tf.int32), **rows}

    return {
        "loss": tf.reduce_mean(forward["loss"]),
        "norm/grad": of_weights[0],
        "norm/update": of_weights[1],
        "norm": of_weights[2],
        **tf.cond(tf.reduce_all(tf.math.is_finite(tf.stack(norms))), nothing, details),
    }


@dataclass(frozen=True)
class NanEvent:
    """A tensor that was finite until this step and no longer is.

    step: 0-based over the training; epoch, batch: 0-based. phase: forward, gradient, update or weight (the value after
    the update). kind: nan, +inf or -inf. count: how many elements. rows, names: of an embedding, the ids of the rows
    hit in this step and what they stand for; of any other tensor, empty.
    """

    step: int
    epoch: int
    batch: int
    phase: str
    tensor: str
    kind: str
    count: int
    rows: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


class Recording:
    """The measurements of a whole training.

    trained: names of the trained weights, in the order of `measure`. names: {embedding: what each row stands for}.

    After the training: `curves`, {path: float64 [steps]} with NaN where the measured value was not finite; `events`,
    the NanEvents in the order they happened; `deaths`, {embedding: {row id: step in which it became non-finite}}.
    """

    def __init__(self, trained: Sequence[str], names: dict[str, list[str]]):
        self.trained, self.names = list(trained), names
        self.tensors = [("forward", name) for name in FORWARD]
        self.tensors += [(phase, name) for phase in ("gradient", "update", "weight") for name in self.trained]
        self.events: list[NanEvent] = []
        self.deaths: dict[str, dict[int, int]] = {name: {} for name in EMBEDDINGS if name in self.trained}
        self.steps = 0
        self._seen: set[tuple[str, str, str]] = set()
        self._columns: dict[str, list[np.ndarray]] = {}

    def add(self, batches: Sequence[Batch], measured: Sequence[dict]) -> None:
        """Takes the measurements of consecutive steps, as numpy arrays, beside the batches they belong to."""
        if not batches:
            return
        self._extend("train/loss", [m["loss"] for m in measured])
        counts = np.stack([m["nonfinite"] for m in measured])  # [steps, tensors, kinds]
        for kind in ("norm", "norm/grad", "norm/update"):
            for column, name in enumerate(self.trained):
                self._extend(f"{kind}/{name}", [m[kind][column] for m in measured])
        for name in self.trained:
            row = self.tensors.index(("weight", name))
            self._extend(f"nonfinite/{name}", counts[:, row].sum(axis=1))
        for batch, m, count in zip(batches, measured, counts, strict=True):
            if count.any():
                self._note(batch, m, count)
        self.steps += len(batches)

    def _extend(self, path: str, values) -> None:
        values = np.asarray(values, dtype=np.float64)
        self._columns.setdefault(path, []).append(np.where(np.isfinite(values), values, np.nan))

    def _note(self, batch: Batch, measured: dict, count: np.ndarray) -> None:
        for (phase, name), kinds in zip(self.tensors, count, strict=True):
            ids: list[int] = []
            if phase in ("gradient", "weight") and f"rows/{phase}/{name}" in measured:
                ids = sorted({int(row) for row in measured[f"rows/{phase}/{name}"] if row >= 0})
            if phase == "weight" and name in self.deaths:
                for row in ids:
                    self.deaths[name].setdefault(row, batch.step)
            for kind, number in zip(KINDS, kinds, strict=True):
                if number and (phase, name, kind) not in self._seen:
                    self._seen.add((phase, name, kind))
                    named = [self.names[name][row] for row in ids] if ids else []
                    self.events.append(
                        NanEvent(batch.step, batch.epoch, batch.batch, phase, name, kind, int(number), ids, named)
                    )

    @property
    def curves(self) -> dict[str, np.ndarray]:
        return {path: np.concatenate(columns) for path, columns in self._columns.items()}

    def first_nan(self, *weights: str) -> NanEvent | None:
        """The first event in which a weight became non-finite: any weight, or one of those named."""
        return next((e for e in self.events if e.phase == "weight" and (not weights or e.tensor in weights)), None)
