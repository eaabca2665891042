"""Do the expected step of the first touch, and its chance, hold over thousands of batch orders?

python experiments/prediction/orders.py [--small --to FOLDER]

Each order is drawn as a run of another seed draws it: examples, negatives, and the first epoch.
Nothing is trained.
"""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.progress import track
from scipy import stats

from zeronorm import config as schema
from zeronorm import examples, prediction, preparation, vectors
from zeronorm.report import script

ORDERS, SMALL, BATCHES = 3000, 20, (1, 10)
COUNT, NEGATIVES = 200, 10  # of the studies prediction and dose_response
SOURCES = (
    *(("wikipedia_single_words", f"vectors.source.min_count={count}") for count in (2, 5)),
    *(  # the shares of dose_response
        ("wikipedia_excerpt", f"vectors.zero_share={share}")
        for share in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    ),
)


def first_touches(data: preparation.Data, zero: np.ndarray, batch: int, orders: int) -> Iterator:
    """Of each order the step that first touches a row in `zero`, bool [titles]; None of one that
    never does."""
    for seed in range(orders):
        drawn = examples.draw(data.corpus, COUNT, NEGATIVES, seed)
        for step in examples.batches(drawn, 1, batch, True, seed):
            if zero[step.positive].any() or zero[step.negatives].any():
                yield step.step
                break
        else:
            yield None


def row(corpus: str, option: str, batch: int, orders: int) -> dict:
    """One line of the table: what the formula says, and what the orders do."""
    data = preparation.load(schema.composed(f"corpus={corpus}", option))
    zero = vectors.zero_rows(data.titles)
    said = prediction.chance(examples.draw(data.corpus, COUNT, NEGATIVES, 0), zero, batch)
    found = list(first_touches(data, zero, batch, orders))
    touched = np.array([step for step in found if step is not None])
    return {
        "corpus": corpus,
        "option": option,
        "zero_titles": int(zero.sum()),
        "titles": len(zero),
        "batch": batch,
        "first_batch": said.batch,
        "first_batch_drawn": float(np.sum(touched == 0) / orders),
        "ever": said.ever,
        "ever_drawn": len(touched) / orders,
        "step": said.first,
        "step_drawn": float(touched.mean()),
        "step_error": float(stats.sem(touched)),
    }


def main(small: bool, to: Path) -> None:
    orders = SMALL if small else ORDERS
    lines = [(*source, batch) for source in SOURCES for batch in BATCHES]
    rows = [row(*line, orders) for line in track(lines, f"{orders} orders a line")]
    script.write(to, "orders", rows, orders=orders)


if __name__ == "__main__":
    main(**vars(script.arguments(__file__, __doc__)))
