"""The page from plain data: every section, nothing that a reader's browser would fetch or run, whatever names hold."""

import html
import json
import re
import sys
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
from sample_facts import ENVIRONMENT, facts, times

from sparsekit.report.building import page_of
from sparsekit.report.facts import EngineTime, LayerFacts, Quality, Score
from sparsekit.report.headline import headline
from sparsekit.report.page import Section, html_of, write_page
from sparsekit.report.pictures import KIND_COLORS, picture, write_png

_VOID = {"meta", "br", "img", "link"}
HOSTILE = "</style></svg></text><script>alert(1)</script><img src=x onerror=alert(2)>\"'&$\\frac{$"


class Parsed(HTMLParser):
    """Elements of a page, its text, and its sections by anchor; refuses elements that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts, self.sections = [], [], [], [], {}
        self.section = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "section":
            self.section = dict(attrs)["id"]
            self.sections[self.section] = ""
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "section":
            self.section = None

    def handle_data(self, data):
        self.texts.append(data)
        if self.section is not None:
            self.sections[self.section] += data

    @property
    def text(self):
        return "".join(self.texts)


def parsed(found, more=()):
    return Parsed(html_of(page_of(found, more)))


def test_every_section_is_there_and_linked():
    page = parsed(facts())
    expected = ["quality", "speed", "layers", "time-by-operator", "memory-and-disk", "not-on-this-page"]
    assert list(page.sections) == [*expected, "environment", "reproduce"]
    assert [value for name, value in page.attributes if name == "href"] == [f"#{name}" for name in page.sections]
    for words in ("0.760 (0.730 to 0.790)", "-0.040 (-0.060 to -0.020)", "1,000 texts.", "95% of something"):
        assert words in page.sections["quality"]
    for words in ("16 texts of 128 tokens, 1 thread", "onnxruntime", "3.00x", "dense, int8"):
        assert words in page.sections["speed"]
    for words in ("encoder.layer.*.query (3)", "encoder.layer.1.query", "64 x 32", "4x1", "ignored by name", "12%"):
        assert words in page.sections["layers"]
    assert "75%" in page.sections["time-by-operator"]
    for words in ("12.3 MB", "20.1 MB", "91 MB"):
        assert words in page.sections["memory-and-disk"]
    assert "--more says more." in page.sections["not-on-this-page"]
    assert "A processor, family 26, model 2" in page.sections["environment"]
    assert "sparsekit report small --dense big" in page.sections["reproduce"]
    assert page.tags.count("svg") == 3, "a drawing for the metric, and one for each input"


def test_what_is_not_known_is_left_out():
    page = parsed(facts(quality=None, times=[], layers=[], sizes=[], unknown=[]))
    assert list(page.sections) == ["environment", "reproduce"]
    assert headline(facts(quality=None, times=[], sizes=[])) == []


def test_nothing_is_fetched_and_nothing_runs():
    text = html_of(page_of(facts()))
    assert not re.search(r"(?i)\b(https?|ftp|file|data|javascript):", text)
    assert not re.search(r"(?i)url\((?!#)|@import|//\w", text)
    page = Parsed(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "srcset", "action", "srcdoc")}
    links = [value for name, value in page.attributes if name.endswith("href")]
    assert all(link.startswith("#") for link in links)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_light_and_dark_have_every_color():
    text = html_of(page_of(facts()))
    assert "@media (prefers-color-scheme: dark)" in text
    light, dark = (set(re.findall(r"(--\w+): #", part)) for part in re.findall(r":root \{(.*?)\}", text, re.DOTALL))
    assert light == dark
    used = set(re.findall(r"var\((--\w+)\)", text))
    assert used == light, "drawings and page"
    assert not re.search(r"#10111\d", text), "every color of a drawing is one of the page"


def test_names_out_of_files_are_text_everywhere():
    layers = [LayerFacts(HOSTILE, (2, 3), 0.5, HOSTILE, HOSTILE, HOSTILE, 7, HOSTILE)]
    measured = [
        EngineTime(HOSTILE, "ours", 1, 2, 1, 3.0, operators={HOSTILE: 1.0}),
        EngineTime("torch", "float32", 1, 2, 1, 4.0),
    ]
    quality = Quality([Score(HOSTILE, HOSTILE, 0.5, (0.4, 0.6))], {HOSTILE: (0.1, (0.0, 0.2))}, HOSTILE, [HOSTILE])
    environment = {**ENVIRONMENT, "cpu": HOSTILE, "packages": {HOSTILE: HOSTILE}}
    names = {"model": HOSTILE, "commands": [HOSTILE], "unknown": [HOSTILE], "time_remarks": [HOSTILE]}
    text = html_of(page_of(facts(layers=layers, times=measured, quality=quality, environment=environment, **names)))
    page = Parsed(text)
    assert not {"script", "img"} & set(page.tags)
    assert page.text.count(HOSTILE) > 15
    assert "<script" not in text
    assert "onerror" not in {name for name, _ in page.attributes}
    in_drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert sum("&lt;script&gt;" in svg for svg in in_drawings) == 2, "not as a formula either"


def test_the_headline_counts_the_best_engine_that_answers_rightly():
    kept, cost = headline(facts())
    assert kept.startswith("It keeps 95.0% of the dense model's accuracy: 0.760 (0.730 to 0.790), against 0.800")
    assert "a paired difference of -0.040 (-0.060 to -0.020)." in kept
    assert "3.0 times as fast as the best dense float32 engine here (onnxruntime)" in cost
    assert "0.8 to 1.5 times as fast as the best dense int8 engine here (openvino-int8)" in cost, "not other-int8"
    assert cost.endswith("it takes 12.3 MB on disk and 20.1 MB in memory (dense: 91 MB on disk).")
    assert "noisy" not in cost
    slow = [EngineTime("sparsekit.engine", "ours", 1, 16, 1, 2.0, noisy=True)]
    assert headline(facts(quality=None, times=slow, sizes=[])) == [
        "It takes 2 ms for 1 text of 16 tokens, 1 thread (noisy times: the machine was busy)."
    ]


def test_of_perplexity_no_part_is_kept():
    scores = [Score("perplexity", "dense", 20.0, (19.0, 21.0)), Score("perplexity", "this model", 25.0)]
    (first, *_) = headline(facts(quality=Quality(scores, {}, "95%")))
    assert first == "Its perplexity is 25.00, against 20.00 (19.00 to 21.00) dense."
    (first, *_) = headline(facts(quality=Quality(scores[1:], {}, "95%")))
    assert first == "Its perplexity is 25.00."


def test_engines_that_win_stand_in_the_table():
    speed = parsed(facts()).sections["speed"]
    assert speed.count("faster than ours") == 1, "openvino-int8 on the larger input; wrong answers are not faster"
    assert speed.count("wrong answers here") == 2
    noisy = [EngineTime("torch", "float32", 1, 16, 1, 1.0, noisy=True), *times(1, 16)[:1]]
    assert "faster than ours, noisy" in parsed(facts(times=noisy)).sections["speed"]


def test_a_section_of_another_part_comes_before_the_machine():
    def draw(figure):
        figure.subplots().scatter([1, 2], [3, 4], color=KIND_COLORS["ours"])

    drawn = picture(draw, "two points", title="speed and quality")
    page = parsed(facts(), [Section("Frontier", ["Every point is a model."], [drawn])])
    assert list(page.sections)[-3:] == ["frontier", "environment", "reproduce"]
    assert "Every point is a model." in page.sections["frontier"]
    assert ("aria-label", "two points") in page.attributes
    references = re.findall(r'href="#(\w+)"', drawn.svg) + re.findall(r"url\(#(\w+)\)", drawn.svg)
    assert references
    assert all(f'id="{name}"' in drawn.svg for name in references), "what a drawing refers to is in it"


def test_what_a_pointer_is_on_tells_its_text_and_nothing_else():
    def draw(figure):
        axes = figure.subplots()
        for number in range(2):
            axes.plot(number, number, "o", color=KIND_COLORS["int8"], gid=f"point-{number}")

    drawn = picture(draw, "two points", hover={"point-0": HOSTILE, "point-1": "b: 2.00x"})
    titles = re.findall(r"<title>(.*?)</title>", drawn.svg)
    assert titles == [html.escape(HOSTILE), "b: 2.00x"]
    page = parsed(facts(), [Section("Frontier", [], [drawn])])
    assert page.tags.count("title") == 3
    assert HOSTILE in page.texts
    assert "script" not in page.tags


def test_a_drawing_is_a_file_too_in_light_colors(tmp_path):
    def draw(figure):
        axes = figure.subplots()
        axes.set_axis_off()
        axes.axhspan(0, 1, color=KIND_COLORS["ours"])
        axes.set_ylim(0, 1)

    write_png(draw, tmp_path / "drawing.png", width=30, height=20)
    pixels = matplotlib.image.imread(tmp_path / "drawing.png")
    assert pixels.shape[:2] == (40, 60)
    assert np.round(255 * pixels[20, 30, :3]).tolist() == [0x0B, 0x7A, 0x55]
    assert "var(--ours)" in picture(draw, "the same on the page").svg


def test_pages_are_written_whole_and_facts_are_json(tmp_path):
    write_page(page_of(facts()), tmp_path / "deep" / "page.html")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["page.html"]
    assert (tmp_path / "deep" / "page.html").read_text(encoding="utf-8") == html_of(page_of(facts()))
    stored = json.loads(json.dumps(facts().to_json()))
    assert stored["times"][0]["engine"] == "sparsekit.engine"
    assert stored["quality"]["differences"]["accuracy"] == [-0.04, [-0.06, -0.02]]


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_a_missing_library_is_an_import_error(library, monkeypatch):
    from sparsekit.report import page

    page._template.cache_clear()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=library):
        html_of(page_of(facts()))
