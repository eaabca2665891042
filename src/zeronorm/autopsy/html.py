"""A report as HTML: for a notebook's cell, or as a page that stands by itself.

Whatever comes from a file, a name or a capsule passes through `_text`, so none of it becomes
markup. The styles stand in the elements, because a notebook's front end may drop a style sheet;
without them the page still reads. Colours are the ink of whatever is around, in light and in dark.
"""

import html
import math
import re
from collections.abc import Iterator, Sequence

from zeronorm.autopsy import source, thresholds

ALARM, CALM, UNKNOWN = "#b84300", "#0069a8", "#6b6b6b"  # white text on each has 5:1 and more
BLOCK = "margin:.4em 0;padding:.4em .6em;background:rgba(127,127,127,.13);overflow-x:auto"
CELL = "text-align:left;vertical-align:top;padding:.15em .8em .15em 0"
MARKED = "background:rgba(213,94,0,.28)"
BADGE = "color:#fff;border-radius:.7em;padding:.1em .7em;white-space:nowrap"
# of a step with a cure, by `Cure.finite` and `Cure.elsewhere`: as text and markdown have it too
OUTCOMES = {True: "finite", False: "fails", None: "not tried"}
SIGNS = {True: "\N{CHECK MARK}", False: "\N{BALLOT X}", None: "–"}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: auto; padding: 1rem }}
pre, code {{ font-size: .9em }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
CONTINUED = " " * 4  # begins a line of `Report.about` that belongs to the one before
WIDTH, HEIGHT, EDGE = 220, 34, 7  # of a curve, in pixels
# no character of a document's text
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def page(report) -> str:
    """A whole document, to be written as UTF-8. report: a `Report`."""
    return PAGE.format(title=_text(report.title), body=fragment(report))


def fragment(report) -> str:
    """The report as one element. report: a `Report`."""
    return f"<div>\n{chr(10).join(_parts(report))}\n</div>"


def of_watch(said: str, report) -> str:
    """A callback as one element.

    said: what it has to say of itself.
    report: its `Report`, or None.
    """
    sentence = f"<p>{_text(said)}</p>"
    return f"<div>\n{sentence}\n{fragment(report) if report else ''}\n</div>"


def _parts(report) -> Iterator[str]:
    yield f"<h3>{_text(report.title)}</h3>"
    if report.remedies:
        yield f"<p><b>Cure:</b> {', here '.join(map(_code, report.remedies))}</p>"
    yield f"<p>{_text(' '.join(report.story()))}</p>"
    yield f"<p>{' '.join(_badges(report))}</p>"
    for number in report.told()[: thresholds.SHOWN]:
        yield from _guilty(report, number)
    if more := report.untold():
        yield f"<p>{more}</p>"
    if swallowed := report.swallowing():
        yield f"<p>{_text(swallowed)}</p>"
    if report.cures:
        yield f"<p><b>Tried on this step, under {_text(report.examined_under)}</b></p>"
        yield _cures(report)
    yield from _curves(report)
    for heading, columns, rows in report.html_sections():
        yield f"<p><b>{_text(heading)}</b></p>"
        yield _table([_text(name) for name in columns], [[*map(_text, row)] for row in rows])
    for reason in report.left_out:
        yield f"<p><i>Not in this report: {_text(reason)}.</i></p>"
    yield "<details><summary>The whole report as text</summary>"
    yield f'<pre style="{BLOCK}">{_text(report)}</pre>'
    yield "</details>"


def _badges(report) -> Iterator[str]:
    for name, fails, trained in report.verdicts():
        said = f"{name}: {report.verdict(name, fails)}{' (as trained)' if trained else ''}"
        # a loss that is lost is no calm colour, though the weights stay finite
        calm = fails is False and report.verdict(name, fails) == "finite"
        colour = UNKNOWN if fails is None else CALM if calm else ALARM
        yield f'<span style="{BADGE};background:{colour}">{_text(said)}</span>'


def _guilty(report, number: int) -> Iterator[str]:
    guilty = report.guilty[number]
    yield f"<p><b>{_text(report.charge(number))}</b></p>"
    if guilty.file:
        at = source.place(guilty.file, guilty.line)
        yield f"<p>{_text(at)}, in <code>{_text(guilty.function)}</code></p>"
        yield _lines(source.context(guilty.file, guilty.line, guilty.text))
    elif guilty.birth in ("forward", "gradient", "optimizer"):
        yield "<p>on no line of yours: Keras calls it</p>"
    about = [f"held by {guilty.weight}"] if guilty.weight else []
    for line in report.about(number):
        if line.startswith(CONTINUED) and about:
            about[-1] += f" {line.strip()}"
        else:
            about.append(line.strip())
    if about:
        yield f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in about)}</ul>"


def _lines(lines: Sequence[tuple[int, str, bool]]) -> str:
    wide = len(str(lines[-1][0]))
    shown = []
    for number, text, marked in lines:
        line = f"{'→' if marked else ' '} {number:{wide}}  {_text(text)}"
        shown.append(f'<b style="{MARKED}">{line}</b>' if marked else line)
    return f'<pre style="{BLOCK}">{chr(10).join(shown)}</pre>'


def _cures(report) -> str:
    other = "the kernels" if report.examined_under == "XLA" else "XLA"
    rows = []
    for cure in report.cures:
        name = f"{cure.name}; {cure.leaves}" if cure.leaves else cure.name
        write = _code(cure.write) if cure.write else ""
        elsewhere = "" if cure.elsewhere is None else _mark(cure.elsewhere)
        rows.append([_mark(cure.finite), _text(name), write, elsewhere])
    return _table(["the step", "what was tried", "to write", f"under {_text(other)}"], rows)


def _code(text: str) -> str:
    return f'<code style="user-select:all">{_text(text)}</code>'  # a click takes all of it


def _mark(finite: bool | None) -> str:
    colour = {True: CALM, False: ALARM, None: UNKNOWN}[finite]
    sign = f'<span style="color:#fff;background:{colour};padding:0 .3em">{SIGNS[finite]}</span>'
    return f'<span style="white-space:nowrap">{sign} {OUTCOMES[finite]}</span>'


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Of what is HTML already. A column without any value is left out."""
    kept = [n for n in range(len(columns)) if any(row[n] for row in rows)]
    head = "".join(f'<th style="{CELL}">{columns[n]}</th>' for n in kept)
    body = "\n".join(
        "<tr>" + "".join(f'<td style="{CELL}">{row[n]}</td>' for n in kept) + "</tr>"
        for row in rows
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _curves(report) -> Iterator[str]:
    """The loss and some norms of the last steps, those of the weights that were lost first."""
    history = [of for of in report.history if _finite(of.get("step")) is not None]
    names = dict.fromkeys(name for of in history for name in of if name != "step")
    lost = {f"norm/{weight}" for weight in report.lost}
    chosen = sorted(names, key=lambda name: (name.startswith("norm/"), name not in lost))
    rows = []
    for name in chosen[: thresholds.SHOWN]:
        points = [(of["step"], _finite(of.get(name))) for of in history]
        values = [value for _, value in points if value is not None]
        if values:
            dies = report.harmful and name in lost
            last = f"{values[-1]:.4g}" + (", then not finite" if dies else "")
            rows.append([_text(name), f"{values[0]:.4g}", _curve(points, dies), last])
    if rows:
        first, last = history[0]["step"], history[-1]["step"]
        yield f"<p><b>Up to it, steps {first} to {last}</b></p>"
        yield _table(["before the step", "first", "", "last"], rows)


def _curve(points: Sequence[tuple[float, float | None]], dies: bool) -> str:
    """A curve over the steps, broken where it is not finite, with a cross at the end where the
    weight dies."""
    values = [value for _, value in points if value is not None]
    low, high = min(values), max(values)
    first, last = points[0][0], points[-1][0]

    def at(step: float, value: float) -> tuple[float, float]:
        along = (step - first) / (last - first) if last > first else 1.0
        # halves, as the difference itself may overflow
        up = (value / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else 0.5
        return EDGE + along * (WIDTH - 2 * EDGE), HEIGHT - EDGE - up * (HEIGHT - 2 * EDGE)

    pieces: list[list[tuple[float, float]]] = [[]]
    for step, value in points:
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(at(step, value))
    drawn = [
        f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in piece)}" fill="none"'
        ' stroke="currentColor" stroke-width="1.5"/>'
        for piece in pieces
        if len(piece) > 1
    ]
    x, y = next(piece[-1] for piece in reversed(pieces) if piece)
    if dies:
        drawn.append(
            f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" stroke="#d55e00"'
            ' stroke-width="2.5"/>'
        )
    else:
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="currentColor"/>')
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>{"".join(drawn)}</svg>'


def _finite(value) -> float | None:
    known = isinstance(value, (int, float)) and math.isfinite(value)
    return float(value) if known else None


def _text(value: object) -> str:
    """Anything as text of a document: no markup, and no character that a document may not have."""
    return html.escape(FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(value)))
