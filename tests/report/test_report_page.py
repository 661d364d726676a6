"""The page as text: one file, nothing from elsewhere, words escaped, data that the script can read."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from evaluation_folders import write_evaluation

from aleatoric.errors import InputError
from aleatoric.report import Picture, Section, Table, read_evaluations
from aleatoric.report.cases import browse
from aleatoric.report.page import render, warnings_of

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 36" width="72pt" height="36pt"><path d="M0 0"/></svg>'
VOID = {"meta", "link", "input", "br", "img", "hr"}


@pytest.fixture(scope="module")
def evaluations(three_models):
    return read_evaluations(three_models)


@pytest.fixture(scope="module")
def browser(evaluations):
    return browse(evaluations, 6)


def section(**changes) -> Section:
    parts = {"anchor": "one", "title": "One", "words": [], "tables": [], "pictures": [], **changes}
    return Section(**parts)


class Elements(HTMLParser):
    """Attributes of every element; refuses tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def named(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_nothing_comes_from_elsewhere(evaluations, browser):
    page = render(evaluations, [section(pictures=[Picture(SVG, "a line", "A line.")])], browser, "Title")
    elements = Elements(page)
    for tag, attributes in elements.found:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:")), (tag, target)
    assert not re.search(r"@import|url\((?!['\"]?#)", page)
    policy = next(a["content"] for a in elements.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert rules["script-src"] == " ".join(f"'sha256-{digest}'" for digest in digests) and len(scripts) == 1


def test_the_data_are_the_figures(evaluations, browser):
    page = render(evaluations, [], browser, "Title")
    data = json.loads(re.search(r'<script type="application/json" id="case-data">(.*?)</script>', page, re.S).group(1))
    assert data["models"] == [one.label for one in evaluations]
    for record in data["figures"]:
        for one, values in zip(evaluations, record["values"]):
            if record["name"] not in one.figures:
                assert values is None  # no column of a figure that a model does not have
                continue
            read = np.array([math.nan if value is None else value for value in values])
            np.testing.assert_allclose(read, one.figures[record["name"]], rtol=1e-4)
    ged = next(record for record in data["figures"] if record["name"] == "ged")
    assert (ged["title"], ged["better"]) == ("GED", "lower") and "generalized energy distance" in ged["definition"]
    names = {column["name"]: column["values"] for column in data["columns"]}
    assert names["case"] == [row["case"] for row in evaluations[0].rows]
    assert set(data["cards"].values()) == {a["id"] for a in Elements(page).named("article")}


def test_warnings_are_said_once(tmp_path):
    def warn(record):
        record["warnings"] += ["dark images.", "only two raters."]
        record["model"]["checkpoint"] = None

    folders = [
        write_evaluation(tmp_path / name, bundle=name, epochs=0, kept=0, change=change)
        for name, change in (("one", warn), ("two", lambda record: record["warnings"].append("dark images.")))
    ]
    untrained = "ntrained: it has the weights that it was initialised with."
    both, one = read_evaluations(folders), read_evaluations(folders[:1])
    said = warnings_of(both, browse(both, 0))
    assert said == ["Dark images.", "one: only two raters.", f"one: u{untrained}"]
    assert warnings_of(one, browse(one, 0)) == ["Dark images.", "Only two raters.", f"U{untrained}"]


def test_words_are_escaped_everywhere(tmp_path):
    evil = "</script><script>alert(1)</script>&'\""
    folder = write_evaluation(tmp_path, change=lambda record: record["warnings"].append(evil))
    lines = (folder / "per_case.csv").read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1].replace("p00_n000", evil.replace('"', ""), 1)
    (folder / "per_case.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    evaluations = read_evaluations([folder])
    table = Table(evil, ["a", evil], [["x", evil]], [["", ""]], [evil])
    words = section(title=evil, words=[evil], tables=[table], pictures=[Picture(SVG, evil, evil)])
    page = render(evaluations, [words], browse(evaluations, 24), evil)
    assert "alert(1)</script>" not in page and page.count("<script") == 2
    elements = Elements(page)  # every tag is closed
    assert any(a.get("aria-label") == evil for a in elements.named("div"))


def test_tables_align_numbers_and_mark_in_words(evaluations, browser):
    cells = ["0.213", "0.21 [0.20, 0.23]", "-1.5e-3", "12 %", "3,000", "–", "GED", "p < 0.01 for 3", "±0.2"]
    table = Table("Figures", ["model", *cells], [["punet", *cells]], [["", "best", "noise", *[""] * 7]], ["a note"])
    page = render(evaluations, [section(tables=[table])], browser, "Title")
    found = re.findall(r'<td class="(n?)( m-\w+)?">(.*?)</td>', page, re.S)
    assert [bool(number) for number, *_ in found] == [True] * 6 + [False, False, True]
    assert "(best)" in found[0][2] and "(inside the noise)" in found[1][2]  # not by weight or slant alone
    assert '<th scope="row">punet</th>' in page and "<li>a note</li>" in page


def test_a_drawing_keeps_its_size_and_says_what_it_shows(evaluations, browser):
    page = render(evaluations, [section(pictures=[Picture(SVG, "alt", "Caption.")])], browser, "Title")
    assert re.search(r'<div class="drawing" style="--natural: 96px"[^>]*aria-label="alt">', page)  # 72 points
    with pytest.raises(InputError, match="is no <svg> element"):
        render(evaluations, [section(pictures=[Picture("<?xml version='1.0'?>" + SVG, "alt", "C")])], browser, "T")
    with pytest.raises(InputError, match="expected addresses that differ"):
        render(evaluations, [section(), section()], browser, "Title")


@pytest.mark.parametrize(
    ("sources", "count", "said"),
    [
        (["simulated discs"], 3, "The images are simulated: they show no patient."),
        (["LIDC-IDRI"], 3, "This page contains images of patients (research data"),
        (["LIDC-IDRI"], 0, "This page names single patients"),
        (["LIDC-IDRI", "simulated discs"], 3, "images of patients, from discs (research data"),
        ([None], 3, "This page contains images of patients"),
    ],
)
def test_says_whose_images_they_are(tmp_path, sources, count, said):
    folders = [
        write_evaluation(
            tmp_path / str(number), noise=number + 1, change=lambda record, s=source: record["dataset"].update(source=s)
        )
        for number, source in enumerate(sources)
    ]
    evaluations = read_evaluations(folders)
    page = render(evaluations, [], browse(evaluations, count), "Title")
    assert page.count(said) == 2  # above and below


def test_equal_input_gives_an_equal_page_but_for_the_time(evaluations, browser):
    pages = [re.sub(r"Made [\d :-]+ UTC", "", render(evaluations, [], browser, "Title")) for _ in range(2)]
    assert pages[0] == pages[1]
