"""hydra/launcher=slurm, with stand-ins for Slurm's commands: no test of Slurm itself, but of all
that this project and submitit do around it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hydra.core.utils import JobStatus
from mlflow import MlflowClient
from submitit.core.job_environment import SignalHandler
from submitit.core.utils import UncompletedJobError

from zeronorm import failure
from zeronorm.sweep import slurm

pytestmark = pytest.mark.slow  # starts processes

ZERONORM = [str(Path(sys.executable).with_name("zeronorm")), "train", "-m"]
SLURM = ["hydra/launcher=slurm", "training=smoke", "examples=40", "model.filters=16"]
WAIT = 180  # seconds, at most, for what takes a few

# Each is a Python program. STATE is a folder with a file for each job: the id of its process group;
# beside it NAME.ended, its exit status, once it has ended, and NAME.cancelled.
COMMANDS = {
    "sbatch": """
import re, shutil
array = re.search(r"--array=0-(\\d+)", Path(sys.argv[-1]).read_text())
number = len(list(STATE.glob("*.sh"))) * 100 + 1
script = STATE / f"{number}.sh"
shutil.copy(sys.argv[-1], script)  # who submits it moves it afterwards
for task in range(int(array[1]) + 1 if array else 1):
    name = f"{number}_{task}" if array else str(number)
    passed = KEPT | {"SLURM_EXPORT_ENV": "NONE"} if CLEAN else os.environ
    own = {"SLURM_JOB_ID": str(number + task)}
    if array:
        own |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(task)}
    job = subprocess.Popen(
        ["bash", "-c", f"bash {script}; echo $? > {STATE}/{name}.ended"],
        env={**passed, **own}, start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    (STATE / f"{name}.job").write_text(str(job.pid))
print(f"Submitted batch job {number}")
""",
    "srun": """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--unbuffered", action="store_true")
parser.add_argument("--output")
parser.add_argument("--error")
parser.add_argument("command", nargs=argparse.REMAINDER)
given = parser.parse_args()
os.environ |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "1"}
array = os.environ.get("SLURM_ARRAY_JOB_ID", ""), os.environ.get("SLURM_ARRAY_TASK_ID", "")
meant = {"%A": array[0], "%a": array[1], "%j": os.environ["SLURM_JOB_ID"], "%t": "0"}
for number, path in ((1, given.output), (2, given.error)):
    for sign, value in meant.items():
        path = path.replace(sign, value)
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
if os.environ.get("SLURM_EXPORT_ENV") == "NONE":  # then a step gets none of the script's either
    environment = KEPT | {name: value for name, value in os.environ.items() if "SLURM_" in name}
    os.execvpe(given.command[0], given.command, environment)
os.execvp(given.command[0], given.command)
""",
    "sacct": """
print("JobID|State|NodeList")
for job in STATE.glob("*.job"):
    ended = job.with_suffix(".ended")
    state = "RUNNING"
    if job.with_suffix(".cancelled").exists():
        state = "CANCELLED"
    elif ended.exists():
        state = "COMPLETED" if ended.read_text().strip() == "0" else "OUT_OF_MEMORY"
    print(f"{job.stem}|{state}|node1")
""",
    "scancel": """
import signal
for wanted in sys.argv[1:]:
    for job in STATE.glob("*.job"):
        if wanted in (job.stem, job.stem.split("_")[0]) and not job.with_suffix(".ended").exists():
            job.with_suffix(".cancelled").touch()
            # its step, as Slurm does; not the shell around it
            for process in psutil.Process(int(job.read_text())).children(recursive=True):
                if "submitit" in " ".join(process.cmdline()[:5]) and "bash" not in process.name():
                    process.send_signal(signal.SIGTERM)
""",
}

BROKEN = """
import tensorflow as tf

def broken(a, b, numerics):
    if a.shape[-1] == 100:
        raise RuntimeError("this placement is broken")
    return tf.reduce_sum(a * b, -1)
"""


def stand_ins(folder: Path, clean: bool) -> Path:
    """The folder of Slurm's commands. clean: whether a job gets no environment but PATH and
    HOME."""
    commands, state = folder / "bin", folder / "state"
    commands.mkdir()
    state.mkdir()
    for name, program in COMMANDS.items():
        head = (
            f"#!{sys.executable}\nimport os, subprocess, sys, psutil\nfrom pathlib import Path\n"
            f"STATE, CLEAN = Path({str(state)!r}), {clean}\n"
            "KEPT = {'PATH': os.environ['PATH'], 'HOME': os.environ['HOME']}\n"
        )
        (commands / name).write_text(head + program)
        (commands / name).chmod(0o755)
    return commands


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, home, excerpt):
    """cluster(clean) -> (a folder with a home and a placement that is broken, the environment that
    has Slurm's commands)."""
    made = []

    def make(clean: bool):
        folder = tmp_path_factory.mktemp("cluster")
        (folder / "home").mkdir()
        (folder / "home" / "cache").symlink_to(home / "cache")
        (folder / "conf" / "similarity").mkdir(parents=True)
        (folder / "broken.py").write_text(BROKEN)
        group = folder / "conf" / "similarity" / "broken.yaml"
        group.write_text("name: broken\nfunction: broken.broken\n")
        environment = {
            **os.environ,
            "PATH": f"{stand_ins(folder, clean)}:{os.environ['PATH']}",
            "ZERONORM_HOME": "home",  # which a job finds from where it was submitted
            "PYTHONPATH": str(folder),
            "COLUMNS": "300",
        }
        for name in [name for name in environment if name.startswith(("SLURM", "SUBMITIT"))]:
            del environment[name]
        made.append(folder)
        return folder, environment

    yield make
    for folder in made:
        for job in (folder / "state").glob("*.job"):  # of a test that failed under way
            if not job.with_suffix(".ended").exists() and psutil.pid_exists(int(job.read_text())):
                os.killpg(int(job.read_text()), signal.SIGKILL)


def finished(cluster, clean: bool, *overrides: str) -> SimpleNamespace:
    """A sweep of two runs, come to its end."""
    folder, environment = cluster(clean)
    command = [*ZERONORM, f"--config-dir={folder}/conf", *SLURM, *overrides]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    parents, children = in_store(folder)
    return SimpleNamespace(folder=folder, done=done, parents=parents, children=children)


def in_store(folder: Path):
    """(the sweeps, their runs by number) of a folder's store."""
    client = MlflowClient(f"sqlite:///{folder}/home/mlflow.db")
    found = client.search_runs([one.experiment_id for one in client.search_experiments()])
    parents = [run for run in found if run.data.tags["kind"] == "sweep"]
    children = [run for run in found if run.data.tags["kind"] == "run"]
    return parents, sorted(children, key=lambda run: int(run.data.tags["job"]))


def until(what, *arguments):
    """What `what` returns, as soon as it is true."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if found := what(*arguments):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what.__name__} was not true within {WAIT} s")


@pytest.fixture(scope="module")
def passed_on(cluster):
    return finished(cluster, False, "numerics=kernels,tf1", "trainable=true")


@pytest.fixture(scope="module")
def with_nothing(cluster):
    """The second run of the two fails; their jobs have no environment but PATH and HOME."""
    two = "numerics=tf1", "similarity=clamp_product,broken"
    return finished(cluster, True, *two)


@pytest.fixture(scope="module")
def interrupted(cluster):
    """A sweep whose command got a Ctrl-C while both its jobs were at their steps."""
    folder, environment = cluster(False)
    long = "seed=0,1", "examples=400", "training.epochs=300", "trainable=false"
    process = subprocess.Popen(
        [*ZERONORM, *SLURM, *long],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def both_have_begun():
        assert process.poll() is None, process.communicate()
        files = list((folder / "home" / "outputs").glob("*/[01].status.json"))
        return sum(json.loads(file.read_text())["done"] > 0 for file in files) == 2

    until(both_have_begun)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=WAIT)
    return SimpleNamespace(
        folder=folder, environment=environment, code=process.returncode, out=out, err=err
    )


def test_a_sweep_is_an_array_of_jobs_whose_runs_are_its_children(passed_on):
    assert passed_on.done.returncode == 0, passed_on.done.stdout + passed_on.done.stderr
    [parent] = passed_on.parents
    assert parent.info.status == "FINISHED" and len(passed_on.children) == 2
    for run in passed_on.children:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == "FINISHED"
    outcomes = [run.data.tags["outcome"] for run in passed_on.children]
    assert outcomes == ["finite", "nan"]
    assert "In 2 of 2 runs the prediction, made before training, is exact" in re.sub(
        r"\s+", " ", passed_on.done.stdout
    )


def test_the_predictions_of_jobs_are_exact(passed_on):
    for run in passed_on.children:
        tags = run.data.tags
        for predicted, met in (
            ("nan.predicted_step", "nan.first_step"),
            ("nan.predicted_encoder_step", "nan.encoder_step"),
        ):
            assert tags.get(predicted, "none") == tags.get(met, "none")
    assert passed_on.children[1].data.tags["nan.first_step"] == "0"


def test_what_the_site_asks_for_reaches_sbatch(passed_on):
    [script] = (passed_on.folder / "state").glob("*.sh")
    for line in ("--array=0-1%2", "--time=60", "--mem=8GB", "--cpus-per-task=2"):
        assert f"#SBATCH {line}\n" in script.read_text()
    assert "partition" not in script.read_text() and "account" not in script.read_text()


def test_a_job_without_an_environment_finds_its_sweep_and_its_store(with_nothing):
    [parent] = with_nothing.parents
    assert [run.data.tags["mlflow.parentRunId"] for run in with_nothing.children] == [
        parent.info.run_id
    ] * 2
    good = with_nothing.children[0]
    assert (good.info.status, good.data.tags["outcome"]) == ("FINISHED", "nan")
    assert good.data.tags["nan.first_step"] == good.data.tags["nan.predicted_step"]
    assert not (with_nothing.folder / "runs").exists()  # where they would be without their home


def test_a_job_that_fails_is_named_with_its_reason(with_nothing):
    assert with_nothing.done.returncode == 1
    assert [run.info.status for run in with_nothing.children] == ["FINISHED", "FAILED"]
    assert with_nothing.parents[0].info.status == "FAILED"
    assert "1 of 2 runs finished" in with_nothing.done.stdout
    [said] = [line for line in with_nothing.done.stderr.splitlines() if "FAILED" in line]
    assert "broken tf1: " in said
    assert "this placement is broken (broken.py:6)" in said
    assert "Traceback" not in with_nothing.done.stderr


def test_after_ctrl_c_the_jobs_go_on_until_they_are_cancelled(interrupted):
    """And then each run has ended as KILLED, with what it measured: docs/cluster.md says so."""
    assert interrupted.code == 130 and "Traceback" not in interrupted.err
    [hint] = re.findall(r"Its jobs are Slurm's and go on: (scancel \d+) ends them", interrupted.out)
    folder = interrupted.folder
    assert [run.info.status for run in in_store(folder)[0]] == ["KILLED"]
    assert not list((folder / "state").glob("*.ended"))
    subprocess.run(hint.split(), env=interrupted.environment, check=True)
    until(lambda: len(list((folder / "state").glob("*.ended"))) == 2)
    parents, children = in_store(folder)
    assert [run.info.status for run in parents + children] == ["KILLED"] * 3
    for run in children:
        assert run.data.tags["outcome"] == "killed" and "train/loss" in run.data.metrics


@pytest.mark.parametrize("code, state", [(137, "OUT_OF_MEMORY"), (0, "COMPLETED")])
def test_a_job_that_leaves_no_result_is_a_failed_run(tmp_path, monkeypatch, code, state):
    """Not the end of the others, for which nobody would wait any more."""
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    commands = stand_ins(tmp_path, clean=False)
    (tmp_path / "state" / "7_0.job").write_text("1")
    (tmp_path / "state" / "7_0.ended").write_text(str(code))
    monkeypatch.setenv("PATH", str(commands), prepend=os.pathsep)
    monkeypatch.setattr(SlurmJob, "_results_timeout_s", 0)
    monkeypatch.setattr(SlurmJob, "watcher", SlurmInfoWatcher())  # it remembers what has ended
    (tmp_path / "7_0").mkdir()
    job = SlurmJob(tmp_path / "%j", "7_0")
    with slurm.settled():
        [found] = job.results()
    assert found.status == JobStatus.FAILED
    assert f"Slurm's job 7_0 left no result ({state}): see " in str(found._return_value)


def test_where_slurm_is_not_no_sweep_begins(tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path), "ZERONORM_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [*ZERONORM, *SLURM, "seed=0,1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and not (tmp_path / "home" / "mlflow.db").exists()
    assert done.stderr == (
        "zeronorm: hydra/launcher=slurm needs Slurm's sbatch, srun, sacct, scancel, not found"
        " here: start it on a login node, or use hydra/launcher=workers.\n"
    )


def test_a_single_run_says_that_it_is_made_here(cluster):
    folder, environment = cluster(False)
    command = [word for word in ZERONORM if word != "-m"]
    done = subprocess.run(
        [*command, *SLURM, "autopsy=false"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "A launcher is for sweeps: this single run is made here; -m submits it." in done.stdout
    assert not list((folder / "state").iterdir())


def test_a_sweep_of_one_run_is_a_job_by_itself(cluster):
    found = finished(cluster, True)
    assert found.done.returncode == 0, found.done.stderr
    [script] = (found.folder / "state").glob("*.sh")
    assert "--array" not in script.read_text()
    [parent], [run] = found.parents, found.children
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_only_a_sweeps_own_jobs_are_named_to_be_cancelled(tmp_path):
    assert "scancel" not in slurm.cancel_hint(tmp_path)  # it would end what others have submitted
    for name in ("12_0", "12_1", "7", "%j", "x_1"):
        (tmp_path / ".submitit" / name).mkdir(parents=True)
    assert "scancel 12 7 ends" in slurm.cancel_hint(tmp_path)


WITHOUT = """
import sys
from pathlib import Path
import hydra_plugins
hydra_plugins.__path__ = [
    path for path in hydra_plugins.__path__ if not Path(path, "hydra_submitit_launcher").exists()
]
sys.modules["submitit"] = None
from zeronorm.cli import main
main(prog_name="zeronorm")
"""


@pytest.mark.parametrize(
    "words, code, said",
    [
        (
            "train -m hydra/launcher=slurm seed=0,1",
            1,
            "zeronorm: hydra/launcher=slurm needs submitit: pip install 'zeronorm[slurm]'.\n",
        ),
        (
            "train -m hydra/launcher=submitit_local seed=0,1",
            1,
            "zeronorm: hydra/launcher=submitit_local needs submitit: pip install"
            " 'zeronorm[slurm]'.\n",
        ),
        (
            "train -m hydra/launcher=slrm seed=0,1",
            1,
            "zeronorm: hydra/launcher=slrm is unknown: did you mean slurm (of basic, slurm,"
            " workers)?\n",
        ),
        ("train --help", 0, ""),
        ("train hydra/launcher=basic --cfg job", 0, ""),
        ("train --cfg hydra", 0, ""),
    ],
)
def test_without_the_extra_one_sentence_says_so_and_the_rest_works(tmp_path, words, code, said):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *words.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (code, said)


def test_completion_names_the_launcher_without_the_extra(tmp_path):
    words = {"COMP_WORDS": "zeronorm train hydra/launcher=", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=tmp_path,
        env={**os.environ, **words, "_ZERONORM_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [
        f"plain,hydra/launcher={name}" for name in ("basic", "slurm", "workers")
    ]


def test_a_run_that_slurm_ends_in_time_says_how_to_get_more(tmp_path):
    """What submitit raises in a job that is told of its end, and may not be queued again."""
    delayed = SimpleNamespace(_timeout_countdown=0, function=int)
    handler = SignalHandler(SimpleNamespace(global_rank=0), SimpleNamespace(), delayed)
    handler.has_timed_out = lambda: True
    with pytest.raises(UncompletedJobError) as ended:
        handler.checkpoint_and_try_requeue(signal.SIGUSR2)
    assert "hydra.launcher.timeout_min" in failure.reason(ended.value)
