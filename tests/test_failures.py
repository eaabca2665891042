"""What a user's function may do to a run, and what the sweep, its store and the exit status say of
it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.utils import JobReturn, JobStatus
from mlflow import MlflowClient

from zeronorm import checkout, failure, tracking
from zeronorm import config as schema
from zeronorm.sweep import check, workers
from zeronorm.sweep import job as jobs
from zeronorm.sweep.display import report_progress, status_file
from zeronorm.sweep.parent_run import ParentRun
from zeronorm.sweep.plan import Plan, expand
from zeronorm.sweep.process import Interrupts

pytestmark = pytest.mark.slow  # starts processes

SMALL = ["training=smoke", "examples=50", "model.filters=8", "trainable=false", "autopsy=false"]
MINE = """
import os, signal, sys, time
import tensorflow as tf

class Own(BaseException):
    pass

def kill(number):
    os.kill(os.getpid(), number)

def throw(error):
    raise error

ACTS = {
    "good": lambda: None,
    "error": lambda: throw(RuntimeError("this is broken")),
    "exit_0": lambda: sys.exit(0),
    "exit_3": lambda: sys.exit(3),
    "exit_130": lambda: sys.exit(130),
    "exit_text": lambda: sys.exit("a text"),
    "interrupt": lambda: throw(KeyboardInterrupt()),
    "generator": lambda: throw(GeneratorExit()),
    "own": lambda: throw(Own("of my own")),
    "sigterm": lambda: kill(signal.SIGTERM),
    "os_exit": lambda: os._exit(0),
    "sigkill": lambda: kill(signal.SIGKILL),
    "hang": lambda: [time.sleep(0.1) for _ in iter(int, 1)],
}

def make(name, where):
    def similarity(a, b, numerics):
        if where == "check" or a.shape[-1] != 4:  # the check tries it on four columns
            ACTS[name]()
        return tf.reduce_sum(a * b, -1)
    return similarity

for name in ACTS:
    for where in ("check", "job"):
        globals()[f"{name}_in_{where}"] = make(name, where)
"""
RAISED = {  # what is said of what a function raises
    "error": "RuntimeError: this is broken",
    "exit_0": "SystemExit: 0",
    "exit_3": "SystemExit: 3",
    "exit_130": "SystemExit: 130",
    "exit_text": "SystemExit: a text",
    "interrupt": "KeyboardInterrupt",
    "generator": "GeneratorExit",
    "own": "Own: of my own",
}
ENDED = {  # and of what it ends the process by
    "sigterm": "SIGTERM ended the run's process",
    "os_exit": "A worker process died in this run (exit status 0)",
    "sigkill": "A worker process died in this run (SIGKILL)",
}


def line_of(name: str) -> str:
    """Where the innermost line of an act stands."""
    text = MINE.splitlines()
    found = next(n for n, line in enumerate(text, 1) if f'"{name}": ' in line)
    if "throw(" in text[found - 1]:
        found = next(n for n, line in enumerate(text, 1) if "raise error" in line)
    if "kill(" in text[found - 1]:
        found = next(n for n, line in enumerate(text, 1) if "os.kill(" in line)
    return f"mine.py:{found}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, home, excerpt):
    made = tmp_path_factory.mktemp("failures")
    (made / "home").mkdir()
    (made / "home" / "cache").symlink_to(home / "cache")
    (made / "mine.py").write_text(MINE)
    (made / "conf" / "similarity").mkdir(parents=True)
    for name in ("good", *RAISED, *ENDED, "hang"):
        text = f"name: {name}\nfunction: mine.{name}_in_job\n"
        (made / "conf" / "similarity" / f"{name}.yaml").write_text(text)
    return made


def started(folder: Path, *arguments: str, **more) -> subprocess.Popen:
    environment = {**os.environ, "ZERONORM_HOME": str(folder / "home"), "COLUMNS": "100", **more}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment.pop(jobs.PARENT_RUN, None)
    return subprocess.Popen(
        [sys.executable, "-c", "import zeronorm.cli; zeronorm.cli.main()", *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def zeronorm(folder: Path, *arguments: str, **more) -> tuple[int, str, str]:
    process = started(folder, *arguments, **more)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def train(folder: Path, *arguments: str, **more) -> tuple[int, str, str]:
    return zeronorm(folder, "train", f"--config-dir={folder}/conf", *arguments, *SMALL, **more)


def runs(folder: Path, parent: str | None = None) -> dict[str, object]:
    """{similarity: its run}, of the newest sweep or of the given one; None: of the runs by
    themselves."""
    client = MlflowClient(f"sqlite:///{folder}/home/mlflow.db")
    experiment = client.get_experiment_by_name("single runs").experiment_id
    found = client.search_runs([experiment], "tags.kind = 'run'", order_by=["start_time ASC"])
    return {
        run.data.params["similarity.name"]: run
        for run in found
        if run.data.tags.get("mlflow.parentRunId") == parent
    }


def newest(folder: Path):
    return tracking.sweeps(MlflowClient(f"sqlite:///{folder}/home/mlflow.db"), "single runs")[0]


@pytest.fixture(scope="module")
def swept(folder):
    names = ("good", *RAISED, *ENDED)  # those that end the process last: each costs a new one
    return train(folder, "-m", f"similarity={','.join(names)}", "hydra.launcher.workers=1")


def test_what_a_function_does_in_a_job_fails_its_run_and_no_other(folder, swept):
    code, out, err = swept
    assert code == 1 and "Traceback" not in err
    sweep_run = newest(folder)
    found = runs(folder, sweep_run.info.run_id)
    assert {name: run.info.status for name, run in found.items()} == {
        "good": "FINISHED", **dict.fromkeys([*RAISED, *ENDED], "FAILED")
    }  # fmt: skip
    assert sweep_run.info.status == "FAILED" and f"1 of {len(found)} runs finished" in out
    assert "--only-missing" in out
    said = [line for line in err.splitlines() if line.startswith("FAILED ")]
    assert len(said) == len(RAISED) + len(ENDED)
    for name, reason in (RAISED | ENDED).items():
        [line] = [line for line in said if f" {name} " in line]
        assert reason in line
        assert reason in found[name].data.tags["error"]
        if name not in ("os_exit", "sigkill"):  # which leave nobody to say where they were
            assert line.endswith(f"({line_of(name)})")
            assert found[name].data.tags["error.line"] == line_of(name)


@pytest.mark.parametrize("name", RAISED)
def test_what_a_function_raises_in_the_check_is_a_sentence(folder, composed, monkeypatch, name):
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    placement = ["similarity.name=mine", "similarity.epsilon=null", "similarity.bounds=null"]
    config = composed(*SMALL, *placement, f"similarity.function=mine.{name}_in_check")
    with pytest.raises(schema.ConfigError) as refused:
        check.check_input(config)
    said = str(refused.value)
    assert RAISED[name].removeprefix("RuntimeError: ") in said and said.endswith(
        f"({line_of(name)})"
    )


def test_a_check_that_ends_its_process_is_a_sentence(folder, composed, monkeypatch):
    monkeypatch.syspath_prepend(folder)  # which a worker takes over
    monkeypatch.chdir(folder)
    pool = workers.Workers(1, 1)
    placement = ["similarity.name=mine", "similarity.epsilon=null", "similarity.bounds=null"]
    try:
        for name, how in (
            ("os_exit", "by exit status 0;"),
            ("sigterm", f"by SIGTERM ({line_of('sigterm')});"),
        ):
            config = composed(*SMALL, *placement, f"similarity.function=mine.{name}_in_check")
            with pytest.raises(
                schema.ConfigError, match="its check ended the worker process twice"
            ) as refused:
                check.checked_apart(config, pool)
            assert how in str(refused.value) and "\n" not in str(refused.value)
    finally:
        pool.close(at_once=True)


def test_a_run_by_itself_says_why_and_where(folder):
    code, _, err = train(folder, "similarity=exit_0")
    assert code == 1 and "Traceback" not in err
    assert (
        err.strip().splitlines()[-1].startswith(f"zeronorm: SystemExit: 0 ({line_of('exit_0')}) ")
    )
    run = runs(folder)["exit_0"]
    assert run.info.status == "FAILED" and run.data.tags["error.line"] == line_of("exit_0")


def test_a_run_by_itself_whose_code_ends_the_process_does_not_end_with_0(folder):
    of = ("name=mine", "function=mine.os_exit_in_check", "epsilon=null", "bounds=null")
    code, _, err = train(folder, *(f"similarity.{key}" for key in of))
    assert code == 1 and err.count("\n") == 1
    assert "its check ended the worker process twice, by exit status 0;" in err


def test_a_signal_has_nothing_left_to_end_in_what_is_being_closed():
    handled = Interrupts()
    before = signal.getsignal(signal.SIGINT)
    handled.install()
    try:
        with handled.held_until_done():
            os.kill(os.getpid(), signal.SIGINT)
        assert handled.came == signal.SIGINT and handled.pending is None
        # a second one does not wait
        with pytest.raises(KeyboardInterrupt), handled.held_until_done():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_hydras_own_launcher_and_a_job_made_again_without_its_environment(folder):
    """In this process; then one job again, which knows its parent by the sweep's folder alone."""
    save = "+hydra.callbacks.save._target_=hydra.experimental.callbacks.PickleJobInfoCallback"
    code, out, err = train(
        folder, "-m", "hydra/launcher=basic", "similarity=exit_0,good,interrupt", save
    )
    assert code == 1 and "Traceback" not in err and "1 of 3 runs finished" in out
    parent = newest(folder).info.run_id
    states = {name: run.info.status for name, run in runs(folder, parent).items()}
    assert states == {"exit_0": "FAILED", "good": "FINISHED", "interrupt": "FAILED"}
    where = Path(re.search(r"tables: (\S+)/table.md", out)[1])
    before = runs(folder, parent)["good"].info.run_id
    code, _, err = zeronorm(
        folder, "train", "--experimental-rerun", f"{where}/1/.hydra/config.pickle"
    )
    again = runs(folder, parent)["good"]
    assert code == 0, err
    assert again.info.run_id != before and again.info.status == "FINISHED"


@pytest.mark.parametrize(
    "number, code",
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_one_signal_ends_a_sweep_whose_job_hangs(folder, number, code):
    process = started(
        folder, "train", f"--config-dir={folder}/conf", "-m", "similarity=good,hang",
        "hydra.launcher.workers=1", *SMALL,
    )  # fmt: skip
    assert process.stdout.readline().startswith("finite  good  1/2 runs")
    status = None
    while status is None or not status.exists():  # until the job that hangs has begun
        assert process.poll() is None
        time.sleep(0.1)
        outputs = sorted((folder / "home" / "outputs").iterdir())[-1]
        status = status_file(outputs / "1")
    time.sleep(2.0)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Stopping these runs, in 10 s at most: frozen pretrained hang kernels" in out
    assert "Killed, because it did not end: frozen pretrained hang kernels" in out
    assert "1 of 2 runs finished" in out and "Traceback" not in err
    found = runs(folder, newest(folder).info.run_id)
    assert (found["good"].info.status, found["hang"].info.status) == ("FINISHED", "KILLED")


@pytest.mark.parametrize(
    "form", ["a,b", "choice(a,b)", "glob(*)", "range(3)", "sort(a,b)", "shuffle(a,b)"]
)
@pytest.mark.parametrize("sign", ["", "+"])
def test_a_sweep_over_studies_is_refused(form, sign):
    form = form.replace("a,b", "quick_ablation,dose_response")
    schema.register()
    with initialize_config_dir(str(checkout.conf_dir()), version_base="1.3"):
        base = compose("config", [], return_hydra_config=True)
        base.hydra.overrides.task = [f"{sign}study={form}"]
        with pytest.raises(schema.ConfigError, match="sweeps over studies"):
            expand(base)


def test_a_study_in_a_grid_is_refused_and_one_by_itself_is_not():
    schema.register()
    with initialize_config_dir(str(checkout.conf_dir()), version_base="1.3"):
        base = compose("config", ["study=dose_response"], return_hydra_config=True)
        assert len(expand(base)) == 105
        base.hydra.sweeper.params = {"study": "dose_response"}
        with pytest.raises(schema.ConfigError, match="sweeps over studies"):
            expand(base)


def test_a_sweep_over_studies_is_refused_on_the_command_line(tmp_path):
    code, out, err = zeronorm(tmp_path, "train", "-m", "study=quick_ablation,dose_response")
    assert code == 1 and not out and not (tmp_path / "home").exists()
    assert (
        err.startswith("zeronorm: study=quick_ablation,dose_response sweeps over")
        and err.count("\n") == 1
    )


class Fake:
    """In place of workers.Worker: each start of the process takes the next of `lives`: what it does
    with a job."""

    lives: list[str]

    def __init__(self, threads):
        self.life = Fake.lives.pop(0) if len(Fake.lives) > 1 else Fake.lives[0]
        self.process, self.pid = self, 0

    def is_alive(self):
        return self.life in ("works", "starts")

    def is_full(self):
        return False

    def call(self, function, *arguments):
        life, self.life = self.life, "dead" if self.life == "dies" else self.life
        if life == "works":
            return function(*arguments)
        raise workers.WorkerDied("SIGKILL") if life == "dies" else workers._NotBegun("SIGKILL")


@pytest.fixture
def lives(monkeypatch):
    def of(*lives):
        Fake.lives = list(lives)
        monkeypatch.setattr(workers, "Worker", Fake)
        return workers.Workers(1, 1)

    return of


def test_a_worker_that_dies_before_it_has_a_job_costs_no_run(lives):
    assert lives("stillborn", "stillborn", "works").map(abs, [-1, -2], "ab") == [1, 2]


def test_a_worker_born_while_the_others_end_takes_no_job(lives, monkeypatch):
    pool, killed, born = lives("works"), [], Fake.__init__

    def interrupted(worker, threads):
        born(worker, threads)
        pool.ending.set()

    monkeypatch.setattr(Fake, "__init__", interrupted)
    monkeypatch.setattr(Fake, "kill", lambda worker: killed.append(worker), raising=False)
    assert pool.map(abs, [-1, -2], "ab") == [None, None] and len(killed) == 1


def test_a_worker_that_never_starts_is_given_up(lives):
    with pytest.raises(
        workers.WorkersFailed, match=r"ended 3 times before it took a job \(SIGKILL\)"
    ):
        lives("stillborn").map(abs, [-1, -2], "ab")


def test_a_real_worker_killed_between_jobs_is_started_again():
    pool = workers.Workers(1, 1)
    try:
        assert pool.first(abs, -2) == 2
        first = pool.workers[0].process
        first.kill()
        first.join()
        assert pool.first(abs, -3) == 3 and pool.workers[0].process is not first
    finally:
        pool.close(at_once=False)
    assert not pool.workers[0].process.is_alive()


def test_only_a_signal_is_an_interruption(tmp_path, monkeypatch):
    for came, raised, expected in (
        (None, KeyboardInterrupt(), failure.RunFailed),
        (None, SystemExit(143), failure.RunFailed),
        (signal.SIGINT, KeyboardInterrupt(), KeyboardInterrupt),
        (signal.SIGTERM, RuntimeError("what TensorFlow makes of it"), SystemExit),
    ):
        handled = Interrupts()
        handled.came = came
        monkeypatch.setattr(jobs, "interrupts", lambda: handled)  # noqa: B023
        with pytest.raises(expected), jobs.judged(tmp_path):
            raise raised


def test_a_worker_that_anyone_ends_fails_and_one_that_its_driver_ends_is_interrupted():
    interrupts = Interrupts()
    interrupts.worker, interrupts.came = True, signal.SIGTERM
    assert not interrupts.interrupted()
    # its word comes a moment later, as where a signal reaches every process
    threading.Timer(0.2, setattr, (interrupts, "ordered", True)).start()
    assert interrupts.interrupted()


def test_a_failure_says_what_and_where(tmp_path):
    (tmp_path / "theirs.py").write_text("def f():\n    raise ValueError('first\\nsecond')\n")
    theirs = {}
    exec(compile((tmp_path / "theirs.py").read_text(), tmp_path / "theirs.py", "exec"), theirs)
    with pytest.raises(ValueError) as raised:
        theirs["f"]()
    found = failure.of(raised.value)
    assert found.reason == "ValueError: first" and found.line.endswith("theirs.py:2")
    quoted = RuntimeError(f'UnknownError: 0\n  File "{tmp_path}/theirs.py", line 1, in f\n')
    assert failure.of(quoted).line.endswith("theirs.py:1")  # as TensorFlow quotes a py_function's
    assert str(failure.of(tracking.TrackingError("The store is gone."))) == "The store is gone."
    assert failure.of(SystemExit()).reason == "SystemExit"


def test_a_sweep_closes_without_its_store(tmp_path, composed, monkeypatch, capfd):
    """What finished is counted by the status files, what failed is named, and the last lines are
    said."""
    job = composed(*SMALL, f"home={tmp_path}")
    plan = Plan(job, [job, job], [job, job], [["seed=0"], ["seed=1"]], [0, 1], {}, ["", ""])
    monkeypatch.setenv(jobs.PARENT_RUN, "")
    under_way = ParentRun(plan, tmp_path / "sweep", ["train"], counted=True)
    assert (tmp_path / "sweep" / jobs.PARENT_FILE).read_text() == under_way.run.info.run_id
    report_progress(tmp_path / "sweep" / "0", "finite", 1, 1)
    failed = JobReturn(status=JobStatus.FAILED)
    failed.return_value = failure.RunFailed("The store is gone.")
    under_way.note([JobReturn(status=JobStatus.COMPLETED), failed])

    def gone(*_):
        raise ConnectionError("no route")

    monkeypatch.setattr(tracking, "children", gone)
    assert under_way.close("FINISHED") == "FAILED"
    out, err = capfd.readouterr()
    said = " ".join(out.split())
    assert "could not be closed in the store" in said and "1 of 2 runs finished" in said
    assert "--only-missing" in said and "FAILED" in err and "seed=1: The store is gone." in err


def test_the_lock_of_the_store_is_not_waited_for_for_ever(tmp_path, composed, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(tracking, "LOCKED", 0.2)
    with (
        FileLock(tmp_path / "store.lock"),
        pytest.raises(
            tracking.TrackingError, match=r"Another process has held .*store\.lock for 0 s"
        ),
    ):
        tracking.connect(composed(f"home={tmp_path}"))
