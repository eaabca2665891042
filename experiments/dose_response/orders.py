"""When does a batch first touch a zero title? Thousands of batch orders of the study dose_response,
which cost nothing, since no order depends on the training.

python experiments/dose_response/orders.py [--small --to FOLDER]
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from zeronorm import config as schema
from zeronorm import examples, prediction, preparation, provenance, vectors

HERE = Path(__file__).parent
PROVENANCE = provenance.tags()
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
COUNT, BATCH = 200, 1  # the study's
ORDERS, SMALL = 3000, 10


def first_touch(drawn: examples.Examples, zero: np.ndarray, seed: int) -> int | None:
    """The step of the first batch that holds a zero title, of one epoch."""
    for batch in examples.batches(drawn, 1, BATCH, shuffle=True, seed=seed):
        if zero[batch.positive].any() or zero[batch.negatives].any():
            return batch.step
    return None


def measured(share: float, orders: int) -> dict:
    """A row: how often the first batch touches, and the mean step of the first that does, over the
    orders that have one, beside what `prediction.chance` says."""
    config = schema.composed(f"vectors.zero_share={share}", f"examples={COUNT}")
    data = preparation.load(config)
    zero = vectors.zero_rows(data.titles)
    steps = []
    for seed in range(orders):
        drawn = examples.draw(data.corpus, COUNT, config.training.negatives, seed)
        steps.append(first_touch(drawn, zero, seed))
    expected = prediction.chance(drawn, zero, BATCH)
    found = np.array([step for step in steps if step is not None])
    return {
        "share": share,
        "zero": int(zero.sum()),
        "orders": orders,
        "touched": float(np.mean(np.array(steps) == 0)),
        "touched_expected": expected.batch,
        "first": float(found.mean()),
        "first_expected": expected.first,
        "latest": int(found.max()),
    }


def main(small: bool, to: Path) -> None:
    rows = [measured(share, SMALL if small else ORDERS) for share in SHARES]
    content = {"rows": rows, **PROVENANCE}
    (to / "orders.json").write_text(json.dumps(content, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    """small, and to, the folder orders.json goes to, this one unless given."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where orders.json goes")
    parser.add_argument("--small", action="store_true", help="ten orders; needs --to")
    given = parser.parse_args()
    if given.small and given.to is None:
        parser.error("--small measures nothing: say with --to FOLDER where its JSON goes")
    given.to = given.to or HERE
    return given


if __name__ == "__main__":
    main(**vars(arguments()))
