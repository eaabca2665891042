"""What comes from a file is text in markdown, whatever it says; what MLflow's pages are made of."""

import re
from dataclasses import replace
from html import unescape

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from test_html import HOSTILE
from zeronorm import markdown, tracking, treatments, views
from zeronorm.autopsy import Cure, Guilty, thresholds
from zeronorm.report import description
from zeronorm.run_report import RunReport

HOSTILE = [*HOSTILE, "[a](javascript:alert(1))", "# a", "1. a", "- a", "+ a", "a | b", "***", "==="]
HOSTILE += [
    "> a",
    "```",
    "~~~",
    "    a",
    "![a](http://example.org/x.png)",
    "a\n---",
    "<http://a.b>",
]
RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(text: str) -> str:
    """What is left of a text of which only what can be printed is kept."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


@pytest.mark.parametrize("text", HOSTILE)
def test_plain_text_stays_text(text):
    rendered = RENDERER.render(f"x {markdown.plain(text)} y")
    assert unescape(rendered) == f"<p>x {shown(text)} y</p>\n".replace("x  y", "x  y")
    alone = RENDERER.render(markdown.plain(text))
    assert not shown(text) or unescape(alone) == f"<p>{shown(text).strip()}</p>\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_stays_a_cell(text):
    lines = markdown.table(["a", "b"], [[markdown.plain(text), markdown.code(text)], ["c", "d"]])
    rendered = RENDERER.render("\n".join(lines))
    assert rendered.count("<td>") == 2 * rendered.count("<tr>") - 2
    assert "<script" not in rendered and "<img" not in rendered and "<a " not in rendered


@pytest.mark.parametrize("text", HOSTILE)
def test_a_block_of_code_stays_one(text):
    rendered = RENDERER.render(f"{markdown.block(text, 'python')}\n\nafter")
    assert rendered.endswith("<p>after</p>\n") and rendered.count("<pre>") == 1


CURED = (Cure("epsilon", "tf.sqrt(x + 1e-07)", True, elsewhere=True),)


def report(text: str, cures=CURED, **known) -> RunReport:
    """Of a run that died, in which everything is called `text`."""
    guilty = Guilty(
        op_type="SqrtGrad",
        forward_op_type="Sqrt",
        file=f"/a/{text.replace('/', '')}.py",
        line=3,
        function=text,
        text=text,
        operation="a",
        forward_operation="b",
        birth="gradient",
        kind="nan",
        count=1,
    )
    place = {"example": 0, "role": "the right title", "title": text, "zero_row": True, "norm": 0.0}
    told = {"finite": True, "gradient": 1.0, "loss": 2.0, "loss_after": 1.0}
    return RunReport(
        step=0,
        birth="gradient",
        harmful=True,
        guilty=(guilty,),
        kernels=False,
        xla=True,
        jit_compile=True,
        lost={"titles": 3},
        cures=cures,
        own="xla",
        examined="xla",
        fails={"kernels": False, "xla": True, "tf1": True},
        places=((place,),),
        treated=(treatments.Treatment("clamp_squares", None, **told),),
        **known,
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_the_autopsys_page_is_its_own(text, tmp_path):
    """Its headline and cure stand first, whatever the title and the user's line are called."""
    report(text).write(tmp_path)
    written = (tmp_path / "autopsy.md").read_text(encoding="utf-8")
    rendered = RENDERER.render(written)
    assert rendered.startswith("<h1>Died in step 0: SqrtGrad at ")
    assert "<strong>Cure:</strong> <code>tf.sqrt(x + 1e-07)</code>" in rendered.split("</p>")[0]
    assert rendered.count("<table>") == 3 and rendered.count("<h1>") == 1
    assert not any(tag in rendered for tag in ("<script", "<img", "<a "))
    fences = [part.count("\n") for part in written.split("```")[1::2]]
    assert max(fences) < 30  # MLflow opens a longer one at its end
    assert (tmp_path / "autopsy.html").stat().st_size > 1000


def cells(rendered: str, word: str) -> list[str]:
    """Of the row of a table that has `word` in it, as text."""
    [row] = [row for row in rendered.split("<tr>") if word in row.split("</tr>")[0]]
    found = re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)
    return [unescape(re.sub("<[^>]*>", "", cell)).strip() for cell in found]


@pytest.mark.parametrize("elsewhere", [True, False, None])
@pytest.mark.parametrize("finite", [True, False, None])
def test_what_became_of_a_cure_is_the_same_on_every_page(finite, elsewhere, tmp_path):
    """As text, as MLflow's page and as HTML; and what the two compilers made of the step."""
    said = {True: "finite", False: "fails", None: "not tried"}
    found = report("a", cures=(Cure("swap it", "f(x)", finite, elsewhere=elsewhere),))
    found.write(tmp_path)
    text = " ".join(str(found).split())
    there = f"; {said[elsewhere]} under the kernels" if elsewhere is not None else ""
    assert f"under XLA: {said[finite]} swap it{there} f(x)" in text
    page = RENDERER.render((tmp_path / "autopsy.md").read_text(encoding="utf-8"))
    outcome, name, write, *other = cells(page, "swap it")  # an empty column is left out
    assert (outcome, name, write) == (said[finite], "swap it", "f(x)")
    assert other == ([] if elsewhere is None else [said[elsewhere]])
    outcome, name, _, *other = cells((tmp_path / "autopsy.html").read_text("utf-8"), "swap it")
    assert outcome.endswith(said[finite]) and name == "swap it"
    assert [cell.split(" ", 1)[-1] for cell in other] == [said[elsewhere]] * len(other)
    assert bool(other) == (elsewhere is not None)
    assert cells(page, "TensorFlow's kernels")[1] == "finite"
    assert cells(page, "XLA")[1:] == ["fails", "as trained"]
    assert "TensorFlow's kernels: finite" in text and "XLA: fails (as trained)" in text


@pytest.mark.parametrize("on_a_line", [True, False])
@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_no_page_leaves_out_that_there_is_more(number, on_a_line, tmp_path):
    """Operations beyond those that are told of, the first of a line, and what swallowed a NaN."""
    one = report("a")
    files = ["/a/b.py" if on_a_line else f"/a/{n}.py" for n in range(number)]
    guilty = tuple(replace(one.guilty[0], file=file) for file in files)
    swallowed = ("SelectV2 at b.py:8",)
    found = replace(one, guilty=guilty, places=one.places * number, swallowed=swallowed)
    found.write(tmp_path)
    pages = [(tmp_path / f"autopsy.{kind}").read_text("utf-8") for kind in ("md", "html")]
    hidden = number - (1 if on_a_line else min(number, thresholds.SHOWN))
    for page in (*pages, str(found)):
        assert ("more operation" in page) == bool(hidden)
        assert not hidden or f"and {hidden} more operation" in page
        assert "swallowed on the way by SelectV2" in page


def test_the_cure_of_a_run_is_a_tag():
    tags = report("a").tags
    assert (tags["cure"], tags["cure.override"]) == (
        "tf.sqrt(x + 1e-07)",
        "similarity=clamp_squares",
    )


def conditions():
    row = {"trainable": "true", "init": "pretrained", "similarity": "clamp_product"}
    row |= {"study": "s", "epsilon": "", "numerics": "xla", "optimizer": "adam"}
    return pd.DataFrame([row | {"seeds": 2, "nan_runs": 1, "predicted_exactly": 2}])


@pytest.mark.parametrize("text", HOSTILE)
def test_a_sweeps_description_begins_with_the_verdict_and_obeys_no_title(text):
    text = text.encode("utf-8", "replace").decode()  # pandas takes no half of a surrogate pair
    runs = pd.DataFrame(
        [
            {"run_id": "r1", "tags.outcome": "nan", "tags.guilty.title": text, "tags.cure": text},
            {"run_id": "r2", "tags.outcome": "finite"},
        ]
    )
    pages = {"What died": views.page("", "1")}
    said = description.markdown(runs, conditions(), f"zeronorm {text}", pages, lambda run: run)
    rendered = RENDERER.render(said)
    assert rendered.startswith("<p><strong>1 of 1 conditions end in NaN")
    assert rendered.count("<td>") == rendered.count("<th>")  # one dead run
    assert rendered.count("<a ") == 2 and "<script" not in rendered and "<img" not in rendered
    assert description.numbers(conditions()) == {
        "runs": 2.0,
        "runs/nan": 1.0,
        "runs/predicted_exactly": 2.0,
    }


def test_a_runs_name_begins_with_what_differs(composed):
    config = composed("numerics=xla", "vectors.zero_share=0.1", "seed=3")
    own = ["numerics=xla", "vectors.zero_share=0.1", "seed=3", "training=quick"]
    assert tracking.run_name(config, own) == (
        "zero_share=0.1 xla clamp_product pretrained trainable s3"
    )
    shared = ["vectors.zero_share=0.1", "numerics=xla"]
    assert tracking.run_name(config, own, shared) == "clamp_product pretrained trainable xla s3"
