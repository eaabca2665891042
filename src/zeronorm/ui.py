"""MLflow's UI on a store: a server in a process of its own, and links once it answers."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import IO

import click
from omegaconf import DictConfig

from zeronorm import provenance, tracking, views

STARTS = 180.0  # seconds that the server may take to answer
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
ENDED = (signal.SIGINT, signal.SIGTERM)  # by which the server is asked to end


def serve(config: DictConfig, client: tracking.MlflowClient, port: int) -> None:
    """Serves the store until Ctrl-C.

    Raises ClickException if the port is in use, or the server does not answer; SystemExit with its
    exit status, 0 if it was asked to end.
    """
    store = tracking.store_uri(config)
    if store.startswith(("http://", "https://")):
        click.echo(f"The store is a server, which has its own UI: {store}")
        return
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise click.ClickException(f"Port {port} is in use: choose another with --port.")
    shown = provenance.without_passwords(store)
    click.echo(f"Starting MLflow's UI, 10 to 40 seconds; store: {shown}")
    with tempfile.TemporaryFile() as said:
        server = _started(config, port, said)
        try:
            ready = answers(port, lambda: server.poll() is None)
            if ready:
                _say_ready(client, port)
            elif server.poll() is None:
                raise click.ClickException(
                    f"MLflow's server has not answered in {STARTS:.0f} s: start it once more, or"
                    " on another port with --port."
                )
            code = server.wait()
        finally:
            _end(server)
        if code in (0, *(-number for number in ENDED)):
            raise SystemExit(0)
        raise click.ClickException(f"MLflow's server ended with status {code}{_last_line(said)}.")


def _started(config: DictConfig, port: int, said: IO[bytes]) -> subprocess.Popen:
    """The server, in a session of its own: Ctrl-C then reaches this process alone, which ends the
    server without its tracebacks. said: takes what it prints, but no request."""
    server = subprocess.Popen(
        [*tracking.ui_command(config, port), "--uvicorn-opts", "--log-level warning"],
        env={**os.environ, **QUIET, "MLFLOW_BACKEND_STORE_URI": tracking.store_uri(config)},
        start_new_session=True,
        stdout=said,
        stderr=said,
    )
    for number in ENDED:
        signal.signal(number, lambda *_: _end(server))
    return server


def _end(server: subprocess.Popen) -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)


def answers(port: int, alive: Callable[[], bool], seconds: float = STARTS) -> bool:
    """Whether the server on a port answers to /health in the given time, asked until it does or is
    no longer alive."""
    deadline = time.monotonic() + seconds
    while alive() and time.monotonic() < deadline:
        connection = HTTPConnection("127.0.0.1", port, timeout=min(seconds, 5.0))
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return True
        except (OSError, HTTPException):  # it does not listen yet
            pass
        finally:
            connection.close()
        time.sleep(0.2)
    return False


def _say_ready(client: tracking.MlflowClient, port: int) -> None:
    """A link to the runs of each experiment that has one. The server's own address is not said: it
    opens a page without any run."""
    base = f"http://127.0.0.1:{port}/"
    links = [
        f"  {experiment.name}: {views.page(base, experiment.experiment_id)}"
        for experiment in client.search_experiments()
        if experiment.name != "Default"
        and client.search_runs([experiment.experiment_id], max_results=1)
    ]
    what = "open the link behind a study's name" if links else "the store has no run yet"
    click.echo("\n".join([f"Ready: {what} (stop it with Ctrl-C)", *links]))


def _last_line(said: IO[bytes]) -> str:
    """What a server that failed said last, to follow why it is missed; empty if it said nothing."""
    said.seek(0)
    lines = said.read().decode(errors="replace").split("\n")
    last = [line.strip() for line in lines if line.strip()][-1:]
    return f" ({provenance.without_passwords(last[0]).rstrip('.')})" if last else ""
