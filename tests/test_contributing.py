"""What CONTRIBUTING.md tells a contributor to type can be typed; the lists of files are whole."""

import ast
import os
import re
import shlex
import subprocess

import click
import pytest
from hydra import compose, initialize_config_dir

import test_scripts
from zeronorm import checkout, cli, mistakes
from zeronorm import config as schema
from zeronorm.sweep.plan import expand

ROOT = checkout.conf_dir().parent
PACKAGE = ROOT / "src" / "zeronorm"
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def printed() -> list[list[str]]:
    """The words of every command in the text's blocks of bash."""
    blocks = re.findall(r"^```bash\n(.*?)^```", TEXT, re.M | re.S)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words for words in lines if words]


def after(*program: str) -> list[list[str]]:
    """The arguments of every printed command that starts so."""
    return [words[len(program) :] for words in printed() if words[: len(program)] == [*program]]


PYTHON, ZERONORM = ".venv/bin/python", ".venv/bin/zeronorm"
TARGETS = sorted({target for words in after("make") for target in words})


def test_every_command_is_of_a_kind_that_is_tried_here():
    tried = ("make", f"{ZERONORM} ", f"{PYTHON} -m pytest ", f"{PYTHON} experiments/")
    commands = [" ".join(words) for words in printed()]
    assert commands and [line for line in commands if not line.startswith(tried)] == []
    assert {".venv/installed", "check", "test"} <= set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_the_target(target):
    """It says what it would do. What a make that runs this test hands on is left out."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    found = subprocess.run(
        ["make", "-n", target], cwd=ROOT, env=outside, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("words", after(ZERONORM, "train"), ids=" ".join)
def test_every_run_composes(words, covering, home):
    overrides = [word for word in words if not word.startswith("-")]
    mistakes.require_composable(overrides)
    with initialize_config_dir(str(checkout.conf_dir()), version_base="1.3"):
        base = compose("config", [f"home={home}"], return_hydra_config=True)
        base.hydra.overrides.task = overrides
        study = [word for word in overrides if word.startswith("study=")]
        base.hydra.sweeper = compose("config", study, return_hydra_config=True).hydra.sweeper
        jobs = [compose("config", job) for job in covering(expand(base))]
    for job in jobs:
        schema.validate(job)
    assert len(jobs) > 1 or not ("-m" in words or study)


@pytest.mark.parametrize("words", after(ZERONORM), ids=" ".join)
def test_every_option_is_there(words):
    command, *given = words
    with click.Context(
        cli.main, **cli.main.context_settings
    ) as whole:  # click keeps its help's names
        context = cli.main.commands[command].make_context(command, list(given), parent=whole)
    if command in ("study", "reproduce"):
        assert (checkout.conf_dir() / "study" / f"{context.params['name']}.yaml").is_file()


def test_pytest_collects_what_it_is_given(capsys, monkeypatch):
    """All of it at once and in this process, which has TensorFlow already."""
    given = sorted({word for words in after(PYTHON, "-m", "pytest") for word in words})
    monkeypatch.chdir(ROOT)
    apart = [word for name in ("cacheprovider", "faulthandler") for word in ("-p", f"no:{name}")]
    assert pytest.main(["--collect-only", "-q", *apart, *given]) == pytest.ExitCode.OK
    said = capsys.readouterr().out
    assert all((ROOT / file).is_file() and f"{file}::" in said for file in given)


def test_every_script_is_one_that_is_run_in_a_test():
    for script, *given in (words for words in after(PYTHON) if words[0] != "-m"):
        assert script.removeprefix("experiments/") in test_scripts.ARGUMENTS and not given


def test_every_path_in_the_prose_exists():
    names = re.findall(r"`((?:conf|experiments|src|tests)\b[^`\s]*)`", TEXT)
    assert len(names) > 10
    for name in names:
        assert list(ROOT.glob(name.replace("STUDY", "*"))), name


def modules(folder) -> set[str]:
    return {file.stem for file in folder.glob("*.py")} - {"__init__"}


def test_the_tree_lists_every_file():
    """Each package's beneath its name; a line may name several, but not in a package."""
    text = (PACKAGE / "README.md").read_text()
    tree = text.split("```text\n")[1].split("```")[0].splitlines()
    assert len(tree) <= 90 and max(map(len, tree)) <= 100
    listed: dict[str, list[str]] = {}
    folder = ""
    for line in tree:
        names = re.match(r" *([\w/]+(?:, \w+)*)", line)[1]
        if names.endswith("/"):
            folder = names.removeprefix("src/zeronorm/")
        else:
            listed.setdefault(folder, []).extend(names.split(", "))
            assert not folder or ", " not in names
    for name, found in listed.items():
        assert sorted(found) == sorted(modules(PACKAGE / name)), name
    assert listed.keys() == {"", "autopsy/", "sweep/", "report/"}


def test_the_autopsys_readme_lists_every_module_and_what_it_imports():
    text = (PACKAGE / "autopsy" / "README.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", text, re.M))
    assert rows.keys() == modules(PACKAGE / "autopsy")
    for name, said in rows.items():
        imported = set()
        for node in ast.walk(ast.parse((PACKAGE / "autopsy" / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "zeronorm.autopsy":
                imported.update(one.name for one in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module.startswith("zeronorm"):
                assert node.module.startswith("zeronorm.autopsy."), "the rest of zeronorm"
                imported.add(node.module.rpartition(".")[2])
            elif isinstance(node, ast.Import):
                assert not any(one.name.split(".")[0] == "zeronorm" for one in node.names)
        assert set(re.findall(r"\w+", said)) - {"nothing"} == imported, name


def test_no_class_and_no_function_is_too_long_to_read_at_once():
    """200 lines and 60, docstrings included."""
    limits = {ast.ClassDef: 200, ast.FunctionDef: 60}
    too_long = [
        f"{file.relative_to(ROOT)}: {node.name}"
        for folder in ("src", "experiments")
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if type(node) in limits and node.end_lineno - node.lineno + 1 > limits[type(node)]
    ]
    assert too_long == []
