"""What the autopsy of one of this project's runs found: the report of any Keras model's step, and
what is known of a run besides; as text, tags and files."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zeronorm import markdown, treatments
from zeronorm.autopsy import html, thresholds
from zeronorm.autopsy import report as reports
from zeronorm.autopsy.cures import Cure

# of the placements that cure, those to name first: as the studies advise
ADVISED = ("add_to_squares", "clamp_squares")
NAMES = {"kernels": "TensorFlow's kernels", "xla": "XLA", "tf1": "TensorFlow to 1.13, emulated"}


@dataclass(frozen=True, repr=False)
class RunReport(reports.Report):
    """As `autopsy.Report`, and: fails: {numerics: whether the step poisons a weight under it; None
    where it cannot be computed so}.

    own: the run's numerics;
    examined: that under which the guilty were found.
    places: of each guilty operation's elements example, role (the right title or which negative),
        title and whether its row is zero.
    treated: the step with every similarity and repair, under the numerics examined.
    """

    own: str = ""
    examined: str = ""
    fails: Mapping[str, bool | None] = field(default_factory=dict)
    places: tuple[tuple[dict, ...], ...] = ()
    treated: tuple[treatments.Treatment, ...] = ()

    @property
    def examined_under(self) -> str:
        return {
            "kernels": "the kernels",
            "xla": "XLA",
            "tf1": "the emulation of TensorFlow to 1.13",
        }[self.examined]

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
    def remedies(self) -> list[str]:
        return [one for one in (self.cure, self.override) if one]

    @property
    def override(self) -> str:
        """The cure as a choice of this project's: the first of ADVISED, or else of all placements,
        with which the step is finite; empty where none is."""
        finite = {one.similarity for one in self.treated if one.finite and not one.repair}
        chosen = next((name for name in (*ADVISED, *sorted(finite)) if name in finite), "")
        return chosen and f"similarity={chosen}"

    def write(self, folder: Path, name: str = "autopsy") -> None:
        """The report as <name>.json, <name>.md and <name>.html in the folder."""
        data = self.to_json() + "\n"  # a name may hold half of a surrogate pair
        (folder / f"{name}.json").write_text(data, encoding="utf-8", errors="replace")
        (folder / f"{name}.md").write_text("\n".join(_markdown(self)) + "\n", encoding="utf-8")
        (folder / f"{name}.html").write_text(html.page(self), encoding="utf-8")

    def html_sections(self) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[object]]]]:
        if self.treated:
            yield (
                f"With every similarity and repair, under {self.examined_under}",
                TREATED,
                [(one.similarity, *_treatment(one)) for one in self.treated],
            )

    @property
    def _finite_under(self) -> list[str]:
        return [name for name, fails in self.fails.items() if fails is False]

    @property
    def title(self) -> str:
        """What happened, in a line: for the head of a page."""
        if not self.guilty:
            return f"Step {self.step} is finite under {_and(self._finite_under)}"
        first = self.guilty[0]
        at = f" at {Path(first.file).name}:{first.line}" if first.file else ""
        if self.harmful:
            return f"Died in step {self.step}: {first.op_type}{at}"
        fails = _and(name for name, failed in self.fails.items() if failed)
        return f"Step {self.step} is finite here and dies under {fails}: {first.op_type}{at}"

    @property
    def headline(self) -> str:
        """What happened, in a sentence for a run's description."""
        if not self.guilty:
            return f"Step {self.step} is finite under {', '.join(self._finite_under)}."
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
        at += f" and {more} more pair{'s' if more > 1 else ''}" if places and more else ""
        return f"{opening} step {self.step}: {who}{where}{at}; it fails under {fails}."


TREATED = ("similarity", "zero rows", "outcome", "norm of the gradient", "loss before, after")


def _markdown(report: RunReport) -> Iterator[str]:
    """The report as MLflow's page of an artifact shows it: a long block of text would open at its
    end there."""
    yield f"# {markdown.plain(report.title)}\n"
    if report.remedies:
        yield f"**Cure:** {', here '.join(map(markdown.code, report.remedies))}\n"
    yield from (markdown.plain(sentence) for sentence in report.story())
    for number in report.told()[: thresholds.SHOWN]:
        yield ""
        yield from _guilty(report, number)
    if more := report.untold():
        yield f"\n{more}"
    yield ""
    rows = []
    for name, fails, own in report.verdicts():
        verdict = markdown.plain(report.verdict(name, fails))
        rows.append((name, f"**{verdict}**" if fails else verdict, "as trained" if own else ""))
    yield from markdown.table(("computed by", "the step", " "), rows)
    if swallowed := report.swallowing():
        yield f"\n{markdown.plain(swallowed)}"
    if report.cures:
        yield f"\n## Tried on this step, under {report.examined_under}\n"
        yield from _cures(report.cures)
    if report.treated:
        yield f"\n## With every similarity and repair, under {report.examined_under}\n"
        yield from _treatments(report.treated)
    for reason in report.left_out:
        yield f"\nNot in this report: {markdown.plain(reason)}."


def _guilty(report: RunReport, number: int) -> Iterator[str]:
    guilty = report.guilty[number]
    what = markdown.code(guilty.op_type)
    if guilty.op_type != guilty.forward_op_type:
        what += f", the gradient of {markdown.code(guilty.forward_op_type)},"
    yield f"{what} made {guilty.count} of its elements non-finite"
    if guilty.file:
        line = markdown.code(f"{Path(guilty.file).name}:{guilty.line}")
        yield f"at {line}, in {markdown.code(guilty.function or '')}:"
        yield f"\n{markdown.block(guilty.text or '', 'python')}\n"
    yield from (f"- {markdown.plain(line)}" for line in report.about(number))


def _cures(cures: Iterable[Cure]) -> Iterator[str]:
    rows = [
        (
            _outcome(one.finite),
            markdown.plain(one.name),
            one.write and markdown.code(one.write),
            "" if one.elsewhere is None else _outcome(one.elsewhere),
            markdown.plain(one.leaves),
        )
        for one in cures
    ]
    header = ("outcome", "cure", "to write", "under the other compiler", "left")
    yield from markdown.table(header, rows)


def _outcome(finite: bool | None) -> str:
    said = html.OUTCOMES[finite]
    return f"**{said}**" if finite is False else said


def _treatments(treated: Iterable[treatments.Treatment]) -> Iterator[str]:
    rows = []
    for one in treated:
        repair, outcome, *numbers = _treatment(one)
        outcome = outcome if one.finite else f"**{outcome}**"
        rows.append((markdown.code(one.similarity), repair, outcome, *numbers))
    yield from markdown.table(TREATED, rows)


def _treatment(one: treatments.Treatment) -> tuple[str, str, str, str]:
    """The cells of TREATED after the first."""
    loss = f"{_number(one.loss)}, {_number(one.loss_after)}"
    outcome = "finite" if one.finite else "NaN"
    return one.repair or "as they are", outcome, _number(one.gradient), loss


def _and(names: Iterable[str]) -> str:
    return " and ".join(", ".join(names).rsplit(", ", 1))


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"
