"""One step of a run, taken again with every placement of epsilon and with every repair of the zero
rows.

Only the similarities and the loss see the placement. So they alone are compiled anew for each,
under the run's own numerics; the encoder before them and the update after them are TensorFlow's
kernels in every case.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import keras
import numpy as np
import tensorflow as tf

from zeronorm import model, recorder
from zeronorm.autopsy.subject import Snapshot, nonfinite
from zeronorm.examples import Batch
from zeronorm.numerics import Numerics
from zeronorm.training import Program


@dataclass(frozen=True)
class Treatment:
    """What became of a step.

    similarity: the placement;
    repair: the rule for zero title rows, or none.

    finite: whether no weight was poisoned.
    gradient: the norm of the whole gradient.
    loss, loss_after: of the batch, before and after the update, under the same dropout. The last
        three are None where they are not finite.
    """

    similarity: str
    repair: str | None
    finite: bool
    gradient: float | None
    loss: float | None
    loss_after: float | None


def tried(
    program: Program,
    batch: Batch,
    placements: Mapping[str, Callable],
    own: str,
    repaired: Mapping[str, np.ndarray],
) -> list[Treatment]:
    """The step with each placement and the rows as they are, then with the placement `own` and each
    repair. The state of the program, from which the step is taken, is as before afterwards.

    placements: {name: function of (a, b, numerics), bound to its epsilon}.
    repaired: {rule: titles [n, d] by it}.
    """
    titles = program.ranker.weights["titles"]
    variants: list[tuple[str, str | None, np.ndarray]] = [
        (name, None, titles.numpy()) for name in placements
    ]
    variants += [(own, rule, rows) for rule, rows in repaired.items()]
    held, found = Snapshot([variable.value for variable in program.state]), []
    for name, rule, rows in variants:
        titles.assign(rows)
        try:
            found.append(
                Treatment(name, rule, *_taken(program, batch, _head(program, placements[name])))
            )
        finally:
            held.restore()
    return found


def _taken(
    program: Program, batch: Batch, head: Callable
) -> tuple[bool, float | None, float | None, float | None]:
    text, ids = (
        tf.constant(batch.text),
        tf.constant(np.concatenate([batch.positive, batch.negatives], axis=1)),
    )
    states = program.ranker.random_state
    encode, update = _encoder(program)
    titles, held = (
        program.ranker.weights["titles"].value,
        [tf.identity(state.value) for state in states],
    )

    def same_dropout():
        for state, value in zip(states, held, strict=True):
            state.assign(value)

    def loss():
        same_dropout()
        return head(encode(text), tf.gather(titles, ids), ids)

    before, *gradients = loss()
    same_dropout()
    norm = update(text, ids, *gradients)
    floats = (v.value for v in program.state if tf.as_dtype(v.dtype).is_floating)
    finite = not nonfinite({str(number): variable for number, variable in enumerate(floats)})
    gradient, first, after = (
        float(x) if np.isfinite(x) else None for x in (norm, before, loss()[0])
    )
    return finite, gradient, first, after


def _head(program: Program, placement: Callable) -> Callable:
    """(z [batch, d], rows [batch, 1 + k, d], ids [batch, 1 + k]) -> loss, d/dz, d/drows, as the run
    computes it."""
    layers, optimizer = program.ranker.model.layers, program.optimizer
    used = program.ranker.loss
    loss = _hinge(used.margin, used.maximum) if isinstance(used, model.MaxMargin) else used
    mask = next((layer for layer in layers if isinstance(layer, model.Present)), None)
    keeps = type(optimizer).scale_loss is keras.optimizers.Optimizer.scale_loss
    scale = None if keeps and not optimizer.loss_scale_factor else optimizer.scale_loss
    return _compiled_head(program.numerics, placement, loss, mask, scale)


@lru_cache(maxsize=8)
def _hinge(margin: float, maximum: Callable) -> model.MaxMargin:
    """One for all programs, so that what is compiled of it serves them all."""
    return model.MaxMargin(margin, maximum)


# what is compiled serves the programs of all placements: most have no mask and no scale
@lru_cache(maxsize=64)
def _compiled_head(
    numerics: Numerics,
    placement: Callable,
    of_each: keras.layers.Layer,
    mask: model.Present | None,
    scale: Callable | None,
) -> Callable:
    similarity = model.Similarity(lambda a, b: placement(a, b, numerics))

    @tf.function(jit_compile=numerics.jit_compile, autograph=False)
    def head(z, rows, ids):
        masks = [mask(ids)] if mask else []
        with tf.GradientTape() as tape:
            tape.watch([z, rows])
            loss = tf.reduce_mean(of_each(similarity(z, rows[:, :1], rows[:, 1:]), *masks))
            scaled = scale(loss) if scale else loss  # as the step does
        return loss, *tape.gradient(scaled, [z, rows])

    return head


@lru_cache(maxsize=16)
def _encoder(program: Program) -> tuple[Callable, Callable]:
    """(text -> z with dropout; text, ids, d/dz, d/drows -> the gradient's norm, after the
    update)."""
    ranker, optimizer = program.ranker, program.optimizer
    weights = {name: ranker.weights[name] for name in program.trained}

    @tf.function(autograph=False)
    def encode(text):
        return ranker.encoder(text, training=True)

    @tf.function(autograph=False)
    def update(text, ids, to_z, to_rows):
        with tf.GradientTape() as tape:
            z = ranker.encoder(text, training=True)
        found = tape.gradient(
            z, [variable.value for variable in weights.values()], output_gradients=to_z
        )
        gradients = dict(zip(weights, found, strict=True))
        if "titles" in weights:
            rows, names = tf.reshape(to_rows, [-1, to_rows.shape[-1]]), tf.reshape(ids, [-1])
            if gradients["titles"] is not None:  # of rows that the text reads too
                rows = tf.concat([rows, gradients["titles"].values], axis=0)
                names = tf.concat([names, gradients["titles"].indices], axis=0)
            shape = tf.constant(list(weights["titles"].shape))
            gradients["titles"] = tf.IndexedSlices(rows, names, shape)
        optimizer.apply([gradients[name] for name in weights], list(weights.values()))
        each = [
            recorder.summed(g) if isinstance(g, tf.IndexedSlices) else g for g in gradients.values()
        ]
        return tf.sqrt(tf.add_n([recorder.squares(g) for g in each]))

    return encode, update
