"""What the scripts of this folder share: a run taken step by step."""

from collections.abc import Iterable, Iterator

import numpy as np

from zeronorm import config as schema
from zeronorm import preparation, recorder, training
from zeronorm.examples import Batch

SMALL = ["examples=20", "model.filters=4"]
PARTS = {  # what is measured together: what a layer's output scales with
    "titles": ("titles",),
    "words": ("words",),
    "convolution": ("convolution/kernel", "convolution/bias"),
    "dense": ("dense/kernel", "dense/bias"),
}


def prepared(*overrides: str) -> preparation.Prepared:
    """A run of `zeronorm train` with these overrides, before its first step."""
    config = schema.composed(*overrides)
    schema.validate(config)
    return preparation.prepare(config)


def steps(
    run: preparation.Prepared, batches: Iterable[Batch], recording: recorder.Recording
) -> Iterator[Batch]:
    """Trains on the batches, one step at a time, and yields each after its step."""
    for batch in batches:
        training.train(run.program, [batch], recording)
        yield batch


def touched(batch: Batch) -> np.ndarray:
    """int [titles that the batch holds, as right ones or as negatives], each once."""
    return np.unique(np.concatenate([batch.positive, batch.negatives], axis=1))


def weight(run: preparation.Prepared, part: str) -> np.ndarray:
    """float64: the weights of one of PARTS, end to end."""
    variables = run.program.ranker.weights
    return np.concatenate(
        [np.asarray(variables[name], dtype=np.float64).ravel() for name in PARTS[part]]
    )
