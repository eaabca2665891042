"""What the scripts of this folder share: the command line, a run taken step by step, the JSON."""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from zeronorm import config as schema
from zeronorm import preparation, provenance, recorder, training
from zeronorm.examples import Batch

HERE = Path(__file__).parent
PROVENANCE = provenance.tags()  # of the code that is about to be measured
SMALL = ["examples=20", "model.filters=4"]
PARTS = {  # what is measured together: what a layer's output scales with
    "titles": ("titles",),
    "words": ("words",),
    "convolution": ("convolution/kernel", "convolution/bias"),
    "dense": ("dense/kernel", "dense/bias"),
}


def arguments(description: str) -> argparse.Namespace:
    """What a script's command line says: small, and to, the folder its JSON goes to, this one
    unless given.

    small: a size at which the script is done in seconds, so that a test can run it. Its numbers
    measure nothing, so it may not write them here.
    """
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help="where the JSON goes; default: beside the script"
    )
    parser.add_argument(
        "--small", action="store_true", help="a size that runs in seconds; needs --to"
    )
    given = parser.parse_args()
    if given.small and given.to is None:
        parser.error("--small measures nothing: say with --to FOLDER where its JSON goes")
    if given.to is not None and not given.to.is_dir():
        parser.error(f"--to {given.to} is no folder")
    given.to = given.to or HERE
    return given


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


def write(folder: Path, name: str, rows: list[dict], **more) -> None:
    """<name>.json in `folder`, with date, commit, versions and hardware; prints the rows."""
    content = {"rows": rows, **more, **PROVENANCE}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    for row in rows:
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()))
