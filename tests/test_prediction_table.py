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
