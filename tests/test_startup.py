"""TensorFlow's lines on its way up are kept off the terminal, and nothing else is."""

import os
import subprocess
import sys
import textwrap

import pytest

LINES = {
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR": False,
    "I0000 00:00:1795848101.4 7759 port.cc:153] oneDNN custom operations are on.": False,
    "I0000 00:00:1795848101.4 7759 cudart_stub.cc:31] Could not find cuda drivers": False,
    "I0000 00:00:1795848101.5 77 cpu_feature_guard.cc:227] This TensorFlow binary is": False,
    "To enable the following instructions: AVX2, in other operations, rebuild TensorFlow": False,
    "E0000 00:00:1795848101.4 7759 cuda_platform.cc:52] failed call to cuInit": True,
    "W0000 00:00:1795848101.4 7759 port.cc:1] a warning": True,
    "F0000 00:00:1795848101.4 7759 port.cc:1] The TensorFlow library was compiled to use AVX": True,
    "I0000 00:00:1795848101.4 7759 theirs.cc:1] another library": True,
    "a word of the user's own": True,
    "": True,
    " I0000 is no line of TensorFlow's": True,
    "the last, without an end": True,
}
ENDS = {"none": "", "error": "raise ImportError('broken')", "abort": "os.abort()"}


def said(tmp_path, fake: str, environment: dict, **more) -> subprocess.CompletedProcess:
    """What a program that imports `zeronorm.autopsy.startup` as it does, and a tensorflow that is
    this code, writes."""
    (tmp_path / "tensorflow.py").write_text(f"import os, sys\n{textwrap.dedent(fake)}\n")
    program = f"""
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("startup", {startup_file()!r})
startup = importlib.util.module_from_spec(spec)
spec.loader.exec_module(startup)
with startup.hushed():
    import tensorflow
os.write(1, os.environ.get(startup.LEVEL, "").encode())
os.write(2, b"afterwards\\n")
"""
    known = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=known | {"PYTHONPATH": str(tmp_path)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )


def startup_file() -> str:
    from zeronorm.autopsy import startup

    return startup.__file__


@pytest.mark.slow  # starts processes
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("level", ["", "0", "3"])
def test_only_the_lines_of_the_start_are_kept_back(tmp_path, end, level):
    text = "\n".join(LINES)
    done = said(
        tmp_path,
        f"os.write(2, {text!r}.encode())\n{ENDS[end]}",
        {"TF_CPP_MIN_LOG_LEVEL": level} if level else {},
    )
    kept = "\n".join(line for line, passes in LINES.items() if passes or level == "0")
    assert done.stderr.startswith(kept)
    rest = done.stderr.removeprefix(kept)
    assert {"none": rest == "afterwards\n", "error": "broken" in rest, "abort": rest == ""}[end]
    if end == "none":
        assert done.stdout in ({level} if level else {"1", "3"})


@pytest.mark.slow
def test_what_a_child_of_the_user_says_later_is_not_lost(tmp_path):
    child = """
    import subprocess
    subprocess.Popen(["sh", "-c", "sleep 4; echo a child >&2"])
    """
    done = said(tmp_path, child, {})  # which waits until stderr is closed by all
    assert sorted(done.stderr.splitlines()) == ["a child", "afterwards"]


@pytest.mark.slow
def test_without_a_stderr_nothing_is_done(tmp_path):
    done = said(tmp_path, "", {}, preexec_fn=lambda: os.close(2))
    assert done.returncode in (0, 1) and done.stdout in ("1", "3")  # 1: the program's own write


@pytest.mark.slow  # imports TensorFlow
def test_tensorflow_itself_starts_in_silence():
    known = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    program = "from zeronorm import Autopsy; import os; os.write(2, b'afterwards\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program], env=known, capture_output=True, text=True, timeout=200
    )
    assert done.stderr == "afterwards\n"
