"""The verdict on a repeated study: every kind of difference, and what is no difference."""

import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest

from zeronorm.report import blocks, committed, noise, reproduction, write
from zeronorm.report.conclusions import Judged
from zeronorm.report.reproduction import FAIL, OK, OKISH


@pytest.fixture
def reported():
    return committed.committed_runs("quick_ablation")


def named(runs):
    return reproduction.Runs(runs, [condition for condition, _ in committed.keys(runs)])


def compared(reported, found, spread=None):
    return reproduction.compare(named(reported), named(found), spread)


def verdicts(reported, found, spread=None):
    cells = compared(reported, found, spread)
    return cells[cells["verdict"] != OK]


def spread_of(reported, **sizes):
    """A spread in which a column moves by so much, and nothing else does."""
    names = [condition for condition, _ in committed.keys(reported)]
    scale = pd.DataFrame(0.0, index=names, columns=list(noise.MEASURED)).assign(**sizes)
    return noise.Spread(3, False, scale, dict.fromkeys(noise.SHIFTED, 1.0))


def test_a_report_equals_itself_and_only_what_can_differ_is_counted(reported):
    cells = compared(reported, reported.copy(), spread_of(reported))
    assert (cells["verdict"] == OK).all()
    found = reproduction.counts(cells, [])
    assert found["outcomes"] == (48, 48) and found["steps"] == (20, 20)  # of the four that died
    assert found["means"] == (3, 3) and "starts" not in found
    quality, norms = (
        found[kind] for kind in ("quality within tolerance", "norms within tolerance")
    )
    alive, trained = 44, 20  # of which 20 train their words and titles
    assert quality == (4 * alive + 4 * 20, 4 * alive + 4 * 20)
    assert norms == (4 * alive + 2 * trained, 4 * alive + 2 * trained)
    assert set(cells[~cells["counts"]]["kind"]) == {"steps", "facts", "starts"}
    assert not cells["column"].isin(["last_finite_loss", "mrr_std"]).any()


@pytest.mark.parametrize("column", ["zero_titles", "nonfinite/titles", "titles"])
def test_counts_must_match_exactly(reported, column):
    """Also where they are the same in the whole study, and so count for nothing."""
    found = reported.copy()
    found[column] = found[column].astype(int)
    found.loc[1, column] += 1
    changed = verdicts(reported, found)
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


def test_an_outcome_must_match_exactly(reported):
    found = reported.copy()
    found.loc[0, "outcome"] = "nan"
    assert verdicts(reported, found)["column"].tolist() == ["outcome"]


def test_quality_within_the_tolerance_is_okish(reported):
    found = reported.copy()
    found.loc[0, "hits_at_10"] += 0.015
    assert verdicts(reported, found)["verdict"].tolist() == [FAIL]
    enough = spread_of(reported, hits_at_10=0.016 / noise.CELL)
    assert verdicts(reported, found, enough)["verdict"].tolist() == [OKISH]
    few = spread_of(reported, hits_at_10=0.014 / noise.CELL)
    assert verdicts(reported, found, few)["verdict"].tolist() == [FAIL]


def test_what_no_table_would_show_is_no_difference(reported):
    found = reported.copy()
    found.loc[0, "mrr"] += 1e-6
    assert not len(verdicts(reported, found))


def test_a_run_too_few_or_too_many_fails(reported):
    for theirs, ours in ((reported, reported.iloc[1:]), (reported.iloc[1:], reported)):
        cells = verdicts(theirs, ours)
        assert cells[["column", "verdict"]].values.tolist() == [["(run)", FAIL]]


def test_a_conclusion_that_no_longer_holds_fails(reported):
    cells = compared(reported, reported.copy())
    judged = [
        Judged("Snow is white.", True, "mrr +.1"),
        Judged("Grass is red.", False, "mrr -.1"),
        Judged("The sea is deep.", None, "not computed"),
    ]
    assert reproduction.counts(cells, judged)["conclusions"] == (1, 2)
    assert reproduction.failures(cells, judged) == [
        "No longer true: Grass is red. Computed: mrr -.1."
    ]


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


def test_the_printed_comparison_names_the_cell(reported, capsys):
    from rich.console import Console

    found = reported.copy()
    found.loc[1, "first_nan_observed"] = "3"
    found.loc[0, "mrr"] += 0.1
    reproduction.print_comparison(compared(reported, found), [], Console(width=80))
    out = capsys.readouterr().out
    said = " ".join(out.split())
    assert (
        "FAIL true pretrained clamp_product 1e-07 xla adam seed 0, first_nan_observed: reported 0,"
        " found 3"
    ) in said
    assert said.endswith(
        "outcomes 48/48, steps 19/20, facts 576/576, quality within tolerance 255/256, norms within"
        " tolerance 216/216."
    )
    assert max(map(len, out.splitlines())) <= 80


def made_again(runs, **changed):
    """The runs as another making would have them: by other ids, which say which run each is."""
    return runs.assign(run_id=[f"new {number}" for number in runs.index], **changed)


def ranks_of(name):
    """Of a run of `made_again`, title, zero and rank of every text: those of the report."""
    found = committed.ranks(name)

    def table(run_id):
        number = int(run_id.split()[1])
        titles, zero = np.array(found.titles)[found.title], found.zero[number][found.title]
        return pd.DataFrame({"title": titles, "zero": zero * 1, "rank": found.rank[number]})

    return table


def test_a_part_of_a_study_is_compared_by_config(monkeypatch):
    """A part that varies fewer factors has fewer columns of its own; the report's are taken."""
    runs = committed.committed_runs("quick_ablation")
    part = runs[runs["numerics"] == "xla"]
    changed = made_again(part, mrr=part["mrr"] + 0.5)
    monkeypatch.setattr(committed, "as_read", lambda children, name, further: changed)
    compare = partial(
        write.compare, "quick_ablation", runs, pd.DataFrame(), ranks_of=ranks_of("quick_ablation")
    )
    cells = compare(narrowed=True).cells
    assert set(cells[cells["verdict"] == FAIL]["column"]) == {"mrr"}
    whole = compare(narrowed=False).cells
    assert (whole["column"] == "(run)").sum() == 32
    monkeypatch.setattr(
        committed, "as_read", lambda children, name, further: changed.assign(config_sha="other")
    )
    with pytest.raises(
        committed.ReportError, match="None of the 16 runs that finished is one of the report's"
    ):
        compare(narrowed=True)


def test_the_report_s_own_runs_are_not_compared_with_it(monkeypatch):
    runs = committed.committed_runs("quick_ablation")
    monkeypatch.setattr(committed, "as_read", lambda children, name, further: runs)
    with pytest.raises(committed.ReportError, match="48 of the 48 runs are those that the report"):
        write.compare("quick_ablation", runs, pd.DataFrame(), False, ranks_of("quick_ablation"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of a report that may be written to."""
    made = tmp_path / "experiments" / "full_budget"
    shutil.copytree(committed.experiments_dir() / "full_budget", made)
    (tmp_path / "README.md").write_text("")
    monkeypatch.setattr(committed, "experiments_dir", lambda: made.parent)
    return made


def test_the_tolerance_is_measured_by_repeats_and_before_the_first_comparison(folder, monkeypatch):
    runs = committed.committed_runs("full_budget")
    own = {"hardware": committed.provenance("full_budget")["hardware"], "date": "2026-11-28"}
    other = {"hardware": "2 cores, another, no GPU", "date": "2026-11-28"}
    assert not write.is_elsewhere(
        "full_budget", {"hardware": own["hardware"].replace("2 cores", "64 cores")}
    )
    assert write.is_elsewhere("full_budget", other)
    for file in (write.LOG, "noise.csv", "noise.json"):
        (folder / file).unlink(missing_ok=True)
    rng = np.random.default_rng(0)

    def again(**options):
        moved = made_again(runs, mrr=runs["mrr"] + rng.normal(0, 0.004, len(runs)))
        return moved.assign(**options)

    for repeat in (1, 2, 3):
        assert committed.spread("full_budget", runs, False) is None
        assert write.next_repeat("full_budget", False) == repeat
        monkeypatch.setattr(committed, "as_read", lambda children, name, further: again())
        made = write.write_noise("full_budget", repeat, pd.DataFrame(), ["reproduce"], own)
        assert made == repeat
    committed.require_whole("full_budget")
    assert committed.spread("full_budget", runs, False).repeats == 3
    compare = partial(
        write.compare, "full_budget", runs, pd.DataFrame(), False, ranks_of("full_budget")
    )
    close = compare()
    assert not close.failed and close.repeats == 3
    worse = again(mrr=runs["mrr"] - 0.1)
    monkeypatch.setattr(committed, "as_read", lambda children, name, further: worse)
    far = compare()
    assert far.failed
    write.log_reproduction("full_budget", far, ["reproduce"], own, len(runs), 90.0)
    [entry] = committed.reproductions("full_budget")
    assert entry["elsewhere"] is False and entry["repeats"] == 3 and entry["FAIL"] > 2
    assert entry["minutes"] == 1.5
    assert entry["agree"]["outcomes"] == [10, 10] and entry["agree"]["means"] == [2, 3]
    with pytest.raises(committed.ReportError, match="noise is measured before"):
        write.next_repeat("full_budget", False)
    assert write.next_repeat("full_budget", True) == 4  # no comparison was made elsewhere
    write.write_noise("full_budget", 4, pd.DataFrame(), ["reproduce"], other)
    text = blocks.BLOCKS["noise"]("full_budget", "")
    assert text.startswith("From the report and 3 repeats") and "another processor" not in text
    assert "| no | `zeronorm reproduce` | 10 |" in blocks.BLOCKS["reproductions"]("full_budget", "")


def test_repeats_without_their_values_are_refused(folder):
    (folder / "noise.json").write_text('[{"repeat": 1, "hardware": "x"}]')
    (folder / "noise.csv").write_text(",".join([*noise.KEYS, *noise.MEASURED]) + "\n")
    with pytest.raises(committed.ReportError, match="not of the repeats"):
        committed.require_whole("full_budget")
