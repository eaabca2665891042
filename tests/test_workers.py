"""Which worker takes which job, and how many workers there are."""

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
        ((16, 9), 48, None, None, (4, 4)),  # 2 GB a worker
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
    children = psutil.Process(parent.pid).children()
    parent.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert children and not alive
