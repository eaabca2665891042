"""The command as its user runs it: a sweep, its store, its interruptions. Each test is a process of
its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from zeronorm import checkout, checks, cli, markdown, tracking, views
from zeronorm.preparation import ExperimentError, prepare
from zeronorm.result import Result
from zeronorm.sweep.display import status_file

pytestmark = pytest.mark.slow  # starts processes

SMALL = ["training=smoke", "examples=40", "model.filters=16"]
ZERONORM = [str(Path(sys.executable).with_name("zeronorm"))]

MINE = """
import tensorflow as tf

def add_to_root(a, b, numerics, epsilon):
    norm = lambda x: numerics.sqrt(tf.reduce_sum(x * x, -1) + epsilon)
    return tf.reduce_sum(a * b, -1) / (norm(a) * norm(b))

def broken(a, b, numerics):
    if a.shape[-1] == 100:
        raise RuntimeError("this placement is broken")
    return tf.reduce_sum(a * b, -1)

def wrong(a, b, numerics):
    return a * b
"""


def environment(folder: Path, **more) -> dict:
    return {
        **os.environ,
        "ZERONORM_HOME": str(folder / "home"),
        "PYTHONPATH": str(folder),
        "COLUMNS": "100",
        **more,
    }


def zeronorm(folder: Path, *arguments: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*ZERONORM, *arguments],
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=300,
    )


def store(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/home/mlflow.db")


def runs_of(client: MlflowClient, name: str):
    found = client.search_runs(
        [client.get_experiment_by_name(name).experiment_id], order_by=["start_time ASC"]
    )
    parents = [run for run in found if run.data.tags["kind"] == "sweep"]
    return parents, [run for run in found if run.data.tags["kind"] == "run"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory, home, excerpt):
    """A sweep with a placement of the user's own: one function and one YAML file, both outside the
    package."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "home").mkdir()
    (folder / "home" / "cache").symlink_to(home / "cache")
    (folder / "mine.py").write_text(MINE)
    group = folder / "conf" / "similarity"
    group.mkdir(parents=True)
    (group / "add_to_root.yaml").write_text(
        "name: add_to_root\nfunction: mine.add_to_root\nepsilon: 1.0e-7\n"
    )
    (group / "broken.yaml").write_text("name: broken\nfunction: mine.broken\n")
    (group / "wrong.yaml").write_text("name: wrong\nfunction: mine.wrong\n")
    (group / "mismatched.yaml").write_text(
        "name: mismatched\nfunction: mine.wrong\nepsilon: 1.0e-7\n"
    )
    (group / "nowhere.yaml").write_text("name: nowhere\nfunction: mine.nowhere\n")
    (group / "nameless.yaml").write_text("function: mine.wrong\n")
    done = zeronorm(
        folder,
        "train",
        "-m",
        f"--config-dir={folder}/conf",
        "similarity=clamp_product,add_to_root",
        "numerics=kernels,xla",
        *SMALL,
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_new_placement_is_one_function_and_one_file(swept):
    folder, _ = swept
    _, runs = runs_of(store(folder), "single runs")
    outcomes = {run.data.tags["condition"]: run.data.tags["outcome"] for run in runs}
    assert outcomes == {
        "trainable pretrained clamp_product kernels": "finite",
        "trainable pretrained clamp_product xla": "nan",
        "trainable pretrained add_to_root kernels": "finite",
        "trainable pretrained add_to_root xla": "finite",
    }


def test_the_terminal_shows_progress_table_and_what_next(swept):
    folder, done = swept
    assert re.search(r"finite  add_to_root xla  [1-4]/4 runs", done.stdout)
    said = "step 0, as predicted, SqrtGrad at similarity.py"
    assert re.search(rf"NaN     clamp_product xla  {said}:\d+  [1-4]/4 runs", done.stdout)
    assert "trainable embeddings, pretrained vectors" in done.stdout
    assert re.search(r"clamp_product +xla +NaN +0, 1 +0, 1 titles", done.stdout)
    assert "4 of 4 runs finished" in done.stdout and "zeronorm ui" in done.stdout
    assert re.search(r"What killed the first of them: zeronorm autopsy [0-9a-f]{32}", done.stdout)
    free = [line for line in done.stdout.splitlines() if not re.search(f"{folder}|:\\d+  ", line)]
    assert max(map(len, free)) <= 100
    assert done.stderr == ""
    outputs = next((folder / "home" / "outputs").iterdir())
    assert (outputs / "table.md").read_text().count("\n| ") == 5
    assert len((outputs / "runs.csv").read_text().splitlines()) == 5


def test_the_store_holds_the_sweep(swept):
    folder, _ = swept
    client = store(folder)
    [parent], runs = runs_of(client, "single runs")
    assert parent.info.status == "FINISHED" and parent.data.tags["runs"] == "4"
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "table.md",
        "table.csv",
        "runs.csv",
    }
    for run in runs:
        tags, params = tracking.found_tags(run), run.data.params
        assert run.info.status == "FINISHED" and tags["mlflow.parentRunId"] == parent.info.run_id
        assert params["similarity.name"] in tags["condition"] and params["model.filters"] == "16"
        assert len(tags["config.sha"]) == 64 and tags["seed"] == "0"
        assert re.fullmatch("[0-9a-f]{40}", tags["git.commit"]) and tags["git.dirty"] in (
            "true",
            "false",
        )
        died = tags["outcome"] == "nan"
        verdict = "titles (" if died else "All weights stayed finite over 8 steps"
        assert tags["mlflow.note.content"].startswith("**" + markdown.plain(verdict))
        assert "57 of 106 title rows start at zero" in tags["mlflow.note.content"]
        factors = f"{params['numerics.name']} {params['similarity.name']} pretrained trainable s0"
        assert tags["mlflow.runName"] == ("NaN@0 " if died else "") + factors
        assert tags[views.COLOUR] == (views.NAN if died else views.FINITE)
        assert len(run.data.tags) <= 32 and float(tags["norm.words"].split()[0]) > 0
        names = sorted(one.dataset.name for one in run.inputs.dataset_inputs)
        assert names == ["wikipedia_excerpt", "word2vec: titles", "word2vec: words"]
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {
            "config.yaml",
            "nan_events.json",
            "ranks.csv.gz",
            "audit.json",
            "norms.png",
            "curves.csv.gz",
            ".hydra",
        } <= files
        assert {f"autopsy.{kind}" for kind in ("md", "json", "html")} & files == (
            {"autopsy.md", "autopsy.json", "autopsy.html"} if died else set()
        )


def test_curves_are_the_closed_list_and_finite(swept):
    folder, _ = swept
    client = store(folder)
    _, runs = runs_of(client, "single runs")
    weights = (
        "words",
        "titles",
        "convolution/kernel",
        "convolution/bias",
        "dense/kernel",
        "dense/bias",
    )
    closed = {"train/loss", "zero_rows/titles", "deadly_rows/titles", "z/steps_per_second"}
    closed |= {f"nan/{what}step{how}" for what in ("", "encoder_") for how in ("", "_predicted")}
    closed |= {
        f"{kind}/{weight}"
        for kind in ("norm", "norm/grad", "norm/update", "nonfinite")
        for weight in weights
    }
    closed |= {
        f"{group}/{metric}"
        for group in ("eval", "eval_zero_rows", "eval_tfidf")
        for metric in ("mrr", "hits_at_1", "hits_at_10", "mean_rank")
    }
    for run in runs:
        assert set(run.data.metrics) <= closed
        assert all(np.isfinite(value) for value in run.data.metrics.values())
        loss = client.get_metric_history(run.info.run_id, "train/loss")
        died = run.data.tags["outcome"] == "nan"
        # a gap, never a NaN
        assert [point.step for point in loss] == ([0] if died else list(range(8)))
        norm = client.get_metric_history(run.info.run_id, "norm/titles")
        # from before the first step on
        assert [point.step for point in norm] == ([0] if died else list(range(9)))
        if died:
            assert run.data.metrics["nonfinite/dense/kernel"] == 16 * 100
            assert run.data.metrics["nan/step"] == run.data.metrics["nan/step_predicted"] == 0
            assert (
                run.data.tags["nan.first_step"] == "0"
                and run.data.tags["nan.first_tensor"] == "titles"
            )
            found = client.search_runs([run.info.experiment_id], "tags.outcome = 'nan'")
            assert [other.info.run_id for other in found] == [run.info.run_id]


def test_study_shows_the_table_again(swept):
    folder, done = swept
    again = zeronorm(folder, "study", "single runs")
    assert again.returncode == 0, again.stderr
    table = again.stdout[again.stdout.index("trainable embeddings") :].split("NaN step: of")[0]
    assert table in done.stdout
    missing = zeronorm(folder, "study", "nothing")
    assert missing.returncode == 1
    assert "has no sweep of 'nothing': the studies are ablation, best, " in missing.stderr
    assert (
        "has no sweep of 'ablation': run its study first"
        in zeronorm(folder, "study", "ablation").stderr
    )
    nowhere = zeronorm(folder, "study", "ablation", ZERONORM_HOME=str(folder / "nowhere"))
    assert (
        nowhere.returncode == 1
        and f"There is no store at {folder}/nowhere/mlflow.db yet" in nowhere.stderr
    )
    assert not (folder / "nowhere").exists()


def test_autopsy_of_another_step_leaves_the_runs_own(swept, monkeypatch):
    folder, _ = swept
    client = store(folder)
    [dead] = [run for run in runs_of(client, "single runs")[1] if run.data.tags["outcome"] == "nan"]
    run_id, own = dead.info.run_id, dead.data.tags
    assert (own["guilty.operation"], own["autopsy.step"]) == ("SqrtGrad", "0")
    done = zeronorm(folder, "autopsy", run_id, "--step", "1", "--capsule", "step.npz")
    assert done.returncode == 0, done.stderr
    assert (
        "Born before the step" in done.stdout
        and "added to the run's artifacts: autopsy_step_1.json" in done.stderr
    )
    files = {file.path for file in client.list_artifacts(run_id)}
    assert {"autopsy.json", "autopsy.md", "autopsy_step_1.json", "autopsy_step_1.md"} <= files
    assert client.get_run(run_id).data.tags == own
    # the capsule needs neither the store nor the data; here, as one process fewer
    monkeypatch.chdir(folder)
    again = CliRunner().invoke(cli.main, ["autopsy", "step.npz"])
    assert again.exit_code == 0 and again.stdout == done.stdout


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (("nowhere/step.npz",), "nowhere/step.npz does not exist: name a run id or a capsule."),
        (
            ("0" * 32, "--model", "mine:model"),
            f"{'0' * 32} is no file: --model goes with a capsule",
        ),
        (
            ("0" * 32, "--capsule", "nowhere/step.npz"),
            "--capsule nowhere/step.npz: there is no folder",
        ),
        (("mine.py", "--step", "1"), "--step goes with the id of a run: a capsule holds one step."),
        (
            ("mine.py",),
            "mine.py is no capsule: give a file that zeronorm.Autopsy(capsule=...) wrote.",
        ),
    ],
)
def test_what_autopsy_cannot_take_is_one_sentence(swept, arguments, sentence):
    done = zeronorm(swept[0], "autopsy", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {sentence}") and done.stderr.count("\n") == 1


REFUSED = {
    "wrong": (
        "similarity=wrong returns shape (2, 3, 4) for a [2, 1, 4] and b [2, 3, 4]; it must reduce"
        " the last axis"
    ),
    "mismatched": "similarity=mismatched: its YAML file has an epsilon, but mine.wrong takes none.",
    "nowhere": (
        "similarity=nowhere: mine.nowhere cannot be imported; correct the path in its YAML file, or"
        " put"
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_placement_that_cannot_work_is_refused(swept, composed, monkeypatch, name):
    monkeypatch.syspath_prepend(swept[0])
    config = composed(f"hydra.searchpath=[file://{swept[0]}/conf]", f"similarity={name}", *SMALL)
    with pytest.raises(ExperimentError, match="^" + re.escape(REFUSED[name])):
        checks.check(config)


def test_it_is_refused_before_training(swept):
    folder, _ = swept
    done = zeronorm(folder, "train", f"--config-dir={folder}/conf", "similarity=nameless", *SMALL)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("zeronorm: similarity.name is missing: give it a value")
    wrong = zeronorm(folder, "train", f"--config-dir={folder}/conf", "similarity=wrong", *SMALL)
    assert wrong.returncode == 1 and wrong.stderr.count("\n") == 1
    assert wrong.stderr.startswith(f"zeronorm: {REFUSED['wrong']}")


def test_a_home_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    done = zeronorm(tmp_path, "train", ZERONORM_HOME=str(tmp_path / "file"))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert (
        "file cannot be written" in done.stderr
        and "set ZERONORM_HOME to a folder that can" in done.stderr
    )


def test_a_failing_run_is_marked_and_the_others_finish(swept):
    folder, _ = swept
    before = len(runs_of(store(folder), "single runs")[1])
    done = zeronorm(
        folder,
        "train",
        "-m",
        f"--config-dir={folder}/conf",
        "similarity=broken,clamp_product",
        "trainable=false",
        *SMALL,
    )
    assert done.returncode == 1
    assert "this placement is broken" in done.stderr
    parents, runs = runs_of(store(folder), "single runs")
    assert [run.info.status for run in sorted(runs[before:], key=number_of)] == [
        "FAILED",
        "FINISHED",
    ]
    assert parents[-1].info.status == "FAILED"
    assert "1 of 2 runs finished" in done.stdout


UNDER_WAY = [
    "train",
    "-m",
    "seed=0,1,2",
    "examples=400",
    "training.epochs=30",
    "model.filters=16",
    "trainable=false",
]


def under_way(folder, earlier, number, *overrides):
    """Starts a sweep of three runs; returns its process as soon as the run of that number has begun
    its steps."""
    process = subprocess.Popen(
        [*ZERONORM, *UNDER_WAY, *overrides],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_steps(process, folder, earlier, number)
    return process


def wait_for_steps(process, folder, earlier, number):
    for _ in range(600):
        time.sleep(0.2)
        new = [path for path in (folder / "home" / "outputs").iterdir() if path not in earlier]
        status = status_file(new[0] / str(number)) if new else None
        if status and status.exists() and json.loads(status.read_text())["done"] > 0:
            return
        assert process.poll() is None, process.communicate()
    raise AssertionError("the run has not begun within two minutes")


@pytest.fixture
def fresh(swept):
    """(folder, what lies in its outputs, a function that returns the sweeps and runs added
    since)."""
    folder, _ = swept
    before = {run.info.run_id for part in runs_of(store(folder), "single runs") for run in part}

    def added():
        parts = runs_of(store(folder), "single runs")
        return [
            sorted((run for run in part if run.info.run_id not in before), key=number_of)
            for part in parts
        ]

    return folder, set((folder / "home" / "outputs").iterdir()), added


def number_of(run):
    return int(run.data.tags.get("job", 0))


@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_sweep_keeps_what_is_finished(fresh, sent, code):
    folder, earlier, added = fresh
    process = under_way(folder, earlier, 1, "hydra.launcher.workers=1")
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    parents, runs = added()
    assert [run.info.status for run in runs] == ["FINISHED", "KILLED"]
    assert [run.info.status for run in parents] == ["KILLED"]
    assert runs[0].data.tags["outcome"] == "finite" and "eval/mrr" in runs[0].data.metrics
    killed = runs[1].data
    # what was measured is kept
    assert killed.tags["outcome"] == "killed" and "train/loss" in killed.metrics
    assert "1 of 3 runs finished" in out and "Interrupted." in out and "Traceback" not in err
    if sent == signal.SIGINT:  # and the rest can be made up for
        again = zeronorm(folder, *UNDER_WAY, "--only-missing", "hydra.launcher.workers=1")
        assert "3 of 3 runs finished" in again.stdout, again.stderr
        parents, runs = added()
        statuses = [run.info.status for run in runs]
        assert sorted(statuses) == ["FINISHED", "FINISHED", "FINISHED", "KILLED"]
        seeds = tracking.children(store(folder), parents[-1])["params.seed"]
        assert list(seeds) == ["0", "1", "2"]  # in the sweep's order, the run taken over among them


STUDY = """# @package _global_
study: mine
hydra:
  mode: MULTIRUN
  sweeper:
    params: {numerics: "kernels,tf1"}
    grids:
      - {similarity: clamp_product, similarity.epsilon: "1e-7,1e-3"}
      - {trainable: false}
"""


def test_a_new_study_is_one_file(swept):
    folder, _ = swept
    (folder / "conf" / "study").mkdir()
    (folder / "conf" / "study" / "mine.yaml").write_text(STUDY)
    done = zeronorm(
        folder, "train", f"--config-dir={folder}/conf", "study=mine", "autopsy=false", *SMALL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 runs finished" in done.stdout
    assert "2 of 6 conditions end in NaN" in done.stdout
    again = zeronorm(folder, "study", "mine", "--format", "json")
    assert [row["nan_runs"] for row in json.loads(again.stdout)] == [0, 0, 1, 1, 0, 0]


def test_hydras_own_launcher_gives_the_same_runs(fresh):
    """In this process, one after the other: the same outcomes, steps and quality as in workers."""
    folder, _, added = fresh
    for launcher in ("basic", "workers"):
        arguments = (
            f"hydra/launcher={launcher}",
            "numerics=kernels,tf1",
            "autopsy=false",
            *SMALL,
        )
        done = zeronorm(folder, "train", "-m", *arguments)
        assert done.returncode == 0 and "2 of 2 runs finished" in done.stdout
    parents, runs = added()
    by_parent = [
        [run for run in runs if run.data.tags["mlflow.parentRunId"] == parent.info.run_id]
        for parent in parents
    ]
    for one, other in zip(*by_parent, strict=True):
        for tag in (
            "condition",
            "seed",
            "job",
            "config.sha",
            "outcome",
            "nan.first_step",
            "nan.encoder_step",
        ):
            assert one.data.tags.get(tag) == other.data.tags.get(tag)
        assert one.data.metrics["eval/mrr"] == pytest.approx(
            other.data.metrics["eval/mrr"], rel=0.05
        )


def test_ctrl_c_in_a_terminal_reaches_every_process_and_both_workers_end_in_order(fresh):
    folder, earlier, added = fresh
    process = under_way(folder, earlier, 1, "hydra.launcher.workers=2", "training.epochs=200")
    wait_for_steps(process, folder, earlier, 0)
    for one in (process, *psutil.Process(process.pid).children(recursive=True)):
        one.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    _, runs = added()
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]
    assert all("train/loss" in run.data.metrics for run in runs)


@pytest.mark.parametrize("seconds", [2, 6])
def test_ctrl_c_before_the_first_run_leaves_no_traceback(tmp_path, seconds):
    process = subprocess.Popen(
        [*ZERONORM, "train", "-m", "seed=0,1", *SMALL],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(seconds)
    for one in (process, *psutil.Process(process.pid).children(recursive=True)):
        one.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err


def test_a_choice_that_is_not_there_is_said_without_a_traceback(tmp_path):
    done = zeronorm(tmp_path, "train", "-m", "optimizer=adam,lazzy")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr == "zeronorm: optimizer=lazzy is unknown: use one of adam, adam_2017, sgd.\n"


def test_a_launcher_that_cannot_be_is_one_sentence(tmp_path):
    done = zeronorm(tmp_path, "train", "-m", "hydra.launcher.threads=-1")
    assert done.returncode == 1
    assert (
        done.stderr
        == "zeronorm: hydra.launcher.threads=-1 must be a whole number of at least 1, or null.\n"
    )


def test_a_run_whose_worker_dies_is_marked_and_the_others_finish(fresh):
    folder, earlier, added = fresh
    process = under_way(folder, earlier, 0, "hydra.launcher.workers=1")
    for child in psutil.Process(process.pid).children():
        for worker in child.children():  # of the process that workers are forked from
            worker.kill()
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "A worker process died in this run" in err
    parents, runs = added()
    assert [run.info.status for run in runs] == ["FAILED", "FINISHED", "FINISHED"]
    assert [run.info.status for run in parents] == ["FAILED"] and "2 of 3 runs finished" in out


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (
            ["similarity=unguarded", "similarity.epsilon=1e-3"],
            "zeronorm: similarity=unguarded has no epsilon, but",
        ),
        (
            ["-m", "init=pretrained,uniform", "vectors.zero_share=0.5"],
            "zeronorm: init=uniform draws every row anew, so",
        ),
        (["tracking=server"], "zeronorm: tracking=server needs a URI: set MLFLOW_TRACKING_URI"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_started(tmp_path, arguments, sentence):
    done = zeronorm(tmp_path, "train", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence) and done.stderr.count("\n") == 1
    assert not (tmp_path / "home" / "mlflow.db").exists()


def test_a_dead_tracking_server_is_said_before_anything_is_computed(tmp_path):
    done = zeronorm(tmp_path, "train", "tracking=server", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("zeronorm: The tracking store http://127.0.0.1:9 does not answer")
    )
    assert "Traceback" not in done.stderr


def test_a_store_that_dies_under_way_loses_nothing(composed, tmp_path):
    """What a run found stays in its folder, and the sentence says where."""
    from zeronorm import experiment

    config = composed(f"home={tmp_path}", *SMALL)
    client = tracking.connect(config)
    result = Result(tmp_path)
    with (
        pytest.raises(tracking.TrackingError, match="everything it found is in") as failed,
        tracking.tracked(client, config, [], None, None) as run_id,
    ):
        experiment.run(prepare(composed(*SMALL)), result)
        (tmp_path / "mlflow.db").write_bytes(b"")
        tracking.log(client, run_id, result, points=10)
    assert str(tmp_path) in str(failed.value) and "\n" not in str(failed.value)
    assert (tmp_path / "curves.csv.gz").exists() and (tmp_path / "metrics.json").exists()


def test_pairs_trains_and_names_the_lines_it_left_out(tmp_path):
    rng = np.random.default_rng(0)
    words = [f"word{'abcdefghij'[n % 10]}{'abcdefghij'[n // 10]}" for n in range(100)]
    lines = [f"{' '.join(rng.choice(words, 30))}\t{words[n % 7]}" for n in range(140)]
    lines.insert(3, "a line without a tab")
    (tmp_path / "pairs.tsv").write_text("\n".join(lines) + "\n")
    done = zeronorm(
        tmp_path,
        "train",
        "corpus=pairs",
        "corpus.reader.path=pairs.tsv",
        "corpus.window=30",
        "numerics=tf1",
        "autopsy=false",
        *SMALL,
    )
    assert done.returncode == 0, done.stderr
    assert "Bad lines left out of pairs.tsv: 1. The first:" in done.stdout
    assert "pairs.tsv:4: 0 tabs where there should be 1" in done.stdout
    assert "0 of 7 title rows start at zero. Predicted: no NaN." in done.stdout
    assert "0 of 7 title rows start at zero. All weights stayed finite" in done.stdout


def test_help_answers_without_a_slow_import():
    program = (
        "import sys, zeronorm.cli; zeronorm.cli.main(['--help'], standalone_mode=False);"
        " print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "train" in done.stdout and "study" in done.stdout
    assert not {"tensorflow", "mlflow", "hydra", "gensim"} & set(
        done.stdout.splitlines()[-1].split()
    )


def test_thinned_keeps_ends_gaps_and_finite_values_only():
    curve = np.concatenate([np.arange(90.0), [np.nan] * 10])
    steps = tracking.thinned(curve, 10)
    assert steps[0] == 0 and steps[-1] == 89 and len(steps) <= 11
    assert np.isfinite(curve[steps]).all()
    assert tracking.thinned(np.array([np.nan, np.nan]), 10).size == 0
    np.testing.assert_array_equal(tracking.thinned(np.arange(5.0), 10), np.arange(5))


def test_whoever_reads_along_may_go():
    """zeronorm train ... | head: the run goes on."""
    program = (
        "import sys; from zeronorm.sweep.display import console;"
        " [console.print('x' * 999) for _ in range(999)]; print('done', file=sys.stderr)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("done\n", 0)


def test_the_store_uri_is_absolute(composed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert tracking.store_uri(composed("home=runs")) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking.store_uri(composed("tracking=server")) == "http://127.0.0.1:5000"


def test_the_wheel_works_outside_the_checkout(tmp_path):
    """conf/ travels with it: built, unpacked elsewhere, and trained with."""
    root = checkout.conf_dir().parent
    python = [sys.executable, "-m"]
    subprocess.run(
        [*python, "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)],
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run(
        [*python, "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)],
        check=True,
        capture_output=True,
    )
    program = (
        "import zeronorm.cli, zeronorm.config; print(zeronorm.checkout.conf_dir());"
        " zeronorm.cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "train", "-m", "trainable=false", *SMALL],
        cwd=tmp_path,
        env=environment(tmp_path) | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert str(site / "zeronorm" / "conf") in done.stdout.replace("\n", "")
    assert (site / "hydra_plugins" / "zeronorm_launcher.py").exists()
    assert "1 of 1 runs finished" in done.stdout
