"""What an autopsy found: as data, as JSON, as text of 80 columns and, by `html`, for a notebook."""

import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from zeronorm.autopsy import html, source, thresholds
from zeronorm.autopsy.blame import Guilty
from zeronorm.autopsy.cures import Cure


@dataclass(frozen=True, repr=False)
class Report:
    """What an autopsy found.

    step: 0-based training step at which a weight was, or would have been, poisoned.
    birth: forward, gradient, optimizer, data, weights or divergence; "" where nothing is
        non-finite, or nothing could be followed.
    harmful: whether a weight was poisoned as it was trained.
    guilty: most likely first; of a step that only the other compiler poisons, those of that one.
    kernels, xla: whether the step fails under each; None where it cannot be computed so.
    refused: {"kernels" or "xla": why it does not compute the step}.
    losses: {"kernels" or "xla": what the loss is that is differentiated: "NaN", "infinite", or ""
        where it is finite}, of each that computed the step.
    jit_compile: how it was trained.
    lost: {weight: elements that became non-finite, under the same}.
    swallowed: operations that got a NaN and gave something finite.
    cures: what makes the step finite, and what does not.
    history: [{step, loss, norm/WEIGHT}, ...] of the steps before, the loss as Keras shows it.
    positions: of the first guilty operation's examples in the data set, where it was passed as
        arrays unshuffled.
    left_out: what could not be done, and why.
    """

    step: int
    birth: str
    harmful: bool
    guilty: tuple[Guilty, ...]
    kernels: bool | None
    xla: bool | None
    jit_compile: bool
    lost: dict[str, int]
    swallowed: tuple[str, ...] = ()
    cures: tuple[Cure, ...] = ()
    history: tuple[dict, ...] = ()
    positions: tuple[int, ...] = ()
    left_out: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    losses: Mapping[str, str] = field(default_factory=dict)

    @property
    def examined_under(self) -> str:
        """Who computed the values and the cures: as trained, or, where that is finite or refuses
        the step, the other."""
        fails = {False: self.kernels, True: self.xla}
        return (
            "XLA" if is_examined_under_xla(self.jit_compile, fails, self.losses) else "the kernels"
        )

    @property
    def disagreement(self) -> bool:
        """Whether the step fails under one of TensorFlow's kernels and XLA, and not under the
        other."""
        return None not in (self.kernels, self.xla) and self.kernels != self.xla

    @property
    def title(self) -> str:
        """What happened, in a line."""
        step, who = f"tep {self.step}", f": {self._who()}" if self.guilty else ""
        if self.harmful:
            return f"Died in s{step}{who}"
        if self.losses.get(FIELDS[self.jit_compile]):
            return f"S{step} has a non-finite loss{who}"
        if who:
            return f"S{step} is finite as it was trained, not under {self.examined_under}{who}"
        return f"S{step} is finite" if self._computed() else f"S{step} could not be computed"

    @property
    def cure(self) -> str:
        """What to write, of the rules that were tried and work, under both compilers where one
        does; "" where none is known."""
        known = [cure for cure in self.cures if cure.finite and cure.write and not cure.folk]
        best = next((cure for cure in known if cure.elsewhere is not False), None)
        return (best or known[0]).write if known else ""

    @property
    def remedies(self) -> list[str]:
        """What to write or to choose, any one of them, for the head of a page; none if no cure is
        known."""
        return [self.cure] if self.cure else []

    @property
    def brief(self) -> str:
        """Who is guilty and what cures it, in a few words; "" of a step that is finite."""
        said = self._who() if self.guilty else ""
        cured = f", cure: {self.cure}" if said and self.cure else ""
        return " ".join(f"{said}{cured}".split())

    def to_json(self) -> str:
        """The report as JSON text: its fields by name, tuples as lists, a number that is not finite
        as null."""
        return json.dumps(_plain(asdict(self)), indent=1, allow_nan=False, ensure_ascii=False)

    def verdicts(self) -> Iterator[tuple[str, bool | None, bool]]:
        """(who computes, whether the step fails, whether it was trained so) of each numerics it was
        tried under."""
        yield WHO[False], self.kernels, not self.jit_compile
        yield WHO[True], self.xla, self.jit_compile

    def verdict(self, name: str, fails: bool | None) -> str:
        """What one of those of `verdicts` makes of the step, in words."""
        return _verdict(self, name, fails)

    def story(self) -> list[str]:
        """What became of the step, in sentences."""
        born = [f"Born {BORN[self.birth]}."] if self.lost or self.guilty else []
        return [_opening(self), *born]

    def told(self) -> list[int]:
        """The places in `guilty` that are told of: the first of each line and kind, a rule that is
        applied to every variable, say."""
        shown: dict[tuple | int, int] = {}
        for number, guilty in enumerate(self.guilty):
            what = (guilty.op_type, guilty.forward_op_type, guilty.file, guilty.line)
            shown.setdefault(what if guilty.file else number, number)
        return list(shown.values())

    def untold(self) -> str:
        """How many operations more than are told of became non-finite by themselves, if any."""
        more = len(self.guilty) - min(len(self.told()), thresholds.SHOWN)
        return f"and {more} more operation{'s' if more > 1 else ''}" if more else ""

    def swallowing(self) -> str:
        """Which operations made a finite value of a NaN, in a sentence, if any did."""
        said = ", ".join(self.swallowed[: thresholds.SHOWN])
        return f"A NaN was swallowed on the way by {said}." if said else ""

    def charge(self, number: int) -> str:
        """What a guilty operation did, by its place in `guilty`."""
        return _charge(self.guilty[number])

    def about(self, number: int) -> Iterator[str]:
        """Lines on the examples and rows of a guilty operation, by its place in `guilty`."""
        guilty, positions = self.guilty[number], self.positions if number == 0 else ()
        if guilty.examples:
            where = f"; in the data set {_some(positions)}" if positions else ""
            yield from _wrapped(f"  examples of the batch: {_some(guilty.examples)}{where}")
        for weight, rows in guilty.rows.items():
            names = guilty.row_names.get(weight, [])
            named = (
                [f"{row} {name!r}" for row, name in zip(rows, names, strict=True)]
                if names
                else rows
            )
            yield from _wrapped(f"  rows of {weight}: {_some(named)}")

    def endings(self) -> Iterator[str]:
        """Lines at the end."""
        yield from ()

    def __str__(self) -> str:
        """The report as plain text, at most 80 columns wide but for the user's own lines."""
        return "\n".join(_lines(self))

    def html_sections(self) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[object]]]]:
        """(heading, names of the columns, rows) of further tables of the report as HTML, for a kind
        of report that knows more; plain text, which `html` escapes."""
        yield from ()

    def __repr__(self) -> str:
        said = self.brief or ("finite" if self._computed() else "not computed")
        return f"{type(self).__name__}(step={self.step}, {said})"

    def _repr_html_(self) -> str:
        """The report in a notebook."""
        return html.fragment(self)

    def _who(self) -> str:
        first = self.guilty[0]
        if first.birth == "data":
            return f"the batch's {first.operation}"
        at = source.place(first.file, first.line, short=True) if first.file else ""
        return f"{first.op_type} at {at}" if at else f"{first.op_type} in {first.operation}"

    def _computed(self) -> bool:
        return (self.kernels, self.xla)[self.jit_compile] is not None


WHO = {False: "TensorFlow's kernels", True: "XLA"}
FIELDS = {False: "kernels", True: "xla"}  # of Report
NAMES = {jit: f"the step under {who}" for jit, who in WHO.items()}


def is_examined_under_xla(
    trained: bool, fails: Mapping[bool, bool | None], losses: Mapping[str, str]
) -> bool:
    """Whether it is XLA under which a step is examined. That is as it was trained (`trained`), or
    the other one, where that alone computes the step, loses weights, or loses the loss.

    fails, losses: as in `Report`.
    """
    other = not trained
    if fails[trained] or fails[other] is None:
        return trained
    worse = losses.get(FIELDS[other]) and not losses.get(FIELDS[trained])
    return other if fails[trained] is None or fails[other] or worse else trained


BORN = {
    "forward": "in the forward pass",
    "gradient": "in the gradient",
    "optimizer": "in the optimizer's own update; the gradients are finite",
    "data": "in the data: the batch holds it",
    "weights": "before the step: the weights or the optimizer's slots hold it",
    "divergence": "of divergence: no operation is singular, the numbers have become too large",
    "": "where this report could not follow",
}


def _lines(report: Report) -> Iterator[str]:
    for sentence in report.story():
        yield from _wrapped(sentence)
    for reason in report.left_out:
        yield from _wrapped(f"Not in this report: {reason}.")
    told = report.told()
    for number in told[: thresholds.SHOWN]:
        yield ""
        yield from _guilty_lines(report, number)
        yield from report.about(number)
    if more := report.untold():
        yield more
    yield ""
    for name, fails, trained in report.verdicts():
        as_trained = " (as trained)" if trained else ""
        yield from _wrapped(f"{name}: {_verdict(report, name, fails)}{as_trained}")
    if swallowed := report.swallowing():
        yield from _wrapped(swallowed)
    if report.cures:
        yield ""
        under = report.examined_under
        other = "the kernels" if under == "XLA" else "XLA"
        yield f"Tried on this step, under {under}:"
        for cure in report.cures:
            verdict, elsewhere = html.OUTCOMES[cure.finite], html.OUTCOMES[cure.elsewhere]
            left = f"; {cure.leaves}" if cure.leaves else ""
            there = "" if cure.elsewhere is None else f"; {elsewhere} under {other}"
            if cure.write and not cure.folk:
                yield from _wrapped(f"  {verdict:9}  {cure.name}{left}{there}", indent=13)
                yield f"{'':13}{cure.write}"
            else:
                said = f": {cure.write}" if cure.write else ""
                yield from _wrapped(f"  {verdict:9}  {cure.name}{said}{left}", indent=13)
    yield from report.endings()


def _opening(report: Report) -> str:
    """What became of the step, as it was trained and, where that is finite or refused, under the
    other compiler."""
    weights = ", ".join(
        f"{name} ({count})" for name, count in list(report.lost.items())[: thresholds.SHOWN]
    )
    weights += (
        f" and {len(report.lost) - thresholds.SHOWN} more"
        if len(report.lost) > thresholds.SHOWN
        else ""
    )
    trained, other = report.jit_compile, not report.jit_compile
    fails = {False: report.kernels, True: report.xla}
    loss, step = report.losses.get(FIELDS[trained]), f"Step {report.step}"
    if report.harmful and report.kernels is None and report.xla is None:
        return f"After step {report.step} values of these variables are non-finite: {weights}."
    if report.harmful:
        return f"{step} made values of these variables non-finite: {weights}."
    if fails[trained] is None:
        why = report.refused.get(FIELDS[trained])
        said = f"{step} could not be computed as it was trained."
        said = f"{_refuses(trained)} this step: {why}" if why else said
        return f"{said} {_elsewhere(report, other, 'makes', weights)}".strip()
    elsewhere = _elsewhere(report, other, "would make", weights)
    if loss or (loss is None and report.guilty and not report.disagreement):
        said = f"{step} has a non-finite loss, and poisons no weight."
        return f"{said} {elsewhere}" if fails[other] else said
    if fails[other] or report.losses.get(FIELDS[other]):
        return f"{step} is finite as it was trained. {elsewhere}"
    return f"{step} is finite."


def _elsewhere(report: Report, other: bool, makes: str, weights: str) -> str:
    """What became of the step under the compiler that it was not trained with."""
    fails, loss = (report.kernels, report.xla)[other], report.losses.get(FIELDS[other])
    if fails is None:
        why = report.refused.get(FIELDS[other])
        return f"{_refuses(other)} it too: {why}" if why else ""
    if fails:
        said = f"it {makes} values of these variables non-finite: {weights}"
        said += f"; the loss is {loss}" if loss else ""
    else:
        said = f"it poisons no weight, but the loss is {loss}" if loss else "it is finite"
    return f"Under {WHO[other]} {said}."


def _refuses(jit_compile: bool) -> str:
    return f"{WHO[jit_compile]} refuse{'s' if jit_compile else ''}"


def _verdict(report: Report, name: str, fails: bool | None) -> str:
    """What one of the compilers makes of the step."""
    of = next((FIELDS[jit] for jit, who in WHO.items() if who == name), "")
    if fails is False and report.losses.get(of):
        return f"the weights stay finite, the loss is {report.losses[of]}"
    if fails is None and of in report.refused:
        own = FIELDS[report.jit_compile] in report.refused  # then the report begins with it
        said = _refuses(name == WHO[True]).removeprefix(f"{name} ")
        return f"{said} the step" + ("" if own else f": {report.refused[of].removesuffix('.')}")
    return {True: "fails", False: "finite", None: "cannot be computed"}[fails]


def _charge(guilty: Guilty) -> str:
    forward = (
        f", the gradient of {guilty.forward_op_type}"
        if guilty.op_type != guilty.forward_op_type
        else ""
    )
    what = {
        "nan": "NaN",
        "inf": "infinite",
        "large": "finite, but so large that what follows overflows,",
    }[guilty.kind]
    if guilty.birth == "data":
        with_class = ", to which class_weight counts" if guilty.operation == "sample_weight" else ""
        return (
            f"The batch's {guilty.operation}{with_class}: {what} in {guilty.count} of its elements"
        )
    return (
        f"{guilty.op_type}{forward}: {what} in {guilty.count} of its elements, in"
        f" {guilty.operation}"
    )


def _guilty_lines(report: Report, number: int) -> Iterator[str]:
    guilty = report.guilty[number]
    yield from _wrapped(report.charge(number))
    if guilty.file:
        yield f"  {source.place(guilty.file, guilty.line)}, in {guilty.function}"
        yield f"    {guilty.text}"
    elif guilty.birth in ("forward", "gradient", "optimizer"):
        yield "  on no line of yours: Keras calls it"
    if guilty.weight:
        yield from _wrapped(f"  held by {guilty.weight}")


def _some(items) -> str:
    more = len(items) - thresholds.SHOWN
    return ", ".join(map(str, items[: thresholds.SHOWN])) + (
        f" and {more} more" if more > 0 else ""
    )


def _plain(value):
    """For JSON, which has no NaN and no infinity."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _wrapped(text: str, indent: int | None = None) -> list[str]:
    indent = len(text) - len(text.lstrip()) + 2 if indent is None else indent
    return textwrap.wrap(
        text, 80, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
