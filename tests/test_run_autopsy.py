"""The autopsy of this project's own runs: it names what NUMERICS says killed them, and what cures
the step."""

import json
from dataclasses import replace

import numpy as np
import pytest

from zeronorm import experiment, preparation, run_autopsy, similarity
from zeronorm.autopsy import capsule
from zeronorm.preparation import prepare
from zeronorm.result import Result

pytestmark = pytest.mark.slow  # whole examinations

SMALL = ("training=smoke", "examples=40", "model.filters=16")
# under every numerics: epsilon inside the root, or no root
SAFE = {"add_to_squares", "clamp_squares", "double_where"}


@pytest.fixture(scope="module")
def moment(composed):
    return {
        name: run_autopsy.reached(prepare(composed(f"numerics={name}", *SMALL)))
        for name in ("kernels", "xla", "tf1")
    }


@pytest.fixture(scope="module")
def report(moment):
    return {name: run_autopsy.examine(of) for name, of in moment.items()}


@pytest.mark.parametrize("name", ["kernels", "xla", "tf1"])
def test_names_the_root_its_line_and_every_pair_with_a_zero_title(report, moment, name):
    """The oracle: the ids of the batch against the zero rows of the matrix."""
    found, batch = report[name], moment[name].batch
    assert (found.step, found.birth, found.own) == (0, "gradient", name)
    assert found.fails == {"kernels": False, "xla": True, "tf1": True}
    assert (found.harmful, found.kernels, found.xla) == (name != "kernels", False, True)
    assert len(found.guilty) == 2
    for guilty in found.guilty:
        assert (guilty.op_type, guilty.forward_op_type, guilty.function) == (
            "SqrtGrad",
            "Sqrt",
            "clamp_product",
        )
        assert guilty.file == similarity.__file__ and "numerics.sqrt(_square(b))" in guilty.text
    titles = next(value for value in moment[name].state if value.shape == (106, 100))
    zero = ~titles.any(axis=1)
    for guilty, places, ids in zip(
        found.guilty, found.places, (batch.positive, batch.negatives), strict=True
    ):
        assert guilty.count == zero[ids].sum()
        assert guilty.examples == tuple(np.flatnonzero(zero[ids].any(axis=1)))
        expected = np.argwhere(zero[ids])[: len(places)]
        assert [(place["example"], place["row"]) for place in places] == [
            (e, ids[e, n]) for e, n in expected
        ]
        assert all(place["zero_row"] for place in places)
    assert {place["role"] for place in found.places[0]} == {"the right title"}
    assert found.places[1][0]["role"] == f"negative {np.argwhere(zero[batch.negatives])[0][1]}"
    assert found.guilty[0].rows["titles"] == sorted({place["row"] for place in found.places[0]})


def test_the_text_says_who_disagrees(report):
    assert "Step 0 is finite as it was trained. Under XLA it would" in str(report["kernels"])
    assert "XLA: fails (as trained)" in str(report["xla"])
    assert "TensorFlow to 1.13, emulated: fails (as trained)" in str(report["tf1"])
    assert report["kernels"].headline.startswith(
        "Finite under kernels; elsewhere guilty of step 0: SqrtGrad"
    )
    assert max(len(line) for line in str(report["xla"]).splitlines() if ".py:" not in line) <= 80


@pytest.mark.parametrize("name", ["xla", "tf1"])
def test_treatments_are_finite_where_the_rule_says_so(report, name):
    """Of the placements, those without an infinite derivative in the chain; of the repairs all. A
    placement that sends a zero row nothing lowers the loss less than one that moves it."""
    by = {(one.similarity, one.repair): one for one in report[name].treated}
    assert {s for (s, repair), one in by.items() if repair is None and one.finite} == SAFE
    assert all(one.finite for (_, repair), one in by.items() if repair)
    assert len(by) == 11 + 3
    still, moves = by["double_where", None], by["add_to_squares", None]
    assert still.loss == pytest.approx(moves.loss, rel=1e-4)
    assert moves.loss_after < still.loss_after < still.loss
    assert by["clamp_squares", None].gradient > 100 * moves.gradient > 1000 * still.gradient


def test_the_cure_at_the_guilty_operations_is_proved_and_folk_remedies_fail(report):
    for name in ("xla", "tf1"):
        rule, *folk = report[name].cures
        assert rule.finite and rule.write == "tf.sqrt(x + 1e-05)" and not rule.folk
        assert folk and all(cure.folk and cure.finite is False for cure in folk)


def test_a_capsule_holds_the_moment(moment, report, tmp_path):
    found = run_autopsy.examine(
        run_autopsy.of_capsule(capsule.load(moment["tf1"].capsule().save(tmp_path / "s.npz")))
    )
    assert replace(found, history=()) == replace(report["tf1"], history=())


def test_a_later_step_is_reached_as_the_run_reached_it(composed, tmp_path):
    """The state before step 5 is that of a run which was stopped after it; its history are that
    run's curves."""
    config = composed("numerics=kernels", *SMALL)
    result = Result(tmp_path)
    experiment.run(prepare(config), result)
    moment = run_autopsy.reached(prepare(config), 5)
    assert moment.batch.step == 5 and [entry["step"] for entry in moment.history] == [0, 1, 2, 3, 4]
    for entry in moment.history:
        assert entry["train/loss"] == pytest.approx(
            result.curves["train/loss"][entry["step"]], rel=1e-5
        )
    with pytest.raises(preparation.ExperimentError, match="has no step 8: it has 8"):
        run_autopsy.reached(prepare(config), 8)


def test_what_a_run_gets(composed, tmp_path):
    config, result = composed("numerics=xla", *SMALL), Result(tmp_path)
    experiment.run(prepare(config), result)
    run_autopsy.add(prepare(config), result)
    assert (
        "Guilty of step 0: SqrtGrad (Sqrt's gradient) of clamp_product, similarity.py:"
        in result.story
    )
    assert (
        result.tags["guilty.operation"] == "SqrtGrad" and result.tags["autopsy.fails"] == "xla, tf1"
    )
    written = json.loads((tmp_path / "autopsy.json").read_text(), parse_constant=pytest.fail)
    assert written["guilty"][0]["forward_op_type"] == "Sqrt" and written["treated"][0]["similarity"]
    assert (tmp_path / "autopsy.md").read_text().count("example 3, the right title") <= 1
    assert result.autopsy.splitlines()[0].startswith(
        "Step 0 made values of these variables non-finite: titles"
    )


def test_an_autopsy_that_fails_does_not_cost_the_run(composed, tmp_path, monkeypatch, caplog):
    config, result = composed("numerics=xla", *SMALL), Result(tmp_path)
    experiment.run(prepare(config), result)
    monkeypatch.setattr(run_autopsy, "examine", lambda moment: 1 / 0)
    run_autopsy.add(prepare(config), result)
    assert result.tags["autopsy"] == "failed: ZeroDivisionError" and result.outcome == "nan"
    assert "the run is whole" in caplog.text
