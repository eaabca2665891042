"""Text from anywhere, a title or a line of code, as markdown that shows it and obeys none of it."""

import re
from collections.abc import Iterator, Sequence

MARKUP = re.compile(r"([\\`*_{}\[\]<>|#&~!:+=.)-])")


def plain(text: str) -> str:
    """The text in one line, without markup of its own."""
    return MARKUP.sub(r"\\\1", _line(text))


def code(text: str) -> str:
    """The text in one line between backticks."""
    return f"`{_line(text).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def block(text: str, language: str) -> str:
    """The text as a block of code."""
    lines = "\n".join(_line(line, strip=False) for line in text.splitlines())
    return f"```{language}\n{lines.replace('```', '')}\n```"


def _line(text: str, strip: bool = True) -> str:
    """Only what can be printed: no control character, no half of a surrogate pair."""
    words = " ".join(text.split()) if strip else text
    return "".join(letter for letter in words if letter.isprintable())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table of cells that are markdown already; a column without any is left out."""
    kept = [number for number in range(len(header)) if any(row[number] for row in rows)]
    for cells in (header, ["---"] * len(header), *rows):
        yield "| " + " | ".join(cells[number] for number in kept) + " |"
