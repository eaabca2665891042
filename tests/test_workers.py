"""Which worker takes which job, and how many workers there are."""

import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from zeronorm.config import ConfigError
from zeronorm.sweep import workers


@pytest.fixture
def machine(monkeypatch):
    """machine(cores, gigabytes, gpu) pretends."""

    def pretend(cores, gigabytes=64, gpu=False):
        monkeypatch.setattr(workers.joblib, "cpu_count", lambda: cores)
        monkeypatch.setattr(
            workers.psutil, "virtual_memory", lambda: SimpleNamespace(available=gigabytes * 1e9)
        )
        monkeypatch.setattr(workers.Path, "exists", lambda path: gpu)

    return pretend


@pytest.mark.parametrize(
    "given, jobs, workers_, threads, plan",
    [
        ((2,), 48, None, None, (2, 1)),  # a worker a core
        ((16,), 48, None, None, (16, 1)),
        ((16,), 3, None, None, (3, 5)),  # few jobs: the cores are shared out
        ((16, 9), 48, None, None, (6, 2)),  # 1.5 GB a worker
        ((4, 1), 48, None, None, (1, 4)),  # one in any case
        ((16, 64, True), 48, None, None, (1, 16)),  # one GPU, one process
        ((16,), 48, 4, None, (4, 4)),  # as configured
        ((16,), 48, 4, 2, (4, 2)),
        ((2,), 48, 8, None, (8, 1)),
    ],
)
def test_plan(machine, given, jobs, workers_, threads, plan):
    machine(*given)
    assert workers.plan(jobs, workers_, threads) == plan


@pytest.mark.parametrize(
    "workers_, threads", [(0, None), (-1, None), (None, 0), ("two", None), (2, 1.5)]
)
def test_a_number_that_cannot_be_is_refused(workers_, threads):
    with pytest.raises(
        ConfigError, match=r"hydra.launcher.(workers|threads)=.* must be a whole number"
    ):
        workers.plan(48, workers_, threads)


def test_a_worker_stays_with_its_graph_and_helps_out_at_the_end():
    queue = workers.Queue(["a", "a", "b", "a", "b", "a"])
    assert [queue.take(worker) for worker in (1, 2, 1, 2)] == [0, 2, 1, 4]
    assert queue.take(2) == 3  # b is done: it helps with a
    assert [queue.take(worker) for worker in (1, 1, 2)] == [5, None, None]


def test_every_job_is_taken_once():
    graphs = [number % 5 for number in range(40)]
    queue = workers.Queue(graphs)
    taken = []
    while (job := queue.take(len(taken) % 3)) is not None:
        taken.append(job)
    assert sorted(taken) == list(range(40))


PARENT = """
import sys, time
from zeronorm.sweep import workers
if __name__ == "__main__":
    print(workers.Workers(1, 1).first(int), flush=True)
    time.sleep(600)
"""


def test_a_worker_ends_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout.readline() == "0\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert len(children) >= 2 and not alive


def process_of(_):
    return os.getpid(), os.environ.get("ZERONORM_HOME"), "tensorflow" in sys.modules


def test_a_full_worker_gives_way_before_another_graph_and_not_before(monkeypatch):
    """And a new one has the driver's environment, as it is, and the imports."""
    jobs, graphs = list(range(6)), "aabbbc"
    found = {}
    for full, home in ((1e15, "one"), (0, "two")):
        monkeypatch.setattr(workers, "FULL", full)
        monkeypatch.setenv("ZERONORM_HOME", home)
        pool = workers.Workers(1, 1)
        try:
            told = pool.map(process_of, jobs, graphs)
        finally:
            pool.close(at_once=False)
        assert {tuple(rest) for _, *rest in told} == {(home, True)}
        found[full] = [pid for pid, *_ in told]
        assert not any(psutil.pid_exists(pid) for pid in found[full])
    assert len(set(found[1e15])) == 1
    a, b, c = ({pid for pid, at in zip(found[0], graphs, strict=True) if at == of} for of in "abc")
    assert len(a) == len(b) == len(c) == 1 and len(a | b | c) == 3


ONE = """
from zeronorm.sweep import workers
if __name__ == "__main__":
    pool = workers.Workers(1, 1)
    print(pool.first(int), pool.workers[0].method)
    pool.close(at_once=False)
"""


@pytest.mark.parametrize("folder, method", [("t", "forkserver"), ("t" * 120, "spawn")])
def test_workers_are_spawned_where_none_can_be_forked(folder, method, tmp_path):
    """A socket's name has at most 108 letters, and it lies in the folder for temporary files."""
    (tmp_path / folder).mkdir()
    (tmp_path / "script.py").write_text(ONE)
    environment = os.environ | {"TMPDIR": str(tmp_path / folder)}
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", method]
