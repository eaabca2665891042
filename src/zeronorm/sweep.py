"""A sweep around Hydra's jobs: check every job first, hold the parent run, show how far it is.

Jobs may run in this process or, with another launcher, elsewhere. So a job tells how far it is
through a small file in its output folder, and learns its parent run through the environment or,
where that does not reach it, through a file in the sweep's folder.

Whatever a run raises, it has failed: only a signal that ends the program is an interruption. So the
exit status follows from the runs.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from zeronorm import config as schema
from zeronorm import failure, workers
from zeronorm.failure import RunFailed

PARENT_RUN = "ZERONORM_PARENT_RUN"  # environment variable: the MLflow run id of the sweep a job belongs to
PARENT_FILE = "parent_run"  # the same in a file of the sweep's folder
DEEPEST = 5  # folders from a job's up to the sweep's
SHOWN = 20  # failed runs that the closing lines name

console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())


class SweepCallback(Callback):
    """Hydra calls it before the jobs."""

    def on_run_start(self, config: DictConfig, **kwargs) -> None:
        with ending_the_program():
            job = without_hydra(config)
            schema.validate(job)
            if only_missing:
                console.print("--only-missing belongs to a sweep: this single run is made in any case.")
            check([job])
            global display
            display = Display([Path(config.hydra.run.dir)], [schema.condition(job)], [1.0])
            display.start()

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        with ending_the_program():
            global current, pool
            folder = Path(config.hydra.sweep.dir)  # its date is settled here, for every job
            plan = planned(config)
            if only_planned:
                more = "" if only_missing else " With --only-missing, less those that are finished."
                console.print(f"{plan.config.study}: {plan}{more}")
                raise SystemExit(0)
            launcher = config.hydra.launcher
            if plan.jobs and launcher._target_.endswith(".WorkersLauncher"):
                pool = workers.Workers(*workers.plan(len(plan.jobs), launcher.workers, launcher.threads))
            if plan.jobs:
                check(plan.jobs)
            current = Sweep(plan, folder)


@contextmanager
def ending_the_program() -> Iterator[None]:
    """Hydra turns an exception of a callback into a warning and goes on; here it ends the program: a mistake of the
    user's with its one sentence, anything else with its traceback."""
    try:
        yield
    except HydraException as error:  # a choice or a key that is not there: some are an OSError too
        raise SystemExit(f"zeronorm: {schema.sentence(error)}") from None
    except (schema.ConfigError, OSError) as error:
        raise SystemExit(f"zeronorm: {error}") from None
    except Exception as error:
        if type(error).__module__.startswith("zeronorm."):  # each a sentence
            raise SystemExit(f"zeronorm: {error}") from None
        traceback.print_exc()
        raise SystemExit(1) from None


@contextmanager
def quiet_import() -> Iterator[None]:
    """Keeps TensorFlow's start-up lines, which it writes before its log level counts, off the terminal; shows them if
    the import fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


@dataclass
class Plan:
    """What a sweep is to do.

    config: of its first job. jobs: the configs of the runs to make; configs: the same with Hydra's own node, as a
    launcher passes them on; overrides: what makes each; numbers: their places in the sweep. finished: {place: run id}
    of the runs that are there and need no repetition.
    """

    config: DictConfig
    jobs: list[DictConfig]
    configs: list[DictConfig]
    overrides: list[list[str]]
    numbers: list[int]
    finished: dict[int, str]

    def __str__(self) -> str:
        return f"{len(self.jobs)} runs to make, {len(self.finished)} finished ones to take over."

    def labels(self) -> list[str]:
        """What to call each of `jobs`: its condition, and of its other overrides those that the jobs do not share."""
        shared = set.intersection(*map(set, self.overrides)) if self.overrides else set()
        named = ("trainable=", "init=", "similarity=", "numerics=", "optimizer=")
        return [
            " ".join([schema.condition(job), *(o for o in own if o not in shared and not o.startswith(named))])
            for job, own in zip(self.jobs, self.overrides, strict=True)
        ]


def planned(config: DictConfig) -> Plan:
    """The jobs of a sweep; with `only_missing`, less those that the store holds a finished run of; with `reported`,
    those that are the report's.

    Raises ConfigError if none is.
    """
    loader = GlobalHydra.instance().config_loader()
    overrides = expand(config)
    if not overrides:
        raise schema.ConfigError("This sweep has no run: an override or a grid of it has no value.")
    with console.status(f"Composing {len(overrides)} runs"):
        configs = [loader.load_sweep_config(config, job) for job in overrides]
    jobs = [without_hydra(job) for job in configs]
    identities = [schema.identity(job) for job in jobs]
    if reported:
        # an override sets its key in every grid of a study, and so makes configs that are no part of it
        kept = [number for number, sha in enumerate(identities) if sha[:16] in reported]
        if not kept:
            raise schema.ConfigError(
                f"None of these runs is one of the report's: '{jobs[0].study}' has other options there."
            )
        configs, overrides, jobs, identities = (
            [items[number] for number in kept] for items in (configs, overrides, jobs, identities)
        )
    for job in jobs:
        schema.validate(job)
    finished: dict[int, str] = {}
    if only_missing:
        from zeronorm import tracking

        try:
            found = tracking.finished(tracking.connect(jobs[0]), jobs[0], set(identities))
        except tracking.TrackingError as error:
            raise schema.ConfigError(str(error)) from error
        _compare_code(tracking.otherwise(found.values()))
        finished = {number: found[sha].info.run_id for number, sha in enumerate(identities) if sha in found}
    missing = [number for number in range(len(jobs)) if number not in finished]
    kept = ([items[number] for number in missing] for items in (jobs, configs, overrides))
    return Plan(jobs[0], *kept, missing, finished)


def _compare_code(said: str) -> None:
    """Says how the code of the runs that are taken over differs from this; a reproduction of it is refused unless it is
    asked for."""
    if said and command[:1] == ["reproduce"] and "--other-code" not in command:
        raise schema.ConfigError(f"{said} To reproduce is to run this code: drop --only-missing, or add --other-code.")
    if said:
        console.print(said)


class Sweep:
    """The sweep under way: its parent run and its progress display, from construction to `close`."""

    def __init__(self, plan: Plan, folder: Path):
        from zeronorm import tracking

        self.config, self.folder, self.plan = plan.config, folder, plan
        self.jobs, self.overrides = len(plan.jobs) + len(plan.finished), plan.overrides
        self.graphs = [schema.graph(job) for job in plan.jobs]
        # Hydra's own launchers count the jobs they are given; ours gives each its place in the
        # sweep
        self.numbers = plan.numbers if pool is not None else list(range(len(plan.jobs)))
        self.folders = [folder / str(number) for number in self.numbers]
        self.labels = plan.labels()
        self.failed: dict[int, RunFailed] = {}  # by the job's place in `plan.jobs`
        self.trouble = ""  # what kept the launcher from its jobs
        self.client = tracking.connect(self.config)
        self.run = tracking.open_sweep(self.client, self.config, self.jobs, " ".join(["zeronorm", *command]))
        tracking.adopt(self.client, self.run, plan.finished)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PARENT_FILE).write_text(self.run.info.run_id)
        os.environ[PARENT_RUN] = self.run.info.run_id
        global display
        display = Display(self.folders, self.labels, costs(plan.jobs))
        display.start()

    def note(self, returns: Sequence[JobReturn]) -> None:
        """Keeps why jobs failed. returns: of every job, in the order of `plan.jobs`."""
        for job, found in enumerate(returns):
            if found.status == JobStatus.FAILED:
                self.failed[job] = failure.of(found._return_value)

    def close(self, status: str) -> str:
        """Ends the parent run and prints the table of what has finished, how many have, and which
        failed.

        status: FINISHED, FAILED or KILLED. Returns what it comes to: FINISHED only if every run
        has. None of it needs the store, which may be what failed.
        """
        from zeronorm import tracking

        try:
            done = self._recorded(status)
        except Exception as error:  # the store's, or the disk's
            done = len(self.plan.finished) + sum(_state(folder) in ("finite", "nan") for folder in self.folders)
            why = failure.reason(error)
            console.print(
                f"The sweep could not be closed in the store {tracking.store_uri(self.config)} ({why}): when it is "
                "back, `zeronorm reap` ends what counts as running there, and --only-missing makes the runs it lacks.",
                markup=False,
            )
        if status == "KILLED":
            console.print("Interrupted. What is finished is kept; with --only-missing the same command goes on.")
        elif done < self.jobs:
            status = "FAILED"
            self._say_failed()
        console.print(f"{done} of {self.jobs} runs finished; tables: {self.folder}/table.md, table.csv, runs.csv")
        if status == "FAILED":
            console.print("What is finished is kept; with --only-missing the same command makes the others.")
        console.print(browse_hint(self.config))
        return status

    def _recorded(self, status: str) -> int:
        """Ends every run of the sweep in the store, and prints and adds its table. Returns how many
        finished."""
        from zeronorm import tracking

        parent = self.run.info.run_id
        runs = tracking.children(self.client, self.run)
        done = int((runs["status"] == "FINISHED").sum()) if len(runs) else 0
        own = [run for run in runs.to_dict("records") if run.get("tags.mlflow.parentRunId") == parent]
        states = {run["tags.job"]: run["status"] for run in own}
        lost: dict[str, RunFailed] = {}
        for job, failed in list(self.failed.items()):
            number = self.numbers[job]
            if states.get(str(number)) == "FINISHED":  # its process died after its end
                del self.failed[job]
            elif str(number) in states:
                lost[str(number)] = failed
            else:  # it left no trace: its record says why
                node, overrides = self.plan.jobs[job], self.overrides[job]
                with suppress(RunFailed), tracking.tracked(self.client, node, overrides, parent, number):
                    raise failed
        for run in own:  # what the launcher has not told
            number = int(run["tags.job"])
            if run["status"] == "FAILED" and number in self.numbers:
                why = RunFailed(str(run.get("tags.error", "no reason is known")))
                self.failed.setdefault(self.numbers.index(number), why)
        files = self._tables(runs) if done else []
        ended = "FAILED" if status == "FINISHED" and done < self.jobs else status
        tracking.close_sweep(self.client, self.run, ended, files, lost)
        return done

    def _tables(self, runs) -> list[Path]:
        """Prints the sweep's table and writes it into its folder."""
        from zeronorm import study

        files = [self.folder / name for name in ("table.md", "table.csv", "runs.csv")]
        try:
            table = study.runs_table(self.config.study or "sweep", runs)
            conditions = study.conditions_table(table)
            study.print_table(conditions, console)
            files[0].write_text(study.markdown(conditions) + "\n")
            conditions.to_csv(files[1], index=False)
            table.to_csv(files[2], index=False)
        except Exception as error:  # the runs' states are still to be told
            console.print(f"The table cannot be made: {failure.reason(error)}", markup=False)
            return []
        return files

    def _say_failed(self) -> None:
        """One line a run, on stderr: which, why, and where in the user's code."""
        lines = [f"FAILED {self.labels[job]}: {failed}" for job, failed in sorted(self.failed.items())]
        if len(lines) > SHOWN:
            lines[SHOWN:] = [f"And {len(lines) - SHOWN} more: the tag `error` of each run says why."]
        if self.trouble:
            lines.append(f"zeronorm: {self.trouble}")
        sys.stdout.flush()
        print("\n".join(lines), file=sys.stderr, flush=True)


def _state(folder: Path) -> str:
    """How a job's status file says it is; empty where there is none."""
    try:
        return json.loads(status_file(folder).read_text())["state"]
    except (OSError, ValueError, KeyError):
        return ""


class Interrupts:
    """SIGINT and SIGTERM, held back while TensorFlow computes: raised inside its C++ they come out
    as other errors, and the run would count as failed. `check`, called between steps, raises what
    came; a second signal raises at once, and so does the end of workers.GRACE, for a step that
    never ends.

    came: the signal that came last. line: of the user's code, if it ran then. worker: whether this
    process is a worker, which its driver ends by workers.ORDER; busy: whether it has a task.
    """

    def __init__(self):
        self.holding, self.pending, self.came, self.line = False, None, None, ""
        self.worker = self.busy = self.ordered = False

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.receive)

    def adopt(self) -> None:
        """In a process that another launcher has started: handles what nobody else does."""
        if threading.current_thread() is threading.main_thread():
            for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
                if signal.getsignal(number) == default:
                    signal.signal(number, self.receive)

    def receive(self, number: int, frame) -> None:
        # a SIGTERM of every process, and then the driver's word, are one interruption
        first = self.pending is None or (number == workers.ORDER and not self.ordered)
        self.pending = self.came = number
        self.ordered = self.ordered or number == workers.ORDER
        self.line = self.line or failure.line_at(frame)
        if not (self.holding and first):
            self.check()
        else:
            signal.signal(signal.SIGALRM, lambda *_: self.check())
            signal.alarm(round(workers.GRACE))

    def check(self) -> None:
        number, self.pending = self.pending, None
        if number is not None:
            signal.alarm(0)
            raise self.exception()

    def exception(self) -> BaseException:
        """What the last signal ends the program by."""
        return KeyboardInterrupt() if self.came == signal.SIGINT else SystemExit(128 + signal.SIGTERM)

    def interrupted(self) -> bool:
        """Whether the program is to end. In a worker its driver decides, whose word comes at the
        same time where the signal reached every process; a SIGTERM of the worker alone ends its run
        as any other fault does."""
        if not self.worker or self.came is None:
            return self.came is not None
        deadline, self.holding = time.monotonic() + 1.0, True
        while not self.ordered and time.monotonic() < deadline:
            time.sleep(0.05)
        self.holding, self.pending = False, None
        signal.alarm(0)
        return self.ordered

    @contextmanager
    def held(self) -> Iterator[None]:
        self.holding = True
        try:
            yield
        finally:
            self.holding = False
        self.check()


interrupts = Interrupts()
current: Sweep | None = None
last: Sweep | None = None  # the one that was closed last
command: list[str] = []  # what was typed after `zeronorm`
only_missing = False  # whether a finished run of the same config, in any earlier sweep of the study, is taken over
only_planned = False  # whether to say what a sweep would do, and stop
reported: frozenset[str] = frozenset()  # the config_sha of the runs of a report to which the sweep is confined
display: "Display | None" = None
pool: workers.Workers | None = None


def launch(context: HydraContext, task: TaskFunction, job_overrides: list[list[str]]) -> list[JobReturn]:
    """Runs the sweep's jobs in the pool, for hydra/launcher=workers; a JobReturn for each, in order."""
    shared = cloudpickle.dumps((context, task, Singleton.get_state()))
    arguments = [(shared, dict(os.environ), cloudpickle.dumps(config)) for config in _numbered(current.plan)]

    def lost(job: int, died: workers.WorkerDied) -> bytes:
        failed = RunFailed(f"A worker process died in this run ({died}){_perhaps(str(died))}")
        with suppress(OSError):  # the disk may be what is full
            report_progress(current.folders[job], "failed", 1, 1, str(failed))
        return cloudpickle.dumps(_failed(failed, job_overrides[job]))

    def waiting(jobs: list[int], killed: bool) -> None:
        names = "; ".join(current.labels[job] for job in jobs)
        how = "Killed, because it did not end" if killed else f"Waiting {workers.GRACE:.0f} s at most for the end of"
        console.print(f"{how}: {names}", markup=False)
        for job in jobs if killed else ():
            with suppress(OSError):
                report_progress(current.folders[job], "killed", 1, 1)

    return [cloudpickle.loads(found) for found in pool.map(_run_job, arguments, current.graphs, lost, waiting)]


def _perhaps(how: str) -> str:
    """What may have ended a process so."""
    return {"SIGKILL": ", perhaps for want of memory"}.get(how, ", ended by what it calls" if "status" in how else "")


def quietly(launch: Callable[..., Sequence[JobReturn]]) -> Callable[..., list[JobReturn]]:
    """A launcher's `launch` that keeps what failed for the closing lines: Hydra's sweeper would
    raise the first of it, with a traceback."""

    def launched(*arguments, **options) -> list[JobReturn]:
        try:
            returns = launch(*arguments, **options)
        except workers.WorkersFailed as error:
            returns, current.trouble = [], str(error)
        except Exception as error:
            failed = failure.of(error)
            returns, current.trouble = [], f"The launcher failed: {failed}"
        current.note(returns)
        return [found for found in returns if found.status == JobStatus.COMPLETED]

    return launched


def _numbered(plan: Plan) -> list[DictConfig]:
    for number, config in zip(plan.numbers, plan.configs, strict=True):
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
    return plan.configs


def _run_job(argument: tuple[bytes, dict[str, str], bytes]) -> bytes:
    """In a worker: one job, as Hydra's own launchers run it. Returns its JobReturn, pickled."""
    shared, environment, config = argument
    os.environ.update(environment | {name: os.environ[name] for name in workers.THREADS})
    context, task, state = cloudpickle.loads(shared)
    setup_globals()
    Singleton.set_state(state)
    found = run_job(
        hydra_context=context,
        task_function=task,
        config=cloudpickle.loads(config),
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    if found.status == JobStatus.FAILED:  # an exception may hold what cannot be pickled
        found = _failed(failure.of(found._return_value), list(found.overrides))
    return cloudpickle.dumps(found)


def _failed(error: RunFailed, overrides: list[str]) -> JobReturn:
    found = JobReturn(status=JobStatus.FAILED, overrides=overrides)
    found.return_value = error
    return found


def close(status: str) -> str:
    """Ends the workers and the progress display, and closes the sweep under way, if there is one.
    Returns the status that it came to."""
    global current, pool, last
    try:
        if pool is not None:
            pool.close(at_once=status != "FINISHED")
    finally:
        pool = None
        if display is not None:
            display.stop()
    if current is not None:
        last, current = current, None
        return last.close(status)
    if status == "KILLED":
        console.print("Interrupted.")
    return status


def browse_hint(config: DictConfig) -> str:
    """How to see the runs in a browser."""
    name = config.study or "single runs"
    if config.tracking.name != "local":
        return f"Browse every run: {config.tracking.uri}, experiment '{name}'"
    home = f"ZERONORM_HOME={os.environ['ZERONORM_HOME']} " if "ZERONORM_HOME" in os.environ else ""
    installed = str(Path(sys.executable).with_name("zeronorm"))
    program = "zeronorm" if shutil.which("zeronorm") else min(os.path.relpath(installed), installed, key=len)
    return f"Browse every run: {home}{program} ui, experiment '{name}'"


def without_hydra(config: DictConfig) -> DictConfig:
    plain = config.copy()
    with open_dict(plain):
        plain.pop("hydra", None)
    return plain


def expand(config: DictConfig) -> list[list[str]]:
    """The overrides of every job of a sweep, in order: the product of `hydra.sweeper.params`, or of these with each of
    `hydra.sweeper.grids`; what the command line sets replaces what they say. A job that two grids make counts once."""
    sweeper = OmegaConf.to_container(config.hydra.sweeper)
    params = sweeper.get("params") or {}
    jobs: dict[frozenset[str], list[str]] = {}
    hydra = GlobalHydra.instance()  # whose loader knows what glob(*) may choose
    parser = OverridesParser.create(hydra.config_loader() if hydra.is_initialized() else None)
    for grid in sweeper.get("grids") or [{}]:
        own = parser.parse_overrides([f"{key}={value}" for key, value in {**params, **grid}.items()])
        typed = parser.parse_overrides(list(config.hydra.overrides.task))
        parsed = own + typed
        for override in own + [override for override in typed if override.is_sweep_override()]:
            if override.key_or_group == "study":
                raise schema.ConfigError(
                    f"{override.input_line} sweeps over studies, which would make one run of each "
                    "instead of its sweep: train one after the other, by zeronorm train study=NAME."
                )
        for job in BasicSweeper.split_arguments(parsed, None)[0]:
            jobs.setdefault(frozenset(job), job)
    return list(jobs.values())


def identities(study: str) -> list[str]:
    """The identity of every run of a study, as its file says it."""
    schema.register()
    with (
        console.status(f"Composing the runs of {study}"),
        initialize_config_dir(str(schema.conf_dir()), version_base="1.3"),
    ):
        base = compose("config", [f"study={study}"], return_hydra_config=True)
        return [schema.identity(compose("config", job)) for job in expand(base)]


def check(jobs: list[DictConfig]) -> None:
    """Raises ConfigError, with one sentence, if any of the jobs, valid each, cannot run. Builds the corpus and vectors
    they need."""
    with console.status("Opening the tracking store"):
        from zeronorm import tracking

        try:
            tracking.connect(jobs[0])
        except tracking.TrackingError as error:
            raise schema.ConfigError(str(error)) from error
    with console.status("Loading TensorFlow, building corpus and vectors (once; cached)"):
        found = [check_input(job) if pool is None else _checked_apart(job) for job in jobs]
    bad = found[0]
    if bad:
        console.print(f"Bad lines left out of {bad[0].file}: {len(bad)}. The first:")
        for line in bad[:5]:
            console.print(f"  {line.file}:{line.line}: {line.problem}")
    for sentence in unscored(jobs) if pool is None else pool.first(unscored, jobs):
        console.print(sentence, markup=False)


def unscored(jobs: list[DictConfig]) -> list[str]:
    """Each sentence once that says why jobs will have no score. Their corpus is built."""
    from zeronorm import experiment

    of_corpus = {f"{job.corpus} {job.training.evaluate_on}": job for job in jobs}
    return [sentence for sentence in map(experiment.unscored, of_corpus.values()) if sentence]


def _checked_apart(job: DictConfig) -> list:
    """`check_input` in a worker; again in a new one if its process ended, because it may not be the
    job that did it."""
    for again in (True, False):
        try:
            return pool.first(check_input, job)
        except (workers.WorkerDied, RunFailed) as ended:
            if not again:
                raise schema.ConfigError(
                    f"{schema.condition(job)} cannot be run: its check ended the worker process twice, by {ended}; "
                    f"look for os._exit and the like in {job.similarity.function} and what it imports."
                ) from None


def check_input(job: DictConfig) -> list:
    """The part of `check` that needs TensorFlow: tries what the job reads and imports; builds and
    caches its corpus and vectors. Returns the corpus's bad lines.

    Raises ConfigError, with the line of the user's code that did it, whatever the check raises,
    unless it is an interruption; RunFailed if another process ended this one's.
    """
    with quiet_import():
        from zeronorm import corpus, experiment, vectors
    known = (corpus.CorpusError, vectors.VectorsError, experiment.ExperimentError, schema.ConfigError)
    try:
        experiment.check(job)
        return experiment.load(job).corpus.bad_lines
    except BaseException as error:
        if interrupts.interrupted():
            raise
        if interrupts.came is not None:
            raise RunFailed(signal.Signals(interrupts.came).name, interrupts.line) from None
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exc()
        failed = failure.of(error)
        who = "" if isinstance(error, known) else f"{schema.condition(job)} cannot be run: "
        raise schema.ConfigError(f"{who}{failed}") from error


def costs(jobs: list[DictConfig]) -> list[float]:
    """What each job will take, relative to each other, as measured on the ablation: a fixed part, the steps (a
    trainable word matrix doubles them), and tracing and compiling where the step's graph is new."""
    seen: set[str] = set()
    found = []
    for job in jobs:
        graph = schema.graph(job)
        found.append(2.0 + (5.0 if job.trainable in (True, "words") else 2.0) + (0.0 if graph in seen else 4.0))
        seen.add(graph)
    return found


def status_file(folder: Path) -> Path:
    """Beside a job's output folder, not in it, because the folder is logged while the job still runs."""
    return folder.with_name(f"{folder.name}.status.json")


def report_progress(folder: Path, state: str, steps: int, done: int, reason: str = "") -> None:
    """A job says how far it is. state: running, finite, nan, failed, for a `reason`, or killed."""
    temporary = status_file(folder).with_suffix(".new")
    temporary.write_text(json.dumps({"state": state, "steps": steps, "done": done, "reason": reason}))
    temporary.replace(status_file(folder))


class Display(threading.Thread):
    """How many runs are done, which is running, how long is left. On a terminal a bar; elsewhere a line per run."""

    def __init__(
        self, folders: list[Path], names: list[str], costs: list[float], clock: Callable[[], float] = time.monotonic
    ):
        super().__init__(daemon=True)
        self.folders, self.names, self.costs, self.clock = folders, names, costs, clock
        self.started, self.ended = clock(), threading.Event()
        self.seen: set[int] = set()

    def run(self) -> None:
        text = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
        time_left = TextColumn("{task.fields[left]}", table_column=Column(min_width=len("1:00:00 left"), no_wrap=True))
        shown = {"console": console, "disable": not console.is_terminal, "transient": True, "expand": True}
        with Progress(text, BarColumn(8), time_left, **shown) as progress:
            task = progress.add_task("starting", total=len(self.names), left="")
            while not self.ended.wait(0.5):
                description, share, left = self.look()
                progress.update(task, description=description, completed=share * len(self.names), left=left)
            self.look()

    def look(self) -> tuple[str, float, str]:
        """(what to say, share of the work done, time left); off a terminal also prints a line per newly ended run."""
        share, running, ended = 0.0, [], []
        for number, (folder, name, cost) in enumerate(zip(self.folders, self.names, self.costs, strict=True)):
            try:
                status = json.loads(status_file(folder).read_text())
            except FileNotFoundError:  # not started yet
                continue
            if status["state"] == "running":
                share += cost * status["done"] / max(status["steps"], 1)
                running.append(name)
            else:
                share += cost
                ended.append((number, name, status["state"], status.get("reason", "")))
        share /= sum(self.costs) or 1
        left = remaining(self.clock() - self.started, share)
        count = f"{len(ended)}/{len(self.names)} runs"
        for number, name, state, reason in ended:
            if number not in self.seen:
                self.seen.add(number)
                if reason or not console.is_terminal:
                    console.print(f"{count}  {name}: {state}{reason and f', {reason}'}  {left}", markup=False)
        return f"{count}  {running[0] if running else ''}", share, left

    def stop(self) -> None:
        self.ended.set()
        self.join()


def remaining(elapsed: float, share: float) -> str:
    """'3:05 left', from the seconds elapsed and the share of the work done; nothing before 1 % is done."""
    if share < 0.01:
        return ""
    seconds = round(elapsed * (1 - share) / share)
    return f"{seconds // 60}:{seconds % 60:02d} left"


def parent_run() -> str | None:
    """The run id of the sweep that this job belongs to: from the environment, or from the sweep's
    folder where a scheduler passes no environment on; None for a run by itself."""
    config = HydraConfig.get()
    if PARENT_RUN not in os.environ and config.mode == RunMode.MULTIRUN:
        # `hydra.sweep.dir` holds the date, which a job that is made again would settle anew
        for folder in list(Path(config.runtime.output_dir).parents)[:DEEPEST]:
            with suppress(OSError):
                return (folder / PARENT_FILE).read_text().strip()
    return os.environ.get(PARENT_RUN)


@contextmanager
def judged(folder: Path) -> Iterator[None]:
    """What the block raises comes out as an interruption, if the program is interrupted, and else
    as RunFailed, with the traceback in the run's folder: also SystemExit and KeyboardInterrupt,
    which the user's code may raise."""
    try:
        yield
    except RunFailed:
        raise
    except BaseException as error:
        if interrupts.interrupted():
            raise interrupts.exception() from error
        with suppress(OSError):
            (folder / "error.txt").write_text(traceback.format_exc())
        if interrupts.came is not None:
            came = signal.Signals(interrupts.came).name
            raise RunFailed(f"{came} ended the run's process", interrupts.line) from error
        raise failure.of(error) from error


def job(config: DictConfig) -> None:
    """One run, from a composed config to the store. Raises RunFailed; for a run by itself
    SystemExit."""
    interrupts.adopt()
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    state, reason = "failed", ""
    try:
        with judged(folder):
            state = _one_run(config, folder, parent_run())
    except RunFailed as failed:
        reason = str(failed)
        if hydra_config.mode == RunMode.RUN:  # Hydra would name its overrides first
            raise SystemExit(f"zeronorm: {failed} The traceback is in {folder}/error.txt.") from None
        raise
    except BaseException:
        state = "killed"
        raise
    finally:
        with suppress(OSError):
            report_progress(folder, state, 1, 1, reason)


def _one_run(config: DictConfig, folder: Path, parent: str | None) -> str:
    """Returns the run's outcome."""
    from zeronorm import experiment, run_autopsy, tracking

    hydra_config = HydraConfig.get()
    number = hydra_config.job.num if parent else None
    client = tracking.connect(config)
    result = experiment.Result(folder)
    report_progress(folder, "running", 1, 0)
    said = 0.0

    def tell(progress: experiment.Progress) -> None:
        nonlocal said
        interrupts.check()
        if progress.done == 0 and parent is None:
            console.print(experiment.forecast(result))
        if time.monotonic() - said > 0.5:
            said = time.monotonic()
            report_progress(folder, "running", progress.steps, progress.done)

    with tracking.tracked(client, config, list(hydra_config.overrides.task), parent, number) as run_id:
        try:
            with judged(folder):
                with interrupts.held():
                    experiment.run(config, result, tell)
                wanted = result.outcome == "nan" or parent is None
                if wanted if config.autopsy is None else config.autopsy:
                    run_autopsy.add(config, result)
        except BaseException:
            with suppress(tracking.TrackingError):  # why the run ended comes first
                tracking.log(client, run_id, result, config.tracking.points)
            raise
        tracking.log(client, run_id, result, config.tracking.points)
    if parent is None:
        if display is not None:
            display.stop()
        console.print(result.story)
        if result.autopsy:
            console.print(result.autopsy, markup=False)
        console.print(f"Files: {folder}")
        console.print(f"Its autopsy again, or of another step: zeronorm autopsy {run_id}")
        console.print(browse_hint(config))
    return result.outcome
