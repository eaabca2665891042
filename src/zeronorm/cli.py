"""One command, `zeronorm`. Nothing slow is imported before it is needed: --help answers at once."""

import os
import signal
import subprocess
import sys

import click

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up chatter; set it to 0 to read it

RAW = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zeronorm")
def main() -> None:
    """Why a cosine ranker's weights turn to NaN: an experiment-tracked ablation.

    \b
    zeronorm train study=ablation           the 48 runs of the ablation table
    zeronorm train numerics=xla             one run, any factor changed
    zeronorm study ablation                 the table of the last sweep
    zeronorm ui                             browse every run in MLflow

    The store and all outputs lie in ./runs, or in ZERONORM_HOME.
    """


@main.command(context_settings=RAW)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def train(overrides: tuple[str, ...]) -> None:
    """Train one run, or a sweep with -m or study=NAME; --help lists the factors (Hydra's)."""
    import hydra

    from zeronorm import config, sweep

    sweep.interrupts.install()
    config.register()
    sys.argv = ["zeronorm train", *overrides]
    entry = hydra.main(version_base="1.3", config_path=str(config.conf_dir()), config_name="config")(sweep.job)
    status = "FAILED"
    try:
        entry()
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise SystemExit(130) from None
    except SystemExit as ended:
        if ended.code == 128 + signal.SIGTERM:
            status = "KILLED"
        raise
    finally:
        sweep.close(status)


@main.command()
@click.argument("name")
@click.argument("overrides", nargs=-1)
@click.option("--report", is_flag=True, help="Also write experiments/NAME and the README's tables from this sweep.")
@click.option("--sweep", "sweep_id", help="Run id of the sweep's parent run; default: the last one.")
def study(name: str, overrides: tuple[str, ...], report: bool, sweep_id: str | None) -> None:
    """Print the table of a study's last sweep. OVERRIDES name another store, e.g. tracking=server."""
    from zeronorm import report as committed
    from zeronorm import study as tables
    from zeronorm import sweep, tracking

    client, found = _sweep(name, sweep_id, overrides)
    runs = tracking.children(client, found)
    if not len(runs) or not (runs["status"] == "FINISHED").any():
        raise click.ClickException(f"Sweep {found.info.run_id} of '{name}' has no finished run yet.")
    tables.print_table(tables.conditions_table(tables.runs_table(name, runs)), sweep.console)
    done = int((runs["status"] == "FINISHED").sum())
    sweep.console.print(
        f"Sweep {found.info.run_id}, {found.data.tags.get('date')}: {done} of its {found.data.tags['runs']} runs."
    )
    if report:
        try:
            written = committed.write(
                name, runs, found.data.tags, tracking.seconds(found), lambda run_id: tracking.curves(client, run_id)
            )
        except committed.ReportError as error:
            raise click.ClickException(str(error)) from error
        for path in written:
            sweep.console.print(f"written: {path}")


def _composed(*overrides: str):
    from hydra import compose, initialize_config_dir

    from zeronorm import config

    config.register()
    with initialize_config_dir(str(config.conf_dir()), version_base="1.3"):
        return compose("config", list(overrides))


def _connected(*overrides: str):
    """The config and a client of its store; one sentence if there is none yet."""
    from zeronorm import tracking

    config = _composed(*overrides)
    file = tracking.store_uri(config).removeprefix("sqlite:///") if config.tracking.uri else None
    if file is None:
        raise click.ClickException("tracking=server needs a URI: set MLFLOW_TRACKING_URI.")
    if file.startswith("/") and not os.path.exists(file):
        raise click.ClickException(f"There is no store at {file} yet: run a study first, or set ZERONORM_HOME.")
    try:
        return config, tracking.connect(config)
    except tracking.TrackingError as error:
        raise click.ClickException(str(error)) from error


def _sweep(name: str, sweep_id: str | None, overrides: tuple[str, ...]):
    from zeronorm import tracking

    config, client = _connected(*overrides)
    found = tracking.sweeps(client, name)
    chosen = [run for run in found if sweep_id in (None, run.info.run_id)]
    if not chosen:
        raise click.ClickException(
            f"The store {tracking.store_uri(config)} has no sweep{' ' + sweep_id if sweep_id else ''} of '{name}': "
            "run its study first, or name another store by ZERONORM_HOME."
        )
    # the last one that finished, or, where none did, the last
    return client, next((run for run in chosen if run.info.status == "FINISHED"), chosen[0])


@main.command()
@click.option("--port", default=5000, show_default=True)
def ui(port: int) -> None:
    """Open the MLflow UI on the store (stop it with Ctrl-C)."""
    import socket

    from zeronorm import tracking

    config, client = _connected()
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise click.ClickException(f"Port {port} is in use: choose another with --port.")
    click.echo(f"MLflow UI in about 20 seconds; store: {tracking.store_uri(config)}")
    for experiment in client.search_experiments():
        if experiment.name != "Default":
            click.echo(f"  {experiment.name}: http://127.0.0.1:{port}/#/experiments/{experiment.experiment_id}/runs")
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    server = subprocess.Popen(
        tracking.ui_command(config, port),
        env={**os.environ, **quiet},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    # a session of its own: Ctrl-C then reaches this process alone, which ends the server without its tracebacks
    interrupted = (signal.SIGINT, signal.SIGTERM)
    for number in interrupted:
        signal.signal(number, lambda *_: os.killpg(server.pid, signal.SIGTERM))
    code = server.wait()
    raise SystemExit(0 if code in (0, *(-number for number in interrupted)) else code)
