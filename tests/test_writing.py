"""A report is written whole, from a whole sweep, or not at all; and a cut one is said before it is
used."""

import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import CliRunner

from zeronorm import cli, tracking
from zeronorm.checkout import conf_dir
from zeronorm.report import blocks, committed, tables, write
from zeronorm.sweep.plan import identities
from zeronorm.sweep.session import Session

ROOT = conf_dir().parent
NAME = "full_budget"  # of ten runs
LOGGED = "quick_ablation"  # a study whose noise is measured, and a reproduction logged


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of one report, and a README that shows it."""
    for name in (NAME, "claims"):
        shutil.copytree(ROOT / "experiments" / name, tmp_path / "experiments" / name)
        for file in (*write.NOISE, write.LOG):
            shutil.copy(ROOT / "experiments" / LOGGED / file, tmp_path / "experiments" / name)
    (tmp_path / "README.md").write_text(f"<!-- begin verdict {NAME} -->\n\n<!-- end -->\n")
    monkeypatch.setattr(committed, "experiments_dir", lambda: tmp_path / "experiments")
    return tmp_path


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def written(monkeypatch, curves_of):
    runs = committed.committed_runs(NAME)
    monkeypatch.setattr(tables, "runs_table", lambda name, children: runs)
    measured = {f"metrics.eval_tfidf/{metric}": [0.5] * len(runs) for metric in tables.METRICS}
    children = pd.DataFrame({"tags.mlflow.parentRunId": ["a"] * len(runs), **measured})
    tags = {
        "date": "2026-11-25",
        "command": "zeronorm train study=x home=/where it/lies seed=1 --only-missing",
        "hardware": "a machine",
        "versions": "all",
    }
    return write.write(NAME, children, "a", tags, 60.0, curves_of, ranked)


def curves(run_id):
    return pd.DataFrame({"step": [0, 1], "name": ["train/loss"] * 2, "value": [1.0, 0.5]})


def ranked(run_id):
    return pd.DataFrame({"title": ["A", "B"], "zero": [1, 0], "rank": [1, 0]})


def broken(*arguments, **options):
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    "what", ["curves", "save", "draw", "_provenance", "refresh_readmes", "refreshed"]
)
def test_what_fails_in_the_middle_leaves_the_report_as_it_was(checkout, monkeypatch, what):
    before = files(checkout)
    if what != "curves":
        monkeypatch.setattr(blocks if what == "refreshed" else write, what, broken)
    with pytest.raises(RuntimeError):
        written(monkeypatch, broken if what == "curves" else curves)
    assert files(checkout) == before


def test_a_written_report_is_there_and_nothing_is_left_beside_it(checkout, monkeypatch):
    folder = checkout / "experiments" / NAME
    kept = {path.name for path in folder.iterdir()}
    of_it = {"reproductions.json", "noise.csv", "noise.json"}
    assert kept >= of_it | {"conclusions.yaml"}
    paths = written(monkeypatch, curves)
    assert {folder / "runs.csv", folder / "norms.png", checkout / "README.md"} <= set(paths)
    assert all(path.is_file() for path in paths) and (folder / "ranks.csv.gz").is_file()
    assert committed.ranks(NAME).rank.tolist() == [[1, 0]] * 10
    assert committed.provenance(NAME)["command"] == "zeronorm train study=x seed=1 --only-missing"
    # which are of the report that it replaces
    assert not any((folder / file).exists() for file in of_it)
    assert (folder / "conclusions.yaml").is_file()
    assert sorted(path.name for path in checkout.rglob("*") if path.name.startswith(".")) == []
    assert len((folder / "curves.csv").read_text().splitlines()) > 2


@pytest.mark.parametrize(
    "status, states, shas, sentence",
    [
        ("FINISHED", ["FINISHED", "FINISHED"], ["a", "b"], None),
        (
            "FAILED",
            ["FINISHED", "FINISHED"],
            ["a", "b"],
            "is FAILED, and 0 of its runs have not finished.",
        ),
        (
            "RUNNING",
            ["FINISHED", "RUNNING"],
            ["a", "b"],
            "is RUNNING, and 1 of its runs have not finished.",
        ),
        (
            "FINISHED",
            ["FINISHED", "FAILED"],
            ["a", "b"],
            "is FINISHED, and 1 of its runs have not finished.",
        ),
        (
            "FINISHED",
            ["FINISHED"],
            ["a"],
            "1 of its 2 runs are missing, and 0 have other options or data.",
        ),
        (
            "FINISHED",
            ["FINISHED"] * 3,
            ["a", "b", "c"],
            "0 of its 2 runs are missing, and 1 have other",
        ),
        # own data
        ("FINISHED", ["FINISHED"] * 2, ["c", "d"], "2 of its 2 runs are missing, and 2 have other"),
    ],
)
def test_only_a_whole_sweep_of_the_study_is_reported(status, states, shas, sentence):
    data = SimpleNamespace(tags={"command": "zeronorm train"})
    found = SimpleNamespace(info=SimpleNamespace(run_id="1", status=status), data=data)
    children = pd.DataFrame({"status": states, "tags.config.sha": shas})
    if sentence is None:
        write.require_complete(NAME, found, children, ["a", "b"])
        return
    with pytest.raises(committed.ReportError) as refused:
        write.require_complete(NAME, found, children, ["a", "b"])
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


def test_a_reproduction_is_no_report():
    data = SimpleNamespace(tags={"command": f"zeronorm reproduce {NAME}"})
    found = SimpleNamespace(info=SimpleNamespace(run_id="1", status="FINISHED"), data=data)
    children = pd.DataFrame({"status": ["FINISHED"], "tags.config.sha": ["a"]})
    with pytest.raises(committed.ReportError, match="is a reproduction of its report"):
        write.require_complete(NAME, found, children, ["a"])


def test_the_identities_of_a_study_are_those_of_its_report():
    reported = set(committed.committed_runs(NAME)["config_sha"])
    assert {sha[:16] for sha in identities(NAME)} == reported


def test_a_partial_sweep_leaves_the_report_alone(checkout, tmp_path, monkeypatch, composed):
    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path / "home"))
    config = composed(f"study={NAME}", f"home={tmp_path}/home", "seed=0")
    client = tracking.connect(config)
    parent = tracking.open_sweep(client, config, 1, "zeronorm train")
    with tracking.tracked(client, config, [], parent.info.run_id, 0) as run_id:
        client.set_tag(run_id, "outcome", "finite")
    tracking.close_sweep(client, parent, "FINISHED", [], {})
    before = files(checkout / "experiments")
    done = CliRunner().invoke(cli.main, ["study", NAME, "--report"])
    assert (
        done.exit_code == 1
        and "Nothing is written: sweep" in done.output
        and "runs are missing" in done.output
    )
    assert files(checkout / "experiments") == before
    unknown = CliRunner().invoke(cli.main, ["study", "single runs", "--report"])
    assert unknown.exit_code == 1 and "Traceback" not in unknown.output


def cut(text, how):
    lines = text.splitlines(keepends=True)
    return {
        "empty": "",
        "half": text[: len(text) // 2],
        "end": text[:-3],
        "row": "".join(lines[:-1]),
        "cell": "".join(lines[:-2]) + lines[-2].rsplit(",", 1)[0] + "\n" + lines[-1],
        "other": "[[]]\n" if text.startswith("{") else "{}\n",
    }[how]


TABLES = [
    (file, how)
    for file in ("runs.csv", "reported.csv")
    for how in ("empty", "half", "end", "row", "cell")
]
DATA = [
    (f"{file}.json", how)
    for file in ("provenance", "reproductions")
    for how in ("empty", "half", "other")
]


@pytest.mark.parametrize("file, how", TABLES + DATA)
@pytest.mark.parametrize(
    "command", [["reproduce", NAME, "--dry-run"], ["claims"]], ids=["reproduce", "claims"]
)
def test_a_cut_report_is_one_sentence_before_anything_is_run(
    checkout, monkeypatch, file, how, command
):
    path = checkout / "experiments" / (NAME if command[0] == "reproduce" else "claims") / file
    path.write_text(cut(path.read_text(), how))
    monkeypatch.setattr(Session, "run", broken)
    done = CliRunner().invoke(cli.main, command)
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
    assert (
        done.output.startswith("Error: ")
        and done.output.count("\n") == 1
        and "estore the file" in done.output
    )


@pytest.mark.parametrize(
    "command",
    [["reap"], ["ui"], ["autopsy", "0" * 32], ["study", NAME], ["claims", "--sweep", "1"]],
)
@pytest.mark.parametrize(
    "override", ["seed=1", "trackings=server", "~tracking", "tracking=nowhere", "tracking"]
)
def test_only_a_store_can_be_named(tmp_path, monkeypatch, command, override):
    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path))
    done = CliRunner().invoke(cli.main, [*command, override])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert done.output.startswith("Error: ") and done.output.count("\n") == 1
    if not override.startswith("tracking=") and override != "tracking":
        assert f"{override} does not name a store" in done.output


def test_runs_of_another_store_can_be_ended(tmp_path, monkeypatch, composed):
    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/server.db")
    client = tracking.connect(composed(f"home={tmp_path}/home", "tracking=server"))
    left = client.create_run(
        client.create_experiment("left"), tags={tracking.PROCESS: _gone()}
    ).info.run_id
    done = CliRunner().invoke(cli.main, ["reap", "tracking=server"])
    assert (done.exit_code, done.output) == (0, f"ended as KILLED: {left}\n")
    assert client.get_run(left).info.status == "KILLED"


def _gone() -> str:
    node, _, started = tracking._process().rsplit(" ", 2)
    return f"{node} {2**22 + 1} {started}"
