"""One command, `zeronorm`. Nothing slow is imported before it is needed: --help answers at once."""

import os
import signal
import sys
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zeronorm import completion, usage

if TYPE_CHECKING:
    from zeronorm.sweep.parent_run import ParentRun
    from zeronorm.sweep.session import Session

# TensorFlow's start-up chatter; set it to 0 to read it
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@click.group(cls=usage.Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zeronorm")
def main() -> None:
    """Why a cosine ranker's weights turn to NaN: an experiment-tracked ablation.

    \b
    zeronorm train study=quick_ablation   48 runs, one table
    zeronorm train numerics=xla           one run, any factor changed
    zeronorm study quick_ablation         the table of the last sweep
    zeronorm reproduce quick_ablation     run it again, compare with the report
    zeronorm claims                       what the question claims, what holds
    zeronorm autopsy RUN_ID               what killed a run, or would elsewhere
    zeronorm export start.npz             a run's start, for any TensorFlow
    zeronorm ui                           browse every run in MLflow
    zeronorm doctor                       what a run would find here

    The store and all outputs lie in ./runs, or in ZERONORM_HOME.
    """


@main.command(cls=usage.Train, short_help="Train one run, or a sweep; its --help has the factors.")
@click.argument("overrides", nargs=-1, shell_complete=completion.overrides)
@click.option("--only-missing", is_flag=True)
@usage.hydras
@click.pass_context
def train(
    ctx: click.Context, overrides: tuple[str, ...], only_missing: bool, **hydras: Any
) -> None:
    """Train one run, or a sweep of several. Its page of help is `usage.page`."""
    flags = usage.given(hydras, overrides)
    from zeronorm.sweep.session import Session

    Session(["train", *ctx.meta[usage.TYPED]], only_missing).run(overrides, flags)


INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit statuses


@main.command(short_help="Show the table of a study's last sweep.")
@click.argument("name", shell_complete=completion.studies)
@click.argument("overrides", nargs=-1, shell_complete=completion.stores)
@click.option(
    "--report",
    "reporting",
    is_flag=True,
    help="Also write experiments/NAME and the README's tables.",
)
@click.option(
    "--sweep",
    "sweep_id",
    shell_complete=completion.sweeps,
    help="Run id of the sweep's parent run; default: the last one.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["md", "csv", "tex", "json"]),
    help="The table as data instead of on screen.",
)
def study(
    name: str, overrides: tuple[str, ...], reporting: bool, sweep_id: str | None, form: str | None
) -> None:
    """Show the table of a study's last sweep. OVERRIDES name another store, e.g.
    tracking=server."""
    from zeronorm import checkout, tracking
    from zeronorm.report import present, tables, write
    from zeronorm.sweep.display import console
    from zeronorm.sweep.plan import identities

    client, found = _sweep(name, sweep_id, overrides)
    with _one_sentence():
        runs = tracking.children(client, found)
    if not len(runs) or not (runs["status"] == "FINISHED").any():
        raise click.ClickException(
            f"Sweep {found.info.run_id} of '{name}' has no finished run yet."
        )
    if reporting:
        if not (checkout.conf_dir() / "study" / f"{name}.yaml").is_file():
            raise click.ClickException(
                f"There is no conf/study/{name}.yaml: a report is of the runs that a study's file"
                " names."
            )
        with _one_sentence():
            write.require_complete(name, found, runs, identities(name))
    conditions = tables.conditions_table(tables.runs_table(name, runs))
    if form:
        click.echo(present.FORMATS[form](conditions))
    else:
        present.print_table(conditions, console)
        done = int((runs["status"] == "FINISHED").sum())
        console.print(
            f"Sweep {found.info.run_id}, {found.data.tags.get('date')}: {done} of its"
            f" {found.data.tags['runs']} runs."
        )
    if reporting:
        with _one_sentence():
            of_sweep = (found.info.run_id, found.data.tags, tracking.seconds(found))
            written = write.write(
                name,
                runs,
                *of_sweep,
                lambda run_id: tracking.curves(client, run_id),
                lambda run_id: tracking.ranks(client, run_id),
            )
        for path in written:
            click.echo(f"written: {path}", err=True)


@main.command(short_help="Run a study again and compare it with the reported numbers.")
@click.argument("name", shell_complete=completion.reported)
@click.argument("overrides", nargs=-1, shell_complete=completion.overrides)
@click.option(
    "--only-missing",
    is_flag=True,
    help="Take over finished runs of the same config from earlier sweeps.",
)
@click.option(
    "--other-code",
    is_flag=True,
    help="With --only-missing: also runs of another commit or other versions.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be run, and stop.")
@click.option(
    "--log", is_flag=True, help="Enter the result in experiments/NAME's reproduction log."
)
@click.option(
    "--noise",
    is_flag=True,
    help="Compare nothing: a repeat, from a start that is rounded otherwise, for the tolerance.",
)
def reproduce(
    name: str,
    overrides: tuple[str, ...],
    only_missing: bool,
    other_code: bool,
    dry_run: bool,
    log: bool,
    noise: bool,
) -> None:
    """Run a study again and compare it with experiments/NAME: outcomes and steps exactly, measured
    numbers within the tolerance that its repeats give, and its conclusions; exit status 1 if one
    fails.

    OVERRIDES narrow it, e.g. seed=0, or say where and how to run: tracking=server,
    hydra.launcher.threads=2.
    """
    from zeronorm import provenance, tracking
    from zeronorm.report import committed, faults, reproduction, write
    from zeronorm.sweep.display import console
    from zeronorm.sweep.session import Session

    if noise and log:
        raise click.ClickException("--noise compares nothing that --log could enter: drop one.")
    with _one_sentence():
        committed.require_whole(name)
        reported = committed.committed_runs(name)
        faults.require_none(name)
        if noise:
            repeat = write.next_repeat(name, write.is_elsewhere(name, provenance.tags()))
            overrides = (*overrides, f"rounding={repeat}")
    # a repeat has an identity of its own, and is known by its condition and seed
    confined = frozenset(reported["config_sha"] if overrides and not noise else ())
    chosen = {"only-missing": only_missing, "other-code": other_code, "dry-run": dry_run}
    options = [f"--{option}" for option, given in chosen.items() if given]
    command = ["reproduce", name, *overrides, *options]
    session = Session(command, only_missing, only_planned=dry_run, reported=confined)
    closed, failed = _again(session, [f"study={name}", *overrides])
    with _one_sentence():
        tags = closed.run.data.tags
        found = tracking.children(closed.client, closed.run)
        if noise:
            made = write.write_noise(name, repeat, found, command, tags)
            console.print(f"{made} repeats are in experiments/{name}/noise.csv.", markup=False)
            raise SystemExit(failed)
        compared = write.compare(
            name,
            reported,
            found,
            bool(overrides),
            lambda run_id: tracking.ranks(closed.client, run_id),
            write.is_elsewhere(name, tags),
        )
        differs = write.elsewhere(name, tags)
        for sentence in filter(None, (differs, compared.tolerance)):
            console.print(sentence, markup=False)
        reproduction.print_comparison(compared.cells, compared.judged, console)
        if log:
            seconds = tracking.seconds(closed.client.get_run(closed.run.info.run_id))
            write.log_reproduction(name, compared, command, tags, len(found), seconds)
    raise SystemExit(1 if failed or compared.failed else 0)


def _again(session: "Session", overrides: list[str]) -> tuple["ParentRun", int]:
    """(the sweep that a session has made, 1 if some of its runs failed: what is there is compared
    all the same)."""
    failed = 0
    try:
        session.run(overrides)
    except SystemExit as ended:
        if session.closed is None or ended.code in INTERRUPTED:
            raise
        failed = 1 if ended.code else 0
    if session.closed is None:
        raise click.ClickException(
            "This was no sweep, so nothing is compared: leave out what makes it one run."
        )
    return session.closed, failed


@main.command(short_help="Print the claims of the question, each with a verdict.")
@click.argument("overrides", nargs=-1, shell_complete=completion.stores)
@click.option(
    "--sweep",
    "sweep_id",
    shell_complete=completion.sweeps,
    help="Judge the runs of this sweep of the study `claims`, not the reported ones.",
)
def claims(overrides: tuple[str, ...], sweep_id: str | None) -> None:
    """Print the claims C1 to C13 of the question and its answer, each with a verdict and the runs
    that show it.

    OVERRIDES name another store than the local one, e.g. tracking=server, for --sweep.
    """
    from zeronorm.report import asked, committed, faults, single_steps
    from zeronorm.report import claims as judging
    from zeronorm.sweep.display import console

    with _one_sentence():
        there = asked.sentences("releases")
        if sweep_id:
            # not where the reported runs are judged: they import MLflow and Hydra, a second
            from zeronorm import tracking
            from zeronorm.sweep.plan import identities

            client, found = _sweep("claims", sweep_id, overrides)
            runs = committed.as_read(tracking.children(client, found), "claims")
            missing = {sha[:16] for sha in identities("claims")} - set(runs["config_sha"])
            if missing:
                said = f"sweep {sweep_id} lacks {len(missing)} runs of the study"
                raise committed.ReportError(f"These runs do not decide every claim: {said}.")
            source = f"From sweep {sweep_id} of this store."
        elif overrides:
            raise click.ClickException(
                f"{overrides[0]} goes with --sweep: the reported runs lie in experiments/."
            )
        else:
            committed.require_whole("claims")
            faults.require_none("claims")
            runs = committed.committed_runs("claims")
            source = (
                "From experiments/claims/runs.csv; `zeronorm reproduce claims` makes the runs"
                " again, here."
            )
        try:
            judgements = judging.judged(runs, single_steps.shown("single_steps"))
            steps = judging.steps(runs)
            judging.print_claims(judgements, there, steps, source, console, bool(sweep_id))
        except (ValueError, KeyError) as error:  # a part of the study, or another one
            raise click.ClickException(
                f"These runs do not decide every claim ({error})."
            ) from error


@main.command(short_help="Say what killed a run, and what each cure makes of it.")
@click.argument("target", shell_complete=completion.targets)
@click.argument("overrides", nargs=-1, shell_complete=completion.stores)
@click.option(
    "--step", type=click.IntRange(min=0), help="Examine this step of the run, counted from 0."
)
@click.option(
    "--capsule",
    type=click.Path(dir_okay=False),
    help="Also write the step to this file, for replay.",
)
@click.option(
    "--model", "factory", help="MODULE:FUNCTION that returns your compiled model, for your capsule."
)
@click.option(
    "--trust",
    "trusted",
    is_flag=True,
    help="Call and open whatever the file's or the run's config names.",
)
def autopsy(
    target: str,
    overrides: tuple[str, ...],
    step: int | None,
    capsule: str | None,
    factory: str | None,
    trusted: bool,
) -> None:
    """Examine the step that killed a run, and what each numerics, similarity and repair makes of
    it.

    TARGET is the id of a run, to whose artifacts it adds autopsy.json and autopsy.md (of another
    step than the run's own autopsy: autopsy_step_N), or a capsule: a file that --capsule wrote, or
    zeronorm.Autopsy(capsule=...) in a training of your own. Of a run that nothing killed it
    examines the first step that touches a zero row.

    The config inside may name only what this project ships and Keras's optimizers, and no pickle:
    with --trust, which a run with functions of your own needs, it may name anything.

    OVERRIDES name the store that a run is in, e.g. tracking=server.
    """
    import tempfile

    from zeronorm import tracking
    from zeronorm.sweep.display import console

    is_run = _names_a_run(target, overrides, step, capsule, factory)
    if is_run:
        client, recorded, tags = _recorded(target, overrides, trusted)
        another = step is not None and str(step) != tags.get("autopsy.step", str(step))
        died = tags.get("nan.first_step", "")
        step = int(died) if step is None and died.isdecimal() else step
    with console.status("Reaching the step and examining it"), _examining():
        from zeronorm import preparation, run_autopsy
        from zeronorm.autopsy import capsule as capsules
        from zeronorm.autopsy import replay

        moment: run_autopsy.Moment | None = None
        if is_run:
            moment = run_autopsy.reached(preparation.prepare(recorded), step)
        elif (found := capsules.load(target)).config:
            moment = run_autopsy.of_capsule(found, trusted)
        report = run_autopsy.examine(moment) if moment else replay(_made(factory, target), target)
    click.echo(str(report))
    if capsule and moment:
        click.echo(f"written: {moment.capsule().save(capsule)}", err=True)
    if is_run:
        assert isinstance(report, run_autopsy.RunReport)  # as of every moment
        name = f"autopsy_step_{step}" if another else "autopsy"
        with tempfile.TemporaryDirectory() as folder:
            report.write(Path(folder), name)
            tracking.add_files(client, target, Path(folder), {} if another else report.tags)
        click.echo(f"added to the run's artifacts: {name}.json, {name}.md", err=True)


def _names_a_run(
    target: str,
    overrides: tuple[str, ...],
    step: int | None,
    capsule: str | None,
    factory: str | None,
) -> bool:
    """Whether the target of an autopsy is a run, not a file; one sentence where an option does not
    go with it."""

    is_run = not os.path.isfile(target)
    if is_run and (os.sep in target or target.endswith(".npz") or os.path.isdir(target)):
        what = "is a folder" if os.path.isdir(target) else "does not exist"
        raise click.ClickException(f"{target} {what}: name a run id or a capsule.")
    if is_run and factory:
        raise click.ClickException(
            f"{target} is no file: --model goes with a capsule of a model of your own."
        )
    if not is_run and step is not None:
        raise click.ClickException("--step goes with the id of a run: a capsule holds one step.")
    if capsule and not Path(capsule).absolute().parent.is_dir():
        raise click.ClickException(
            f"--capsule {capsule}: there is no folder {Path(capsule).absolute().parent}."
        )
    if not is_run and overrides:
        raise click.ClickException(f"{overrides[0]} goes with the id of a run: {target} is a file.")
    return is_run


def _recorded(run_id: str, overrides: tuple[str, ...], trusted: bool):
    """(the store's client, the run's config with this machine's home, the run's tags)."""
    from zeronorm import config as schema
    from zeronorm import tracking, trust

    config, client = _connected(*overrides)
    try:
        text, tags = tracking.config_of(client, run_id)
        recorded = trust.config(text, f"The config.yaml of run {run_id}", trusted)
    except (tracking.TrackingError, schema.ConfigError) as error:
        raise click.ClickException(str(error)) from error
    recorded.home = config.home
    return client, recorded, tags


@contextmanager
def _examining():
    """What an autopsy cannot use is said in one sentence."""
    from zeronorm.sweep.process import quiet_import

    with quiet_import():
        from zeronorm import config, corpus, preparation, vectors
        from zeronorm.autopsy import CapsuleError
    known = (
        CapsuleError,
        corpus.CorpusError,
        vectors.VectorsError,
        preparation.ExperimentError,
        config.ConfigError,
    )
    try:
        yield
    except known as error:
        raise click.ClickException(str(error)) from error


def _made(factory: str | None, target: str):
    """The model that MODULE:FUNCTION returns."""
    from zeronorm.autopsy.factory import ModelError, made

    if not factory:
        raise click.ClickException(
            f"{target} is a capsule of a model of your own: name a function that returns that"
            " model, compiled as it was trained, with --model MODULE:FUNCTION."
        )
    sys.path.insert(0, os.getcwd())
    try:
        return made(factory)
    except ModelError as error:
        raise click.ClickException(str(error)) from error


@main.command(short_help="Write a run's start to a file, for any TensorFlow.")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("overrides", nargs=-1, shell_complete=completion.overrides)
@click.option("--steps", type=click.IntRange(1), default=50, show_default=True, help="At most.")
def export(path: Path, overrides: tuple[str, ...], steps: int) -> None:
    """Write the first weights and batches of a run, for any release of TensorFlow.

    PATH is the .npz file to write, which experiments/releases/probe.py trains with whatever
    TensorFlow from 1.0 to today its Python has. OVERRIDES make the run, as those of train do.
    """
    from zeronorm import config as schema
    from zeronorm import mistakes

    if not path.absolute().parent.is_dir():
        raise click.ClickException(f"There is no folder {path.absolute().parent}.")
    with _examining():
        from zeronorm import checks, preparation
        from zeronorm import export as exporting

        mistakes.require_composable(overrides, sweep=False)
        config = schema.composed(*overrides)
        schema.validate(config)
        checks.check(config)
        written = exporting.save(preparation.prepare(config), steps, path)
    click.echo(f"written: {path}, {written} steps of {schema.condition(config)}")


@main.command(short_help="Browse every run in MLflow's UI.")
@click.argument("overrides", nargs=-1, shell_complete=completion.stores)
@click.option("--port", default=5000, show_default=True)
def ui(overrides: tuple[str, ...], port: int) -> None:
    """Open the MLflow UI on the store (stop it with Ctrl-C).

    OVERRIDES name another store, e.g. tracking=server.
    """
    from zeronorm import ui as browser

    config, client = _connected(*overrides)
    browser.serve(config, client, port)


@main.command(short_help="Say what a run would find here: versions, devices, store.")
@click.argument("overrides", nargs=-1, shell_complete=completion.stores)
def doctor(overrides: tuple[str, ...]) -> None:
    """Say what a run would find here: versions, devices, what jit_compile="auto" means, the home
    folder and the store. Exit status 1 if something is wrong.

    OVERRIDES name another store, e.g. tracking=server.
    """
    from zeronorm import config as schema
    from zeronorm import mistakes
    from zeronorm.sweep.process import quiet_import

    _require_store(overrides)
    with quiet_import():
        from zeronorm import doctor as examination
    try:
        mistakes.require_composable(overrides, sweep=False)
        config = schema.composed(*overrides)
    except schema.ConfigError as error:
        raise click.ClickException(str(error)) from error
    faults = []
    for finding in examination.examined(config):
        mark = "FAULT  " if finding.fault else ""
        click.echo(f"{finding.what:12}  {mark}{finding.found}")
        faults += [finding.fault] if finding.fault else []
    for fault in faults:
        click.echo(f"Error: {fault}", err=True)
    raise SystemExit(1 if faults else 0)


@main.command(short_help="End runs that a killed process left as running.")
@click.argument("overrides", nargs=-1, shell_complete=completion.stores)
def reap(overrides: tuple[str, ...]) -> None:
    """End runs that a killed process left as running: as KILLED, so that they no longer look alive.

    OVERRIDES name another store, e.g. tracking=server.
    """
    from zeronorm import tracking

    _, client = _connected(*overrides)
    with _one_sentence():
        for run_id in tracking.reap(client):
            click.echo(f"ended as KILLED: {run_id}")


@contextmanager
def _one_sentence():
    """What goes wrong with a report, or with the store it is made from, is said in one sentence."""
    from zeronorm.report.committed import ReportError

    try:
        yield
    except (ReportError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except click.ClickException:
        raise
    except Exception as error:
        # not before: it imports MLflow, a second that a command without a store need not take
        from zeronorm import failure, tracking

        if isinstance(error, tracking.TrackingError):
            raise click.ClickException(str(error)) from error
        if isinstance(error, tracking.MlflowException):
            raise click.ClickException(
                f"The store does not answer ({failure.reason(error)})."
            ) from error
        raise


def _require_store(overrides: Iterable[str]) -> None:
    """One sentence if an override names something else than a store."""
    for override in overrides:
        key = override.split("=")[0]
        if key not in ("tracking", "home") and not key.startswith("tracking."):
            raise click.ClickException(
                f"{override} does not name a store, as tracking=server and home=FOLDER do."
            )


def _connected(*overrides: str):
    """The config and a client of its store; one sentence if there is none yet, or an override names
    something else."""

    from zeronorm import config as schema
    from zeronorm import mistakes, tracking

    _require_store(overrides)
    try:
        mistakes.require_composable(overrides, sweep=False)
    except schema.ConfigError as error:
        raise click.ClickException(str(error)) from error
    config = schema.composed(*overrides)
    file = tracking.store_uri(config).removeprefix("sqlite:///") if config.tracking.uri else None
    if file is None:
        raise click.ClickException("tracking=server needs a URI: set MLFLOW_TRACKING_URI.")
    if file.startswith("/") and not os.path.exists(file):
        raise click.ClickException(
            f"There is no store at {file} yet: run a study first, or set ZERONORM_HOME."
        )
    try:
        return config, tracking.connect(config)
    except tracking.TrackingError as error:
        raise click.ClickException(str(error)) from error


def _sweep(name: str, sweep_id: str | None, overrides: tuple[str, ...]):
    from zeronorm import checkout, tracking
    from zeronorm.mistakes import unknown

    known = sorted(path.stem for path in (checkout.conf_dir() / "study").glob("*.yaml"))
    try:
        config, client = _connected(*overrides)
    except click.ClickException as error:
        if name in known:
            raise
        # the store may have had a study of the user's own
        also = unknown(f"the study {name}", name, known)
        raise click.ClickException(f"{error.message} And {also}") from error
    found = tracking.sweeps(client, name)
    chosen = [run for run in found if sweep_id in (None, run.info.run_id)]
    if not chosen:
        todo = (
            "run its study first"
            if name in known
            else f"the studies are {', '.join(known)}; correct the name"
        )
        raise click.ClickException(
            f"The store {tracking.store_uri(config)} has no"
            f" sweep{' ' + sweep_id if sweep_id else ''} of '{name}': {todo}, or name another store"
            " by ZERONORM_HOME."
        )
    # the last one that finished, or, where none did, the last
    return client, next((run for run in chosen if run.info.status == "FINISHED"), chosen[0])
