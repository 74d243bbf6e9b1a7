"""The report page as a user meets it: in a browser, from disk, and on paper."""

import base64
import io
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from spikeformers.profiling.page import page

OFFENDING = {
    "module": "stages.0.blocks.0.branch.fc2",
    "operation": "convolution 1x1",
    "operands": ["real", "weight"],
    "share": 0.131,
    "reason": "reads the output of a depthwise convolution, not spikes",
    "remedy": "merge(model)",
}
ALLOWED = OFFENDING | {
    "module": "",
    "share": 0.013,
    "reason": "the first convolution reads the image",
    "remedy": "none needed",
}


def layer(name, number, stage, steps=4, **changed):
    """A plausible layer whose counts shrink with `number`, in no order that a sort by text would give."""
    dense = 40_000_000 // (1 + number) + 1
    rates = [0.02 + 0.03 * ((number + step) % 5) for step in range(steps)]
    rate = sum(rates) / steps
    ac = dense * rate
    return {
        "name": name,
        "type": "convolution 3x3",
        "stage": stage,
        "parameters": 1000 * (number + 1),
        "dense": dense,
        "kind": "binary",
        "rate": rate,
        "rate_per_step": rates,
        "class": "AC",
        "ac": ac,
        "mac": 0,
        "energy_mj": 0.9e-9 * ac,
        "ann_energy_mj": 4.6e-9 * dense / steps,
        "output_shape": [64, 32, 32],
    } | changed


def report(title="best.ckpt", steps=4, stages=2, blocks=2, **changed):
    """The profile of a small model with a stem, `stages` stages of `blocks` blocks and a head."""
    dense = 3_538_944
    real = {"kind": "real", "class": "MAC", "rate": 1.0, "rate_per_step": None, "ac": 0, "mac": dense, "dense": dense}
    layers = [layer("stem", 0, "stem", steps, **real, energy_mj=4.6e-9 * dense)]
    for stage in range(stages):
        for block in range(blocks):
            for part in ("attention.branch.q", "attention.branch.proj", "branch.fc1", "branch.fc2"):
                layers.append(layer(f"stages.{stage}.blocks.{block}.{part}", len(layers), f"stages.{stage}", steps))
    layers.append(layer("head", len(layers), "head", steps))
    totals = {key: sum(item[key] for item in layers) for key in ("dense", "ac", "mac", "energy_mj")}
    neurons = [
        {
            "name": f"{item['name']}.lif",
            "stage": item["stage"],
            "rate": item["rate"],
            "rate_per_step": item["rate_per_step"],
        }
        | {"shape": [64, 32, 32], "description": "LIF(tau=2.0, v_threshold=1.0)"}
        for item in layers[1:]
    ]
    neurons[2] |= {"rate": 0, "rate_per_step": [0] * steps}
    audit = {"additions_only": False, "verdict": "1 of 17 operations multiplies real numbers.", "operations": 17}
    merged = {"additions_only": True, "verdict": "Every operation behind the first only adds.", "operations": 15}
    architecture = [{"name": "stem", "type": "ConvBN", "output_shape": [32, 32, 32], "parameters": 1000, "depth": 0}]
    for item in layers[1:]:
        depth = item["name"].count(".")
        architecture.append({**architecture[0], "name": item["name"], "type": "ConvBN", "depth": depth})
    return {
        "format": 1,
        "title": title,
        "model": "meta_spikeformer_cifar",
        "parameters": 1_860_000,
        "checkpoint": "runs/x/best.ckpt",
        "data": "cifar10",
        "samples": 1000,
        "input_shape": [3, 32, 32],
        "time_steps": steps,
        "estimated": False,
        "accuracy": 0.766,
        "accuracy_per_step": [0.7 + 0.02 * step for step in range(steps)],
        "preset": "exact",
        "switches": {"integers": "mac"},
        "constants": {"mac": 4.6, "ac": 0.9, "neuron": 0.0},
        "formula": "E = E_MAC * MAC + E_AC * AC",
        "notes": ["Memory traffic and membrane updates are outside this figure."],
        "totals": totals | {"synops": totals["ac"]},
        "ann": {"dense": totals["dense"] / steps, "energy_mj": 4.6e-9 * totals["dense"] / steps},
        "presets": [
            {
                "preset": name,
                "switches": switches,
                "ac": totals["ac"],
                "mac": totals["mac"],
                "energy_mj": totals["energy_mj"],
            }
            for name, switches in (("exact", {"integers": "mac"}), ("spikingformer", {}))
        ],
        "mean_rate": 0.12,
        "mac_layers": ["stem"],
        "layers": layers,
        "neurons": neurons,
        "audit": audit | {"offending": [OFFENDING], "allowed": [ALLOWED]},
        "audit_merged": merged | {"offending": [], "allowed": [ALLOWED]},
        "neurobench": {"footprint": 7_440_000, "connection_sparsity": 0.0, "activation_sparsity": 0.88}
        | {"dense": totals["dense"], "effective_macs": totals["mac"], "effective_acs": totals["ac"]},
        "architecture": architecture,
    } | changed


def early_exit(*points):
    """The curve of (confidence, accuracy, energy in mJ, share answered by the first of two stages)."""
    return [
        {"confidence": confidence, "accuracy": accuracy, "time_steps": 4 - 2 * first, "energy_mj": spent}
        | {"exits": {"stages.0": first, "stages.1": 1 - first}}
        for confidence, accuracy, spent, first in points
    ]


def samples(stages=2):
    """Two samples whose maps fire at the lower right."""
    rng = np.random.default_rng(0)
    rates = np.zeros((8, 8))
    rates[7, 7] = 0.4
    maps = [{"name": f"stages.{stage}", "rate": 0.00625, "map": rates * (1 + stage)} for stage in range(stages)]
    return [
        {"label": label, "prediction": "cat", "input": rng.random((32, 32, 3)), "stages": maps}
        for label in ("cat", "dog")
    ]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="the page is tested in a browser, and playwright is missing"
    )
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("the page is tested in a browser, and there is no chromium on the path")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(browser, tmp_path):
    """Opens a document from disk; `problems` and `requests` of the page are what it complained about and asked for."""
    contexts = []

    def show(document, **settings):
        path = tmp_path / "report.html"
        path.write_text(document, encoding="utf-8")
        contexts.append(browser.new_context(**{"viewport": {"width": 1200, "height": 900}} | settings))
        opened = contexts[-1].new_page()
        opened.problems, opened.requests = [], []
        opened.on("console", lambda message: opened.problems.append(message.text))
        opened.on("pageerror", lambda error: opened.problems.append(str(error)))
        opened.on("request", lambda request: opened.requests.append(request.url))
        opened.goto(path.as_uri())
        return opened

    yield show
    for context in contexts:
        context.close()


def column(opened, title, table="#m0-layers"):
    """The values by which a column is sorted, from top to bottom."""
    return opened.evaluate(
        """([table, title]) => {
            const heads = [...document.querySelectorAll(table + " thead th")];
            const at = heads.findIndex(head => head.dataset.title === title);
            return [...document.querySelectorAll(table + " tbody tr")].map(row => row.cells[at].dataset.value ?? row.cells[at].innerText);
        }""",
        [table, title],
    )


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match="at least one profile"):
        page([])
    with pytest.raises(ValueError, match="profile 2 has the format 7"):
        page([report(), report(format=7)])
    with pytest.raises(ValueError, match="maps for 1 reports, but 2"):
        page([report(), report()], [samples()])


@pytest.mark.parametrize("number", [1, 3])
def test_nothing_is_loaded_and_nothing_complains(show, number):
    opened = show(page([report()] * number, [samples()] * number))
    opened.locator(".sort:visible").first.click()
    assert opened.problems == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [opened.url]
    assert opened.url.startswith("file://")


def test_headline(show):
    opened = show(
        page([report(totals=report()["totals"] | {"energy_mj": 0.113}, ann={"dense": 3e8, "energy_mj": 1.38})])
    )
    headline = opened.locator("#headline").inner_text()
    for text in (
        "0.113 mJ",
        "1.38 mJ",
        "12.2 times less",
        "exact",
        "integers = mac",
        "1,000",
        "cifar10",
        "76.6 %",
        "45 nm",
    ):
        assert text in headline
    assert "not measurements" in headline and "Memory traffic" in headline
    assert "estimated" not in headline


def test_an_estimate_is_marked_and_shows_no_section_that_it_has_no_data_for(show):
    given = report(
        estimated=True, accuracy=None, accuracy_per_step=None, audit=None, audit_merged=None, neurobench=None
    )
    given |= {"neurons": [], "checkpoint": None, "data": None, "presets": [], "architecture": []}
    for item in given["layers"]:
        item["rate_per_step"] = None
    given["layers"][2]["rate"] = None
    opened = show(page([given]))
    assert "estimated from given rates" in opened.locator("#headline").inner_text()
    assert opened.locator("main h2").all_inner_texts() == [
        "Headline",
        "Where it goes: layer by layer",
        "Layers",
        "How the energy was computed",
    ]
    links = opened.eval_on_selector_all(
        "nav a", "links => links.map(a => document.querySelector(a.getAttribute('href')) !== null)"
    )
    assert links and all(links)


def test_verdicts_and_the_operations_behind_them(show):
    opened = show(page([report()]))
    audit = opened.locator("#m0-audit").inner_text()
    for text in ("not additions only", "✓ additions only", "1 of 17 operations multiplies", "15 operations followed"):
        assert text in audit
    for text in (
        "stages.0.blocks.0.branch.fc2",
        "real × weight",
        "13.1 %",
        "depthwise",
        "merge(model)",
        "reads the image",
        "(the model itself)",
        "(1)",
    ):
        assert text in audit


def test_the_merged_network_s_energy_stands_beside_its_verdict(show):
    merged = {"samples": 64, "before_mj": 0.0175, "energy_mj": 0.0169, "ac": 9.7e6, "mac": 0, "dense": 6e7}
    verdict = show(page([report(merged=merged)])).locator(".verdict", has_text="After merge()").inner_text()
    assert "16.9 µJ per sample after merging, 17.5 µJ as it is, both counted on the first 64 samples" in verdict
    assert "9.7 M AC" in verdict
    assert "after merging," not in page([report()])  # as earlier versions saved it


def test_a_run_s_name_is_the_title_and_its_path_stands_below(show):
    path = "/home/somebody/runs/digits/1/best.ckpt"
    opened = show(page([report(path, checkpoint=path)]))
    assert opened.title() == "Profile of digits/1"
    assert opened.locator("h1").inner_text() == "digits/1" and opened.locator("h1").get_attribute("title") == path
    assert path in opened.locator("header p").first.inner_text()
    same = [report(path, checkpoint=path), report(f"/other{path}", checkpoint=f"/other{path}")]
    assert (
        f"B: /other{path}" in show(page(same)).locator("#headline").inner_text()
    )  # names that would not tell them apart


@pytest.mark.parametrize("width", [1200, 1600])
def test_no_table_is_cut_on_a_wide_screen(show, width):
    opened = show(
        page([report(), report("other.ckpt", accuracy=0.7)], [samples()] * 2), viewport={"width": width, "height": 900}
    )
    opened.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    cut = opened.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.ariaLabel)"
    )
    assert cut == []


def test_a_column_has_one_unit(show):
    opened = show(page([report()]))
    energy = opened.locator("#m0-layers th", has_text="Energy")
    assert "(µJ)" in energy.inner_text()
    assert "J" not in opened.locator("#m0-layers tbody").inner_text()
    assert opened.locator("#m0-layers th", has_text="Dense operations").inner_text().count("(M)") == 1


def test_every_chart_is_saved_as_svg_and_png(show, tmp_path):
    opened = show(page([report(), report("other.ckpt")]))
    charts = opened.locator("#plot, #bars, #time").locator("[data-save]")
    assert charts.count() == 3
    for number, chart in enumerate(charts.all()):
        for kind in ("SVG", "PNG"):
            with opened.expect_download() as started:
                chart.get_by_role("link", name=f"{kind} of").click()
            assert started.value.suggested_filename.endswith(f".{kind.lower()}")
            started.value.save_as(tmp_path / f"{number}.{kind}")
        drawing = ElementTree.parse(tmp_path / f"{number}.SVG").getroot()
        text = " ".join(drawing.itertext())
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg" and "other.ckpt" in text and "var(" not in text
        with Image.open(tmp_path / f"{number}.PNG") as picture:
            assert picture.size == (2 * int(drawing.get("width")), 2 * int(drawing.get("height")))
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 20
    assert opened.problems == []
    assert [url for url in opened.requests if url.startswith(("http", "ws"))] == []


def test_a_column_sorts_by_number_and_missing_values_come_last(show):
    profile = report()
    profile["layers"][3]["rate"] = None
    opened = show(page([profile]))
    before = column(opened, "Layer")
    opened.get_by_role("button", name="Energy").first.click()
    values = [float(value) for value in column(opened, "Energy")]
    assert values == sorted(values, reverse=True) and len(set(values)) > 10
    assert opened.locator("#m0-layers th[aria-sort]").get_attribute("aria-sort") == "descending"
    opened.locator("#m0-layers").get_by_role("button", name="Input rate").click()
    opened.locator("#m0-layers").get_by_role("button", name="Input rate").click()
    *values, last = column(opened, "Input rate")
    assert last == "" and list(map(float, values)) == sorted(map(float, values))
    assert opened.locator("#m0-layers th[aria-sort]").get_attribute("aria-sort") == "ascending"
    opened.locator("#m0-layers").get_by_role("button", name="#").click()
    opened.locator("#m0-layers").get_by_role("button", name="#").click()
    assert column(opened, "Layer") == before


def test_filters_hide_rows_and_say_how_many_are_left(show):
    opened = show(page([report()]))
    rows = opened.locator("#m0-layers tbody tr:visible")
    opened.get_by_label("Name or type").fill("ATTENTION.branch.q")
    assert rows.count() == 4
    assert opened.get_by_role("status").inner_text() == "4 of 18 layers"
    opened.get_by_label("Name or type").fill("")
    opened.get_by_label("Class").select_option("MAC")
    assert [text.split()[0] for text in rows.all_inner_texts()] == ["stem"]


def test_by_keyboard_alone(show):
    opened = show(page([report()]))
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.className") == "skip"
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.activeElement.id") == "main"
    opened.get_by_label("Class").focus()
    opened.keyboard.press("Tab")  # the table's box, which scrolls
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.textContent") == "Layer"
    assert opened.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for key, names in (
        ("Enter", sorted(column(opened, "Layer"))),
        ("Space", sorted(column(opened, "Layer"), reverse=True)),
    ):
        opened.keyboard.press(key)
        assert column(opened, "Layer") == names


def test_theme_follows_the_system_until_it_is_chosen(show):
    background = "getComputedStyle(document.body).backgroundColor"
    light, dark = (show(page([report()]), color_scheme=scheme) for scheme in ("light", "dark"))
    colours = light.evaluate(background), dark.evaluate(background)
    assert colours[0] != colours[1]
    light.get_by_role("button", name="Dark theme").click()
    dark.get_by_role("button", name="Light theme").click()
    assert (dark.evaluate(background), light.evaluate(background)) == colours


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(show, scheme):
    opened = show(page([report()]), color_scheme=scheme)
    low = opened.evaluate(
        """() => {
            const parts = colour => colour.match(/[0-9.]+/g).map(Number);
            const light = colour => parts(colour).slice(0, 3).map(v => v / 255)
                .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const behind = element => { const own = getComputedStyle(element).backgroundColor; return parts(own)[3] === 0 ? behind(element.parentElement) : own; };
            const texts = [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
            return texts.map(e => {
                const style = getComputedStyle(e), [a, b] = [light(e.closest("svg") ? style.fill : style.color), light(behind(e))];
                return [e.className.baseVal ?? e.className, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
            }).filter(([, ratio]) => ratio < 4.5);
        }"""
    )
    assert low == []


def test_names_are_text_and_not_markup(show):
    evil = "</script><b>bold</b><script>console.log('run')</script>"
    profile = report(title=evil)
    profile["layers"][1]["name"] = profile["neurons"][0]["name"] = evil
    profile["audit"]["offending"] = [OFFENDING | {"module": evil, "reason": evil}]
    opened = show(page([profile, profile], [samples() + [samples()[0] | {"label": evil}]] * 2))
    assert opened.problems == []
    assert opened.locator("b").count() == 0
    assert evil in column(opened, "Layer")
    assert evil in opened.locator("#headline").inner_text()


def test_bars_show_the_measure_that_is_chosen(show):
    opened = show(page([report()]))
    stem = opened.get_by_role("img", name="stem: ")
    assert stem.get_attribute("aria-label") == "stem: 16.3 µJ MAC"
    width = stem.locator(".mac").bounding_box()["width"]
    assert width == pytest.approx(stem.locator(".track").bounding_box()["width"], rel=0.01)  # the costliest of all
    opened.get_by_label("Operations per sample").check()
    assert stem.get_attribute("aria-label") == "stem: 3.54 M MAC"
    opened.get_by_label("Firing rate of the input").check()
    assert stem.get_attribute("aria-label").startswith("stem: real input")


def test_rates_over_time_of_stages_and_of_the_layers_of_one(show):
    profile = report()
    for item in profile["layers"]:
        if item["stage"] == "stages.1":
            item["rate_per_step"] = [0.1, 0.2, 0.3, 0.4]
    opened = show(page([profile]))
    views = opened.locator("#m0-time .view:visible")
    assert "stages.1\t10 %\t20 %\t30 %\t40 %" in views.inner_text()
    assert views.locator("svg .line.mean polyline").count() == 2  # in the chart and in its key
    opened.get_by_label("Lines").select_option("Layers of stages.1")
    assert views.count() == 1 and views.locator("tbody tr").count() == 9  # the mean and the layers
    assert "stages.1.blocks.0.attention.branch.q" in views.inner_text()


def test_silent_neurons_are_marked(show):
    opened = show(page([report()]))
    assert opened.locator("#m0-neurons tr.silent").count() == 1
    assert "silent" in opened.locator("#m0-neurons tr.silent").inner_text()


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))), float)


def test_maps_show_where_it_fires(show):
    opened = show(page([report()], [samples()]))
    images = opened.locator("#m0-maps img")
    assert images.count() == 6
    assert images.evaluate_all("images => images.every(image => image.naturalWidth === 32)")
    alt = images.nth(1).get_attribute("alt")
    assert "stages.0" in alt and "cat" in alt and "highest with 40 % at the bottom right" in alt
    seen, given = pixels(images.nth(1).get_attribute("src")), pixels(images.nth(0).get_attribute("src"))
    assert given == pytest.approx(255 * samples()[0]["input"], abs=1)
    assert seen[28:, 28:].mean() > 2 * seen[:28, :28].mean()
    assert "40 %" in opened.locator("#m0-maps thead").inner_text()
    assert "✗ predicted cat" in opened.locator("#m0-maps").inner_text()


def test_several_reports_are_plotted_and_their_labels_stay_apart(show):
    energies = [0.1, 0.101, 0.102, 0.103, 0.5]
    several = [
        report(accuracy=0.75 + 0.0004 * i, totals=report()["totals"] | {"energy_mj": e}) for i, e in enumerate(energies)
    ]
    opened = show(page([*several, report("unlabelled.ckpt", accuracy=None)]))
    assert opened.locator(".scatter .point").count() == 5
    xs = opened.locator(".scatter .point").evaluate_all("points => points.map(p => p.cx.baseVal.value)")
    assert xs[4] / 5 > xs[0] / 2 and xs == sorted(xs)
    boxes = opened.locator(".scatter .point-label").evaluate_all(
        "labels => labels.map(l => l.getBBox()).map(b => [b.x, b.y + 3, b.x + b.width, b.y + b.height - 3])"
    )
    for i, a in enumerate(boxes):
        assert a[0] > 0 and a[2] < 720
        assert not [b for b in boxes[:i] if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]]
    assert "not shown: F: unlabelled.ckpt" in opened.locator("#plot").inner_text()
    assert "None of the models has an accuracy" in page([report(accuracy=None)] * 2)


def test_early_exit_is_drawn_and_listed(show):
    curve = early_exit(
        (0.9, 0.75, 0.08, 0.25), (0.5, 0.7, 0.05, 0.5), (0.99, 0.751, 0.0801, 0.24), (None, 0.766, 0.1, 0)
    )
    opened = show(page([report(early_exit=curve)]))
    section = opened.locator("#m0-exit")
    labels = section.locator(".scatter .point-label").all_text_contents()
    assert labels == ["0.5", "0.9 to 0.99", "none leaves early"]
    xs = section.locator(".scatter .point").evaluate_all("points => points.map(p => p.cx.baseVal.value)")
    assert len(xs) == 4 and xs == sorted(xs)
    assert section.locator("polyline").get_attribute("points").count(",") == 3  # the network without exits stands alone
    assert column(opened, "Confidence", "#m0-exit") == ["0.5", "0.9", "0.99", ""]
    assert column(opened, "Answered by stages.0", "#m0-exit") == ["0.5", "0.25", "0.24", "0"]
    assert "3.50 of 4.00" in section.inner_text() and "(µJ)" in section.locator("thead").inner_text()
    opened.locator("nav").get_by_role("link", name="Early exit").click()
    assert opened.url.endswith("#m0-exit") and opened.problems == []
    assert "Early exit" not in page([report(early_exit=[])]) and "Early exit" not in page(
        [report()]
    )  # as saved by others
    both = show(page([report(early_exit=curve), report()]))
    both.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert both.get_by_role("heading", name="Early exit").count() == 1


def test_event_driven_layers_are_listed(show):
    layer = {
        "operation": "3x3",
        "way": "event-driven",
        "density": 0.08,
        "limit": 0.31,
        "event_ms": 0.4,
        "dense_ms": 1.25,
    }
    silent = {"operation": "linear", "way": "dense", "density": 0.5, "limit": None, "event_ms": None, "dense_ms": None}
    run = {"milliseconds": 8.0, "merged_milliseconds": 20.0, "batch": 8, "threads": 1, "precision": "int8"}
    found = run | {"layers": [layer | {"name": "stages.0.conv"}, silent | {"name": "stages.1.fc1"}]}
    opened = show(page([report(event_driven=found)]))
    section = opened.locator("#m0-event")
    text = section.inner_text()
    assert (
        "8 samples took 8 ms event-driven and 20 ms" in text
        and "2.50 times" in text
        and "int8 weights, 1 thread of" in text
    )
    assert column(opened, "Limit", "#m0-event") == ["0.31", ""] and column(opened, "Dense ms", "#m0-event") == [
        "1.25",
        "",
    ]
    section.get_by_role("button", name="Density").click()
    opened.locator("nav").get_by_role("link", name="Event-driven").click()
    assert opened.url.endswith("#m0-event") and opened.problems == []
    assert "Event-driven" not in page([report(event_driven=None)]) and "Event-driven" not in page([report()])


def test_several_reports_side_by_side(show):
    opened = show(page([report(steps=1, accuracy=0.7), report(steps=4)]))
    table = opened.locator("#headline")
    assert "A: best.ckpt, T = 1" in table.inner_text() and "not comparable" not in table.inner_text()
    table.get_by_role("button", name="Accuracy").click()
    assert column(opened, "Time steps", "#headline") == ["4", "1"]
    assert opened.locator("#bars .group").count() == 18  # the same layers in both
    assert opened.locator("#bars .group").nth(1).locator("li").count() == 2
    assert opened.locator("#m1-layers").is_hidden()
    opened.locator("nav").get_by_role("link", name="B: best.ckpt").click()
    opened.wait_for_selector("#m1-layers", state="visible")


def test_models_with_other_layers_are_compared_by_stage_and_other_accountings_are_said(show):
    opened = show(page([report(), report("other.ckpt", stages=3, preset="spikingformer")]))
    assert opened.locator("#bars .group-name").all_inner_texts() == ["stem", "stages.0", "stages.1", "head", "stages.2"]
    assert "not comparable" in opened.locator("#headline").inner_text()


def test_maps_of_the_same_samples_stand_side_by_side(show):
    dim, bright = (
        [
            {**sample, "stages": [{**stage, "map": np.full((8, 8), rate)} for stage in sample["stages"]]}
            for sample in samples()
        ]
        for rate in (0.1, 0.4)
    )
    opened = show(page([report(), report("other.ckpt")], [dim, bright]))
    rows = opened.locator("#maps tbody tr")
    assert [text.split("\n")[0] for text in rows.all_inner_texts()] == ["cat", "cat", "dog", "dog"]
    assert "A: best.ckpt" in rows.nth(0).inner_text() and "B: other.ckpt" in rows.nth(1).inner_text()
    pictures = [rows.nth(i).locator("img").nth(1).get_attribute("src") for i in (0, 1)]
    assert pictures[0] != pictures[1]  # one scale for both, so the second is brighter
    for others in ([], samples(stages=3), [{**sample, "label": "bird"} for sample in samples()]):
        assert show(page([report(), report("other.ckpt")], [samples(), others])).locator("#maps").count() == 0


def test_on_paper(show):
    opened = show(page([report(), report()]), color_scheme="dark")
    opened.locator("#m0 > summary").click()
    opened.locator("#m0-layers").get_by_label("Class").select_option("MAC")
    opened.emulate_media(media="print", color_scheme="dark")
    assert opened.locator("#m0-layers tbody tr:visible").count() == 18
    assert opened.locator("button:visible, select:visible, input:visible, nav:visible").count() == 0
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert (
        opened.evaluate("getComputedStyle(document.querySelector('#m0-layers thead')).display") == "table-header-group"
    )
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.locator("#m1-layers tbody tr:visible").count() == 18
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.locator("details.model[open]").count() == 1


def test_everything_is_there_without_scripts(show):
    opened = show(page([report()]), java_script_enabled=False)
    assert opened.locator(".view:visible").count() == 4  # stages, the layers of two stages and of the head
    assert opened.locator("#m0-layers tbody tr:visible").count() == 18
    assert opened.locator(".controls:visible").count() == 0
    opened.get_by_label("Operations per sample").check()
    assert opened.locator("#m0-bars .of-ops.bar:visible").count() == 18


@pytest.mark.parametrize("number", [1, 2])
def test_long_names_stay_on_a_narrow_screen(show, number):
    profile = report("a_" + "very_" * 20 + "long_name.ckpt")
    for item in profile["layers"] + profile["neurons"]:
        item["name"] = "wrapper_" * 10 + "." + item["name"]
    profile["audit"]["offending"] = [OFFENDING | {"module": "x" * 200}]
    opened = show(page([profile] * number, [samples()] * number), viewport={"width": 380, "height": 800})
    opened.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 380
