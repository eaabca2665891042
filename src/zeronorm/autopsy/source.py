"""Where a line of the user's stands, as the user knows it: in a file, or in a notebook's cell, and
the lines around it."""

import linecache
import os
import re
import sys
import textwrap

AROUND = 2  # lines before and after it
WIDEST = 160  # characters of a line that are shown


def place(file: str, line: int | None, short: bool = False) -> str:
    """A line as `file.py:20`, or as `cell 1, line 5` where the file is one that a notebook's kernel
    made of a cell.

    short: the file's name alone, without its folder.
    """
    number = _cell(file)
    if number:
        return f"cell {number}, line {line}"
    return f"{os.path.basename(file) if short else _near(file)}:{line}"


def context(file: str, line: int, text: str | None) -> list[tuple[int, str, bool]]:
    """(number, text, whether it is the line itself) of a line and those around it, as far as they
    are known; of a file that has changed, the line alone.

    text: the line as it was read when it ran.
    """
    first, text = max(1, line - AROUND), text or ""
    try:
        lines = [linecache.getline(file, number) for number in range(first, line + AROUND + 1)]
    except ValueError:  # no name that a file can have
        return [(line, text[:WIDEST], True)]
    if not text or lines[line - first].strip() != text:
        return [(line, text[:WIDEST], True)]
    shown = textwrap.dedent("".join(f"{one.rstrip()}\n" for one in lines)).split("\n")[:-1]
    known = [number for number, one in enumerate(shown) if one]  # no empty lines around it
    return [
        (first + number, shown[number][:WIDEST], first + number == line)
        for number in range(known[0], known[-1] + 1)
    ]


def _cell(file: str) -> str:
    """The number of the cell that a file stands for; "" where it stands for none."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    named = getattr(getattr(shell, "compile", None), "format_code_name", lambda _: None)(file)
    found = re.search(r"\[(\d+)\]", str(named))  # ("Cell", "In[1]")
    return found[1] if found else ""


def _near(file: str) -> str:
    """A path as one would type it here."""
    return file.removeprefix(os.getcwd() + os.sep)
