"""What the autopsy of one of this project's runs found: the report of any Keras model's step, and
what is known of a run besides; as text, tags and files."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zeronorm import treatments
from zeronorm.autopsy import report as reports
from zeronorm.autopsy import thresholds

# of the placements that cure, those to name first: as the studies advise
ADVISED = ("add_to_squares", "clamp_squares")
NAMES = {"kernels": "TensorFlow's kernels", "xla": "XLA", "tf1": "TensorFlow 1.x, emulated"}
MARKUP = re.compile(r"([\\`*_{}\[\]<>|#&~])")


@dataclass(frozen=True)
class RunReport(reports.Report):
    """As `autopsy.Report`, and: fails: {numerics: whether the step poisons a weight under it}.

    own: the run's numerics;
    examined: that under which the guilty were found.
    places: of each guilty operation's elements example, role (the right title or which negative),
        title and whether its row is zero.
    treated: the step with every similarity and repair, under the numerics examined.
    """

    own: str = ""
    examined: str = ""
    fails: Mapping[str, bool] = field(default_factory=dict)
    places: tuple[tuple[dict, ...], ...] = ()
    treated: tuple[treatments.Treatment, ...] = ()

    @property
    def examined_under(self) -> str:
        return {"kernels": "the kernels", "xla": "XLA", "tf1": "the emulation of TensorFlow 1.x"}[
            self.examined
        ]

    def verdicts(self) -> Iterator[tuple[str, bool | None, bool]]:
        for name, fails in self.fails.items():
            yield NAMES[name], fails, name == self.own

    def about(self, number: int) -> Iterator[str]:
        places = self.places[number]
        for place in places[: thresholds.SHOWN]:
            row = "a zero row" if place["zero_row"] else f"a row of norm {place['norm']:.3g}"
            yield f"  example {place['example']}, {place['role']}: title '{place['title']}', {row}"
        if len(places) > thresholds.SHOWN:
            yield f"  and {len(places) - thresholds.SHOWN} more"

    def endings(self) -> Iterator[str]:
        if self.treated:
            yield ""
            yield f"The same step, under {self.examined_under}, with every similarity and repair:"
            yield (
                f"  {'similarity':16} {'zero rows':12} {'outcome':8} {'|gradient|':>10}"
                f" {'loss':>17}"
            )
        for one in self.treated:
            loss = "" if one.loss is None else f"{one.loss:.4f} -> "
            loss += "not finite" if one.loss_after is None else f"{one.loss_after:.4f}"
            norm = "not finite" if one.gradient is None else f"{one.gradient:.3g}"
            outcome = "finite" if one.finite else "NaN"
            yield (
                f"  {one.similarity:16} {one.repair or 'as they are':12} {outcome:8} {norm:>10}"
                f" {loss:>17}"
            )

    @property
    def tags(self) -> dict[str, str]:
        """To find the run by what killed it; of one that nothing killed, by where it would have
        died."""
        found = {
            "autopsy.step": str(self.step),
            "autopsy.fails": ", ".join(n for n, f in self.fails.items() if f),
        }
        if self.guilty and self.harmful:
            first, places = self.guilty[0], self.places[0]
            found |= {"guilty.operation": first.op_type, "guilty.function": first.function or ""}
            found |= {"guilty.line": f"{Path(first.file).name}:{first.line}" if first.file else ""}
            found |= {"guilty.title": places[0]["title"] if places else ""}
            found |= {"cure": self.cure, "cure.override": self.override}
        return {key: value for key, value in found.items() if value}

    @property
    def cure(self) -> str:
        """What to write instead, of the cures that both compilers confirm, or one does; empty where
        none is known."""
        known = [cure for cure in self.cures if cure.finite and not cure.folk and cure.write]
        best = next((cure for cure in known if cure.elsewhere is not False), None)
        return (best or known[0]).write if known else ""

    @property
    def override(self) -> str:
        """The same as a choice of this project's: the first of ADVISED, or else of all placements,
        with which the step is finite; empty where none is."""
        finite = {one.similarity for one in self.treated if one.finite and not one.repair}
        chosen = next((name for name in (*ADVISED, *sorted(finite)) if name in finite), "")
        return chosen and f"similarity={chosen}"

    def write(self, folder: Path, name: str = "autopsy") -> None:
        """The report as <name>.json, <name>.md and <name>.html in the folder."""
        (folder / f"{name}.json").write_text(self.to_json() + "\n", encoding="utf-8")
        (folder / f"{name}.md").write_text("\n".join(_markdown(self)) + "\n", encoding="utf-8")

    @property
    def title(self) -> str:
        """What happened, in a line: for the head of a page."""
        if not self.guilty:
            return f"Step {self.step} is finite under {_and(self.fails)}"
        first = self.guilty[0]
        at = f" at {Path(first.file).name}:{first.line}" if first.file else ""
        if self.harmful:
            return f"Died in step {self.step}: {first.op_type}{at}"
        fails = _and(name for name, failed in self.fails.items() if failed)
        return f"Step {self.step} is finite here and dies under {fails}: {first.op_type}{at}"

    def opening(self) -> Iterator[str]:
        """The first sentences of the text."""
        yield from (_plain(line) for line in str(self).partition("\n\n")[0].splitlines())

    @property
    def headline(self) -> str:
        """What happened, in a sentence for a run's description."""
        if not self.guilty:
            return f"Step {self.step} is finite under {', '.join(self.fails)}."
        first, places = self.guilty[0], self.places[0]
        opening = "Guilty of" if self.harmful else f"Finite under {self.own}; elsewhere guilty of"
        who = (
            f"{first.op_type} ({first.forward_op_type}'s gradient)"
            if first.birth == "gradient"
            else first.op_type
        )
        where = f" of {first.function}, {Path(first.file).name}:{first.line}" if first.file else ""
        more = sum(one.count for one in self.guilty) - 1
        at = (
            f" at example {places[0]['example']}, {places[0]['role']}, '{places[0]['title']}'"
            if places
            else ""
        )
        fails = " and ".join(name for name, fails in self.fails.items() if fails)
        at += f" and {more} more" if places and more else ""
        return f"{opening} step {self.step}: {who}{where}{at}; it fails under {fails}."


def _markdown(report: RunReport) -> Iterator[str]:
    """The report for MLflow's page of an artifact, which opens a long block of text at its end."""
    yield f"# {report.title}"
    yield ""
    yield from report.opening()
    for number in range(min(len(report.guilty), thresholds.SHOWN)):
        yield ""
        yield from _guilty(report, number)
    if report.cure:
        override = f", here `{report.override}`" if report.override else ""
        yield f"\n**Cure:** `{_code(report.cure)}`{override}"
    elif report.override:
        yield f"\n**Cure:** `{report.override}`"
    yield from _table(
        ("computed by", "the step", ""),
        [
            (
                name,
                {True: "**fails**", False: "finite", None: "cannot be computed"}[fails],
                "as trained" if own else "",
            )
            for name, fails, own in report.verdicts()
        ],
    )
    if report.cures:
        yield f"\n## Tried on this step, under {report.examined_under}"
        verdict = {True: "finite", False: "**fails**", None: "not tried"}
        yield from _table(
            ("outcome", "cure", "to write", "under the other compiler", "left"),
            [
                (
                    verdict[one.finite],
                    _plain(one.name),
                    one.write and f"`{_code(one.write)}`",
                    "" if one.elsewhere is None else verdict[one.elsewhere],
                    _plain(one.leaves),
                )
                for one in report.cures
            ],
        )
    if report.treated:
        yield f"\n## With every similarity and repair, under {report.examined_under}"
        yield from _table(
            ("similarity", "zero rows", "outcome", "norm of the gradient", "loss before, after"),
            [
                (
                    f"`{one.similarity}`",
                    one.repair or "as they are",
                    "finite" if one.finite else "**NaN**",
                    _number(one.gradient),
                    f"{_number(one.loss)}, {_number(one.loss_after)}",
                )
                for one in report.treated
            ],
        )
    for reason in report.left_out:
        yield f"\nNot in this report: {_plain(reason)}."


def _guilty(report: RunReport, number: int) -> Iterator[str]:
    guilty = report.guilty[number]
    what = f"`{guilty.op_type}`"
    if guilty.op_type != guilty.forward_op_type:
        what += f", the gradient of `{guilty.forward_op_type}`,"
    yield f"{what} made {guilty.count} of its elements non-finite"
    if guilty.file:
        yield f"at `{_code(Path(guilty.file).name)}:{guilty.line}`, in `{guilty.function}`:"
        yield f"\n```python\n{(guilty.text or '').replace('```', '')}\n```\n"
    yield from (f"- {_plain(line.strip())}" for line in report.about(number))


def _and(names: Iterable[str]) -> str:
    return " and ".join(", ".join(names).rsplit(", ", 1))


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    kept = [n for n in range(len(header)) if any(row[n] for row in rows)]
    yield ""
    yield "| " + " | ".join(header[n] for n in kept) + " |"
    yield "|" + "---|" * len(kept)
    for row in rows:
        yield "| " + " | ".join(row[n] for n in kept) + " |"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _plain(text: str) -> str:
    """Text from anywhere, a title say, as text: no markup of its own."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """The same between backticks."""
    return " ".join(text.split()).replace("`", "'").replace("|", "\\|")
