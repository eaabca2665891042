"""The table of the evidence for the prediction, of runs made by hand."""

import pandas as pd

from zeronorm.report import prediction_table


def runs(*rows):
    columns = ("trainable", "optimizer", "training.batch", "optimizer.keras.clipnorm", "seed")
    steps = [
        f"{who}_nan_{which}" for who in ("first", "encoder") for which in ("predicted", "observed")
    ]
    made = pd.DataFrame(rows, columns=[*columns, "outcome", *steps])
    return made.assign(study="prediction")[["study", *made.columns]]


USUAL = ("true", "adam", "10", "")


def test_each_run_counts_where_it_first_differs():
    table = prediction_table.summed(
        runs(
            (*USUAL, 0, "nan", "0", "0", "1", "1"),
            (*USUAL, 1, "nan", "3", "3", "7", "7"),
            (*USUAL, 2, "finite", "", "", "", ""),
            ("true", "adam", "1", "1", 0, "nan", "2", "2", "5", "4"),
            ("words", "sgd", "10", "", 0, "finite", "", "", "", ""),
        )
    ).set_index("varied")
    columns = ["runs", "die", "exact", "guessed", "pairs", "orders"]
    assert table.loc[prediction_table.REST, columns].tolist() == [3, 2, 3, 2, 2, 2]
    assert table.loc["clipping and other options", columns].tolist() == [1, 1, 0, 0, 1, 1]
    assert table.loc["optimizers", columns].tolist() == [1, 0, 1, 1, 0, 0]
    assert table.loc["frozen halves", "runs"] == 0
    assert table.loc["all", columns].tolist() == [5, 3, 4, 3, 3, 3]


def test_what_does_not_change_the_order_of_the_batches_counts_once():
    """More epochs begin as fewer do; a loss of the batch's own titles draws no negatives."""
    died = ("nan", "2", "2", "5", "5")
    table = runs(*[(*USUAL, 0, *died)] * 6, (*USUAL, 1, *died))
    columns = {
        "training.epochs": ["1", "3", "1", "1", "1", "1", "1"],
        "loss.name": ["max_margin"] * 3 + ["softmax", "in_batch_softmax"] + ["max_margin"] * 2,
        "training.negatives": ["10"] * 5 + ["2", "10"],
    }
    for name, values in columns.items():
        table.insert(1, name, values)
    found = prediction_table.summed(table).set_index("varied")
    assert found.loc["all", "orders"] == 4
