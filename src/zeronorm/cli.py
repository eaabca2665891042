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
@click.option("--report", is_flag=True, help="Also write experiments/NAME and the README's tables from this sweep.")
@click.option("--sweep", "sweep_id", help="Run id of the sweep's parent run; default: the last one that finished.")
def study(name: str, report: bool, sweep_id: str | None) -> None:
    """Print the table of a study's last finished sweep."""
    from zeronorm import report as committed
    from zeronorm import study as tables
    from zeronorm import sweep, tracking

    client, found = _sweep(name, sweep_id)
    runs = tracking.children(client, found)
    tables.print_table(tables.conditions_table(tables.runs_table(name, runs)), sweep.console)
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


def _sweep(name: str, sweep_id: str | None):
    from zeronorm import tracking

    try:
        client = tracking.connect(_composed())
    except tracking.TrackingError as error:
        raise click.ClickException(str(error)) from error
    found = tracking.sweeps(client, name)
    chosen = [run for run in found if (run.info.run_id == sweep_id if sweep_id else run.info.status == "FINISHED")]
    if not chosen:
        raise click.ClickException(
            f"The store has no {'sweep ' + sweep_id if sweep_id else 'finished sweep'} of the study '{name}': "
            f"run  zeronorm train study={name}  first."
        )
    return client, chosen[0]


@main.command()
@click.option("--port", default=5000, show_default=True)
def ui(port: int) -> None:
    """Open the MLflow UI on the store (stop it with Ctrl-C)."""
    from zeronorm import tracking

    config = _composed()
    try:
        tracking.connect(config)
    except tracking.TrackingError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"MLflow UI on http://127.0.0.1:{port} in about 20 seconds; store: {tracking.store_uri(config)}")
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    raise SystemExit(subprocess.call(tracking.ui_command(config, port), env=environment))
