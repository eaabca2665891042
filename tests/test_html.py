"""The report as HTML: nothing in it becomes markup, whatever it is called; what a reader sees."""

import linecache
import math
import random
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from itertools import product
from xml.etree import ElementTree

import pytest

from zeronorm.autopsy import Cure, Guilty, Report, html, source

HOSTILE = [
    "<script>alert(1)</script>",
    "</pre></td></svg></style><img src=x onerror=alert(1)>",
    '" onclick="alert(1)" x=\'',
    "' style='position:fixed",
    "a & b &lt; c &#60;i&#62;",
    "<!-- ]]> -->\n\r\n{title}{body}%s",
    "\x00\x1b[31m\x0b\ud800\uffff\u2028\x85",
    "javascript:alert(1) http://example.org/",
    "`${x}`",
    "",
]
DRAWN = random.Random(0)
HOSTILE += ["".join(DRAWN.choices("<>&\"'/= \n\0;#!-abp", k=60)) for _ in range(20)]
ALLOWED = {
    "div": set(),
    "h3": set(),
    "p": set(),
    "b": {"style"},
    "i": set(),
    "span": {"style"},
    "pre": {"style"},
    "code": {"style"},
    "ul": set(),
    "li": set(),
    "table": set(),
    "thead": set(),
    "tbody": set(),
    "tr": set(),
    "th": {"style"},
    "td": {"style"},
    "details": set(),
    "summary": set(),
    "svg": {"xmlns", "role", "width", "height", "viewbox"},
    "polyline": {"points", "fill", "stroke", "stroke-width"},
    "path": {"d", "stroke", "stroke-width"},
    "circle": {"cx", "cy", "r", "fill"},
}
AROUND = {  # of a page alone
    "html": {"lang"},
    "head": set(),
    "meta": {"charset", "http-equiv", "content", "name"},
    "title": set(),
    "style": set(),
    "body": set(),
}


class Parts(HTMLParser):
    """tags: of each start tag, its name and attributes; text: what is shown."""

    def __init__(self, document: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@dataclass(frozen=True, repr=False)
class Further(Report):
    """A kind of report that knows more."""

    more: str = ""

    def html_sections(self):
        yield self.more, [self.more, "b"], [[self.more, 1], [None, self.more]]


def report(word: str = "sqrt", **changes) -> Report:
    """One in which every text is the word."""
    guilty = Guilty(
        op_type=word,
        forward_op_type=word,
        file=word or "file.py",
        line=3,
        function=word,
        text=word,
        operation=word,
        forward_operation=word,
        birth="forward",
        kind="nan",
        count=1,
        examples=(4,),
        rows={word: [0, 1]},
        row_names={word: [word, word]},
        weight=word,
    )
    known = {
        "step": 3,
        "birth": "gradient",
        "harmful": True,
        "guilty": (guilty, replace(guilty, file=None, birth="gradient")),
        "kernels": False,
        "xla": True,
        "jit_compile": True,
        "lost": {word: 2},
        "swallowed": (word,),
        "cures": (
            Cure(word, word, True, elsewhere=False, leaves=word),
            Cure(word, word, None, folk=True),
        ),
        "history": tuple(
            {"step": step, "loss": math.nan if step == 1 else 1.0, f"norm/{word}": step / 2}
            for step in range(4)
        ),
        "left_out": (word,),
        "refused": {"kernels": word},
        "losses": {"xla": "NaN"},
    }
    return Further(**known | {"more": word} | changes)


def visible(text: str) -> str:
    """As a document may have it, but for the space."""
    return "".join(html.FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text).split())


@pytest.mark.parametrize("word", HOSTILE)
def test_no_text_of_a_report_becomes_markup(word):
    shown, plain = html.fragment(report(word)), html.fragment(report())
    parts, expected = Parts(shown), Parts(plain)
    assert [tag for tag, _ in parts.tags] == [tag for tag, _ in expected.tags] or not word
    for tag, attributes in parts.tags:
        assert attributes.keys() <= ALLOWED[tag]
        assert word not in attributes.values() or not word
    assert visible(word) in visible(parts.text)
    ElementTree.fromstring(shown)  # every tag that is opened is closed
    whole = Parts(html.page(report(word)))
    for tag, attributes in whole.tags:
        assert attributes.keys() <= (ALLOWED | AROUND)[tag]
    html.page(report(word)).encode("utf-8")


def test_a_line_of_a_file_does_not_become_markup(monkeypatch):
    lines = [f"{word}\n" for word in HOSTILE if word.splitlines() == [word]]
    monkeypatch.setitem(linecache.cache, "theirs.py", (1, None, lines, "theirs.py"))
    for number, text in enumerate(lines, 1):
        guilty = replace(report().guilty[0], file="theirs.py", line=number, text=text.strip())
        shown = html.fragment(report(guilty=(guilty,)))
        ElementTree.fromstring(shown)
        assert {tag for tag, _ in Parts(shown).tags} <= ALLOWED.keys()
        assert visible(text) in visible(Parts(shown).text)


def test_a_page_stands_by_itself():
    whole = html.page(report())
    assert whole.startswith("<!DOCTYPE html>") and '<meta charset="utf-8">' in whole
    assert "<title>Died in step 3: sqrt at sqrt:3</title>" in whole
    without = whole.replace("http://www.w3.org/2000/svg", "")  # a name, not an address to load
    assert not any(
        mark in without for mark in ("://", "<script", "src=", "href=", "url(", "@import")
    )


def test_the_guilty_line_is_marked_among_those_around_it(tmp_path):
    file = tmp_path / "theirs.py"
    file.write_text("\n\ndef f(x):\n    y = x\n    z = tf.sqrt(y)\n    return z\n\n\n")
    lines = source.context(str(file), 5, "z = tf.sqrt(y)")
    assert lines == [
        (3, "def f(x):", False),
        (4, "    y = x", False),
        (5, "    z = tf.sqrt(y)", True),
        (6, "    return z", False),
    ]
    # of a file that is another one now, only what ran
    assert source.context(str(file), 5, "z = 1 / y") == [(5, "z = 1 / y", True)]
    assert source.context(str(tmp_path / "gone.py"), 1, "z = y") == [(1, "z = y", True)]


@pytest.mark.parametrize(
    "values",
    [
        [],
        [1.0],
        [None, math.nan, math.inf],
        [2.0, 2.0, 2.0],
        [1e308, -1e308, 1.7e308],
        [5e-324, 0.0],
        [1, None, 2, 3, math.inf],
        ["<b>", True, 1.0],
    ],
    ids=str,
)
@pytest.mark.parametrize("harmful", [True, False])
def test_a_curve_stays_in_its_picture(values, harmful):
    history = tuple({"step": step, "norm/sqrt": value} for step, value in enumerate(values))
    tree = ElementTree.fromstring(html.fragment(report(history=history, harmful=harmful)))
    known = [v for v in values if not isinstance(v, (str, type(None))) and math.isfinite(v)]
    assert len(tree.findall(".//{*}svg")) == bool(known)
    for line in tree.findall(".//{*}polyline"):
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= html.WIDTH and 0 <= y <= html.HEIGHT
    assert len(tree.findall(".//{*}path")) == (bool(known) and harmful)  # the cross


OUTCOMES = [
    {"harmful": h, "kernels": k, "xla": x, "jit_compile": j, "losses": of}
    for h, k, x, j in product([True, False], *[[True, False, None]] * 2, [True, False])
    for of in ({}, {"kernels": "NaN", "xla": "NaN"})
]


def test_the_cure_stands_right_below_the_head():
    cures = (Cure("epsilon", "tf.sqrt(x + 1e-07)", True),)
    below = ElementTree.fromstring(html.fragment(report(cures=cures)))[1]
    assert "".join(below.itertext()) == "Cure: tf.sqrt(x + 1e-07)"
    assert "Cure:" not in Parts(html.fragment(report(cures=()))).text


@pytest.mark.parametrize("named", [True, False])
def test_every_outcome_has_a_line_and_a_page(named):
    for outcome in OUTCOMES:
        found = report(**outcome, **({} if named else {"guilty": (), "lost": {}, "cures": ()}))
        assert "\n" not in repr(found) and repr(found).startswith("Further(step=3, ")
        assert outcome["harmful"] == found.title.startswith("Died in step 3")
        tree = ElementTree.fromstring(html.fragment(found))
        colours = [one.get("style").rpartition(":")[2] for one in tree.find("p/span/..")]
        fails = [outcome["kernels"], outcome["xla"]]
        calm = [fail is False and not outcome["losses"] for fail in fails]
        for colour, fail, is_calm in zip(colours, fails, calm, strict=True):
            assert colour == (
                html.UNKNOWN if fail is None else html.CALM if is_calm else html.ALARM
            )


def test_the_one_line_names_who_where_and_the_cure():
    guilty = replace(report().guilty[0], op_type="SqrtGrad", file="/home/me/x.py", line=20)
    cures = (Cure("slower", "rate=1", True, folk=True), Cure("epsilon", "tf.sqrt(x + 1e-07)", True))
    found = report(guilty=(guilty,), cures=cures)
    assert repr(found) == "Further(step=3, SqrtGrad at x.py:20, cure: tf.sqrt(x + 1e-07))"
    assert repr(report(guilty=(), harmful=False)) == "Further(step=3, finite)"
    assert repr(report("two\nlines")).count("\n") == 0
