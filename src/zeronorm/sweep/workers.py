"""Worker processes for a sweep's jobs. A worker keeps its compiled steps, so jobs of one graph go
to one worker.

Workers are forked from one process that has imported what they need (`imports`) and has computed
nothing yet: a new one costs little, and they share the memory of the imports. TensorFlow never
gives the memory of a graph back, so a worker that has grown gives way to a new one before it
compiles another graph. Nothing here imports TensorFlow.
"""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path

import cloudpickle
import joblib
import psutil

from zeronorm import failure
from zeronorm.config import ConfigError
from zeronorm.sweep.process import GRACE, ORDER, Interrupts

MEMORY = 1.5e9  # bytes allowed for a worker
FULL = 0.9e9  # bytes of a worker that compiles no further graph
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


TRIES = 3  # starts of one worker that never takes a job


class WorkerDied(Exception):
    """A worker process ended in the middle of a job."""


class WorkersFailed(ConfigError):
    """Worker processes cannot be started here: one sentence."""


class _NotBegun(Exception):
    """A worker process ended before it took the job it was given."""


def plan(jobs: int, workers: int | None, threads: int | None) -> tuple[int, int]:
    """(workers, threads of each): both as given, or chosen to keep all cores of this machine busy.

    One worker a core is fastest: whatever a run does on one core (tracing, compiling, drawing,
    logging) then overlaps. Fewer where there are fewer jobs, where memory is short, and on a GPU,
    which two processes cannot share. Never more than there are jobs.

    Raises ConfigError if a number given is not positive.
    """
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and not (isinstance(value, int) and value >= 1):
            raise ConfigError(
                f"hydra.launcher.{name}={value} must be a whole number of at least 1, or null."
            )
    cores = joblib.cpu_count()  # those this process may use, container limits included
    if workers is None:
        by_memory = int(psutil.virtual_memory().available // MEMORY)
        workers = 1 if Path("/dev/nvidia0").exists() else max(1, min(cores, jobs, by_memory))
    workers = min(workers, jobs)
    return workers, threads or max(1, cores // workers)


class Queue:
    """The jobs still to be done, by graph. A worker goes on with its graph, then takes the next,
    then helps out with the graph that has most left."""

    def __init__(self, graphs: Sequence[Hashable]):
        """graphs: of each job, in the order of the jobs."""
        self.lock, self.graphs = threading.Lock(), graphs
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
                graph = (
                    self.fresh.popleft()
                    if self.fresh
                    else max(self.waiting, key=lambda g: len(self.waiting[g]))
                )
                self.at[worker], jobs = graph, self.waiting[graph]
            return jobs.popleft() if jobs else None

    def give_back(self, job: int) -> None:
        """For a worker that cannot do it."""
        with self.lock:
            self.waiting[self.graphs[job]].appendleft(job)


class Worker:
    """A worker process, and this end of its pipe.

    A ProcessPoolExecutor would not say whether a job had begun when its process died, nor end one
    that hangs.
    """

    def __init__(self, threads: int):
        contexts = multiprocessing.get_context("forkserver"), multiprocessing.get_context("spawn")
        for context in contexts:
            self.method = context.get_start_method()
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=_work, args=(theirs, threads, dict(os.environ)))
            try:
                with _born_without_interruptions():
                    self.process.start()
                break
            except (EOFError, OSError):  # what it is forked from cannot start, or has ended
                self.pipe.close()
                theirs.close()
                if self.method == "spawn":
                    raise
        theirs.close()

    def is_full(self) -> bool:
        """Whether it holds so much memory that a new process should go on, which costs little only
        where it is forked."""
        try:
            held = psutil.Process(self.process.pid).memory_info().rss
        except psutil.Error:
            return False
        return self.method == "forkserver" and held > FULL

    def call(self, function: Callable, *arguments):
        """What function(*arguments) returns or raises there. Raises WorkerDied, or _NotBegun if it
        had not begun."""
        task = cloudpickle.dumps((function, arguments))
        begun = False
        try:
            self.pipe.send_bytes(task)
            self._received()
            begun = True
            returned, value = cloudpickle.loads(self._received())
        except (EOFError, OSError):
            self.process.join(GRACE)
            how = failure.how_it_ended(self.process.exitcode)
            raise (WorkerDied if begun else _NotBegun)(how) from None
        if returned:
            return value
        raise value

    def _received(self) -> bytes:
        # a child that the job had forked may hold the pipe open after the worker's death
        while not self.pipe.poll(1.0):
            if not self.process.is_alive() and not self.pipe.poll():
                raise EOFError
        return self.pipe.recv_bytes()


@contextmanager
def _born_without_interruptions() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal, but the driver decides: its children are born
    with it blocked, and ignore it later."""
    resource_tracker.ensure_running()  # before, because it unblocks the signal on its way
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def prepare(threads: int) -> None:
    """Starts the process that workers are forked from, unless it runs; it imports TensorFlow while
    the caller goes on. Where it cannot start, as in a folder for temporary files whose name is too
    long for its socket, workers are spawned, each with imports of its own."""
    forkserver.set_forkserver_preload(["zeronorm.sweep.imports"])
    own = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(threads)))  # some are read at import
    try:
        with suppress(OSError), _born_without_interruptions():
            forkserver.ensure_running()
    finally:
        for name, value in own.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Workers:
    """`count` processes with `threads` threads each, started when they are needed."""

    def __init__(self, count: int, threads: int):
        self.count, self.threads = count, threads
        self.ending = threading.Event()
        self.workers: dict[int, Worker] = {}
        self.retired: list[Worker] = []
        self.at: dict[int, int] = {}  # worker: the job it is at
        self.starting = threading.Lock()  # of one worker after the other
        prepare(threads)

    def first(self, function: Callable, *arguments):
        """What `function` returns or raises in the first worker. Raises WorkerDied if it ends its
        process, and WorkersFailed if that cannot be started."""
        return self._call(0, function, *arguments)

    def _call(self, worker: int, function: Callable, *arguments):
        """In a new process where the worker has none, or it has ended."""
        for _ in range(TRIES):
            at_work = self.workers.get(worker)
            if at_work is None or not at_work.process.is_alive():
                with self.starting:
                    prepare(self.threads)
                    at_work = self.workers[worker] = Worker(self.threads)
                if self.ending.is_set():  # `end` may not have met it
                    at_work.process.kill()
                    raise WorkerDied("SIGKILL")
            try:
                return at_work.call(function, *arguments)
            except _NotBegun as ended:  # at its start, or idle: no job is lost
                how = str(ended)
                if self.ending.is_set():
                    raise WorkerDied(how) from None
        raise WorkersFailed(
            f"A worker process ended {TRIES} times before it took a job ({how}): free memory, or"
            " take fewer with hydra.launcher.workers=1; --only-missing then goes on."
        )

    def map(
        self,
        function: Callable,
        arguments: Sequence,
        graphs: Sequence[Hashable],
        lost: Callable[[int, WorkerDied], object] = lambda job, died: died,
        waiting: Callable[[list[int], bool], None] = lambda jobs, killed: None,
    ) -> list:
        """function(argument) of each, in order; graphs[i]: what jobs with the same compiled steps
        have in common.

        A job whose worker died counts as lost(job, WorkerDied); a new worker takes the next. An
        exception raised here (an interruption) is passed on to the workers as ORDER, and raised
        again when they have ended: those that have not after GRACE are killed. waiting: told the
        jobs that are waited for, and then those that were killed.

        Raises WorkersFailed if jobs are left over because no worker can be started.
        """
        queue = Queue(graphs)
        results: list = [None] * len(arguments)
        self.ending.clear()

        def serve(worker: int) -> None:
            graph = None
            while not self.ending.is_set() and (job := queue.take(worker)) is not None:
                graph, before = graphs[job], graph
                if graph != before:
                    self._replace_if_full(worker)
                self.at[worker] = job
                try:
                    results[job] = self._call(worker, function, arguments[job])
                except WorkerDied as died:
                    if not self.ending.is_set():
                        results[job] = lost(job, died)
                except WorkersFailed:  # the others go on
                    queue.give_back(job)
                    raise
                finally:
                    del self.at[worker]

        with ThreadPoolExecutor(self.count) as pool:
            serving = [pool.submit(serve, worker) for worker in range(self.count)]
            try:
                wait(serving)
            except BaseException:
                self.end(waiting)
                raise
        left = queue.take(None) is not None
        for future in serving:
            if left or not isinstance(future.exception(), WorkersFailed):
                future.result()
        return results

    def _replace_if_full(self, worker: int) -> None:
        if worker in self.workers and self.workers[worker].is_full():
            full = self.workers.pop(worker)
            full.pipe.close()  # the end of its tasks
            self.retired.append(full)

    def end(self, waiting: Callable[[list[int], bool], None] = lambda jobs, killed: None) -> None:
        """Ends the workers: in order within GRACE, else by SIGKILL; at a second interruption by
        SIGKILL at once."""
        self.ending.set()
        alive = [
            worker.process
            for worker in (*self.workers.values(), *self.retired)
            if worker.process.is_alive()
        ]
        for process in alive:
            assert process.pid is not None  # it has been started
            with suppress(ProcessLookupError):
                os.kill(process.pid, ORDER)
        try:
            if self.at:
                waiting(list(self.at.values()), False)
            _wait(alive)
        finally:
            stuck = [
                job
                for at, job in list(self.at.items())
                if at in self.workers and self.workers[at].process.is_alive()
            ]
            hanging = [process for process in alive if process.is_alive()]
            for process in hanging:
                process.kill()
            if stuck:
                waiting(stuck, True)
            for process in hanging:
                process.join(GRACE)

    def close(self, at_once: bool) -> None:
        """Ends the workers; at_once: also those that still import or compute."""
        if not at_once:
            for worker in self.workers.values():
                worker.pipe.close()  # the end of its tasks
            _wait([worker.process for worker in self.workers.values()])
        self.end()


def _wait(processes: list) -> None:
    """Until they have ended, for GRACE at most."""
    deadline = time.monotonic() + GRACE
    left = [process for process in processes if process.is_alive()]
    while left and (seconds := deadline - time.monotonic()) > 0:
        connection.wait([process.sentinel for process in left], min(seconds, 1.0))
        left = [process for process in left if process.is_alive()]


def _end_with(parent) -> None:
    """Ends this worker when its parent is gone: one that was killed could not do it."""
    parent.join()
    os._exit(1)


def _work(pipe: connection.Connection, threads: int, environment: dict[str, str]) -> None:
    """A worker's life: a task, the word that it has begun, its answer, and the next.

    environment: the driver's; the process that this one is forked from may have an older one.
    """
    os.environ.clear()
    os.environ.update(environment)
    handled = _begin(threads)
    while handled.came is None:
        try:
            task = pipe.recv_bytes()
        except EOFError:  # there are no more
            return
        handled.busy = True
        pipe.send_bytes(b"begun")
        answer = _answer(task)
        handled.holding = True  # a signal must not cut the answer
        pipe.send_bytes(answer)
        handled.busy = handled.holding = False


def _answer(task: bytes) -> bytes:
    """(True, what the task returned) or (False, what it raised), pickled; SystemExit and its like
    as RunFailed, so that they end neither this process nor the driver."""
    try:
        function, arguments = cloudpickle.loads(task)
        return cloudpickle.dumps((True, function(*arguments)))
    except Exception as error:
        error.add_note(f"In a worker process:\n{traceback.format_exc()}")
        # it may hold what cannot be pickled, or need arguments to be made again
        with suppress(Exception):
            pickled = cloudpickle.dumps((False, error))
            cloudpickle.loads(pickled)
            return pickled
        return cloudpickle.dumps((False, failure.of(error)))
    except BaseException as error:
        return cloudpickle.dumps((False, failure.of(error)))


def _begin(threads: int) -> Interrupts:
    """In the worker, before its first job. Returns what handles the process's signals."""
    threading.Thread(
        target=_end_with, args=(multiprocessing.parent_process(),), daemon=True
    ).start()
    for name in THREADS:
        os.environ[name] = str(threads)
    handled = Interrupts()
    handled.install_in_worker()
    import zeronorm.sweep.imports  # noqa: F401 (where the process it is forked from could not)

    return handled
