"""Text from anywhere, a title or a line of code, as markdown that shows it and obeys none of it."""

import re
from collections.abc import Iterator, Sequence

MARKUP = re.compile(r"([\\`*_{}\[\]<>|#&~!])")


def plain(text: str) -> str:
    """The text in one line, without markup of its own."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """The text in one line between backticks."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def block(text: str, language: str) -> str:
    """The text as a block of code."""
    return f"```{language}\n{text.replace('```', '')}\n```"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table of cells that are markdown already; a column without any is left out."""
    kept = [number for number in range(len(header)) if any(row[number] for row in rows)]
    for cells in (header, ["---"] * len(header), *rows):
        yield "| " + " | ".join(cells[number] for number in kept) + " |"
