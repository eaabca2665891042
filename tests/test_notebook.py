"""The committed notebook runs, and a notebook's user is told cells and not the kernel's files.

`python tests/test_notebook.py` writes the notebook's outputs again.
"""

import os
import re
import sys
import tempfile
import types
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from traitlets.config import Config

import zeronorm
from zeronorm.autopsy import source

ROOT = Path(zeronorm.__file__).resolve().parents[2]
NOTEBOOK = ROOT / "experiments" / "autopsy" / "example.ipynb"


class Manager(AsyncKernelManager):
    """Of a kernel in this interpreter, whatever kernels are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def executed(cells) -> nbformat.NotebookNode:
    """A notebook of these cells, run in a folder of its own, with their outputs."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.from_dict(dict(cell)) for cell in cells])
    with tempfile.TemporaryDirectory() as folder:  # a short path: a socket's is limited
        own = {name: folder for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")}
        environment = os.environ | own | {"PYTHONPATH": str(ROOT / "src")}
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # which is set here for the other tests
        sockets = {"transport": "ipc", "connection_file": f"{folder}/kernel.json"}  # and no ports
        client = NotebookClient(
            notebook,
            kernel_manager_class=Manager,
            config=Config({"Manager": sockets}),
            timeout=200,
            resources={"metadata": {"path": folder}},
            record_timing=False,
        )
        client.execute(env=environment)
    return notebook


def displayed(cell, kind: str) -> str:
    """What the last expression of a cell shows, as a MIME type."""
    [data] = [out["data"] for out in cell["outputs"] if out["output_type"] == "execute_result"]
    return data[kind]


def code(notebook) -> list:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def guilty_place(notebook) -> str:
    """Where the line is that kills the model, as a user counts."""
    [(number, line)] = [
        (number, line)
        for number, cell in enumerate(code(notebook), 1)
        for line, text in enumerate(cell["source"].splitlines(), 1)
        if "tf.norm(a" in text
    ]
    return f"cell {number}, line {line}"


@pytest.mark.slow  # a kernel, TensorFlow and an autopsy in it
def test_the_committed_notebook_runs_and_shows_what_it_shows():
    committed = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(committed)
    assert len(committed.cells) <= 8
    found = executed(committed.cells)  # raises where a cell does
    place = guilty_place(found)
    for notebook in (committed, found):
        *_, dies, lives = code(notebook)
        assert displayed(dies, "text/plain") == (
            f"Autopsy(stopped in step 3 of 10: SqrtGrad at {place}, cure: tf.sqrt(x + 1e-05))"
        )
        shown = displayed(dies, "text/html")
        assert f"Died in step 3: SqrtGrad at {place}" in shown and "aardwolf" in shown
        assert re.search(r"<b [^>]*>→ +\d+ +norms = tf.norm\(a", shown)
        assert displayed(lives, "text/plain") == "Autopsy(watched 30 steps of 30, nothing found)"
        losses = [float(loss) for loss in re.findall(r"\d\.\d+", lives["outputs"][0]["text"])]
        assert losses == sorted(losses, reverse=True) and len(losses) == 3
        text = str(notebook)
        assert "'name': 'stderr'" not in text  # TensorFlow's log
        assert (
            "ipykernel_" not in text and str(ROOT) not in text and tempfile.gettempdir() not in text
        )


class Shell:
    """As much of IPython as is asked: one cell has run."""

    def __init__(self, answer):
        self.compile = types.SimpleNamespace(format_code_name={"/tmp/k_1/2.py": answer}.get)


@pytest.mark.parametrize(
    "answer, number", [(("Cell", "In[7]"), "7"), (("Cell", "new"), ""), (3, "")]
)
def test_a_kernels_file_is_told_as_its_cell(monkeypatch, answer, number):
    ipython = types.SimpleNamespace(get_ipython=lambda: Shell(answer))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    place = source.place("/tmp/k_1/2.py", 5)
    assert place == (f"cell {number}, line 5" if number else "/tmp/k_1/2.py:5")
    assert source.place("/tmp/other.py", 5, short=True) == "other.py:5"


@pytest.mark.parametrize("ipython", [None, types.SimpleNamespace(), "without a shell"])
def test_without_a_notebook_a_line_is_a_files(monkeypatch, ipython):
    if ipython is None:
        monkeypatch.delitem(sys.modules, "IPython", raising=False)
    elif ipython == "without a shell":
        ipython = types.SimpleNamespace(get_ipython=lambda: None)
    if ipython is not None:
        monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert source.place(os.path.join(os.getcwd(), "a", "b.py"), 5) == os.path.join("a", "b.py:5")
    assert sys.modules.get("IPython") is ipython  # asked, and not imported


if __name__ == "__main__":
    written = nbformat.read(NOTEBOOK, as_version=4)
    written.cells = executed(written.cells).cells
    nbformat.write(written, NOTEBOOK)
