"""Worker processes for a sweep's jobs. A worker keeps its compiled steps, so jobs of one graph go to one worker.

Nothing here imports TensorFlow: the workers do, each for itself.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import joblib
import psutil

from zeronorm.config import ConfigError

MEMORY = 2.0e9  # bytes allowed for a worker and the compiled graphs it keeps
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


class WorkerDied(Exception):
    """A worker process ended in the middle of a job."""


def plan(jobs: int, workers: int | None, threads: int | None) -> tuple[int, int]:
    """(workers, threads of each): both as given, or chosen to keep all cores of this machine busy.

    One worker a core is fastest: whatever a run does on one core (tracing, compiling, drawing, logging) then overlaps.
    Fewer where there are fewer jobs, where memory is short, and on a GPU, which two processes cannot share.

    Raises ConfigError if a number given is not positive.
    """
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and not (isinstance(value, int) and value >= 1):
            raise ConfigError(f"hydra.launcher.{name}={value} must be a whole number of at least 1, or null.")
    cores = joblib.cpu_count()  # those this process may use, container limits included
    if workers is None:
        by_memory = int(psutil.virtual_memory().available // MEMORY)
        workers = 1 if Path("/dev/nvidia0").exists() else max(1, min(cores, jobs, by_memory))
    return workers, threads or max(1, cores // workers)


class Queue:
    """The jobs still to be done, by graph. A worker goes on with its graph, then takes the next, then helps out with
    the graph that has most left."""

    def __init__(self, graphs: Sequence[Hashable]):
        """graphs: of each job, in the order of the jobs."""
        self.lock = threading.Lock()
        self.waiting: dict[Hashable, deque[int]] = {}
        for job, graph in enumerate(graphs):
            self.waiting.setdefault(graph, deque()).append(job)
        self.fresh = deque(self.waiting)
        self.at: dict[Hashable, Hashable] = {}

    def take(self, worker: Hashable) -> int | None:
        """The next job for `worker`; None when there is none left."""
        with self.lock:
            jobs = self.waiting.get(self.at.get(worker))
            if not jobs:
                graph = self.fresh.popleft() if self.fresh else max(self.waiting, key=lambda g: len(self.waiting[g]))
                self.at[worker], jobs = graph, self.waiting[graph]
            return jobs.popleft() if jobs else None


class Workers:
    """`count` processes with `threads` threads each. They start at once, and import TensorFlow while the caller goes
    on."""

    def __init__(self, count: int, threads: int):
        self.count, self.threads = count, threads
        self.executors = [self._start() for _ in range(count)]

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")  # a fork after TensorFlow's threads have started can hang
        executor = ProcessPoolExecutor(1, context, initializer=_begin, initargs=(self.threads,))
        # Ctrl-C reaches every process of a terminal, but the parent decides: its children are born ignoring it.
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
        executor.submit(os.getpid)
        if main:
            signal.signal(signal.SIGINT, before)
        return executor

    def first(self, function: Callable, *arguments):
        """What `function` returns or raises in the first worker."""
        return self.executors[0].submit(function, *arguments).result()

    def map(self, function: Callable, arguments: Sequence, graphs: Sequence[Hashable]) -> list:
        """function(argument) of each, in order; graphs[i]: what jobs with the same compiled steps have in common.

        A job whose worker died counts as the exception WorkerDied, in its place; a new worker takes the next. An
        exception raised here (an interruption) is passed on to the workers as SIGTERM, and raised again when they have
        ended.
        """
        queue, results, ending = Queue(graphs), [None] * len(arguments), threading.Event()

        def serve(worker: int) -> None:
            while not ending.is_set() and (job := queue.take(worker)) is not None:
                try:
                    results[job] = self.executors[worker].submit(function, arguments[job]).result()
                except BrokenProcessPool:
                    results[job] = WorkerDied("A worker process died in this run, perhaps for want of memory.")
                    if not ending.is_set():
                        self.executors[worker] = self._start()

        with ThreadPoolExecutor(self.count) as pool:
            serving: list[Future] = [pool.submit(serve, worker) for worker in range(self.count)]
            try:
                wait(serving)
            except BaseException:
                ending.set()
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
        for future in serving:
            future.result()
        return results

    def close(self, at_once: bool) -> None:
        """Ends the workers; at_once: also those that still import or compute."""
        if at_once:
            for process in multiprocessing.active_children():
                process.terminate()
        for executor in self.executors:
            executor.shutdown(cancel_futures=True)


def _end_with(parent) -> None:
    """Ends this worker when its parent is gone: one that was killed could not do it."""
    parent.join()
    os._exit(1)


def _begin(threads: int) -> None:
    """In the worker, before its first job."""
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    for name in THREADS:
        os.environ[name] = str(threads)
    from zeronorm import sweep

    def end(number: int, frame) -> None:
        if not sweep.in_job:
            os._exit(128 + number)  # nothing to tidy up; an exception here would be printed with its traceback
        sweep.interrupts.receive(number, frame)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    with sweep.quiet_import():
        import zeronorm.experiment
        import zeronorm.tracking  # noqa: F401 (imported for the jobs to come)
