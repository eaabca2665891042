"""What a Reading says, held against runs: each relation, where it holds and where it does not."""

import dataclasses
import re
from datetime import date

import numpy as np
import pandas as pd
import pytest
import yaml

from zeronorm.report import conclusions, ranks
from zeronorm.report.conclusions import Conclusion

TITLES = np.repeat([f"t{n}" for n in range(60)], 4)


@pytest.fixture(scope="module")
def study():
    """(runs, their ranks): two placements, one of which dies under xla, at two norms; `good` has
    twice the hits of `poor`."""
    rng = np.random.default_rng(0)
    luck, rows, tables = rng.random(len(TITLES)), [], []
    for name, share in (("good", 0.6), ("poor", 0.3)):
        for numerics in ("kernels", "xla"):
            for norm in ("0.1", "1.0", ""):
                dead = name == "poor" and numerics == "xla"
                rows.append((name, numerics, norm, 0, "nan" if dead else "finite"))
                hit = luck < share - (0.02 if norm == "1.0" else 0)
                rank = np.zeros(len(TITLES), int) if dead else np.where(hit, 1, 30)
                tables.append(pd.DataFrame({"title": TITLES, "zero": 0, "rank": rank}))
    runs = pd.DataFrame(rows, columns=["similarity", "numerics", "init.norm", "seed", "outcome"])
    return runs, ranks.gather([" ".join(map(str, row[:3])) for row in rows], runs["seed"], tables)


def judged(study, **options):
    runs, ranked = study
    options.setdefault("says", "It is so.")
    [found] = conclusions.judge([Conclusion(**options)], runs, runs, ranked)
    return found


KERNELS = {"numerics": "kernels"}
GOOD, POOR = {"similarity": "good"}, {"similarity": ["poor"]}
COMPARED = {"among": KERNELS, "metric": "hits_at_1"}


@pytest.mark.parametrize(
    "holds, options",
    [
        (True, {"relation": "greater", "left": GOOD, "right": POOR}),
        (True, {"relation": "greater", "left": GOOD, "right": POOR, "margin": 0.15}),
        (False, {"relation": "greater", "left": GOOD, "right": POOR, "margin": 0.3}),
        (False, {"relation": "greater", "left": POOR, "right": GOOD}),
        (False, {"relation": "greater", "left": GOOD, "right": GOOD}),
        (True, {"relation": "greater", "left": GOOD, "right": POOR, "each": "init.norm"}),
        (True, {"relation": "within", "left": GOOD, "right": POOR, "margin": 0.5}),
        (False, {"relation": "within", "left": GOOD, "right": POOR, "margin": 0.3}),
        (False, {"relation": "within", "left": POOR, "right": GOOD, "margin": 0.3}),
        (True, {"relation": "not_separable", "left": GOOD, "right": GOOD}),
        (False, {"relation": "not_separable", "left": GOOD, "right": POOR}),
        (False, {"relation": "not_separable", "left": POOR, "right": GOOD}),
    ],
)
def test_a_comparison(study, holds, options):
    found = judged(study, **COMPARED, **options)
    assert found.holds is holds and found.found.startswith("hits@1 ")


def test_each_shows_the_part_that_comes_nearest_to_failing(study):
    """Where the norm is 1 the good one is 2 points worse."""
    part = {**COMPARED, "among": {**KERNELS, "init.norm": [1, None]}, "each": ["init.norm"]}
    said = judged(study, relation="greater", left=GOOD, right=POOR, margin=0.1, **part)
    assert said.holds and re.search(r"; the closest of 2, norm=(1.0|unset)$", said.found)
    with pytest.raises(ValueError, match="no run on one side"):
        right = {"similarity": "poor", "init.norm": 0.1}
        judged(study, relation="greater", left=GOOD, right=right, each="init.norm", **COMPARED)


@pytest.mark.parametrize(
    "holds, options",
    [
        (True, {"relation": "nan", "left": {**POOR, "numerics": "xla"}}),
        (True, {"relation": "nan", "left": {**POOR, "numerics": "xla"}, "elsewhere": "finite"}),
        (False, {"relation": "nan", "left": POOR}),
        (True, {"relation": "finite", "left": GOOD}),
        (False, {"relation": "finite", "left": GOOD, "elsewhere": "nan"}),
        (False, {"relation": "finite", "left": {}}),
    ],
)
def test_an_outcome(study, holds, options):
    assert judged(study, **options).holds is holds


def test_a_number_and_nothing_are_told_apart(study):
    for norm, runs in ((0.1, 2), (1, 2), (None, 2), ([0.1, None], 4)):
        found = judged(study, relation="finite", left={**GOOD, "init.norm": norm})
        assert found.found == f"finite in {runs} of {runs} runs"


def test_what_cannot_be_computed_is_said_and_is_no_failure(study):
    runs, ranked = study
    compared = Conclusion("It is so.", "greater", GOOD, POOR, KERNELS, (), "mrr")
    [without] = conclusions.judge([compared], runs, runs, None)
    part = runs[runs["init.norm"] == "0.1"]
    [narrowed] = conclusions.judge([compared], runs, part, ranked.take(part.index.to_numpy()))
    for found, why in ((without, "the report has no ranks"), (narrowed, "not all of its runs")):
        assert found.holds is None and why in found.found


@pytest.mark.parametrize(
    "text, why",
    [
        ("{}", "it is no list"),
        ("- says: [", "it is no YAML"),
        ("- says: x", "number 1 needs says, relation and left"),
        ("- {says: x, relation: finite, left: {}, other: 1}", "number 1 needs"),
        ("- {says: x, relation: better, left: {}}", "the relation better"),
        ("- {says: x, relation: greater, left: {}, metric: mrr}", "no right side"),
        ("- {says: x, relation: greater, left: {}, right: {a: 1}, metric: f1}", "no known metric"),
        ("- {says: x, relation: nan, left: {}, elsewhere: dead}", "has dead elsewhere"),
        ("- {says: x, relation: nan, left: {}, margin: .inf}", "margin is no number: inf"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(tmp_path, text, why):
    path = tmp_path / "conclusions.yaml"
    assert conclusions.load(path) == []
    path.write_text(text)
    with pytest.raises(ValueError, match=why):
        conclusions.load(path)


VALUES = {"text": "x", "number": 0.5, "truth": True, "list": [1], "texts": ["x"], "map": {"a": 1}}
RIGHT = {"each": ("text", "texts"), "margin": ("number",)}
RIGHT |= dict.fromkeys(("left", "right", "among"), ("map",))


@pytest.mark.parametrize("key", conclusions.KINDS)
@pytest.mark.parametrize("kind", [*VALUES, "nothing", "date"])
def test_a_value_of_another_kind_is_one_sentence(tmp_path, key, kind):
    value = {**VALUES, "nothing": None, "date": date(2026, 1, 1)}[kind]
    entry = {"says": "x", "relation": "finite", "left": {}, key: value}
    path = tmp_path / "conclusions.yaml"
    path.write_text(yaml.safe_dump([entry]))
    if kind in RIGHT.get(key, ()) or (kind == "text" and key in ("says", "metric")):
        assert getattr(conclusions.load(path)[0], key) == value
    else:
        with pytest.raises(ValueError, match=f"number 1.*({key} is no |relation x|x elsewhere)"):
            conclusions.load(path)


def test_bytes_that_are_no_text_are_one_sentence(tmp_path):
    path = tmp_path / "conclusions.yaml"
    for content in (b"\xff\xfe- says: x", b"[" * 5000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="it is no YAML"):
            conclusions.load(path)


@pytest.mark.parametrize("value", [date(2026, 1, 1), {"a": 1}, [], [[1]], [{}], "", 1e400])
def test_a_selector_of_another_kind_selects_nothing(study, value):
    with pytest.raises(ValueError, match="selects a condition that no run has"):
        judged(study, relation="finite", left={"similarity": value})


def test_a_part_that_no_text_decides_does_not_hold(study):
    """Of the rows that started at zero there is none at a norm of 1, whichever part is looked at
    first."""
    runs, ranked = study
    zero = np.repeat((runs["init.norm"] != "1.0").to_numpy()[:, None], len(ranked.titles), axis=1)
    with_zeros = (runs, dataclasses.replace(ranked, zero=zero))
    for norms in ([0.1, 1], [1, 0.1], [1, None]):
        found = judged(
            with_zeros,
            relation="greater",
            metric="zero_hits_at_1",
            among={**KERNELS, "init.norm": norms},
            left=GOOD,
            right=POOR,
            each="init.norm",
        )
        assert found.holds is False and found.found.endswith("norm=1.0")


@pytest.mark.parametrize("left", [{"similarity": "other"}, {"similarities": "good"}])
def test_a_selector_of_nothing_is_a_mistake(study, left):
    with pytest.raises(ValueError, match=r"selects a condition that no run has|is no factor"):
        judged(study, relation="finite", left=left)


def test_each_names_a_factor(study):
    with pytest.raises(ValueError, match="norms is no factor"):
        judged(study, relation="greater", left=GOOD, right=POOR, each=["norms"], **COMPARED)


def test_the_table_says_what_holds(study):
    runs, ranked = study
    good = Conclusion("Good is better.", "greater", GOOD, POOR, KERNELS, (), "mrr")
    bad = Conclusion("Poor is better.", "greater", POOR, GOOD, KERNELS, (), "mrr")
    text = conclusions.markdown(conclusions.judge([good, bad], runs, runs, ranked))
    assert "| Good is better. | MRR +." in text and text.count("| yes |") == 1
    assert "| Poor is better. | MRR -." in text and text.count("| **no** |") == 1
