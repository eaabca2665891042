"""Per-step measurements, made inside the compiled step, and the NaN events that follow from them.

`measure` is part of the step's graph: it adds reductions over tensors the step has anyway.
`Recording` lives on the host and receives the measurements of many steps at once.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from zeronorm.examples import Batch

KINDS = ("nan", "+inf", "-inf")
FORWARD = ("z", "similarity", "loss")
EMBEDDINGS = ("words", "titles")


@dataclass(frozen=True)
class Drift:
    """What an update did to the rows of an embedding that the step does not name.

    growth: float64 [], by how much their sum of squares has grown;
    squares: float64 [], the sum of squares of their updates.
    """

    growth: tf.Tensor
    squares: tf.Tensor


@dataclass(frozen=True)
class Change:
    """What an update did to a weight, or, with `ids`, to those of its rows that the step names.

    before, after: float32, the weight; or, with ids, float32 [rows, d].
    ids: int [rows], each once.
    drift: with ids, of the other rows.
    """

    before: tf.Tensor
    after: tf.Tensor
    ids: tf.Tensor | None = None
    drift: Drift | None = None

    def growth(self):
        """float64 []: by how much the sum of squares of an embedding has grown; 0 of a whole
        weight, whose own is measured."""
        if self.drift is None:
            return tf.constant(0.0, tf.float64)
        after, before = (tf.cast(rows, tf.float64) for rows in (self.after, self.before))
        return tf.reduce_sum(after * after - before * before) + self.drift.growth

    def squares(self):
        """float32 []: the sum of squares of the update."""
        named = tf.reduce_sum(tf.math.squared_difference(self.after, self.before))
        return named if self.drift is None else named + tf.cast(self.drift.squares, tf.float32)

    def nonfinite(self):
        """int32 [3], as `count_nonfinite`: of the whole weight, or what its rows have gained."""
        count = count_nonfinite(self.after)
        return count if self.ids is None else count - count_nonfinite(self.before)

    def nonfinite_rows(self, named):
        """int32 [named]: the ids of rows that are not finite after the update, -1 elsewhere.

        named: int [named], the ids that the step names, some perhaps more than once.
        """
        if self.ids is None:
            return nonfinite_rows(tf.gather(self.after, named), named)
        dead = nonfinite_rows(self.after, self.ids)
        dead = tf.pad(dead, [[0, named.shape[0] - tf.size(dead)]], constant_values=-1)
        return tf.ensure_shape(dead, named.shape)


class Watch:
    """Reads a weight before an update, at construction, and after it, by `change`."""

    def __init__(self, variable: tf.Variable):
        self.variable, self.before = variable, variable.read_value()

    def change(self) -> Change:
        return Change(self.before, self.variable.read_value())


def summed(slices: tf.IndexedSlices):
    """The rows of an embedding's gradient, those of one id summed: float32 [distinct ids, d]."""
    ids, position = tf.unique(slices.indices)
    return tf.math.unsorted_segment_sum(slices.values, position, tf.size(ids))


def squares(x):
    """Sum of the squares of a tensor, float32 []. Non-finite if any element is, and above
    3.4e38."""
    return 2.0 * tf.nn.l2_loss(x)


def count_nonfinite(x):
    """int32 [3]: how many elements are NaN, +inf and -inf."""
    masks = (tf.math.is_nan(x), x == np.inf, x == -np.inf)
    return tf.stack([tf.reduce_sum(tf.cast(mask, tf.int32)) for mask in masks])


def nonfinite_rows(values, ids):
    """ids int32 [n] where the row of values [n, d] has a non-finite element, -1 elsewhere."""
    finite = tf.reduce_all(tf.math.is_finite(values), axis=1)
    return tf.where(finite, -1, tf.cast(ids, tf.int32))


def measure(forward: dict, gradients: dict, changes: dict[str, Change]) -> dict:
    """The measurements of one step.

    forward: {name in FORWARD: tensor}.
    gradients, changes: {name of a trained weight: its gradient, its Change}; the gradient of an
        embedding is an IndexedSlices.

    Returns {"loss": float32 []; "squares": float32 [forward + 3 weights], the sums of squares of
    the forward tensors, the gradients, the updates, and the weights after them; "growth": float64
    [weights], by how much a weight's sum of squares has grown, where only its rows were watched
    ("squares" then holds these rows' alone), else 0; "nonfinite": int32 [forward + 3 weights, 3],
    of a weight watched by rows the growth; "rows/gradient/<embedding>", "rows/weight/<embedding>":
    int32 [touched rows], -1 where finite}. The counts are taken only in a step with something
    non-finite: a finite sum of squares proves that there is nothing to count.
    """
    slices = {name: g for name, g in gradients.items() if isinstance(g, tf.IndexedSlices)}
    of_gradients = [summed(g) if name in slices else g for name, g in gradients.items()]
    of_changes = list(changes.values())

    sums = [squares(tensor) for tensor in (*forward.values(), *of_gradients)]
    sums += [change.squares() for change in of_changes]
    sums = tf.stack(sums + [squares(c.after) for c in of_changes])
    finite = tf.math.is_finite(sums)

    def details():
        # of each tensor, without a branch of its own: tracing one costs more than a count saves
        counts = [count_nonfinite(tensor) for tensor in (*forward.values(), *of_gradients)]
        counts += [count_nonfinite(c.after - c.before) for c in of_changes]
        counts += [c.nonfinite() for c in of_changes]
        rows: dict[str, tf.Tensor] = {}
        for name, g in slices.items():
            rows[f"rows/gradient/{name}"] = nonfinite_rows(g.values, g.indices)
            rows[f"rows/weight/{name}"] = changes[name].nonfinite_rows(g.indices)
        return {"nonfinite": tf.stack(counts), **rows}

    def nothing():
        rows: dict[str, tf.Tensor] = {}
        for name, g in slices.items():
            none = tf.fill([g.values.shape[0]], -1)
            rows |= {f"rows/gradient/{name}": none, f"rows/weight/{name}": none}
        return {"nonfinite": tf.zeros([*finite.shape, 3], tf.int32), **rows}

    return {
        "loss": tf.reduce_mean(forward["loss"]),
        "squares": sums,
        "growth": tf.stack([c.growth() for c in of_changes]),
        **tf.cond(tf.reduce_all(finite), nothing, details),
    }


@dataclass(frozen=True)
class Start:
    """A weight before the first step.

    squares: the sum of its squares.
    nonfinite: int [3], how many elements are NaN, +inf and -inf.
    """

    squares: float
    nonfinite: np.ndarray

    @staticmethod
    def of(weight: np.ndarray) -> "Start":
        squares = float(np.sum(np.square(weight, dtype=np.float64)))
        return Start(squares, count_nonfinite(tf.constant(weight)).numpy())


@dataclass(frozen=True)
class NanEvent:
    """A tensor that was finite until this step and no longer is.

    step: 0-based over the training;
    epoch, batch: 0-based.
    phase: forward, gradient, update or weight (the value after the update).
    kind: nan, +inf or -inf.
    count: how many elements.
    rows, names: of an embedding, the ids of the rows hit in this step and what they stand for; of
        any other tensor, empty.
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

    trained: names of the trained weights, in the order of `measure`.
    names: {embedding: what each row stands for}.
    in_rows: {weight watched by rows: what it is before the first step}.

    After the training: `curves`, {path: float64 [steps]} with NaN where the measured value was not
    finite; `events`, the NanEvents in the order they happened; `deaths`, {embedding: {row id: step
    in which it became non-finite}}.
    """

    def __init__(
        self,
        trained: Sequence[str],
        names: dict[str, list[str]],
        in_rows: dict[str, Start] | None = None,
    ):
        self.trained, self.names = list(trained), names
        self._start = dict(in_rows or {})
        self._squares = {name: start.squares for name, start in self._start.items()}
        self._nonfinite = dict.fromkeys(self._start, 0)
        self.tensors = [("forward", name) for name in FORWARD]
        self.tensors += [
            (phase, name) for phase in ("gradient", "update", "weight") for name in self.trained
        ]
        self.events: list[NanEvent] = []
        self.deaths: dict[str, dict[int, int]] = {
            name: {} for name in EMBEDDINGS if name in self.trained
        }
        self.steps = 0
        self._seen: set[tuple[str, str, str]] = set()
        self._columns: dict[str, list[np.ndarray]] = {}

    def is_lost(self, tensors: Container[tuple[str, str]]) -> bool:
        """Whether one of these, each (phase, name), is a weight that was not finite from the
        start."""
        return any(
            ("weight", name) in tensors and start.nonfinite.any()
            for name, start in self._start.items()
        )

    def add(self, batches: Sequence[Batch], measured: dict[str, np.ndarray]) -> None:
        """Takes the measurements of consecutive steps, [steps, ...] each, beside the batches they
        belong to."""
        self._extend("train/loss", measured["loss"])
        counts = measured["nonfinite"].copy()  # [steps, tensors, kinds]
        if self.steps == 0 and len(batches):
            for name, start in self._start.items():
                counts[0, self.tensors.index(("weight", name))] += start.nonfinite
        of = {tensor: measured["squares"][:, column] for column, tensor in enumerate(self.tensors)}
        for column, name in enumerate(self.trained):
            squares = of["weight", name]
            nonfinite = counts[:, self.tensors.index(("weight", name))].sum(axis=1)
            if name in self._squares:
                squares = self._squares[name] + measured["growth"][:, column].cumsum()
                nonfinite = self._nonfinite[name] + nonfinite.cumsum()
                self._squares[name], self._nonfinite[name] = squares[-1], nonfinite[-1]
            self._extend(f"norm/{name}", np.sqrt(squares))
            self._extend(f"norm/grad/{name}", np.sqrt(of["gradient", name]))
            self._extend(f"norm/update/{name}", np.sqrt(of["update", name]))
            self._extend(f"nonfinite/{name}", nonfinite)
        for position in np.flatnonzero(counts.any(axis=(1, 2))).tolist():
            self._note(
                batches[position],
                {name: value[position] for name, value in measured.items()}
                | {"nonfinite": counts[position]},
            )
        self.steps += len(batches)

    def _extend(self, path: str, values) -> None:
        values = np.asarray(values, dtype=np.float64)
        self._columns.setdefault(path, []).append(np.where(np.isfinite(values), values, np.nan))

    def _note(self, batch: Batch, measured: dict[str, np.ndarray]) -> None:
        for (phase, name), kinds in zip(self.tensors, measured["nonfinite"], strict=True):
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
                        NanEvent(
                            batch.step,
                            batch.epoch,
                            batch.batch,
                            phase,
                            name,
                            kind,
                            int(number),
                            ids,
                            named,
                        )
                    )

    @property
    def curves(self) -> dict[str, np.ndarray]:
        return {path: np.concatenate(columns) for path, columns in self._columns.items()}

    def first_nan(self, *weights: str) -> NanEvent | None:
        """The first event in which a weight became non-finite: any weight, or one of those
        named."""
        return next(
            (
                e
                for e in self.events
                if e.phase == "weight" and (not weights or e.tensor in weights)
            ),
            None,
        )
