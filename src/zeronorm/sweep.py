"""A sweep around Hydra's jobs: check every job first, hold the parent run, show how far it is.

Jobs may run in this process or, with another launcher, elsewhere. So a job tells how far it is through a small file in
its output folder, and learns its parent run through the environment.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from zeronorm import config as schema
from zeronorm import workers

PARENT_RUN = "ZERONORM_PARENT_RUN"  # environment variable: the MLflow run id of the sweep a job belongs to

console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())


class SweepCallback(Callback):
    """Hydra calls it before the jobs."""

    def on_run_start(self, config: DictConfig, **kwargs) -> None:
        with ending_the_program():
            job = without_hydra(config)
            schema.validate(job)
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
    except (schema.ConfigError, HydraException) as error:  # Hydra's: a choice or a key that is not there
        raise SystemExit(f"zeronorm: {error}") from None
    except Exception:
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
        self.client = tracking.connect(self.config)
        self.run = tracking.open_sweep(self.client, self.config, self.jobs, " ".join(["zeronorm", *command]))
        tracking.adopt(self.client, self.run, plan.finished)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[PARENT_RUN] = self.run.info.run_id
        global display
        # Hydra's own launchers count the jobs they are given; ours gives each its place in the sweep
        numbers = plan.numbers if pool is not None else range(len(plan.jobs))
        folders = [folder / str(number) for number in numbers]
        display = Display(folders, plan.labels(), costs(plan.jobs))
        display.start()

    def close(self, status: str) -> None:
        """Ends the parent run and prints the table of what has finished. status: FINISHED, FAILED or KILLED."""
        from zeronorm import study, tracking

        runs = tracking.children(self.client, self.run)
        done = int((runs["status"] == "FINISHED").sum()) if len(runs) else 0
        files = []
        if done:
            table = study.runs_table(self.config.study or "sweep", runs)
            conditions = study.conditions_table(table)
            files = [self.folder / name for name in ("table.md", "table.csv", "runs.csv")]
            files[0].write_text(study.markdown(conditions) + "\n")
            conditions.to_csv(files[1], index=False)
            table.to_csv(files[2], index=False)
            study.print_table(conditions, console)
        tracking.close_sweep(self.client, self.run, status, files)
        if status == "KILLED":
            console.print("Interrupted. What is finished is kept; with --only-missing the same command goes on.")
        console.print(f"{done} of {self.jobs} runs finished; tables: {self.folder}/table.md, table.csv, runs.csv")
        console.print(browse_hint(self.config))


class Interrupts:
    """SIGINT and SIGTERM, held back while TensorFlow computes: raised inside its C++ they come out as other errors, and
    the run would count as failed. `check`, called between steps, raises what came; a second signal raises at once."""

    def __init__(self):
        self.holding, self.pending = False, None

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.receive)

    def receive(self, number: int, frame) -> None:
        first, self.pending = self.pending is None, number
        if not (self.holding and first):
            self.check()

    def check(self) -> None:
        number, self.pending = self.pending, None
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if number is not None:
            raise SystemExit(128 + number)

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
in_job = False  # in a worker: whether it has a job, which must end as KILLED when the worker is to end


def launch(context: HydraContext, task: TaskFunction, job_overrides: list[list[str]]) -> list[JobReturn]:
    """Runs the sweep's jobs in the pool, for hydra/launcher=workers; a JobReturn for each, in order."""
    shared = cloudpickle.dumps((context, task, Singleton.get_state()))
    arguments = [(shared, dict(os.environ), cloudpickle.dumps(config)) for config in _numbered(current.plan)]
    results = pool.map(_run_job, arguments, current.graphs)
    return [
        cloudpickle.loads(found) if isinstance(found, bytes) else _failed(found, overrides)
        for found, overrides in zip(results, job_overrides, strict=True)
    ]


def _numbered(plan: Plan) -> list[DictConfig]:
    for number, config in zip(plan.numbers, plan.configs, strict=True):
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
    return plan.configs


def _run_job(argument: tuple[bytes, dict[str, str], bytes]) -> bytes:
    """In a worker: one job, as Hydra's own launchers run it. Returns its JobReturn, pickled."""
    global in_job
    in_job = True
    try:
        return _job_return(*argument)
    finally:
        in_job = False


def _job_return(shared: bytes, environment: dict[str, str], config: bytes) -> bytes:
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
        error = found._return_value
        found = _failed(RuntimeError(f"{type(error).__name__}: {error}"), list(found.overrides))
    return cloudpickle.dumps(found)


def _failed(error: Exception, overrides: list[str]) -> JobReturn:
    found = JobReturn(status=JobStatus.FAILED, overrides=overrides)
    found.return_value = error
    return found


def close(status: str) -> None:
    """Ends the workers and the progress display, and closes the sweep under way, if there is one."""
    global current, pool, last
    if pool is not None:
        pool.close(at_once=status != "FINISHED")
        pool = None
    if display is not None:
        display.stop()
    if current is not None:
        last, current = current, None
        last.close(status)
    elif status == "KILLED":
        console.print("Interrupted.")


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
    for grid in sweeper.get("grids") or [{}]:
        arguments = [f"{key}={value}" for key, value in {**params, **grid}.items()]
        parsed = OverridesParser.create().parse_overrides(arguments + list(config.hydra.overrides.task))
        for job in BasicSweeper.split_arguments(parsed, None)[0]:
            jobs.setdefault(frozenset(job), job)
    return list(jobs.values())


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
        bad = check_input(jobs) if pool is None else pool.first(check_input, jobs)
    if bad:
        console.print(f"Bad lines left out of {bad[0].file}: {len(bad)}. The first:")
        for line in bad[:5]:
            console.print(f"  {line.file}:{line.line}: {line.problem}")


def check_input(jobs: list[DictConfig]) -> list:
    """The part of `check` that needs TensorFlow: tries what the jobs read and import; builds and caches their corpus
    and vectors. Returns the corpus's bad lines."""
    with quiet_import():
        from zeronorm import corpus, experiment, vectors
    try:
        for job in jobs:
            experiment.check(job)
    except (corpus.CorpusError, vectors.VectorsError, experiment.ExperimentError) as error:
        raise schema.ConfigError(str(error)) from error
    return experiment.load(jobs[0]).corpus.bad_lines


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


def report_progress(folder: Path, state: str, steps: int, done: int) -> None:
    """A job says how far it is. state: running, finite, nan, failed or killed."""
    temporary = status_file(folder).with_suffix(".new")
    temporary.write_text(json.dumps({"state": state, "steps": steps, "done": done}))
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
                ended.append((number, name, status["state"]))
        share /= sum(self.costs) or 1
        left = remaining(self.clock() - self.started, share)
        count = f"{len(ended)}/{len(self.names)} runs"
        for number, name, state in ended:
            if number not in self.seen:
                self.seen.add(number)
                if not console.is_terminal:
                    console.print(f"{count}  {name}: {state}  {left}")
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


def job(config: DictConfig) -> None:
    """One run, from a composed config to the store."""
    from zeronorm import experiment, run_autopsy, tracking

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    parent = os.environ.get(PARENT_RUN)
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

    state = "failed"
    try:
        with tracking.tracked(client, config, list(hydra_config.overrides.task), parent, number) as run_id:
            try:
                with interrupts.held():
                    experiment.run(config, result, tell)
                wanted = result.outcome == "nan" or parent is None
                if wanted if config.autopsy is None else config.autopsy:
                    run_autopsy.add(config, result)
            finally:
                tracking.log(client, run_id, result, config.tracking.points)
        state = result.outcome
    except (KeyboardInterrupt, SystemExit):
        state = "killed"
        raise
    finally:
        report_progress(folder, state, 1, 1)
    if parent is None:
        display.stop()
        console.print(result.story)
        if result.autopsy:
            console.print(result.autopsy, markup=False)
        console.print(f"Files: {folder}")
        console.print(f"Its autopsy again, or of another step: zeronorm autopsy {run_id}")
        console.print(browse_hint(config))
