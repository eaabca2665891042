"""Measurements inside the step, against NumPy over whole arrays; events and their rows."""

import numpy as np
import pytest
import tensorflow as tf

from test_training import OnWholeTables, build, order_of, recorded
from zeronorm import numerics, optimizers, recorder, training
from zeronorm.examples import Batch


@pytest.mark.parametrize("jit_compile", [False, True])
def test_counts_tell_nan_and_the_infinities_apart(jit_compile):
    x = tf.constant([[1.0, np.nan, np.inf], [-np.inf, np.inf, np.nan], [np.nan, 0.0, np.inf]])
    count = tf.function(recorder.count_nonfinite, jit_compile=jit_compile)
    assert count(x).numpy().tolist() == [3, 3, 1]
    assert count(tf.zeros([4])).numpy().tolist() == [0, 0, 0]
    assert count(tf.constant([np.nan, 1.0])).numpy().tolist() == [1, 0, 0]


@pytest.mark.parametrize("used", numerics.BY_NAME.values(), ids=numerics.BY_NAME)
def test_norms_are_those_of_the_weights(tiny, used):
    titles = np.abs(tiny[2]) + 0.1
    program, recording, _, _ = recorded((*tiny[:2], titles), used)
    before, earlier, _, _ = recorded((*tiny[:2], titles), used, steps=23)
    for name, variable in program.ranker.weights.items():
        after = variable.numpy().astype(np.float64)
        np.testing.assert_allclose(
            recording.curves[f"norm/{name}"][-1], np.linalg.norm(after), rtol=1e-5
        )
        update = np.linalg.norm(after - before.ranker.weights[name].numpy())
        np.testing.assert_allclose(recording.curves[f"norm/update/{name}"][-1], update, rtol=1e-3)
        np.testing.assert_array_equal(
            recording.curves[f"norm/{name}"][:23], earlier.curves[f"norm/{name}"]
        )
        assert not recording.curves[f"nonfinite/{name}"].any()
    assert recording.events == []


def test_events_name_the_rows_and_the_order_is_the_mechanism(tiny):
    program, recording, order, _ = recorded(tiny, numerics.XLA)
    first, second = recording.events[0], recording.first_nan("convolution/kernel")
    touched = sorted(set(order[0].positive.ravel()) | set(order[0].negatives.ravel()))
    dead = [int(row) for row in touched if row % 3 == 0]
    assert (first.step, first.phase, first.tensor, first.kind) == (0, "gradient", "titles", "nan")
    assert (
        first.rows == dead
        and first.names == [f"Title {row}" for row in dead]
        and first.count == 8 * len(dead)
    )
    assert second.step == 1 and (second.epoch, second.batch) == (0, 1)
    assert [
        e.phase
        for e in recording.events
        if e.step == 1 and e.tensor in ("similarity", "dense/kernel")
    ] == [
        "forward",
        "gradient",
        "update",
        "weight",
    ]
    seen = {(e.phase, e.tensor, e.kind) for e in recording.events}
    assert len(seen) == len(recording.events)  # an event is an onset, not every later step

    titles = program.ranker.weights["titles"].numpy()
    assert recording.curves["nonfinite/titles"][-1] == np.isnan(titles).sum()
    assert set(recording.deaths["titles"]) == set(
        np.flatnonzero(np.isnan(titles).any(axis=1)).tolist()
    )
    assert {row for row, step in recording.deaths["titles"].items() if step == 0} == set(dead)


@pytest.mark.parametrize("used", numerics.BY_NAME.values(), ids=numerics.BY_NAME)
def test_a_weight_watched_by_rows_is_measured_as_the_whole_weight_is(tiny, used):
    """Adam by rows that are brought up to date when they are named, and Adam on whole tables: the
    same curves, counts and events, NaN included."""
    _, by_rows, _, _ = recorded(tiny, used, optimizer=optimizers.Adam())
    _, whole, _, _ = recorded(tiny, used, optimizer=OnWholeTables())
    assert by_rows.events == whole.events and by_rows.deaths == whole.deaths
    for name, curve in whole.curves.items():
        np.testing.assert_allclose(by_rows.curves[name], curve, rtol=1e-4, atol=1e-6)


def test_a_table_that_is_not_finite_from_the_start_is_an_event_of_the_first_step(tiny):
    """Also where it is watched by rows, and no step names the row."""
    _, words, titles = tiny
    words = np.concatenate([words, np.full((1, 8), np.inf), np.full((1, 8), np.nan)])
    names = {"words": [str(row) for row in range(len(words))], "titles": tiny[0].titles}
    batches = order_of(tiny, 4)
    for stop in (False, True):
        program = training.program(
            build(numerics.KERNELS, words, titles, rows_only=True),
            optimizers.Adam(),
            numerics.KERNELS,
        )
        assert program.tables
        program.reset(words, titles, seed=7)
        recording = program.recording(names)
        stops = [("weight", "words")] if stop else ()
        training.train(program, batches, recording, stops)
        first = [(e.step, e.kind, e.count) for e in recording.events if e.tensor == "words"][:2]
        assert first == [(batches[0].step, "nan", 8), (batches[0].step, "+inf", 8)]
        assert recording.curves["nonfinite/words"][0] == 16
        assert np.isnan(recording.curves["norm/words"]).all()
        assert recording.steps == (1 if stop else len(batches))


def test_curves_hold_gaps_where_the_value_was_not_finite():
    recording = recorder.Recording(["dense/bias"], {})
    batch = Batch(0, 0, 0, *(np.zeros((1, 1), np.int32),) * 3)
    measured = {
        "loss": np.array([np.inf]),
        "squares": np.array([[1.0, 1.0, np.inf, 1.0, 4.0, np.nan]]),
        "growth": np.array([[0.0]]),
        "nonfinite": np.array([[[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [2, 0, 0]]]),
    }
    recording.add([batch], measured)
    assert np.isnan(recording.curves["train/loss"][0]) and np.isnan(
        recording.curves["norm/dense/bias"][0]
    )
    assert (
        recording.curves["norm/grad/dense/bias"][0] == 1
        and recording.curves["norm/update/dense/bias"][0] == 2
    )
    assert recording.curves["nonfinite/dense/bias"][0] == 2
    assert [(e.phase, e.tensor, e.kind, e.count) for e in recording.events] == [
        ("forward", "loss", "+inf", 1),
        ("weight", "dense/bias", "nan", 2),
    ]
