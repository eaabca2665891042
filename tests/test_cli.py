"""The command line as a person meets it: mistakes, help, what TAB offers, and the UI."""

import logging
import os
import pty
import re
import select
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from click.testing import CliRunner

from zeronorm import checkout, cli, completion, mistakes, tracking, ui, usage
from zeronorm import config as schema
from zeronorm.sweep import session

CONF = checkout.conf_dir()
ZERONORM = [sys.executable, "-m", "zeronorm"]


@pytest.fixture
def said(tmp_path, monkeypatch, capfd):
    """said(words) -> (exit status, stdout, stderr) of the command in this process, which starts no
    run."""

    def no_run(config):
        raise AssertionError("a run has started")

    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(session, "job", no_run)
    monkeypatch.setattr(sys, "argv", sys.argv)
    # which closes the handlers of others, and TensorFlow's closes the stream that pytest reads
    monkeypatch.setattr("hydra._internal.hydra.configure_log", lambda *_: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root = logging.getLogger()
    loggers, level = root.handlers[:], root.level

    def call(words):
        with pytest.raises(SystemExit) as ended:
            cli.main(list(words), prog_name="zeronorm")
        out, err = capfd.readouterr()
        status = ended.value.code
        if isinstance(status, str):  # which Python prints, and exits with 1
            return 1, out, f"{err}{status}\n"
        return status or 0, out, err

    yield call
    root.setLevel(level)
    for added in [handler for handler in root.handlers if handler not in loggers]:
        root.removeHandler(added)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def is_one_sentence(err: str) -> bool:
    return (
        err.count("\n") == 1
        and err.startswith(("zeronorm: ", "Error: "))
        and err.rstrip().endswith((".", "?"))
        and not re.search(r"Traceback|HYDRA_FULL_ERROR|hydra\.cc|Error merging|search path", err)
    )


# one override, and how the sentence on it begins
OVERRIDES = {
    # a choice that is not there
    "numerics=cuda": "numerics=cuda is unknown: use one of auto, kernels, tf1, xla.",
    "numerics=kernel": "numerics=kernel is unknown: did you mean kernels (of auto, kernels, tf1,",
    "study=nope": "study=nope is unknown: use one of ablation, best,",
    "study=ablaton": "study=ablaton is unknown: did you mean ablation?",
    "hydra/launcher=worker": "hydra/launcher=worker is unknown: did you mean workers (of basic,",
    "numerics=": "numerics= chooses nothing: use numerics=one of auto,",
    "~numerics": "~numerics chooses nothing: use numerics=one of auto,",
    "study=": "study= chooses nothing: leave it out.",
    # a key that is not there
    "nonsense=1": "nonsense is no option: the options there are corpus, vectors,",
    "numeric=xla": "numeric is no option: did you mean numerics?",
    "training.bacth=3": "training.bacth is no option: did you mean training.batch?",
    "trainng.epochs=3": "trainng.epochs is no option: did you mean training.epochs?",
    "epsilon=1e-3": "epsilon is no option: did you mean similarity.epsilon?",
    "training/batch=3": "training/batch is no option: did you mean training.batch?",
    "numerics@here=xla": "numerics@here is no option: did you mean numerics?",
    "hydra/lancher=workers": "hydra/lancher is no option: did you mean hydra/launcher?",
    "hydra.launcher.wrkers=2": (
        "hydra.launcher.wrkers is no option: did you mean hydra.launcher.workers?"
    ),
    "hydra.nonsense=1": "hydra.nonsense is no option: the options there are those that",
    "optimizer.keras.rho=1": "optimizer.keras.rho is no option: the options there are",
    "vectors.source.path=x": "vectors.source.path is no option here: it goes with vectors=keyed",
    "study.name=x": "study.name is no option: study is one value, which study=VALUE sets.",
    "seed.x=3": "seed.x is no option: seed is one value, which seed=VALUE sets.",
    "model={fliters:3}": "model.fliters is no option: did you mean model.filters?",
    # + and ~
    "+seed=3": "+seed=3 adds what is there already: write seed=3.",
    "+numerics=xla": "+numerics=xla chooses a second numerics: write numerics=xla.",
    "++numerics=xla": "++numerics=xla chooses what is there already: write numerics=xla.",
    "+nonsense=1": "nonsense is no option: the options there are corpus, vectors,",
    "++training.epoch=1": "training.epoch is no option: did you mean training.epochs?",
    "~nope": "~nope leaves out what is not there: drop it.",
    "~numerics=xla": "~numerics=xla leaves out what is not chosen: drop it.",
    "~training.epochs": "~training.epochs cannot be: a run needs training.epochs,",
    "~seed": "seed is missing: give it a value.",
    # a value of the wrong type
    "seed=abc": "seed=abc must be a whole number of at least 0.",
    "seed=": "seed= must be a whole number of at least 0.",
    "training.batch=1.5": "training.batch=1.5 must be a whole number of at least 1.",
    "training.batch=[1]": "training.batch=[1] must be a whole number of at least 1.",
    "init.norm=x": "init.norm=x must be a finite number greater than 0, or null.",
    "training.on_nan=stp": "training.on_nan=stp is unknown: did you mean stop (of go_on, stop,",
    "autopsy=maybe": "autopsy=maybe is unknown: use one of true, false, null.",
    "trainable=[1]": "trainable=[1] must be one of true, false, words, titles.",
    "similarity.shipped_by=3": "similarity.shipped_by=3 must be a list.",
    "home=null": "home=null must be a text.",
    "hydra.mode=FOO": "hydra.mode=FOO cannot be: Invalid value 'FOO', expected one of",
    "hydra.sweeper.params=3": "hydra.sweeper.params=3 must be a mapping, or null.",
    "model=3": "model=3 sets a group of options to one value: set model.filters, model.width,",
    # a group given a value
    "corpus=3": "corpus=3 is no choice of corpus: use corpus=one of pairs,",
    "training=[1]": "training=[1] is no choice of training: use training=one of question,",
    "hydra/launcher=3": "hydra/launcher=3 is no choice of hydra/launcher: write hydra/launcher=",
    "corpus.reader=foo": "corpus.reader=foo sets a group of options to one value: set",
    # what cannot be read
    "numerics=[": "numerics=[ cannot be read: its [ has no partner;",
    "training=[1": "training=[1 cannot be read: its [ has no partner;",
    "seed=range(1": "seed=range(1 cannot be read: its ( has no partner;",
    "home=${x": "home=${x cannot be read: its { has no partner;",
    "similarity=a b": "similarity=a b is unknown: use one of add_to_norms,",
    "seed='a": "seed='a cannot be read: put in quotes",
    "numerics==xla": "numerics==xla cannot be read: did you mean numerics=xla?",
    "/numerics=xla": "/numerics=xla cannot be read: did you mean numerics=xla?",
    "seed=renge(0,3)": "seed=renge(0,3) cannot be read: renge is unknown: did you mean range?",
    "seed": "seed is no override: write seed=VALUE.",
    "numerics:xla": "numerics:xla is no override: write numerics=xla.",
    "=xla": "A value needs a key before its =",
    "": "An empty word is no override: write KEY=VALUE.",
    "hydra.run.dir=${nope}": "hydra.run.dir cannot be: Interpolation key 'nope' not found.",
    "seed=${nope}": "seed cannot be: Interpolation key 'nope' not found.",
    "tracking.uri=${oc.env:NOPE}": "tracking.uri cannot be: KeyError raised while resolving",
    # several values of what takes one
    "seed=range(0,0)": "seed=range(0,0) has no value, so there is nothing to run.",
    "study=best,claims": "study=best,claims sweeps over studies,",
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_a_mistake_is_one_sentence_in_a_run_and_in_a_sweep(said, tmp_path, override):
    for words in ([override], ["-m", override], ["study=quick_ablation", override]):
        status, out, err = said(["train", *words])
        assert (status, out) == (1, "") and is_one_sentence(err), words
        assert err.removeprefix("zeronorm: ").startswith(OVERRIDES[override]), words
    assert not (tmp_path / "home" / "mlflow.db").exists()


SWEEPS = {
    "numerics=kernels,xla": "numerics=kernels,xla has several values: add -m to make a run of each",
    "seed=range(0,3)": "seed=range(0,3) has several values: add -m to make a run of each.",
    "similarity=glob(clamp*)": "similarity=glob(clamp*) has several values: add -m",
    "-m numerics=kernels,cuda": "numerics=cuda is unknown: use one of auto, kernels, tf1, xla.",
    "-m seed=0,1 training.batch=8,x": "training.batch=x must be a whole number of at least 1.",
    "-m init.norm=null,0.3,many": "init.norm=many must be a finite number greater than 0,",
    "--multirun seed=0,-1": "seed=-1 must be a whole number of at least 0.",
    "study=quick_ablation seed=0,x": "seed=x must be a whole number of at least 0.",
    "--cfg job seed=0,1": "seed=0,1 has several values: choose one of them here.",
    "--cfg job numerics=cuda": "numerics=cuda is unknown: use one of",
    "--info defaults nonsense=1": "nonsense is no option",
    "--config-name nope": "There is no file nope.yaml where the configuration is looked for.",
    "hydra.run.dir=/dev/null/x": "hydra.run.dir=/dev/null/x cannot be made (Not a directory)",
}


@pytest.mark.parametrize("words", SWEEPS)
def test_what_a_sweep_or_a_flag_makes_a_mistake_is_one_sentence(said, monkeypatch, words):
    monkeypatch.setattr(session.check, "check", lambda *_: None)  # of the corpus, for seconds
    status, out, err = said(["train", *words.split()])
    assert (status, out) == (1, "") and is_one_sentence(err)
    assert err.removeprefix("zeronorm: ").startswith(SWEEPS[words])


CALLS = {
    "trian": "No such command 'trian'",
    "--foo": "zeronorm has no option --foo: zeronorm --help lists what it has.",
    "study": "Missing argument 'NAME': zeronorm study --help says more.",
    "study claims --formt csv": "zeronorm study has no option --formt: did you mean --format?",
    "ui --port x": "Invalid value for '--port': 'x' is not a valid integer",
    "train --foo": "zeronorm train has no option --foo: zeronorm train --help lists what it has.",
    "train --mutlirun seed=0,1": "zeronorm train has no option --mutlirun: did you mean --multirun",
    "train --numerics=xla": "zeronorm train has no option --numerics: write numerics=VALUE,",
    "train --training.batch 3": "zeronorm train has no option --training.batch: write training.b",
    "train --only-mising study=best": "zeronorm train has no option --only-mising: did you mean",
    "train --cfg": "Option '--cfg' requires an argument.",
    "train --cfg nonsense": "Invalid value for '-c' / '--cfg': 'nonsense' is not one of",
    "train --info nonsense": "Invalid value for '-i' / '--info': 'nonsense' is not one of",
    "train --config-dir /nope": "Invalid value for '-cd' / '--config-dir': Directory '/nope'",
    "train --config-path /nope": "Invalid value for '-cp' / '--config-path': Directory '/nope'",
    "train --experimental-rerun /nope": "Invalid value for '--experimental-rerun': File '/nope'",
    "train -m --cfg job": "--multirun and --cfg exclude each other: leave one out.",
    "train -m numerics=xla,tf1 --cfg job": "--multirun and --cfg exclude each other",
    "train --run -m": "--multirun and --run exclude each other",
    "train --resolve": "--resolve goes with --cfg",
    "train -sc install=bash": "Hydra's script does not fit this command: write eval \"$(_ZERO",
    "train -sc install=zsh": "Hydra's script does not fit this command: write eval \"$(_ZERO",
}


@pytest.mark.parametrize("words", CALLS)
def test_a_wrong_call_is_one_sentence_and_exit_status_2(said, words):
    status, out, err = said(words.split())
    assert (status, out) == (2, "") and is_one_sentence(err)
    assert err.removeprefix("Error: ").startswith(CALLS[words])


def test_a_mistake_reaches_stderr_of_a_process(tmp_path):
    for words, status in ((["numerics=cuda"], 1), (["-m", "--cfg", "job"], 2)):
        done = subprocess.run(
            [*ZERONORM, "train", *words],
            env={**os.environ, "ZERONORM_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (status, "") and is_one_sentence(done.stderr)


@pytest.mark.parametrize("command", ["study claims", "reap", "ui", "export x.npz"])
def test_the_overrides_of_other_commands_are_answered_alike(said, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for override in ("tracking=locl", "tracking.pionts=3", "tracking=[", "tracking=local,server"):
        status, out, err = said([*command.split(), override])
        assert (status, out) == (1, "") and is_one_sentence(err), override


def test_a_word_that_is_near_no_other_is_not_said_to_mean_one():
    known = ["kernels", "xla"]
    assert mistakes.unknown("numerics=cuda", "cuda", known).endswith("use one of kernels, xla.")
    many = [f"name_{number}" for number in range(20)]
    assert len(mistakes.unknown("name_x", "name_x", many)) < 50


def test_the_help_of_train_has_every_factor_and_fits_a_terminal(said):
    for words in (["train", "--help"], ["train", "numerics=cuda", "-h"]):
        status, out, err = said(words)
        lines = out.splitlines()
        assert (status, err) == (0, "") and len(lines) <= 60 and max(map(len, lines)) <= 80
    assert lines[0].startswith("Usage: zeronorm train ")
    for file in CONF.glob("*/*.yaml"):
        assert re.search(rf"^  {file.parent.name} ", out, re.M)
        assert re.search(rf"\b{file.stem}\b", out), file
    for word in ("-m, --multirun", "--only-missing", "--hydra-help", "--config-dir", "--cfg"):
        assert word in out
    assert "  numerics        kernels, auto" in out  # the baseline's choice first
    assert "words, titles: that one alone" in out  # as config.yaml says it


def test_the_examples_of_the_help_are_runs(home):
    assert len(usage.EXAMPLES) == 5
    for example in usage.EXAMPLES:
        words = shlex.split(example)
        assert words[:2] == ["zeronorm", "train"]
        overrides = [word for word in words[2:] if not word.startswith("-")]
        sweep = "-m" in words or None
        mistakes.require_composable([*overrides, f"home={home}"], sweep)


def test_the_commands_are_listed_in_the_order_of_use_and_not_cut(said):
    _, out, _ = said(["--help"])
    listed = out.split("Commands:\n")[1].splitlines()
    names = [line.split()[0] for line in listed]
    order = ["train", "study", "reproduce", "claims", "autopsy", "export", "ui", "reap"]
    assert [name for name in names if name in order] == order and names[-1] == "reap"
    assert set(names) == set(cli.main.commands) and "..." not in "".join(listed)
    assert max(map(len, out.splitlines())) <= 80
    for name in order[1:]:
        assert max(map(len, said([name, "--help"])[1].splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "slow"),
    [
        (["train", "--help"], {"tensorflow", "mlflow", "pandas", "gensim", "hydra"}),
        (["claims"], {"tensorflow", "mlflow", "gensim", "scipy", "hydra", "matplotlib"}),
    ],
)
def test_what_answers_at_once_loads_nothing_slow(arguments, slow):
    script = (
        "import sys; from zeronorm import cli\n"
        f"try: cli.main({arguments})\n"
        "except SystemExit: pass\n"
        f"print({slow} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == "set()\n"


def test_hydras_flags_work_before_between_and_after_overrides(said, tmp_path):
    (tmp_path / "similarity").mkdir()
    own = "name: own\nfunction: zeronorm.similarity.unguarded\n"
    (tmp_path / "similarity" / "own.yaml").write_text(own)
    with_own = ["train", "similarity=own", "--config-dir", str(tmp_path), "seed=3"]
    status, out, err = said([*with_own, "--cfg", "job", "-p", "similarity"])
    assert (status, err) == (0, "") and "name: own" in out
    status, out, _ = said([*with_own, "--cfg", "job", "--resolve"])
    assert status == 0 and "seed: 3" in out and "${" not in out
    status, out, _ = said([*with_own, "-i", "searchpath"])
    assert status == 0 and str(tmp_path) in out
    assert "--multirun,-m" in said(["train", "--hydra-help"])[1]


def shell(monkeypatch, kind, line, status="9"):
    """What a shell is offered at the end of a line, split into words as it splits them."""
    words = re.findall(r"[=:]+|[^\s=:]+", line) if kind is completion.Bash else line.split()
    at = len(words) if line[-1].isspace() else len(words) - 1
    monkeypatch.setenv("COMP_WORDS", "\n".join(words))
    monkeypatch.setenv("COMP_CWORD", str(at))
    monkeypatch.setenv("COMP_TYPE", status)
    said = kind(cli.main, {}, "zeronorm", "_ZERONORM_COMPLETE").complete()
    if kind is completion.Bash:
        return [entry.partition(",")[2] for entry in said.splitlines()]
    return said.splitlines()[1::3]


OFFERED = {
    "zeronorm ": ["train", "study", "reproduce", "claims", "autopsy", "export", "ui", "reap"],
    "zeronorm re": ["reproduce", "reap"],
    "zeronorm train num": ["numerics="],
    "zeronorm train numerics=": ["auto", "kernels", "tf1", "xla"],
    "zeronorm train seed=1 numerics=k": ["kernels"],
    "zeronorm train -m numerics=kernels,": ["kernels,auto", "kernels,tf1", "kernels,xla"],
    "zeronorm train study=re": ["repair"],
    "zeronorm train training.ev": ["training.evaluate_on=", "training.evaluate_every_epoch="],
    "zeronorm train training.on_nan=s": ["stop", "stop_when_lost"],
    "zeronorm train init.repair=": ["noise", "mean", "title_words", "null"],
    "zeronorm train trainable=t": ["true", "titles"],
    "zeronorm train autopsy=": ["true", "false", "null"],
    "zeronorm train vectors=keyed_vectors vectors.source.p": ["vectors.source.path="],
    "zeronorm train optimizer.keras.l": ["optimizer.keras.learning_rate="],
    "zeronorm train hydra.launcher.w": ["hydra.launcher.workers="],
    "zeronorm train hydra/l": ["hydra/launcher="],
    "zeronorm train hydra/launcher=": ["basic", "slurm", "workers"],
    "zeronorm train +train": ["+training=", "+training.", "+trainable="],
    "zeronorm train seed=": [],
    "zeronorm train --only": ["--only-missing"],
    "zeronorm train --cfg ": ["job", "hydra", "all"],
    "zeronorm study q": ["quick_ablation"],
    "zeronorm study quick_ablation tr": ["tracking="],
    "zeronorm study quick_ablation tracking=": ["local", "server"],
    "zeronorm study quick_ablation --format=": ["md", "csv", "tex", "json"],
    "zeronorm reproduce w": ["where_it_dies"],
    "zeronorm reproduce claims numerics=x": ["xla"],
    "zeronorm export start.npz simil": ["similarity=", "similarity."],
}


@pytest.mark.parametrize("line", OFFERED)
def test_what_tab_offers(monkeypatch, line):
    assert [name for name in shell(monkeypatch, completion.Bash, line) if name != "doctor"] == (
        OFFERED[line]
    )
    word = "" if line[-1].isspace() else line.split()[-1]
    kept = word[: word.rfind("=") + 1]  # which bash keeps, and zsh replaces
    whole = shell(monkeypatch, completion.Zsh, line)
    assert [name for name in whole if name != "doctor"] == [
        kept + offered for offered in OFFERED[line]
    ]


def test_every_factor_and_key_is_offered_and_every_value_offered_composes(monkeypatch, home):
    first = shell(monkeypatch, completion.Bash, "zeronorm train ")
    groups = {file.parent.name for file in CONF.glob("*/*.yaml")}
    assert {f"{group}=" for group in groups} <= set(first)
    offered = set(first)
    for node in first:
        if node.endswith(".") and node != "hydra.":
            offered |= set(shell(monkeypatch, completion.Bash, f"zeronorm train {node}"))
    for path in schema.paths():
        missing = path.rpartition(".")[2] != "name" and path not in schema.CALLED
        assert f"{path}=" in offered or not missing, path
    for key in sorted(offered):
        if key.endswith("=") and key.partition(".")[0] in schema.Config.__dataclass_fields__:
            for value in shell(monkeypatch, completion.Bash, f"zeronorm train {key}")[:3]:
                mistakes.require_composable([f"{key}{value}"])


def test_choices_of_ones_own_are_offered(monkeypatch, tmp_path):
    (tmp_path / "similarity").mkdir()
    (tmp_path / "similarity" / "mine.yaml").touch()
    line = f"zeronorm train --config-dir {tmp_path} similarity=m"
    assert shell(monkeypatch, completion.Bash, line) == ["mine"]


@pytest.fixture
def store(home, composed, tmp_path, monkeypatch):
    """A store of three runs and two sweeps, in the order of their start: {name: run id}."""
    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path))
    config = composed(f"home={tmp_path}")
    client = tracking.connect(config)
    experiment = client.create_experiment("single runs")
    client.create_experiment("nothing yet")
    found = {}
    for number, (name, tags) in enumerate(
        {
            "older dead": {"kind": "run", "outcome": "nan"},
            "a sweep": {"kind": "sweep", "study": "claims"},
            "newer dead": {"kind": "run", "outcome": "nan"},
            "alive": {"kind": "run", "outcome": "finite"},
            "deleted": {"kind": "run", "outcome": "nan"},
            "another sweep": {"kind": "sweep", "study": "best"},
        }.items()
    ):
        tags |= {"mlflow.runName": name}
        run = client.create_run(experiment, start_time=1000 + number, tags=tags)
        client.set_terminated(run.info.run_id)
        found[name] = run.info.run_id
    client.delete_run(found["deleted"])
    return found


def test_run_ids_are_offered_the_newest_dead_first(monkeypatch, store):
    expected = [store[name] for name in ("newer dead", "older dead", "alive")]
    assert shell(monkeypatch, completion.Bash, "zeronorm autopsy ") == expected
    assert shell(monkeypatch, completion.Zsh, "zeronorm autopsy ") == expected
    listed = shell(monkeypatch, completion.Bash, "zeronorm autopsy ", completion.LISTED)
    assert listed[0] == f"{expected[0]}  (newer dead: nan)"
    one = shell(monkeypatch, completion.Bash, f"zeronorm autopsy {expected[2][:20]}")
    assert one == [expected[2]]
    sweep = shell(monkeypatch, completion.Bash, "zeronorm study claims --sweep ")
    assert sweep == [store["a sweep"]]
    sweep = shell(monkeypatch, completion.Bash, "zeronorm claims --sweep ")
    assert sweep == [store["a sweep"]]


@pytest.mark.parametrize("state", ["none", "no database", "no tables", "locked"])
def test_tab_says_nothing_of_a_store_that_it_cannot_read(monkeypatch, tmp_path, capfd, state):
    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path))
    file = tmp_path / "mlflow.db"
    if state == "no database":
        file.write_text("no database")
    with closing(sqlite3.connect(file if state in ("no tables", "locked") else ":memory:")) as held:
        if state == "locked":
            held.execute("CREATE TABLE runs (run_uuid)")
            held.execute("BEGIN EXCLUSIVE")
        before = sorted(tmp_path.iterdir())
        for line in ("zeronorm autopsy ", "zeronorm study claims --sweep ", "zeronorm train ${x"):
            assert shell(monkeypatch, completion.Bash, line) == []
            assert shell(monkeypatch, completion.Zsh, line) == []
        assert sorted(tmp_path.iterdir()) == before
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def terminal(tmp_path):
    """typed(keys, until) -> what an interactive bash that has sourced the script then shows."""
    command = tmp_path / "zeronorm"
    command.write_text(f'#!/bin/sh\nexec {shlex.join(ZERONORM)} "$@"\n')
    command.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "TERM": "dumb", "PS1": "$ ", "ZERONORM_HOME": str(tmp_path)}
    process, keyboard = pty.fork()
    if process == 0:
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], env)

    def typed(keys: str, until: str) -> str:
        os.write(keyboard, keys.encode())
        shown, deadline = "", time.monotonic() + 60
        while until not in shown and time.monotonic() < deadline:
            if select.select([keyboard], [], [], 0.2)[0]:
                shown += os.read(keyboard, 4096).decode(errors="replace")
        return shown

    yield typed
    os.kill(process, signal.SIGKILL)
    os.close(keyboard)
    os.waitpid(process, 0)


@pytest.mark.slow  # a shell, in which each TAB is a process
def test_an_interactive_bash_completes(terminal):
    terminal('eval "$(_ZERONORM_COMPLETE=bash_source zeronorm)"; echo rea""dy\n', "ready")
    clear = "\x15"
    for keys, until in (
        ("zeronorm tra\t", "zeronorm train "),
        ("zeronorm train num\tx\t", "zeronorm train numerics=xla "),
        ("zeronorm train -m study=a\t", "study=ablation "),
        ("zeronorm train vectors.sou\t_t\t", "vectors.source._target_="),
        ("zeronorm study quick_ablation --format=j\t", "--format=json "),
    ):
        shown = terminal(clear + keys, until)
        assert until in shown and "rror" not in shown, shown
    nothing = terminal(clear + "zeronorm autopsy \t\tdone", "done")
    assert "rror" not in nothing


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


READY = "Ready: open the link behind a study's name (stop it with Ctrl-C)\n"


@pytest.mark.slow  # starts MLflow's server
def test_ui_says_when_it_is_ready_and_prints_no_request(store, tmp_path):
    import requests

    port = free_port()
    process = subprocess.Popen(
        [*ZERONORM, "ui", "--port", str(port)],
        env={**os.environ, "ZERONORM_HOME": str(tmp_path), "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        first, ready, link = (process.stdout.readline() for _ in range(3))
        assert "Starting MLflow's UI" in first and ready == READY
        # at once, for it is ready
        assert requests.get(f"{base}/health", timeout=20).text == "OK"
        found = re.fullmatch(
            rf"  single runs: ({base}/#/experiments/\d+/runs\?workflowType=machine_learning\S*)\n",
            link,
        )
        assert "MLflow" in requests.get(found[1], timeout=20).text
        query = {"max_results": 9}
        api = f"{base}/api/2.0/mlflow/experiments/search"
        listed = requests.post(api, json=query, timeout=20).json()
        assert "single runs" in {one["name"] for one in listed["experiments"]}
        used = subprocess.run(
            [*ZERONORM, "ui", "--port", str(port)],
            env={**os.environ, "ZERONORM_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert used.returncode == 1 and used.stderr == (
            f"Error: Port {port} is in use: choose another with --port.\n"
        )
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    # no request; no link to "Default" and to an experiment without a run
    assert out == "" and err == ""


def test_a_server_that_ends_or_never_answers_is_not_ready():
    port = free_port()
    assert not ui.answers(port, lambda: False)
    assert not ui.answers(port, lambda: True, seconds=0.3)
    with socket.socket() as silent:  # takes what comes, and says nothing
        silent.bind(("127.0.0.1", port))
        silent.listen()
        began = time.monotonic()
        assert not ui.answers(port, lambda: time.monotonic() - began < 0.2, seconds=0.3)


def test_ui_shows_no_password(store, said, tmp_path, monkeypatch):
    """Neither where it says what it serves, nor on the server's command line, nor where that says
    why it ended."""
    secret = "postgresql://me:se+cret@127.0.0.1:1/db"
    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path))
    script = "import os, sys; sys.exit(os.environ['MLFLOW_BACKEND_STORE_URI'])"
    commands, original = [], tracking.ui_command

    def with_script(config, port):
        commands.append(original(config, port))
        return [sys.executable, "-c", script]

    monkeypatch.setattr(tracking, "store_uri", lambda config: secret)
    monkeypatch.setattr(tracking, "ui_command", with_script)
    monkeypatch.setattr(tracking, "connect", lambda config: None)
    status, out, err = said(["ui", "--port", str(free_port())])
    shown = "postgresql://me:***@127.0.0.1:1/db"
    assert status == 1 and shown in out and shown in err
    assert "se+cret" not in out + err + " ".join(commands[0])


def test_ui_says_why_its_server_ended(store, said, tmp_path, monkeypatch):
    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path))
    script = "import sys; sys.exit('the port is taken')"
    monkeypatch.setattr(tracking, "ui_command", lambda *_: [sys.executable, "-c", script])
    status, _, err = said(["ui", "--port", str(free_port())])
    assert status == 1
    assert err == "Error: MLflow's server ended with status 1 (the port is taken).\n"


@pytest.mark.parametrize(
    "command, sentence",
    [
        (["study", "ablatoin"], "the study ablatoin is unknown: did you mean ablation?"),
        (["reproduce", "quick_ablatio"], "does not exist. Did you mean quick_ablation?"),
        (["autopsy", "docs"], "docs is a folder: name a run id or a capsule."),
        (["autopsy", "docs/"], "docs/ is a folder: name a run id or a capsule."),
        (["autopsy", "nowhere/x.npz"], "nowhere/x.npz does not exist: name a run id or a capsule."),
    ],
    ids=str,
)
def test_a_name_that_is_nearly_right_is_answered(command, sentence, tmp_path, monkeypatch):
    """Also where no run was ever made."""
    monkeypatch.chdir(checkout.conf_dir().parent)
    monkeypatch.setenv("ZERONORM_HOME", str(tmp_path))
    done = CliRunner().invoke(cli.main, command)
    assert done.exit_code == 1 and sentence in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", ["train", "claims", "doctor", "study x", "reproduce x"])
def test_an_interrupted_command_says_nothing_and_ends_with_130(words, monkeypatch):
    """As a shell has it of a Ctrl-C, also while the command is still being imported."""

    def interrupted(ctx):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.main.commands[words.split()[0]], "invoke", interrupted)
    done = CliRunner().invoke(cli.main, words.split())
    assert (done.exit_code, done.output) == (128 + signal.SIGINT, "")
