"""Where a number comes from: date, hardware, versions, and the commit of the code. No MLflow
here."""

import os
import platform
import re
import subprocess
from contextlib import suppress
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path

from zeronorm import checkout, contents

LIBRARIES = ("tensorflow", "keras", "numpy", "gensim", "mlflow", "hydra-core")


@cache
def tags() -> dict[str, str]:
    """Tags that say where a number comes from: date, hardware, versions, and the code's commit."""
    processor = platform.processor()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(
            line.split(":")[1].strip() for line in lines if line.startswith("model name")
        )
    gpu = "with a GPU" if Path("/dev/nvidia0").exists() else "no GPU"
    return {
        "date": date.today().isoformat(),
        "hardware": f"{os.cpu_count()} cores, {processor}, {gpu}",
        "versions": ", ".join(
            [
                f"Python {platform.python_version()}",
                *(f"{library} {version(library)}" for library in LIBRARIES),
            ]
        ),
        # also of changes that are not committed
        "code.sha": contents.folder(Path(__file__).parent, "*.py"),
        **commit(),
    }


def without_passwords(text: str) -> str:
    """The text without the passwords of the URIs in it: what is recorded is read by others."""
    return re.sub(r"(://[^/\s:@]*):[^/\s]*@", r"\1:***@", text)


def commit() -> dict[str, str]:
    """Commit and dirty flag of the checkout this package runs from; nothing in an installed wheel.
    What a report writes (tables, figures, READMEs) does not make it dirty: no number depends on it.
    """
    folder = checkout.conf_dir().parent
    if not (folder / ".git").exists():
        return {}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        written = [f":(exclude,glob)**/*.{kind}" for kind in ("md", "json", "csv", "csv.gz", "png")]
        dirty = bool(git("status", "--porcelain", "--", ":/", *written))
    except (OSError, subprocess.CalledProcessError):  # no git, or no commit yet
        return {}
    return {
        "git.commit": commit,
        "git.dirty": str(dirty).lower(),
    }
