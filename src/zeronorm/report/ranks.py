"""The rank of every evaluated text of every run of a study: experiments/STUDY/ranks.csv.gz.

The file is a table: condition, seed, zero, and a column for each title. The cell of a title holds
the ranks of its texts, in the corpus's order, as numbers with blanks between; 0: its score is not
finite, it is not ranked. `zero` numbers the titles, from 0, that started as a zero or deadly row.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

FILE = "ranks.csv.gz"
KEYS = ("condition", "seed", "zero")
ABSENT = -1  # of a text that a run has not evaluated, and others have


@dataclass(frozen=True)
class Ranks:
    """Of r runs, n texts and t titles.

    conditions: str [r], as `committed.condition` names them.
    seeds: int [r].
    titles: str [t].
    title: int [n], the title of each text, ascending.
    rank: int [r, n], 1 the best; 0: not ranked; ABSENT: not evaluated.
    zero: bool [r, t], whether a title started as a zero or a deadly row.
    """

    conditions: np.ndarray
    seeds: np.ndarray
    titles: list[str]
    title: np.ndarray
    rank: np.ndarray
    zero: np.ndarray

    def take(self, runs: np.ndarray) -> "Ranks":
        """Those of the runs that are named, bool [r] or int."""
        return Ranks(
            self.conditions[runs],
            self.seeds[runs],
            self.titles,
            self.title,
            self.rank[runs],
            self.zero[runs],
        )


def gather(
    conditions: Sequence[str], seeds: Sequence[int], tables: Sequence[pd.DataFrame]
) -> Ranks:
    """Of runs, in their order.

    tables: of each run, title, zero and rank of every text, as it wrote them.
    """
    cells = [table.groupby("title", sort=False)["rank"].apply(list) for table in tables]
    titles = list(dict.fromkeys(title for own in cells for title in own.index))
    apart = [set(table["title"][table["zero"] == 1]) for table in tables]
    return _aligned(
        list(conditions),
        list(seeds),
        titles,
        [[own.get(title, []) for title in titles] for own in cells],
        [[title in own for title in titles] for own in apart],
    )


def _aligned(
    conditions: list[str],
    seeds: list[int],
    titles: list[str],
    cells: list[list[list[int]]],
    zero: list[list[bool]],
) -> Ranks:
    most = [max(len(own[place]) for own in cells) for place in range(len(titles))]
    rank = [
        [
            number
            for found, length in zip(own, most, strict=True)
            for number in [*found, *[ABSENT] * (length - len(found))]
        ]
        for own in cells
    ]
    return Ranks(
        np.array(conditions, dtype=object),
        np.array(seeds, dtype=int),
        titles,
        np.repeat(np.arange(len(titles)), most),
        np.array(rank, dtype=np.int64).reshape(len(conditions), sum(most)),
        np.array(zero, dtype=bool).reshape(len(conditions), len(titles)),
    )


def save(ranks: Ranks, path: Path) -> None:
    """Writes the table, the same bytes for the same ranks."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*KEYS, *ranks.titles])
    edges = np.searchsorted(ranks.title, np.arange(1, len(ranks.titles)))
    for place in range(len(ranks.conditions)):
        cells = np.split(ranks.rank[place], edges)
        writer.writerow(
            [
                ranks.conditions[place],
                ranks.seeds[place],
                " ".join(map(str, np.flatnonzero(ranks.zero[place]))),
                *(" ".join(str(rank) for rank in cell if rank != ABSENT) for cell in cells),
            ]
        )
    # neither the time nor a name is part of the file
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text.getvalue().encode())


def load(path: Path) -> Ranks:
    """What `save` wrote. Raises ValueError if it is something else."""
    try:
        rows = list(csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise ValueError(str(error)) from error
    if len(rows) < 2 or tuple(rows[0][:3]) != KEYS or {len(row) for row in rows} != {len(rows[0])}:
        raise ValueError("it has other columns, or none")
    titles, runs = rows[0][3:], rows[1:]
    numbers = [[[int(rank) for rank in cell.split()] for cell in row[3:]] for row in runs]
    if any(rank < 0 for row in numbers for cell in row for rank in cell):
        raise ValueError("a rank is below 0")
    zero = [{int(number) for number in row[2].split()} for row in runs]
    return _aligned(
        [row[0] for row in runs],
        [int(row[1]) for row in runs],
        titles,
        numbers,
        [[place in own for place in range(len(titles))] for own in zero],
    )


def of_runs(
    runs: pd.DataFrame, named: Callable[[pd.Series], str], table_of: Callable[[str], pd.DataFrame]
) -> Ranks:
    """Of the runs of a table.

    runs: from `tables.runs_table`.
    named: a run's condition. table_of: run id -> title, zero and rank of every text.
    """
    rows = [run for _, run in runs.iterrows()]
    tables = [table_of(run["run_id"]) for run in rows]
    return gather([named(run) for run in rows], [int(run["seed"]) for run in rows], tables)
