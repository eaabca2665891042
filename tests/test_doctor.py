"""`zeronorm doctor`: what a run would find here, without making anything."""

import socket

import pytest
from click.testing import CliRunner

from zeronorm import cli, tracking

WHAT = ["versions", "zeronorm", "machine", "devices", "jit_compile", "XLA", "home", "store"]


def examined(*overrides):
    done = CliRunner().invoke(cli.main, ["doctor", *overrides])
    assert isinstance(done.exception, SystemExit | None), done.exception
    found = {line[:12].strip(): line[14:] for line in done.stdout.splitlines()}
    return done, found


def closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_a_machine_that_is_well(tmp_path, monkeypatch):
    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path / "new"))
    done, found = examined()
    assert done.exit_code == 0 and done.stderr == ""
    assert [what for what in found if what] == WHAT
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if str(tmp_path) not in line)
    assert "tensorflow 2." in found["versions"] and "none yet" in found["store"]
    assert "means kernels here" in found["jit_compile"] or "means xla here" in found["jit_compile"]
    assert not (tmp_path / "new").exists()  # nothing is made by looking


def test_a_store_that_answers(tmp_path, monkeypatch, composed):
    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path))
    config = composed(f"home={tmp_path}", "study=claims")
    tracking.experiment_id(tracking.connect(config), config)
    done, found = examined()
    assert done.exit_code == 0 and "answers; experiments: 1, runs: 0" in found["store"]


@pytest.mark.parametrize("fault", ["server", "home", "uri"])
def test_each_fault_is_one_sentence_and_the_status(tmp_path, monkeypatch, fault):
    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    overrides = ["tracking=server"] if fault != "home" else []
    if fault == "server":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    if fault == "home":
        (tmp_path / "file").touch()
        monkeypatch.setenv("ZERONORM_HOME", str(tmp_path / "file"))
    done, found = examined(*overrides)
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    assert sum(line.startswith("FAULT") for line in found.values()) == 1


@pytest.mark.parametrize("secret", ["s3cret", "s3:cret", "s3@cret", "s3%40cret"])
def test_no_password_is_printed(tmp_path, monkeypatch, secret):
    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://user:{secret}@127.0.0.1:{closed_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    done, found = examined("tracking=server")
    assert done.exit_code == 1 and "user:***@127.0.0.1" in found["store"]
    assert secret not in done.stdout + done.stderr
