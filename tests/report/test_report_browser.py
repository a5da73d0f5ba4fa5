"""The page in a browser: it fits a phone and a desk, and can be read in the light and in the dark."""

import html
import json
import re
import shutil
import subprocess

import pytest
from sample_facts import facts

from sparsekit.report.building import page_of
from sparsekit.report.facts import LayerFacts
from sparsekit.report.page import html_of

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: Blink's numbers of color schemes.
_SCHEMES = {"dark": 0, "light": 1}
#: A page that shows the page in a frame of some width, and says of it what a reader would see.
_FRAME = """<!DOCTYPE html><iframe style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe><pre></pre>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument, style = (one) => frame.contentWindow.getComputedStyle(one);
  const texts = [...page.querySelectorAll("h1, p, td, th, a, figcaption, caption, pre, summary")];
  document.querySelector("pre").textContent = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    drawings: [...page.querySelectorAll("svg")].map((one) => one.getBoundingClientRect().width),
    sizes: texts.map((one) => parseFloat(style(one).fontSize)),
    background: style(page.body).backgroundColor,
    colors: [...new Set(texts.map((one) => style(one).color))],
    drawn: [...new Set([...page.querySelectorAll("svg text")].map((one) => style(one).fill))],
  }});
}};
</script>"""

pytestmark = pytest.mark.skipif(_BROWSER is None, reason="needs chromium")


def seen(page: str, width: int, scheme: str, folder) -> dict:
    path = folder / "frame.html"
    path.write_text(_FRAME.format(width=width, page=html.escape(page)), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    options += [f"--blink-settings=preferredColorScheme={_SCHEMES[scheme]}", "--window-size=1400,1000"]
    options += ["--virtual-time-budget=2000", "--dump-dom"]
    told = subprocess.run(
        [_BROWSER, *options, path.as_uri()], check=True, capture_output=True, text=True, timeout=240
    ).stdout
    return json.loads(html.unescape(re.search(r"</iframe><pre>(.*?)</pre>", told, re.DOTALL)[1]))


def _luminance(color: str) -> float:
    """Relative luminance of a color, as WCAG 2.1 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_can_be_read(scheme, tmp_path):
    long = [LayerFacts("a" * 300, (64, 32), 0.5, "int8", "1x1", "sell", 9, "because of what " * 20)]
    page = html_of(page_of(facts(layers=long, model="b" * 200, commands=["c" * 400])))
    for width in (400, 1280):
        found = seen(page, width, scheme, tmp_path)
        assert found["width"] <= width, "only tables scroll"
        assert len(found["drawings"]) == 3
        assert all(0.45 * min(width, 800) < drawn <= width for drawn in found["drawings"])
        assert min(found["sizes"]) >= 13
        for color in (*found["colors"], *found["drawn"]):
            assert contrast(color, found["background"]) >= 4.5, (color, found["background"])
        assert (_luminance(found["background"]) > 0.5) == (scheme == "light")
