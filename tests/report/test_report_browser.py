"""The report in a real browser: nothing fails, nothing is fetched, and sorting, filter, pages and pictures do what they
say; on a phone, in print, by keyboard."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from evaluation_folders import write_evaluation
from PIL import Image

from aleatoric import cli

selenium = pytest.importorskip("selenium", reason="selenium is not installed: pip install -e .[test]")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

CASES = 70
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
# Every image of the page through the browser's own decoder: [what failed, how many there are].
DECODE = """
const done = arguments[0];
const found = [...document.querySelectorAll("img, image")].map((one) => one.src || one.getAttribute("href"));
Promise.all(found.map((source) => new Promise((settle) => {
  const image = new Image();
  image.onload = () => settle(image.naturalWidth > 0 ? null : source);
  image.onerror = () => settle(source);
  image.src = source;
}))).then((all) => done([all.filter(Boolean).map((source) => source.slice(0, 60)), all.length]));
"""
# Drawings that nobody could see; references to what is not there; ids that two elements have.
FLAT = """
return [...document.querySelectorAll("svg")].map((one) => one.getBoundingClientRect())
  .filter((box) => box.width < 8 || box.height < 8).length;
"""
DANGLING = """
return [...document.querySelectorAll("use")]
  .map((one) => (one.getAttribute("href") || one.getAttribute("xlink:href")).slice(1))
  .filter((name) => !document.getElementById(name));
"""
TWICE = """
const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
return ids.filter((id, place) => ids.indexOf(id) !== place);
"""
# [colour of the text, of the ground below it, what it is] of all that is read.
COLORS = """
const ground = (one) => {
  for (; one; one = one.parentElement) {
    const color = getComputedStyle(one).backgroundColor;
    if (!/, 0\\)$/.test(color)) return color;
  }
  return "rgb(255, 255, 255)";
};
const read = "p, li, a, h1, h2, h3, h4, th, td, button, caption, figcaption, label, select, .group, .figure";
return [...document.querySelectorAll(read)]
  .filter((one) => one.textContent.trim() && one.offsetParent && !one.disabled)
  .map((one) => [getComputedStyle(one).color, ground(one), `${one.tagName} ${one.textContent.trim().slice(0, 30)}`]);
"""
NAMELESS = """
return [...document.querySelectorAll("svg[role=img], .drawing, [role=region], section, article")]
  .filter((one) => !one.getAttribute("aria-label"))
  .filter((one) => !document.getElementById(one.getAttribute("aria-labelledby"))).length;
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two models, one with figures that are undefined in some cases, and words that must not become markup."""
    root = tmp_path_factory.mktemp("page")
    near = write_evaluation(root / "near", cases=CASES, noise=1.0, kept=12, missing=True, samples=10)
    far = write_evaluation(
        root / "far",
        bundle="generalized_punet_segmentation",
        variant="<b>&full",
        noise=4.0,
        cases=CASES,
        kept=12,
        samples=10,
        change=lambda record: record["warnings"].append("only <script>alert(1)</script> 8 patients"),
    )
    table = (near / "per_case.csv").read_text(encoding="utf-8").splitlines()
    column = table[0].split(",").index("ged")
    for line in (3, 30, 31):
        cells = table[line].split(",")
        cells[column] = "nan"
        table[line] = ",".join(cells)
    (near / "per_case.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    return [near, far]


@pytest.fixture(scope="module")
def page(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "report.html"
    assert cli.main(["report", *map(str, folders), "--out", str(out), "--cases", "14"]) == 0
    return out


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.set_script_timeout(20)
    yield chrome
    chrome.quit()


@pytest.fixture
def opened(browser, page) -> Iterator[webdriver.Chrome]:
    """The page, fresh, on a desktop's screen; at the end the console has nothing to say, and nothing was fetched."""
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    screen(browser, 1280, 900)
    browser.get("about:blank")
    browser.get(page.as_uri())
    loaded = "return document.readyState === 'complete' && document.querySelector('body > footer') !== null"
    WebDriverWait(browser, 20, 0.05).until(lambda chrome: chrome.execute_script(loaded))
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    fetched = "return performance.getEntriesByType('resource').map((one) => one.name)"
    assert [name for name in browser.execute_script(fetched) if not name.startswith("data:")] == []


def screen(browser, width: int, height: int, mobile: bool = False) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def header(browser, name: str, model: str = ""):
    """The header's cell of a column that sorts."""
    label = f"{name}, {model}" if model else name
    for cell in browser.find_elements(By.CSS_SELECTOR, "#case-table thead [data-column]"):
        if cell.find_element(By.TAG_NAME, "button").get_attribute("aria-label").startswith(label):
            return cell
    raise AssertionError(f"no column {label}")


def column(browser, cell) -> list[str]:
    """Texts of a column, all rows."""
    index = "return [...document.querySelectorAll('#case-table thead [data-column]')].indexOf(arguments[0])"
    place = browser.execute_script(index, cell)
    lines = "document.querySelectorAll('#case-table tbody tr')"
    return browser.execute_script(f"return [...{lines}].map((row) => row.cells[arguments[0]].textContent)", place)


def every_row(browser) -> None:
    Select(browser.find_element(By.ID, "page-size")).select_by_visible_text("100")


def gallery(browser) -> list[int]:
    """Rows of the pictures, as they stand."""
    return [
        int(card.get_attribute("data-row")) for card in browser.find_elements(By.CSS_SELECTOR, "#gallery > article")
    ]


def test_every_image_loads_and_every_drawing_has_a_size(opened):
    broken, count = opened.execute_async_script(DECODE)
    assert broken == [] and count > 14 * 5
    opened.find_element(By.ID, "gallery-more").click()  # what is hidden has no size
    opened.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert opened.execute_script(FLAT) == 0
    assert opened.execute_script(DANGLING) == [] and opened.execute_script(TWICE) == []


def test_a_sample_is_drawn_over_the_image(opened):
    """The image stands in the first tile only; the others refer to it."""
    tiles = opened.find_elements(By.CSS_SELECTOR, "#gallery > article .strip:last-child .tile:not(:has(.said)) svg")
    tile = next(tile for tile in tiles if tile.find_elements(By.TAG_NAME, "use"))
    pixels = np.asarray(Image.open(io.BytesIO(tile.screenshot_as_png)).convert("RGB")).reshape(-1, 3)
    grey = pixels[(pixels == pixels[:, :1]).all(1)]
    assert len(np.unique(grey)) > 20  # the image
    assert (np.abs(pixels.astype(int) - (0xE6, 0x9F, 0x00)).max(1) < 40).any()  # the outlines


@pytest.mark.parametrize("model", ["punet", "generalized_punet"])
def test_sorts_by_a_figure_both_ways(opened, model):
    every_row(opened)
    cell = header(opened, "GED", model)
    undefined = 3 if model == "punet" else 0
    for direction, sign in (("ascending", 1), ("descending", -1), ("ascending", 1)):
        cell.find_element(By.TAG_NAME, "button").click()
        assert cell.get_attribute("aria-sort") == direction
        texts = column(opened, cell)
        assert len(texts) == CASES and texts[CASES - undefined :] == ["–"] * undefined  # last either way
        values = sign * np.array([float(text) for text in texts[: CASES - undefined]])
        assert (np.diff(values) >= 0).all() and np.ptp(values) > 0
    sorted_by = opened.find_elements(By.CSS_SELECTOR, "#case-table [aria-sort]")
    assert len(sorted_by) == 1


def test_sorts_by_text_as_a_reader_counts(opened):
    every_row(opened)
    cell = header(opened, "slice")
    for sign in (1, -1):
        cell.find_element(By.TAG_NAME, "button").click()
        assert column(opened, cell) == [str(number) for number in range(CASES)][::sign]  # 2 before 10


def test_sorts_by_keyboard_and_keeps_the_focus(opened):
    button = header(opened, "GED", "punet").find_element(By.TAG_NAME, "button")
    opened.execute_script("arguments[0].focus()", button)
    opened.switch_to.active_element.send_keys(Keys.ENTER)
    opened.switch_to.active_element.send_keys(Keys.SPACE)
    assert opened.switch_to.active_element == button
    assert header(opened, "GED", "punet").get_attribute("aria-sort") == "descending"
    outline = "return getComputedStyle(arguments[0]).outlineStyle"
    assert opened.execute_script(outline, button) != "none"


def test_the_pictures_follow(opened):
    first = gallery(opened)
    groups = [card.get_attribute("textContent") for card in opened.find_elements(By.CSS_SELECTOR, "#gallery .group")]
    assert groups == [group for group in ("best", "median", "worst") for _ in range(3)]
    values = opened.execute_script(
        "const data = JSON.parse(document.getElementById('case-data').textContent);"
        "return data.figures.find((one) => one.name === 'dice').values[1]"
    )
    for name in ("Columns", "Dice, all pairs"):  # a figure that the table does not show at first
        word = f"//*[self::summary or self::label][normalize-space()='{name}']"
        opened.find_element(By.XPATH, word).click()
    button = header(opened, "Dice, all pairs", "generalized_punet").find_element(By.TAG_NAME, "button")
    for sign in (1, -1):
        button.click()
        shown = [sign * values[row] for row in gallery(opened)]
        assert shown == sorted(shown) and set(gallery(opened)) == set(first)
    choice = Select(opened.find_element(By.ID, "gallery-sort"))
    assert choice.first_selected_option.text.startswith("Dice, all pairs, generalized_punet")
    assert "highest first" in opened.find_element(By.ID, "gallery-status").text
    opened.find_element(By.ID, "gallery-direction").click()
    assert gallery(opened) == sorted(first, key=lambda row: values[row])
    choice.select_by_visible_text("best, median, worst")
    assert gallery(opened) == first


def test_filter_and_pages(opened):
    def rows() -> list[str]:
        return [cell.text for cell in opened.find_elements(By.CSS_SELECTOR, "#case-table tbody th")]

    def status() -> str:
        return opened.find_element(By.ID, "table-status").text

    assert len(rows()) == 25 and status() == f"1 to 25 of {CASES} cases"
    seen = rows()
    for _ in range(2):
        opened.find_element(By.ID, "next-page").click()
        seen += rows()
    assert len(set(seen)) == CASES and status() == f"51 to {CASES} of {CASES} cases"
    assert not opened.find_element(By.ID, "next-page").is_enabled()
    field = opened.find_element(By.ID, "filter")
    field.send_keys("P03")  # a patient; capitals do not matter
    expected = [f"p03_n{number:03d}" for number in range(3, CASES, 8)]
    assert rows() == expected and status() == f"1 to {len(expected)} of {len(expected)} matches among {CASES} cases"
    field.send_keys(" nobody")
    assert rows() == [] and status().startswith("no match among")
    field.clear()
    field.send_keys(Keys.SPACE, Keys.BACKSPACE)
    assert len(rows()) == 25
    opened.find_element(By.ID, "with-pictures").click()
    assert len(rows()) == len(gallery(opened)) == 14


def test_a_row_shows_its_pictures(opened):
    row = gallery(opened)[-1]
    card = opened.find_element(By.ID, f"case-{row}")
    assert not card.is_displayed()  # nine stand open
    every_row(opened)
    opened.find_element(By.CSS_SELECTOR, f"#case-table tr[data-row='{row}'] button").click()
    assert card.is_displayed() and opened.switch_to.active_element == card
    top = opened.execute_script("return arguments[0].getBoundingClientRect().top / innerHeight", card)
    assert -0.01 < top < 1


def test_on_a_phone_nothing_is_wider_than_the_screen(opened):
    screen(opened, 360, 740, mobile=True)
    opened.find_element(By.ID, "gallery-more").click()
    assert opened.execute_script("return [document.documentElement.scrollWidth, innerWidth]") == [360, 360]
    wide = opened.find_element(By.ID, "case-scroll")
    assert opened.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", wide)  # in its own box
    opened.execute_script("arguments[0].scrollLeft = 10000", wide)
    first = wide.find_element(By.CSS_SELECTOR, "tbody th")
    assert opened.execute_script("return Math.round(arguments[0].getBoundingClientRect().left)", first) >= 0  # stays
    assert opened.execute_script("return parseFloat(getComputedStyle(document.body).fontSize)") >= 15


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(opened, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    colors = opened.execute_script(COLORS)
    assert len(colors) > 300
    cells = {ground for _, ground, what in colors if what.startswith("TD")}
    assert ("rgb(255, 255, 255)" in cells) == (scheme == "light")
    weak = [(what, text, ground) for text, ground, what in colors if contrast(text, ground) < 4.5]
    assert weak == []


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio of two CSS colours."""
    lights = []
    for color in (one, other):
        parts = np.array([float(part) for part in re.findall(r"[\d.]+", color)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ (0.2126, 0.7152, 0.0722)))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_prints_the_best_median_and_worst_without_controls(opened):
    opened.find_element(By.CSS_SELECTOR, "#case-table thead button").click()
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    cards = opened.find_elements(By.CSS_SELECTOR, "#gallery > article")
    assert [card.is_displayed() for card in cards].count(True) == 9
    assert all(card.is_displayed() == bool(card.find_elements(By.CLASS_NAME, "group")) for card in cards)
    assert not any(one.is_displayed() for one in opened.find_elements(By.CSS_SELECTOR, "button, select, input"))
    pdf = base64.b64decode(opened.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page") > 3


def test_words_are_not_markup(opened):
    assert "only <script>alert(1)</script> 8 patients" in opened.find_element(By.CLASS_NAME, "warnings").text
    assert "<b>&full" in opened.find_element(By.CSS_SELECTOR, "#case-table thead").text
    assert not opened.find_elements(By.CSS_SELECTOR, "header b")


def test_landmarks_and_names(opened):
    for landmark in ("header", "nav", "main", "footer"):
        assert len(opened.find_elements(By.CSS_SELECTOR, f"body > {landmark}")) == 1
    targets = [link.get_attribute("hash") for link in opened.find_elements(By.CSS_SELECTOR, "a[href^='#']")]
    assert targets and all(opened.find_elements(By.ID, target[1:]) for target in set(targets))
    assert opened.execute_script(NAMELESS) == 0
    assert "simulated" in opened.find_element(By.CLASS_NAME, "privacy").text
