"""MLflow: one parent run per sweep, one child per run. The only module that imports mlflow."""

import json
import logging
import os
import platform
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import psutil
from filelock import FileLock, Timeout
from omegaconf import DictConfig

from zeronorm import config as schema
from zeronorm import failure, markdown, provenance, views

if TYPE_CHECKING:  # the store is asked before TensorFlow is loaded
    from zeronorm.result import Result

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# a dead server is reported in seconds, not minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

from mlflow import MlflowClient  # noqa: E402 (after its environment is set)
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

NOTE, NAME, PARENT, COMMIT, SOURCE = (
    "mlflow.note.content",
    "mlflow.runName",
    "mlflow.parentRunId",
    "mlflow.source.git.commit",
    "mlflow.source.name",
)
SHARED = "shared"  # tag of a sweep: the overrides of all its runs, a line each
JOB = "job"  # tag: the place of a run in its sweep, from 0
PROCESS = "process"  # tag: the process that makes the run
MOST_OF_A_CONFIG = 1_000_000  # characters: more than `trust.config` takes
# tag: {name: value} as JSON, of what is looked up and not searched for; `found_tags` spreads it out
DETAILS = "details"
MOST_OF_A_NOTE = 5000  # characters: what MLflow's stores take of a tag
ADOPTED = "sweep."  # tag, with the id of a later sweep: the run's place in that one
# tags of a failed run: why, and the line of the user's code
ERROR, ERROR_LINE = "error", "error.line"
LOCKED = 60.0  # seconds to wait for another process that opens the same store


class TrackingError(Exception):
    """A store that cannot be used: one sentence that says which, without its password, and what to
    do."""

    def __init__(self, said: str):
        super().__init__(provenance.without_passwords(said))


def store_uri(config: DictConfig) -> str:
    """The tracking URI, with the path of a sqlite file made absolute, so that it means the same in
    every process."""
    uri = config.tracking.uri
    prefix = "sqlite:///"
    return prefix + os.path.abspath(uri.removeprefix(prefix)) if uri.startswith(prefix) else uri


def connect(config: DictConfig) -> MlflowClient:
    """A client of the configured store, which exists afterwards and has answered.

    Raises TrackingError if it does not answer.
    """
    uri = store_uri(config)
    home = Path(config.home).resolve()
    try:
        home.mkdir(parents=True, exist_ok=True)
        (home / "store.lock").touch()
    except OSError as error:
        raise TrackingError(
            f"{home} cannot be written ({error.strerror}): set ZERONORM_HOME to a folder that can."
        ) from error
    try:
        # Several processes that open a fresh sqlite store at once can break its migration for good:
        # one at a time. A server opens its store itself.
        alone = (
            FileLock(home / "store.lock", timeout=LOCKED)
            if uri.startswith("sqlite:")
            else nullcontext()
        )
        with alone:
            return answering(uri)
    except Timeout as error:
        raise TrackingError(
            f"Another process has held {home / 'store.lock'} for {LOCKED:.0f} s: end it, or wait"
            " until it has opened the store."
        ) from error


def preload() -> None:
    """Imports what MLflow itself imports at the first call of a database, for a second or more."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def answering(uri: str) -> MlflowClient:
    """A client of a store, which has answered. Raises TrackingError if it does not."""
    try:
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
        return client
    except Exception as error:  # requests, SQLAlchemy and MLflow each raise their own
        raise TrackingError(
            f"The tracking store {uri} does not answer ({_first_line(error)}): start it, correct"
            " MLFLOW_TRACKING_URI, or use tracking=local."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def experiment_id(client: MlflowClient, config: DictConfig) -> str:
    """The MLflow experiment of the config's study, made if need be; runs outside a study share
    'single runs'."""
    name = config.study or "single runs"
    found = client.get_experiment_by_name(name)
    if found is None:
        artifacts = config.tracking.artifacts
        location = artifacts and Path(artifacts).resolve().joinpath(name.replace(" ", "_")).as_uri()
        try:
            tags = {"mlflow.experimentKind": "custom_model_development", **views.tags()}
            return client.create_experiment(name, artifact_location=location, tags=tags)
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:  # it could not be made, for another reason
                raise
    for key, value in views.tags().items():  # of a store that is older than the view
        if found.tags.get(key) != value:
            client.set_experiment_tag(found.experiment_id, key, value)
    return found.experiment_id


def open_sweep(
    client: MlflowClient, config: DictConfig, runs: int, command: str, shared: Collection[str] = ()
) -> Run:
    """The parent run of a sweep of `runs` runs, which have the overrides `shared` in common."""
    tags = {
        NAME: f"{config.study or 'sweep'}, {runs} runs",
        NOTE: f"A sweep of {runs} runs, under way: `{command}`.",
        "kind": "sweep",
        "study": config.study or "",
        "command": command,
        SHARED: "\n".join(sorted(shared))[:5000],
        **_source(command),
        "runs": str(runs),
        PROCESS: _process(),
        **provenance.tags(),
    }
    return client.create_run(experiment_id(client, config), tags=_recorded(tags))


def _recorded(found: Mapping[str, object]) -> dict[str, str]:
    return {key: provenance.without_passwords(str(value)) for key, value in found.items()}


def _source(program: str) -> dict[str, str]:
    """What MLflow shows as a run's source."""
    made = provenance.tags()
    return {SOURCE: program} | ({COMMIT: made["git.commit"]} if "git.commit" in made else {})


@contextmanager
def tracked(
    client: MlflowClient,
    config: DictConfig,
    overrides: list[str],
    parent: str | None,
    number: int | None,
) -> Iterator[str]:
    """A run in the store while the block runs: FINISHED after it, KILLED if it was interrupted,
    FAILED if it raised.

    parent, number: of a sweep, its run id and the job's place in it.
    """
    shared = client.get_run(parent).data.tags.get(SHARED, "").split("\n") if parent else ()
    tags = {
        NAME: run_name(config, overrides, shared),
        "kind": "run",
        "study": config.study or "",
        "condition": schema.condition(config),
        "seed": str(config.seed),
        "config.sha": schema.identity(config),
        "overrides": " ".join(overrides),
        **_source("zeronorm"),
        DETAILS: json.dumps({PROCESS: _process(), **provenance.tags()}),
    }
    if parent:
        tags |= {PARENT: parent, JOB: str(number)}
    run_id = client.create_run(experiment_id(client, config), tags=_recorded(tags)).info.run_id
    values = _recorded(schema.flatten(config))
    params = [Param(key, value[:6000]) for key, value in values.items()]
    try:
        for start in range(0, len(params), 100):  # MLflow takes 100 at a time
            client.log_batch(run_id, params=params[start : start + 100])
        yield run_id
    except Exception as error:
        # the store itself may be what failed; the first error is the one to show
        with suppress(Exception):
            _end_failed(client, run_id, failure.of(error))
        raise
    except BaseException:  # KeyboardInterrupt, or SystemExit from SIGTERM
        with suppress(Exception):
            client.set_terminated(run_id, "KILLED")
            client.set_tag(run_id, "outcome", "killed")
        raise
    client.set_terminated(run_id, "FINISHED")


# overrides of these are no part of a run's name: they are in it, or say how and where it is made
NAMED = ("trainable", "init", "similarity", "numerics", "optimizer", "seed", "study", "autopsy")
ELSEWHERE = ("training", "tracking", "home", "hydra")


def run_name(config: DictConfig, overrides: Sequence[str], shared: Collection[str] = ()) -> str:
    """What to call a run, what differs first: lists show the beginning of a name.

    shared: the overrides that it has in common with the others of its sweep.
    """
    trainable, init, similarity, numerics, *optimizer = schema.condition(config).split(" ")
    named = {"numerics": numerics, "similarity": similarity, "init": init, "trainable": trainable}
    alike = {override.partition("=")[0] for override in shared}
    others = []
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        mine = key not in NAMED and key.split(".")[0] not in ELSEWHERE
        if mine and override not in shared:
            others.append(override.lstrip("+").removeprefix("vectors."))
    factors = [word for key, word in named.items() if key not in alike]
    factors += [word for key, word in named.items() if key in alike]
    return " ".join([*others, *factors, *optimizer, f"s{config.seed}"])


def found_tags(run: Run) -> dict[str, str]:
    """The tags of a run, with what its `details` hold."""
    tags = dict(run.data.tags)
    try:
        details = json.loads(tags.pop(DETAILS, "{}"))
    except ValueError:  # written by somebody else
        details = {}
    return {**(details if isinstance(details, dict) else {}), **tags}


def _end_failed(client: MlflowClient, run_id: str, failed: failure.RunFailed) -> None:
    """Ends a run as FAILED, with why as its tags."""
    client.set_terminated(run_id, "FAILED")
    said = {ERROR: failed.reason, ERROR_LINE: failed.line}
    client.log_batch(run_id, tags=[RunTag(key, text[:5000]) for key, text in said.items() if text])


def log(client: MlflowClient, run_id: str, result: "Result", points: int) -> None:
    """Everything a run has found so far: curves, end values, tags, description, files. Only finite
    metric values.

    points: at most so many points of one curve, evenly spread, besides the last finite one before
        each gap; every step is in curves.csv.gz.
    Raises TrackingError if the store fails; the run's files stay in result.folder.
    """
    try:
        _log(client, run_id, result, points)
    except Exception as error:
        raise TrackingError(
            f"The tracking store failed while run {run_id} was written ({_first_line(error)}):"
            f" everything it found is in {result.folder.resolve()}; restore the store and run it"
            " again to log it."
        ) from error


def _log(client: MlflowClient, run_id: str, result: "Result", points: int) -> None:
    now = int(time.time() * 1000)
    done = result.recording.steps if result.recording else 0
    metrics = [
        Metric(name, value, now, step)
        for name, curve in result.curves.items()
        for step, value in _points(name, curve, result.norms, points)
    ]
    for step, values in result.epochs.items():
        metrics += [Metric(name, value, now, step + 1) for name, value in values.items()]
    metrics += [Metric(name, float(value), now, done) for name, value in result.metrics.items()]
    tags = dict(result.tags)
    if result.verdict:
        tags[NOTE] = _description(result)
    run = client.get_run(run_id)
    if result.outcome:
        tags[views.COLOUR] = views.NAN if result.outcome == "nan" else views.FINITE
    if result.outcome == "nan":
        tags[NAME] = f"NaN@{result.tags['nan.first_step']} {run.data.tags[NAME]}"
    details = json.loads(run.data.tags[DETAILS]) | result.facts
    entities = [RunTag(key, str(value)[:5000]) for key, value in tags.items()]
    entities.append(RunTag(DETAILS, json.dumps(details, ensure_ascii=False)))
    # as few calls as MLflow's limit of 1000 allows
    client.log_batch(run_id, metrics=metrics[:1000], tags=entities)
    for start in range(1000, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])
    _log_inputs(client, run_id, _datasets(result, run.data.params))
    client.log_artifacts(run_id, str(result.folder))


def _log_inputs(client: MlflowClient, run_id: str, datasets: Sequence[DatasetInput]) -> None:
    """Logs datasets that other runs of the experiment may log at this moment.

    A store looks for a dataset, and inserts it where there is none: of two runs that do so at once,
    one breaks the store's rule that it is there once. The next try finds what the other inserted,
    so that each dataset costs one failure at most.
    """
    for _ in datasets:
        with suppress(MlflowException):
            return client.log_inputs(run_id, list(datasets))
    return client.log_inputs(run_id, list(datasets))


def _points(
    name: str, curve: np.ndarray, norms: Mapping[str, tuple[float, float]], points: int
) -> Iterator[tuple[int, float]]:
    """(steps done, value) of a curve: what is measured of a weight after a step has one more step
    done than what is measured in it, and a norm has one before the first."""
    group, _, weight = name.partition("/")
    after = group == "norm" and weight in norms
    if after:
        curve = np.concatenate([[norms[weight][0]], curve])
    elif group == "nonfinite":
        curve = np.concatenate([[0.0 if np.isfinite(norms[weight][0]) else np.nan], curve])
    yield from ((int(step), float(curve[step])) for step in thinned(curve, points))


def _description(result: "Result") -> str:
    """Of a run, in markdown: what happened in bold, the rest, and where its autopsy is."""
    rest = markdown.plain(result.story.replace(result.verdict, ""))
    parts = [f"**{markdown.plain(result.verdict)}**", rest]
    if (result.folder / "autopsy.md").is_file():
        parts.append("The step taken apart: `autopsy.md` among the artifacts.")
    return "\n\n".join(part for part in parts if part)


def _datasets(result: "Result", params: Mapping[str, str]) -> list[DatasetInput]:
    """The corpus and the two matrices of a run, each with its digest."""
    if not result.audit:
        return []
    audit = result.audit
    corpus, vectors = params.get("corpus.name", "corpus"), params.get("vectors.name", "vectors")
    parts = [(corpus, audit["corpus"]["sha256"], audit["corpus"])]
    parts += [(f"{vectors}: {name}", sha, audit[name]) for name, sha in audit["sha256"].items()]
    return [
        # MLflow takes 36 characters of a digest
        DatasetInput(Dataset(name, sha[:36], "code", "{}", None, json.dumps(profile)))
        for name, sha, profile in parts
    ]


def thinned(curve: np.ndarray, points: int) -> np.ndarray:
    """Positions of at most about `points` finite values of a curve, first and last included, and
    the last finite value before every gap; of a stretch of equal values, only its ends."""
    finite = np.isfinite(curve)
    chosen = np.unique(np.linspace(0, len(curve) - 1, min(points, len(curve))).round().astype(int))
    edges = np.flatnonzero(finite[:-1] & ~finite[1:])
    kept = np.array(
        [position for position in np.union1d(chosen, edges) if finite[position]], dtype=int
    )
    same = curve[kept[1:]] == curve[kept[:-1]]
    inside = (
        np.concatenate([[False], same[:-1] & same[1:], [False]])
        if len(kept) > 2
        else np.zeros(len(kept), bool)
    )
    return kept[~inside]


# of a finished run
WHOLE = {
    "config.yaml",
    "audit.json",
    "nan_events.json",
    "curves.csv.gz",
    "metrics.json",
    "ranks.csv.gz",
}


def finished(client: MlflowClient, config: DictConfig, wanted: Collection[str]) -> dict[str, Run]:
    """{identity: run} of the newest finished run of each wanted identity in the experiment of
    `config`'s study; one whose artifacts are gone does not count."""
    found: dict[str, Run] = {}
    token = None
    while True:
        page = client.search_runs(
            [experiment_id(client, config)],
            "tags.kind = 'run' and attributes.status = 'FINISHED'",
            order_by=["attributes.start_time DESC"],
            max_results=1000,
            page_token=token,
        )
        for run in page:
            sha = run.data.tags.get("config.sha", "")
            if sha in wanted and sha not in found and _whole(client, run):
                found[sha] = run
        token = page.token
        if not token:
            return found


def _whole(client: MlflowClient, run: Run) -> bool:
    try:
        files = client.list_artifacts(run.info.run_id)
    except (MlflowException, OSError):
        return False
    # None: a store that does not say
    return {file.path for file in files if file.file_size != 0} >= WHOLE


def otherwise(runs: Collection[Run]) -> str:
    """How runs that are taken over differ from what would be made now, in a line: of other code or
    other versions; empty where none does."""
    now = _code(provenance.tags())
    differing = [code for code in (_code(found_tags(run)) for run in runs) if code != now]
    said = []
    for key in dict.fromkeys(key for code in (*differing, now) for key in code):
        values = sorted({code.get(key, "none") for code in differing})
        if values != [now.get(key, "none")]:
            said.append(f"{key} {' or '.join(values)} (now {now.get(key, 'none')})")
    if not differing:
        return ""
    return (
        f"{len(differing)} of the {len(runs)} runs taken over are of other code or libraries:"
        f" {', '.join(said)}."
    )


def _code(tags: Mapping[str, str]) -> dict[str, str]:
    """What besides its options made a run, of its tags: {commit, uncommitted changes, source,
    library: version}."""
    versions = (entry.rpartition(" ") for entry in tags.get("versions", "").split(", "))
    return {
        "commit": tags.get("git.commit", "unknown")[:12],
        "uncommitted changes": tags.get("git.dirty", "unknown"),
        "source": tags.get("code.sha", "unknown")[:12],
        **{library: number for library, _, number in versions if library},
    }


def adopt(client: MlflowClient, sweep: Run, runs: dict[int, str]) -> None:
    """Takes finished runs of earlier sweeps into `sweep`. runs: {place in the sweep: run id}."""
    for number, run_id in runs.items():
        client.set_tag(run_id, f"{ADOPTED}{sweep.info.run_id}", str(number))


def close_sweep(
    client: MlflowClient,
    sweep: Run,
    status: str,
    files: list[Path],
    lost: dict[str, failure.RunFailed],
) -> None:
    """Ends a parent run with FINISHED, FAILED or KILLED, with the sweep's tables as its artifacts.
    A child that still counts as running has lost its process: it ends as FAILED, in a KILLED sweep
    as KILLED. lost: {its place: why}."""
    for run in _children(client, sweep):
        if run.info.status != "RUNNING":
            continue
        failed = lost.get(run.data.tags.get(JOB, ""))
        if failed is None and status == "KILLED":
            client.set_terminated(run.info.run_id, "KILLED")
        else:
            _end_failed(client, run.info.run_id, failed or failure.RunFailed("its process is gone"))
    client.set_terminated(sweep.info.run_id, status)
    for file in files:
        client.log_artifact(sweep.info.run_id, str(file))


def describe_sweep(
    client: MlflowClient, sweep: Run, text: str, numbers: Mapping[str, float]
) -> None:
    """The description of a sweep, which becomes that of its experiment too, and its metrics."""
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0) for name, value in numbers.items()]
    client.log_batch(sweep.info.run_id, metrics=metrics, tags=[RunTag(NOTE, text[:MOST_OF_A_NOTE])])
    client.set_experiment_tag(sweep.info.experiment_id, NOTE, text[:MOST_OF_A_NOTE])


def reap(client: MlflowClient) -> list[str]:
    """Ends as KILLED the runs whose process is gone, a sweep's parent included; returns their ids.

    A run is gone if it was started on this machine by a process that no longer exists; runs of
    other machines are left alone.
    """
    ended = []
    for experiment in client.search_experiments():
        for run in client.search_runs(
            [experiment.experiment_id], "attributes.status = 'RUNNING'", max_results=5000
        ):
            process = found_tags(run).get(PROCESS, "")
            if process and _gone(process):
                client.set_tag(run.info.run_id, "outcome", "killed")
                client.set_terminated(run.info.run_id, "KILLED")
                ended.append(run.info.run_id)
    return ended


def _process() -> str:
    """This process, for `reap`: machine, id and start time, so that a later process of the same id
    is told apart."""
    return f"{platform.node()} {os.getpid()} {psutil.Process().create_time():.0f}"


def _gone(process: str) -> bool:
    node, number, started = process.rsplit(" ", 2)
    if node != platform.node():
        return False
    try:
        return f"{psutil.Process(int(number)).create_time():.0f}" != started
    except psutil.NoSuchProcess:
        return True


def sweeps(client: MlflowClient, study: str) -> list[Run]:
    """The parent runs of a study, newest first."""
    found = client.get_experiment_by_name(study)
    if found is None:
        return []
    return list(
        client.search_runs(
            [found.experiment_id],
            "tags.kind = 'sweep'",
            order_by=["attributes.start_time DESC"],
            max_results=100,
        )
    )


def _children(client: MlflowClient, sweep: Run) -> list[Run]:
    """Its own runs and those it adopted, by their places; of a run that was made again, the
    finished or newest one."""
    adopted = f"{ADOPTED}{sweep.info.run_id}"
    runs = [
        run
        for which in (f"tags.`{PARENT}` = '{sweep.info.run_id}'", f"tags.`{adopted}` LIKE '%'")
        for run in client.search_runs(
            [sweep.info.experiment_id],
            which,
            order_by=["attributes.start_time ASC"],
            max_results=5000,
        )
    ]
    kept: dict[tuple, Run] = {}
    for run in runs:
        key = (run.data.tags.get(JOB), run.data.tags.get("config.sha"), adopted in run.data.tags)
        if key not in kept or run.info.status == "FINISHED" or kept[key].info.status != "FINISHED":
            kept[key] = run
    return sorted(
        kept.values(), key=lambda run: int(run.data.tags.get(adopted, run.data.tags.get(JOB, 0)))
    )


def children(client: MlflowClient, sweep: Run) -> pd.DataFrame:
    """One row per run of a sweep: status, params.*, tags.* and last metrics.*, in the sweep's own
    order."""
    runs = _children(client, sweep)
    return pd.DataFrame(
        [
            {"run_id": run.info.run_id, "status": run.info.status}
            | {"seconds": ((run.info.end_time or 0) - run.info.start_time) / 1000}
            | {f"params.{key}": value for key, value in run.data.params.items()}
            | {f"tags.{key}": value for key, value in found_tags(run).items()}
            | {f"metrics.{key}": value for key, value in run.data.metrics.items()}
            for run in runs
        ]
    )


def seconds(run: Run) -> float:
    """Wall time of an ended run."""
    return (run.info.end_time - run.info.start_time) / 1000


def config_of(client: MlflowClient, run_id: str) -> tuple[str, dict[str, str]]:
    """(the config as YAML, which `trust.config` reads; the tags) of a run. Raises TrackingError if
    the store has no such run, or it has no config."""
    try:
        tags = client.get_run(run_id).data.tags
        with TemporaryDirectory() as folder:
            downloaded = client.download_artifacts(run_id, "config.yaml", folder)
            with open(downloaded, encoding="utf-8", errors="replace") as file:
                return file.read(MOST_OF_A_CONFIG), tags
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"The store has no run {run_id} with a config.yaml ({_first_line(error)}): give the id"
            " of a run of `zeronorm train`, as `zeronorm ui` shows it, or name another store by"
            " ZERONORM_HOME."
        ) from error


def add_files(client: MlflowClient, run_id: str, folder: Path, tags: dict[str, str]) -> None:
    """Adds the files of a folder and tags to a run that has ended."""
    client.log_artifacts(run_id, str(folder))
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def curves(client: MlflowClient, run_id: str) -> pd.DataFrame:
    """Every step of a run's curves, (step, name, value), from its artifact."""
    with TemporaryDirectory() as folder:
        return pd.read_csv(client.download_artifacts(run_id, "curves.csv.gz", folder))


def ranks(client: MlflowClient, run_id: str) -> pd.DataFrame:
    """Of every text that a run was judged on: title, zero, rank, from its artifact. Raises
    TrackingError if the run has none, being older than them."""
    try:
        with TemporaryDirectory() as folder:
            path = client.download_artifacts(run_id, "ranks.csv.gz", folder)
            return pd.read_csv(path, dtype={"title": str}, keep_default_na=False)
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"Run {run_id} has no ranks.csv.gz ({_first_line(error)}): make it again."
        ) from error


def ui_command(config: DictConfig, port: int) -> list[str]:
    """The command that serves the MLflow UI on the store that its environment names
    (MLFLOW_BACKEND_STORE_URI: a command line, with the store's password in it, is everybody's to
    read), on 127.0.0.1 and with one worker."""
    artifacts = Path(config.home, "artifacts").resolve().as_uri()
    command = (
        f"-m mlflow server --host 127.0.0.1 --port {port} --workers 1 --default-artifact-root"
        f" {artifacts}"
    )
    return [sys.executable, *command.split()]
