"""A reproduction fails on a real regression: of the training, of the evaluation, of the split."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from zeronorm import config as schema
from zeronorm import experiment, preparation, ranking
from zeronorm.report import committed, noise, reproduction
from zeronorm.result import Result

pytestmark = pytest.mark.slow  # whole runs

SMALL = ("training=quick", "examples=2000", "model.filters=100", "numerics=kernels")
CONDITIONS = (("trainable=true", "init=pretrained"), ("trainable=false", "init=pretrained"))


@pytest.fixture(scope="module")
def made(composed, tmp_path_factory):
    """made("rounding=1") -> the runs of a study of two conditions, as read from a runs.csv."""

    def make(*overrides):
        children = []
        for place, condition in enumerate(CONDITIONS):
            config = composed(*condition, *SMALL, *overrides)
            result = Result(tmp_path_factory.mktemp("run"))
            experiment.run(preparation.prepare(config), result)
            child = {"run_id": f"run {place}", "status": "FINISHED", "seconds": 1.0}
            child |= {f"params.{key}": str(own) for key, own in schema.flatten(config).items()}
            child |= {f"tags.{key}": own for key, own in (result.tags | result.facts).items()}
            child |= {f"metrics.{key}": own for key, own in result.metrics.items()}
            children.append(child | {"tags.config.sha": schema.identity(config)})
        runs = committed.as_read(pd.DataFrame(children), "small", [])
        return reproduction.Runs(runs, [name for name, _ in committed.keys(runs)])

    return make


@pytest.fixture(scope="module")
def report(made):
    """(the report, what to expect of another making of it)."""
    values = []
    for repeat in (1, 2, 3):
        runs = made(f"rounding={repeat}")
        values.append(noise.measured(runs.table, runs.conditions))
        values[-1].insert(0, "repeat", repeat)
    own, first = pd.concat(values), made()
    measured = noise.measured(first.table, first.conditions)
    return first, noise.spread(own.assign(**{noise.PROCESSOR: "this"}), measured, "this", False)


def failed(report, found):
    cells = reproduction.compare(report[0], found, report[1])
    return set(cells["kind"][cells["verdict"] == "FAIL"])


def test_the_same_program_passes(report, made):
    assert failed(report, made("rounding=5")) == set()


@pytest.mark.parametrize("override", ["model.dropout=0.5", "optimizer.keras.learning_rate=0.0008"])
def test_another_training_fails(report, made, override):
    assert reproduction.NORMS in failed(report, made("rounding=5", override))


def test_a_tie_that_counts_for_the_target_fails(report, made, monkeypatch):
    """All zero rows that are frozen score alike."""

    def kindly(scores, target):
        own = np.take_along_axis(scores, target[:, None], axis=1)
        return 1 + (scores > own).sum(axis=1)

    monkeypatch.setattr(ranking, "ranks", kindly)
    assert {reproduction.QUALITY, reproduction.MEANS} <= failed(report, made("rounding=5"))


def test_a_split_that_is_moved_by_a_window_fails(report, made, monkeypatch):
    load = preparation.load

    def moved(config):
        data = load(config)
        corpus, n = data.corpus, len(data.corpus.title)
        splits = {
            name: np.sort((getattr(corpus, name) + 1) % n)
            for name in ("train", "validation", "test")
        }
        return replace(data, corpus=replace(corpus, **splits))

    monkeypatch.setattr(preparation, "load", moved)
    assert failed(report, made("rounding=5"))
