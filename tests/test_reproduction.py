"""The verdict on a repeated study: every kind of difference, and what is no difference."""

import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest

from zeronorm.report import committed, reproduction, write
from zeronorm.report.reproduction import FAIL, OK, OKISH


@pytest.fixture
def reported():
    return committed.conditions("quick_ablation")


def verdicts(reported, found, noise=None):
    cells = reproduction.compare(reported, found, noise or {})
    return cells[cells["verdict"] != OK]


def test_a_report_equals_itself(reported):
    cells = reproduction.compare(reported, reported.copy(), {})
    assert (cells["verdict"] == OK).all()
    assert len(cells) == 48 * (len(reported.columns) - 7)


@pytest.mark.parametrize("column", ["nan_runs", "predicted_exactly", "nonfinite/titles"])
def test_counts_must_match_exactly(reported, column):
    found = reported.copy()
    found.loc[1, column] += 1
    changed = verdicts(reported, found, {column: 100})
    assert changed[["column", "verdict"]].values.tolist() == [[column, FAIL]]


@pytest.mark.parametrize(
    "column",
    ["first_nan_observed", "first_nan_predicted", "encoder_nan_observed", "first_nan_tensor"],
)
def test_steps_and_names_must_match_exactly(reported, column):
    found = reported.copy()
    found.loc[1, column] = "7"
    assert verdicts(reported, found)["verdict"].tolist() == [FAIL]
    found.loc[1, column] = ""
    assert verdicts(reported, found)["verdict"].tolist() == [FAIL]


def test_quality_within_twice_the_noise_is_okish(reported):
    found = reported.copy()
    found.loc[0, "hits_at_10_mean"] += 0.015
    assert verdicts(reported, found)["verdict"].tolist() == [FAIL]
    assert verdicts(reported, found, {"hits_at_10_mean": 0.01})["verdict"].tolist() == [OKISH]
    assert verdicts(reported, found, {"hits_at_10_mean": 0.007})["verdict"].tolist() == [FAIL]
    found.loc[0, "hits_at_10_mean"] = np.nan
    assert verdicts(reported, found, {"hits_at_10_mean": 0.01})["verdict"].tolist() == [FAIL]


def test_a_deviation_of_the_seeds_has_the_noise_of_their_mean(reported):
    reported.loc[0, "hits_at_10_std"], found = 0.02, reported.copy()
    found.loc[0, "hits_at_10_std"] = 0.035
    assert verdicts(reported, found, {"hits_at_10_mean": 0.01})["verdict"].tolist() == [OKISH]


def test_what_no_table_would_show_is_no_difference(reported):
    found = reported.copy()
    found.loc[0, "mrr_mean"] += 1e-6
    assert not len(verdicts(reported, found))


def test_a_condition_too_few_or_too_many_fails(reported):
    assert verdicts(reported, reported.iloc[1:])[["column", "verdict"]].values.tolist() == [
        ["(condition)", FAIL]
    ]
    assert verdicts(reported.iloc[1:], reported)[["column", "verdict"]].values.tolist() == [
        ["(condition)", FAIL]
    ]


def test_noise_is_the_largest_difference_of_the_measured_columns(reported):
    found = reported.copy()
    found.loc[0, "mrr_mean"] += 0.01
    found.loc[5, "mrr_mean"] -= 0.03
    found.loc[5, "nan_runs"] += 1
    noise = reproduction.noise_of(reproduction.compare(reported, found, {}))
    assert noise == {"mrr_mean": pytest.approx(0.03)}
    kept = reproduction.compare(reported, found, noise)
    assert reproduction.counts(kept) == {OK: len(kept) - 3, OKISH: 2, FAIL: 1}


@pytest.mark.parametrize(
    "column, value",
    [
        ("hits_at_10_mean", "0.4655"),
        ("nan_runs", "1"),
        ("norm/dense/bias_end", ""),
        ("gradient", "1e7"),
    ],
)
def test_a_cell_changed_by_hand_is_found(tmp_path, monkeypatch, column, value):
    """reported.csv follows from runs.csv to the last digit; what does not, no run has written."""
    assert committed.edited_cells("quick_ablation") == []
    shutil.copytree(committed.experiments_dir() / "quick_ablation", tmp_path / "quick_ablation")
    monkeypatch.setattr(committed, "experiments_dir", lambda: tmp_path)
    file = tmp_path / "quick_ablation" / "reported.csv"
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table.loc[0, column] = value
    table.to_csv(file, index=False)
    [sentence] = committed.edited_cells("quick_ablation")
    assert f"{column}: reported.csv says {value or 'nothing'}, its runs.csv gives" in sentence
    table.iloc[1:].to_csv(file, index=False)
    assert committed.edited_cells("quick_ablation") == [
        "reported.csv has other rows or columns than its runs.csv gives."
    ]


def test_other_factors_are_refused(reported):
    with pytest.raises(ValueError, match="factors"):
        reproduction.compare(reported, reported.drop(columns="optimizer"), {})


def test_the_printed_comparison_names_the_cell(reported, capsys):
    from rich.console import Console

    found = reported.copy()
    found.loc[1, "first_nan_observed"] = "3"
    reproduction.print_comparison(reproduction.compare(reported, found, {}), [], Console(width=80))
    out = capsys.readouterr().out
    said = " ".join(out.split())
    assert (
        "FAIL true pretrained clamp_product 1e-07 xla adam, first_nan_observed: reported 0, found 3"
        in said
    )
    assert "1 FAIL" in out and max(map(len, out.splitlines())) <= 80


def test_a_part_of_a_study_is_compared_by_config(monkeypatch):
    """A part that varies fewer factors has fewer columns of its own; the report's are taken."""
    runs = committed.committed_runs("quick_ablation")
    part = runs[runs["numerics"] == "xla"]
    changed = part.assign(mrr=part["mrr"] + 0.5)
    monkeypatch.setattr(committed, "as_read", lambda children, name: changed)
    cells = write.compare("quick_ablation", runs, pd.DataFrame(), narrowed=True)
    assert set(cells[cells["verdict"] == FAIL]["column"]) == {"mrr_mean"}
    assert cells["condition"].nunique() == 16
    whole = write.compare("quick_ablation", runs, pd.DataFrame(), narrowed=False)
    assert (whole["column"] == "(condition)").sum() == 32
    monkeypatch.setattr(
        committed, "as_read", lambda children, name: changed.assign(config_sha="other")
    )
    with pytest.raises(
        committed.ReportError, match="None of the 16 runs that finished is one of the report's"
    ):
        write.compare("quick_ablation", runs, pd.DataFrame(), narrowed=True)


def test_another_processor_has_a_tolerance_of_its_own(tmp_path, monkeypatch):
    """Word2vec learns other vectors there; the report's own processor is held to less."""
    shutil.copytree(committed.experiments_dir() / "quick_ablation", tmp_path / "quick_ablation")
    (tmp_path / "README.md").write_text("")
    folder = tmp_path / "experiments"
    folder.mkdir()
    (tmp_path / "quick_ablation").rename(folder / "quick_ablation")
    monkeypatch.setattr(committed, "experiments_dir", lambda: folder)
    own = committed.provenance("quick_ablation")["hardware"]
    assert not write.is_elsewhere(
        "quick_ablation", {"hardware": own.replace("2 cores", "64 cores")}
    )
    other = {"hardware": "2 cores, another, no GPU", "date": "2026-11-27"}
    assert write.is_elsewhere("quick_ablation", other)
    runs = committed.committed_runs("quick_ablation")
    changed = runs.assign(mrr=runs["mrr"] + 0.04)
    monkeypatch.setattr(committed, "as_read", lambda children, name: changed)
    compared = partial(write.compare, "quick_ablation", runs, pd.DataFrame(), False)
    assert (compared(True)["verdict"] == FAIL).any()
    before = committed.largest_differences("quick_ablation", False)
    write.write_noise("quick_ablation", compared(True), ["reproduce"], other)
    assert committed.largest_differences("quick_ablation", False) == before
    assert not (compared(True)["verdict"] == FAIL).any()
    assert (compared(False)["verdict"] == FAIL).any()
