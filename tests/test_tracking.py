"""Which runs of a store are taken over as finished, what is said of them, and runs that write to it
at once."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput

from zeronorm import provenance, tracking

NOW = {"git.commit": "a" * 40, "git.dirty": "false", "code.sha": "c" * 64}
NOW["versions"] = "Python 3.11.7, numpy 2.4.6, hydra-core 1.3.8"


class Page(list):
    token = None


def run(sha, run_id, **tags):
    return SimpleNamespace(
        info=SimpleNamespace(run_id=run_id), data=SimpleNamespace(tags={"config.sha": sha, **tags})
    )


class Store:
    """Answers as an MLflow client: {run id: {artifact: size}}, newest first."""

    def __init__(self, runs, artifacts):
        self.runs, self.artifacts = runs, artifacts

    def search_runs(self, *_, **__):
        return Page(self.runs)

    def list_artifacts(self, run_id):
        if run_id not in self.artifacts:
            raise OSError("gone")
        return [
            SimpleNamespace(path=path, file_size=size)
            for path, size in self.artifacts[run_id].items()
        ]


def test_a_run_without_its_artifacts_is_not_finished(monkeypatch):
    monkeypatch.setattr(tracking, "experiment_id", lambda client, config: "1")
    whole = dict.fromkeys(tracking.WHOLE, 10)
    artifacts = {
        "whole": whole | {"autopsy.md": 1},
        "older": whole,
        "empty": whole | {"metrics.json": 0},
        "lacks": {"config.yaml": 10},
        "unsaid": dict.fromkeys(tracking.WHOLE),
    }
    runs = [
        run("a", "empty"),
        run("a", "whole"),
        run("a", "older"),
        run("b", "lacks"),
        run("c", "gone"),
        run("d", "unsaid"),
        run("e", "whole"),
    ]
    found = tracking.finished(Store(runs, artifacts), None, ["a", "b", "c", "d"])
    assert {sha: of.info.run_id for sha, of in found.items()} == {"a": "whole", "d": "unsaid"}


SAID = {
    "the same": ({}, ""),
    "commit": ({"git.commit": "b" * 40}, "commit bbbbbbbbbbbb (now aaaaaaaaaaaa)"),
    "dirty": ({"git.dirty": "true"}, "uncommitted changes true (now false)"),
    "version": (
        {"versions": "Python 3.11.7, numpy 2.4.5, hydra-core 1.3.8"},
        "numpy 2.4.5 (now 2.4.6)",
    ),
    "library": ({"versions": "Python 3.11.7, numpy 2.4.6"}, "hydra-core none (now 1.3.8)"),
    "nothing known": (
        {"versions": ""},
        "Python none (now 3.11.7), numpy none (now 2.4.6), hydra-core none",
    ),
    "edited": (
        {"git.dirty": "true", "code.sha": "d" * 64},
        "changes true (now false), source dddddddddddd (now cccc",
    ),
}


@pytest.mark.parametrize("what", SAID)
def test_other_code_is_said(monkeypatch, what):
    monkeypatch.setattr(provenance, "tags", lambda: NOW)
    tags, said = SAID[what]
    line = tracking.otherwise(
        [run("a", "1", **NOW), run("b", "2", **NOW | tags), run("c", "3", **NOW | tags)]
    )
    assert said in line and line.startswith(
        "2 of the 3 runs taken over are of other code" if said else ""
    )


def test_uncommitted_changes_are_told_apart_by_the_source(monkeypatch):
    dirty = NOW | {"git.dirty": "true"}
    monkeypatch.setattr(provenance, "tags", lambda: dirty)
    assert tracking.otherwise([run("a", "1", **dirty)]) == ""
    assert "source dddddddddddd" in tracking.otherwise(
        [run("a", "1", **dirty | {"code.sha": "d" * 64})]
    )


def test_the_source_is_among_what_a_run_says(monkeypatch):
    assert (
        len(provenance.tags()["code.sha"]) == 64
        and tracking.otherwise([run("a", "1", **provenance.tags())]) == ""
    )


def test_no_password_is_in_a_store_or_in_what_is_said_of_it(composed, monkeypatch):
    """Of a URI that was typed, or that the config has from the environment."""
    uri = "postgresql://user:s3cret@127.0.0.1/runs"
    config, written = composed(f"tracking.uri={uri}"), []

    class Client:
        def create_run(self, *arguments, **options):
            written.append((arguments, options))
            return SimpleNamespace(info=SimpleNamespace(run_id="a"))

        def __getattr__(self, name):
            return lambda *arguments, **options: written.append((arguments, options))

    monkeypatch.setattr(tracking, "experiment_id", lambda client, config: "1")
    overrides = [f"tracking.uri={uri}", "seed=1"]
    tracking.open_sweep(Client(), config, 1, f"zeronorm train tracking.uri={uri}", overrides)
    with tracking.tracked(Client(), config, overrides, None, 0):
        pass
    said = " ".join(
        vars(item).__str__() if hasattr(item, "__dict__") else str(item)
        for arguments, options in written
        for item in (*arguments, *options.values())
    )
    params = [p for _, options in written for p in options.get("params", ())]
    said += " ".join(param.value for param in params)
    assert len(params) > 20 and said.count("user:***@127.0.0.1") >= 4 and "s3cret" not in said
    assert "s3cret" not in str(tracking.TrackingError(f"The store {uri} does not answer."))


def test_runs_that_log_the_same_datasets_at_once_all_have_them(tmp_path):
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    workers, rounds, parts = 6, 8, 3
    experiment = client.create_experiment("one", artifact_location=tmp_path.as_uri())
    runs = [
        [client.create_run(experiment).info.run_id for _ in range(workers)] for _ in range(rounds)
    ]
    start = Barrier(workers, timeout=60)

    def log(worker):
        for number in range(rounds):
            # the workers have them in different orders: each may insert what the others lack
            names = [f"{number}.{(part + worker) % parts}" for part in range(parts)]
            inputs = [DatasetInput(Dataset(name, "d" * 36, "code", "{}")) for name in names]
            start.wait()
            tracking._log_inputs(client, runs[number][worker], inputs)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(log, range(workers)))
    for number, made in enumerate(runs):
        for run_id in made:
            found = client.get_run(run_id).inputs.dataset_inputs
            assert {one.dataset.name for one in found} == {f"{number}.{p}" for p in range(parts)}


def test_a_store_that_takes_no_dataset_says_so(tmp_path):
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    inputs = [DatasetInput(Dataset("one", "d" * 36, "code", "{}"))]
    with pytest.raises(tracking.MlflowException, match="not found"):
        tracking._log_inputs(client, "0" * 32, inputs)
