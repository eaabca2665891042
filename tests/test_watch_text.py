"""What the callback says of itself, and what it prints last."""

import keras
import pytest

import cases
import zeronorm


def fitted(watch: zeronorm.Autopsy, case: cases.Case, **changes):
    model, arguments = case.make()
    if "x" not in changes:
        changes = {**arguments, "batch_size": 8} | changes
    return model.fit(**{"epochs": 2, "shuffle": False} | changes, callbacks=[watch])


DYING = next(case for case in cases.BUGS if case.name == "rmse_of_an_exact_prediction")


def batches():
    """The same training from a generator, whose length nobody knows."""
    _, arguments = DYING.make()
    for at in range(0, len(arguments["x"]), 8):
        yield arguments["x"][at : at + 8], arguments["y"][at : at + 8]


@pytest.mark.parametrize(
    "changes, of",
    [({}, 2), ({"initial_epoch": 1}, 1), ({"epochs": 3}, 3), ({"x": None}, None)],
    ids=["whole", "resumed", "longer", "of unknown length"],
)
def test_where_it_stopped_is_said_last(capsys, changes, of):
    watch = zeronorm.Autopsy()
    assert repr(watch) == "Autopsy(has watched nothing yet)"
    changes = changes | ({"x": batches()} if "x" in changes else {})
    fitted(watch, DYING, verbose=1, **changes)
    _, arguments = DYING.make()
    each = -(-len(arguments["x"]) // 8)
    step = f"step {watch.report.step}" + (f" of {each * of}" if of else "")
    *_, last = capsys.readouterr().out.strip().splitlines()
    assert last == f"Stopped in {step}; the last finite weights are back in the model."
    assert repr(watch).startswith(f"Autopsy(stopped in {step}: SqrtGrad")
    assert f"<p>Autopsy: stopped in {step}</p>" in watch._repr_html_()


@pytest.mark.parametrize("then, verbose", [("go_on", 1), ("stop", 0)])
def test_nothing_is_said_to_have_stopped_that_did_not_or_was_not_to_be_told(capsys, then, verbose):
    watch = zeronorm.Autopsy(then=then, verbose=verbose)
    fitted(watch, DYING, verbose=0)
    out = capsys.readouterr().out
    assert "Stopped" not in out and bool(out) == bool(verbose)
    assert ("trained on after step" if then == "go_on" else "stopped in step") in repr(watch)


def test_a_healthy_training_is_told_in_a_line():
    watch, seen = zeronorm.Autopsy(), []
    during = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(repr(watch)))
    model, arguments = DYING.make()
    model.compile("sgd", "mse")
    model.fit(**arguments, batch_size=8, verbose=0, callbacks=[watch, during])
    steps = -(-len(arguments["x"]) // 8)
    assert seen == [f"Autopsy(watches {steps} steps of {steps}, nothing found)"]
    assert repr(watch) == f"Autopsy(watched {steps} steps of {steps}, nothing found)"
