"""`zeronorm reproduce` as its user runs it, in a copy of the checkout that may be written to."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from zeronorm import cli, tracking
from zeronorm.checkout import conf_dir
from zeronorm.report import committed
from zeronorm.sweep.session import Session

pytestmark = pytest.mark.slow  # starts processes

ROOT = conf_dir().parent
# one run whose every number is exact on any machine: it is dead after two steps
ONE = [
    "trainable=true",
    "init=pretrained",
    "similarity=clamp_product",
    "numerics=xla",
    "autopsy=false",
]
PROGRAM = "import zeronorm.cli; zeronorm.cli.main()"


class Checkout:
    def __init__(self, folder, cache):
        self.folder, self.reported = folder, folder / "experiments" / "quick_ablation"
        for name in ("src", "conf"):
            shutil.copytree(ROOT / name, folder / name)
        shutil.copytree(ROOT / "experiments" / "quick_ablation", self.reported)
        for file in ("noise.json", "noise.csv", "reproductions.json"):  # as a new report has none
            (self.reported / file).unlink(missing_ok=True)
        shutil.copytree(ROOT / "experiments" / "claims", folder / "experiments" / "claims")
        (folder / "README.md").write_text("<!-- begin verdict quick_ablation -->\n\n<!-- end -->\n")
        (folder / "home").mkdir()
        (folder / "home" / "cache").symlink_to(cache)

    def __call__(self, *arguments, code=0):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            env={
                **os.environ,
                "ZERONORM_HOME": "home",
                "PYTHONPATH": str(self.folder / "src"),
                "COLUMNS": "80",
            },
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def client(self):
        return MlflowClient(f"sqlite:///{self.folder}/home/mlflow.db")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, home, excerpt):
    made = Checkout(tmp_path_factory.mktemp("checkout"), home / "cache")
    made.first = made("reproduce", "quick_ablation", *ONE, "--log")
    return made


def test_a_part_of_a_study_is_run_again_and_agrees(checkout):
    said = "NaN     trainable pretrained clamp_product xla  step 0, as predicted  1/1 runs"
    assert said in checkout.first.stdout
    assert "outcomes 1/1, steps 5/5, facts 13/13." in checkout.first.stdout
    assert checkout.first.stdout.endswith("for want of their runs: 3 of 3 conclusions.\n")
    [entry] = json.loads((checkout.reported / "reproductions.json").read_text())[-1:]
    assert (
        entry["runs"] == 1
        and 0 < entry["minutes"] < 5
        and entry["FAIL"] == 0
        and entry["agree"]["steps"] == [5, 5]
    )
    assert entry["command"] == f"zeronorm reproduce quick_ablation {' '.join(ONE)}"


def test_a_finished_run_is_found_again_and_not_repeated(checkout):
    planned = checkout("reproduce", "quick_ablation", *ONE, "--dry-run")
    assert "quick_ablation: 1 run to make." in planned.stdout
    planned = checkout("reproduce", "quick_ablation", *ONE, "--dry-run", "--only-missing")
    assert "quick_ablation: 0 runs to make, 1 finished one to take over." in planned.stdout
    again = checkout("reproduce", "quick_ablation", *ONE, "--only-missing")
    assert (
        "1/1 runs" not in again.stdout
        and "1 of 1 runs finished" in again.stdout
        and "outcomes 1/1, steps 5/5" in again.stdout
    )
    client = checkout.client()
    experiment = client.get_experiment_by_name("quick_ablation").experiment_id
    assert len(client.search_runs([experiment], "tags.kind = 'run'")) == 1
    [newest, *_] = tracking.sweeps(client, "quick_ablation")
    assert len(tracking.children(client, newest)) == 1 and newest.info.status == "FINISHED"
    whole = checkout("reproduce", "quick_ablation", "--dry-run", "--only-missing")
    assert "quick_ablation: 47 runs to make, 1 finished one to take over." in whole.stdout
    part = checkout("reproduce", "quick_ablation", "seed=0,9", "init=pretrained", "--dry-run")
    assert "quick_ablation: 24 runs to make." in part.stdout  # seed 9 is in no report


def test_a_run_of_other_code_or_without_its_files_is_not_taken_over_unasked(checkout):
    client = checkout.client()
    experiment = client.get_experiment_by_name("quick_ablation").experiment_id
    [run] = client.search_runs([experiment], "tags.kind = 'run' and attributes.status = 'FINISHED'")
    arguments = ("reproduce", "quick_ablation", *ONE, "--only-missing", "--dry-run")
    client.set_tag(run.info.run_id, "git.commit", "f" * 40)
    try:
        refused = checkout(*arguments, code=1)
        taken = checkout(*arguments, "--other-code")
        trained = checkout("train", "study=quick_ablation", *ONE, "--only-missing")
    finally:
        client.delete_tag(run.info.run_id, "git.commit")
    line = (
        "1 of the 1 runs taken over are of other code or libraries: commit ffffffffffff (now"
        " unknown)."
    )
    assert (
        line in refused.stderr
        and "--other-code" in refused.stderr
        and refused.stderr.count("\n") == 1
    )
    for done in (taken, trained):
        assert line in " ".join(done.stdout.split())
    assert (
        "1 finished one to take over" in taken.stdout and "1 of 1 runs finished" in trained.stdout
    )
    [audit] = (checkout.folder / "home" / "artifacts").glob(
        f"*/{run.info.run_id}/artifacts/audit.json"
    )
    kept = audit.read_text()
    audit.write_text("")
    try:
        assert "1 run to make." in checkout(*arguments).stdout
    finally:
        audit.write_text(kept)


def test_a_repeat_is_another_run_and_is_kept_for_the_tolerance(checkout):
    """Beside the runs that are compared: in the store, and in the report."""
    log = checkout.reported / "reproductions.json"
    kept = log.read_text()
    refused = checkout("reproduce", "quick_ablation", *ONE, "--noise", code=1)
    assert "noise is measured before" in refused.stderr and refused.stderr.count("\n") == 1
    both = checkout("reproduce", "quick_ablation", *ONE, "--noise", "--log", code=1)
    assert "drop one" in both.stderr
    log.unlink()
    try:
        made = checkout("reproduce", "quick_ablation", *ONE, "--noise")
        assert "1 repeats are in experiments/quick_ablation/noise.csv." in made.stdout
        [entry] = json.loads((checkout.reported / "noise.json").read_text())
        assert entry["repeat"] == 1 and "rounding=1" in entry["command"] and entry["runs"] == 1
        [row] = pd.read_csv(checkout.reported / "noise.csv").to_dict("records")
        assert row["condition"].startswith("true pretrained clamp_product 1e-07 xla")
        planned = checkout("reproduce", "quick_ablation", *ONE, "--dry-run", "--only-missing")
        assert "0 runs to make, 1 finished one to take over." in planned.stdout
    finally:
        log.write_text(kept)
        for file in ("noise.json", "noise.csv"):
            (checkout.reported / file).unlink(missing_ok=True)


def test_a_changed_cell_makes_it_fail(checkout):
    """In reported.csv alone it contradicts the runs, which is told first; in both tables it is
    compared."""
    kept = {file: (checkout.reported / file).read_text() for file in ("reported.csv", "runs.csv")}
    arguments = ("reproduce", "quick_ablation", *ONE, "--only-missing")
    table = pd.read_csv(checkout.reported / "reported.csv", dtype=str, keep_default_na=False)
    table.loc[1, "first_nan_observed"] = "5"
    table.to_csv(checkout.reported / "reported.csv", index=False)
    try:
        refused = checkout(*arguments, "--dry-run", code=1)
        (checkout.reported / "reported.csv").write_text(kept["reported.csv"])
        runs = committed.read_table(checkout.reported / "runs.csv")
        runs.loc[1, "encoder_nan_observed"] = "9"
        committed.save(runs, checkout.reported)
        failed = checkout(*arguments, code=1)
    finally:
        for file, text in kept.items():
            (checkout.reported / file).write_text(text)
    assert "first_nan_observed: reported.csv says 5, its runs.csv gives 0." in refused.stderr
    assert refused.stderr.count("\n") == 1 and not refused.stdout
    assert "encoder_nan_observed: reported 9, found 1" in " ".join(failed.stdout.split())


def test_what_cannot_be_reproduced_is_said_in_one_sentence(checkout):
    unknown = checkout("reproduce", "nothing", code=1)
    assert (
        "Error: Nothing is reported of 'nothing'" in unknown.stderr
        and unknown.stderr.count("\n") == 1
    )
    other = checkout("reproduce", "quick_ablation", *ONE, "examples=20", "training=smoke", code=1)
    assert (
        "None of these runs is one of the report's: 'quick_ablation' has other options there."
        in other.stderr
    )
    assert "1/1 runs" not in other.stdout
    kept = (checkout.reported / "reported.csv").read_text()
    (checkout.reported / "reported.csv").write_text("")
    try:
        empty = checkout("reproduce", "quick_ablation", code=1)
    finally:
        (checkout.reported / "reported.csv").write_text(kept)
    assert (
        "reported.csv is no table of a report: " in empty.stderr and empty.stderr.count("\n") == 1
    )


@pytest.mark.parametrize("code", [128 + signal.SIGINT, 128 + signal.SIGTERM])
def test_an_interrupted_reproduction_is_neither_compared_nor_logged(monkeypatch, code):
    def interrupted(session, overrides):
        session.closed = object()
        raise SystemExit(code)

    monkeypatch.setattr(Session, "run", interrupted)
    done = CliRunner().invoke(cli.main, ["reproduce", "quick_ablation", "--log"])
    assert (done.exit_code, done.output) == (code, "")


def test_the_table_in_every_format(checkout):
    arguments = ("study", "quick_ablation", "--format")
    [row] = json.loads(checkout(*arguments, "json").stdout)
    assert (
        row["study"] == "quick_ablation"
        and row["norm/titles_start"] > 0
        and row["norm/titles_end"] is None
    )
    assert checkout(*arguments, "csv").stdout.startswith(
        "study,trainable,init,similarity,epsilon,numerics,optimizer"
    )
    assert checkout(*arguments, "md").stdout.startswith(
        "**trainable embeddings, pretrained vectors"
    )
    assert checkout(*arguments, "tex").stdout.startswith(r"\begin{tabular}")
    refused = checkout("study", "quick_ablation", "seed=5", code=1)
    assert "seed=5 does not name a store" in refused.stderr and refused.stderr.count("\n") == 1


def test_report_writes_the_folder_its_figures_and_the_readme(checkout):
    checkout("train", "study=quick_ablation", *ONE, "--only-missing")
    first = next(
        run
        for run in tracking.sweeps(checkout.client(), "quick_ablation")
        if run.data.tags["command"].startswith("zeronorm train")
    )
    file = checkout.folder / "conf" / "study" / "quick_ablation.yaml"
    whole = file.read_text()
    part = checkout("study", "quick_ablation", "--report", "--sweep", first.info.run_id, code=1)
    assert "47 of its 48 runs are missing" in part.stderr and part.stderr.count("\n") == 1
    one = dict(word.split("=") for word in ONE)
    swept = "".join(
        f"      {key}: {one[key]}\n" for key in ("trainable", "init", "similarity", "numerics")
    )
    # the sweep is now the whole of it
    file.write_text(whole[: whole.index("      trainable:")] + swept)
    for figure in ("norms.png", "outcome.png", "runs.csv"):
        (checkout.reported / figure).unlink(missing_ok=True)
    done = checkout("study", "quick_ablation", "--report", "--sweep", first.info.run_id)
    assert "written:" in done.stderr
    assert {
        "norms.png",
        "outcome.png",
        "runs.csv",
        "reported.csv",
        "curves.csv",
        "provenance.json",
    } <= {path.name for path in checkout.reported.iterdir()}
    assert "1 of 1 conditions end in NaN" in (checkout.folder / "README.md").read_text()
    file.write_text(whole)
    shutil.rmtree(checkout.reported)
    shutil.copytree(ROOT / "experiments" / "quick_ablation", checkout.reported)


def test_claims_are_printed_from_the_report(checkout):
    said = checkout("claims").stdout
    for number in range(1, 14):
        assert f"C{number}  " in said
    assert "From experiments/claims/runs.csv" in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 80


def test_reap_ends_what_a_killed_process_left(checkout):
    client = checkout.client()
    experiment = client.create_experiment("left behind")
    gone = client.create_run(
        experiment, tags={tracking.PROCESS: tracking._process().replace(str(os.getpid()), "1")}
    )
    alive = client.create_run(experiment, tags={tracking.PROCESS: tracking._process()})
    elsewhere = client.create_run(experiment, tags={tracking.PROCESS: f"elsewhere {2**22} 0"})
    done = checkout("reap")
    assert done.stdout == f"ended as KILLED: {gone.info.run_id}\n"
    states = [client.get_run(run.info.run_id).info.status for run in (gone, alive, elsewhere)]
    assert states == ["KILLED", "RUNNING", "RUNNING"]
