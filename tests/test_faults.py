"""What a report says against itself is said before anything is run."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from zeronorm import cli
from zeronorm.report import committed, faults, noise

STUDIES = sorted(path.parent.name for path in committed.experiments_dir().glob("*/runs.csv"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """folder(study) -> its report, copied."""
    own = committed.experiments_dir()
    monkeypatch.setattr(committed, "experiments_dir", lambda: tmp_path)

    def copied(study):
        return shutil.copytree(own / study, tmp_path / study, dirs_exist_ok=True)

    return copied


@pytest.mark.parametrize("study", STUDIES)
def test_no_report_contradicts_itself(study):
    assert faults.of(study) == []


def rewritten(file, change):
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    change(table)
    table.to_csv(file, index=False)


def cell_of_reported(folder):
    rewritten(folder / "reported.csv", lambda table: table.__setitem__("mrr_mean", "0.5"))
    return "mrr_mean: reported.csv says 0.5, its runs.csv gives"


def quality_of_a_run(folder):
    """In both tables alike, so that only the ranks tell."""

    def higher(table):
        table.loc[table["outcome"] == "finite", "mrr"] = "0.9"

    rewritten(folder / "runs.csv", higher)
    runs = committed.read_table(folder / "runs.csv")
    committed.save(runs, folder)
    return "mrr: runs.csv says 0.9, its ranks give"


def conclusion(folder):
    file = folder / "conclusions.yaml"
    found = yaml.safe_load(file.read_text())
    turned = next(one for one in found if one["relation"] == "finite")
    turned["relation"] = "nan"
    file.write_text(yaml.safe_dump(found))
    return f"conclusions.yaml: '{turned['says']}' does not hold: "


def text_in_the_noise(folder):
    rewritten(folder / "noise.csv", lambda table: table.__setitem__("mrr", "abc"))
    return "noise.csv is no table of a report"


def other_repeats(folder):
    """A condition's quality is another in every repeat."""

    def higher(table):
        first = table["condition"] == table["condition"][0]
        table.loc[first, "hits_at_1"] = "0.9"

    rewritten(folder / "noise.csv", higher)
    return "the mean of its repeats 0.9"


FAULTS = [cell_of_reported, quality_of_a_run, conclusion, text_in_the_noise, other_repeats]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_before_the_first_run(folder, fault, tmp_path, monkeypatch):
    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path / "home"))
    said = fault(folder("quick_ablation"))
    done = CliRunner().invoke(cli.main, ["reproduce", "quick_ablation", "--dry-run"])
    assert done.exit_code == 1 and not (tmp_path / "home").exists()
    [sentence] = [line for line in done.output.splitlines() if line]
    assert said in sentence and sentence.count(" says ") <= faults.SHOWN, sentence
    assert "Restore" in sentence or "Correct" in sentence


@pytest.mark.parametrize("error", [0.02, 0.1, -0.02])
@pytest.mark.parametrize("which", ["every run", "one condition"])
@pytest.mark.parametrize("study", ["quick_ablation", "claims", "dose_response"])
def test_a_report_that_is_off_its_repeats_is_doubted(folder, study, which, error):
    """And does not widen the tolerance by which it is judged."""
    folder(study)
    assert committed.doubts(study) == []
    runs = committed.committed_runs(study)
    before = committed.spread(study, runs, elsewhere=False)
    alive = runs["outcome"] == "finite"
    names = [condition for condition, _ in committed.keys(runs)]
    kept = committed.repeated(study)["condition"]
    if which == "one condition":
        chosen = next(one for one in kept if one in set(np.array(names)[alive]))
        alive &= np.array(names) == chosen
    runs.loc[alive, "mrr"] += error
    committed.save(runs, committed.experiments_dir() / study)
    doubts = committed.doubts(study)
    if which == "every run":
        assert {"", *kept} >= {doubt.condition for doubt in doubts} and "" in {
            doubt.condition for doubt in doubts if doubt.column == "mrr"
        }
    elif abs(error) > before.tolerance(chosen, "mrr"):
        found = {(doubt.condition, doubt.column) for doubt in doubts}
        assert {(chosen, "mrr")} <= found <= {(chosen, "mrr"), ("", "mrr")}  # and with it the mean
    after = committed.spread(study, runs, elsewhere=False)
    assert after.tolerance(names[0], "mrr") <= 6 * before.tolerance(names[0], "mrr")


def test_repeats_on_another_processor_raise_no_doubt(folder):
    """They differ from the report for another reason as well."""
    own = folder("full_budget")
    made = json.loads((own / "noise.json").read_text())
    home = committed.processor(committed.provenance("full_budget")["hardware"])
    assert home not in {committed.processor(one["hardware"]) for one in made}
    rewritten(own / "noise.csv", lambda table: table.__setitem__("mrr", "0.1"))
    assert committed.doubts("full_budget") == []
    assert noise.doubts(committed.repeated("full_budget")[:0], pd.DataFrame()) == []
