"""Does the expected step of the first touch, and its chance, hold over thousands of batch orders?

python experiments/prediction/orders.py [--small] [--to FOLDER]

Each order is drawn as a run of another seed draws it: examples, negatives, and the first epoch.
Nothing is trained. Writes orders.json.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import stats

from zeronorm import config as schema
from zeronorm import examples, prediction, preparation, provenance, vectors

ORDERS, SMALL, BATCHES = 3000, 20, (1, 10)
SOURCES = (
    *(("wikipedia_single_words", f"vectors.source.min_count={count}") for count in (2, 5)),
    *(("wikipedia_excerpt", f"vectors.zero_share={share}") for share in (0.01, 0.05, 0.5)),
)


def first_touches(data: preparation.Data, zero: np.ndarray, batch: int, orders: int) -> Iterator:
    """Of each order the step that first touches a row in `zero`, bool [titles]; None of one that
    never does."""
    for seed in range(orders):
        drawn = examples.draw(data.corpus, 200, 10, seed)
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
    said = prediction.chance(examples.draw(data.corpus, 200, 10, 0), zero, batch)
    found = list(first_touches(data, zero, batch, orders))
    touched = np.array([step for step in found if step is not None])
    return {
        "corpus": corpus,
        "option": option,
        "zero_titles": int(zero.sum()),
        "titles": len(zero),
        "batch": batch,
        "first_batch": said.batch,
        "first_batch_drawn": float(np.mean(touched == 0) * len(touched) / orders),
        "ever": said.ever,
        "ever_drawn": len(touched) / orders,
        "step": said.first,
        "step_drawn": float(touched.mean()),
        "step_error": float(stats.sem(touched)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where orders.json goes")
    parser.add_argument("--small", action="store_true", help="a few orders; needs --to")
    asked = parser.parse_args()
    if asked.small and asked.to is None:
        parser.error("--small measures nothing: say with --to FOLDER where its JSON goes")
    asked.to = asked.to or Path(__file__).parent
    orders = SMALL if asked.small else ORDERS
    rows = [row(*source, batch, orders) for source in SOURCES for batch in BATCHES]
    found = {"orders": orders, "rows": rows, **provenance.tags()}
    (asked.to / "orders.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
