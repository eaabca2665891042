"""Bad and odd input on the command line, each a process as its user starts it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ZERONORM = str(Path(sys.executable).with_name("zeronorm"))


def zeronorm(home: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "ZERONORM_HOME": str(home), "COLUMNS": "100"}
    return subprocess.run(
        [ZERONORM, *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (
            "train trainng.epochs=3",
            "trainng.epochs is no option: did you mean training.epochs?",
        ),
        (
            "train numerics=null",
            "numerics=null chooses nothing: use numerics=one of auto, kernels, tf1, xla.",
        ),
        ("train -m seed=range(0,0)", "seed=range(0,0) has no value, so there is nothing to run."),
        ("train -m seed=0,-1", "seed=-1 must be a whole number of at least 0."),
        (
            "train -m numerics=kernels,torch",
            "numerics=torch is unknown: use one of auto, kernels, tf1, xla.",
        ),
        (
            "train vectors.source.window=0",
            "vectors.source.window=0 must be a whole number of at least 1.",
        ),
        ("train seed", "seed is no override: write seed=VALUE."),
        (
            "train hydra.launcher.workers=0",
            "hydra.launcher.workers=0 must be a whole number of at least 1, or null.",
        ),
        ("train +foo.bar=1", "foo is no option: the options there are"),
        (
            "study claims tracking=elsewhere",
            "tracking=elsewhere is unknown: use one of local, server.",
        ),
        (
            "reproduce claims seed=x",
            "seed=x must be a whole number of at least 0.",
        ),
    ],
)
def test_one_sentence_on_stderr_and_nothing_is_made(tmp_path, arguments, sentence):
    done = zeronorm(tmp_path, *arguments.split())
    said = done.stderr.removeprefix("zeronorm: ").removeprefix("Error: ")
    assert done.returncode == 1 and said != done.stderr and said.startswith(sentence)
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("mlflow.db"))


def test_a_run_without_a_score_says_so_first(tmp_path):
    rng = np.random.default_rng(0)
    words = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "klmn"]
    lines = [
        f"{' '.join(rng.choice(words, 20))}\t{title}"
        for title in [*words[:6], "two words"]
        for _ in range(5)
    ]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines) + "\n")
    small = [
        "corpus=pairs",
        "corpus.reader.path=pairs.tsv",
        "corpus.window=20",
        "vectors.source.dim=4",
    ]
    small += ["vectors.source.min_count=1", "training=smoke", "examples=20", "model.filters=4"]
    odd = ["model.dropout=0", "corpus.test_share=0", "--only-missing", "autopsy=false"]
    done = zeronorm(tmp_path, "train", *small, *odd)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "--only-missing belongs to a sweep: this single run is made in any case."
    assert said[1].startswith(
        "There will be no score, because corpus.test_share=0 holds out none of the 35 windows"
    )
    assert "All weights stayed finite" in done.stdout and "hits@10" not in done.stdout
