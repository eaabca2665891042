"""How small or large a title row must be to kill: the prediction against trainings, from 1e-45 to
1e38."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from omegaconf import OmegaConf

from zeronorm import (
    checkout,
    contents,
    examples,
    model,
    numerics,
    optimizers,
    preparation,
    training,
)

pytestmark = pytest.mark.slow  # a graph and a search for each placement

PLACEMENTS = sorted(path.stem for path in (checkout.conf_dir() / "similarity").glob("*.yaml"))
DECADES = [float(f"1e{k}") for k in range(-45, 39)]
# every third decade under each numerics, the others between them: all, between the three
STAGGERED = {name: DECADES[first::3] for first, name in enumerate(numerics.BY_NAME)}
ROW, BATCH, NEGATIVES = 5, 3, 2


def prepared(tiny, composed, placement, used, optimizer=None, steps=3, **overrides):
    """A run on the tiny corpus whose title ROW is looked up in steps 0 and 2 only."""
    built, words, titles = tiny
    rng = np.random.default_rng(3)
    others = [n for n in range(12) if n != ROW]
    ids = rng.permuted(np.tile(others, (steps * BATCH, 1)), axis=1)[:, : 1 + NEGATIVES]
    ids[1, 2] = ids[2 * BATCH, 0] = ROW
    drawn = examples.Examples(
        built.text[: len(ids)], ids[:, :1].astype(np.int32), ids[:, 1:].astype(np.int32)
    )
    options = [f"{name}={value}" for name, value in overrides.items()]
    batch = (f"training.batch={BATCH}", f"training.negatives={NEGATIVES}", "training.shuffle=false")
    config = composed(f"similarity={placement}", "training.epochs=1", *batch, *options)
    node = OmegaConf.to_container(config.similarity)
    function = contents.resolved(node["function"])
    bound = partial(function, epsilon=node["epsilon"]) if node.get("epsilon") else function
    ranker = model.build(
        n_words=len(words),
        n_titles=12,
        dim=8,
        window=20,
        negatives=NEGATIVES,
        filters=16,
        width=3,
        dropout=0.2,
        margin=config.training.margin,
        trainable_words=True,
        trainable_titles=True,
        similarity=bound,
        numerics=used,
    )
    program = training.program(ranker, optimizer or optimizers.Adam(), used)
    data = preparation.Data(built, words, titles, {})
    return preparation.Prepared(config, data, words, np.abs(titles) + 0.1, drawn, program)


def observed(run):
    recording = run.start()
    training.train(run.program, run.order(), recording)
    seen = recording.first_nan("titles"), recording.first_nan("convolution/kernel", "dense/kernel")
    return tuple(event and event.step for event in seen)


def with_norm(run, norm):
    """The same with the row's norm set, as near as float32 has it."""
    titles = run.titles.copy()
    row = titles[ROW].astype(np.float64)
    titles[ROW] = (row / np.linalg.norm(row) * norm).astype(np.float32)
    return replace(run, titles=titles)


@pytest.mark.parametrize("used", numerics.BY_NAME.values(), ids=numerics.BY_NAME)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_predicted_is_observed_for_a_row_of_any_norm(tiny, composed, placement, used):
    run = prepared(tiny, composed, placement, used)

    def both(norm):
        here = with_norm(run, norm)
        said = here.foretell().predicted
        return (said.titles, said.encoder), observed(here)

    found = {norm: both(norm) for norm in (0.0, *STAGGERED[used.name])}
    edges = [pair for pair in pairwise(STAGGERED[used.name]) if found[pair[0]] != found[pair[1]]]
    for below, above in edges:  # down to a quarter of a decade on either side of where it changes
        while above / below > 10**0.3:
            middle = np.sqrt(below * above)
            found[middle] = both(middle)
            below, above = (middle, above) if found[middle] == found[below] else (below, middle)
    assert {norm: pair for norm, pair in found.items() if pair[0] != pair[1]} == {}
