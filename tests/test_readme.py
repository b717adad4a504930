"""Every Python block of the README and the guide runs and prints what the page shows; every link leads somewhere."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


pictures = module(ROOT / "examples" / "guide" / "pictures.py")
TEXTS = [README, ROOT / "examples" / "README.md", ROOT / "purenn" / "data" / "README.md", *pictures.PAGES]
TEXTS += sorted((ROOT / ".github").glob("*.md"))
EXTRAS = ("jax", "matplotlib", "scipy", "safetensors", "torch", "flax", "equinox")
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:e[-+]\d+)?")


def assert_printed(printed, shown):
    """Compare what a block prints with what its page says. Another BLAS kernel may round otherwise."""
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", shown)
    for ours, theirs in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        a, b = (float(text.replace(",", "")) for text in (ours, theirs))
        assert abs(a - b) <= 0.02 + 0.03 * abs(b), f"{ours} is printed, and {theirs} is shown"


@pytest.mark.parametrize("page", [README, *pictures.PAGES], ids=lambda page: page.name)
def test_every_block_runs_and_prints_what_the_page_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    lacks = [extra for extra in EXTRAS if importlib.util.find_spec(extra) is None]
    names, missing = {}, set()
    for program, shown in pictures.blocks(page):
        imports = re.findall(r"^(?:import|from) (\w+)", program, re.MULTILINE)
        missing |= {*lacks} & {*imports}
        if {*lacks} & {*imports}:
            continue
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                pictures.run(program, page, names)
        except NameError:
            if not missing:
                raise
            break
        assert_printed(printed.getvalue(), shown or "")
    if missing:
        pytest.skip(f"blocks that need {', '.join(sorted(missing))}, and what follows from them")
    drawn = {path.name for path in tmp_path.glob("*.png")} | {"notebook.png"}
    assert {*re.findall(r"\]\((?:examples/guide/)?pictures/(\w+\.png)\)", page.read_text())} <= drawn


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(0, 99))
def test_the_guide_cleans_tables_safely(constant, other, seed):
    """Empty cells, and columns that are constant in training, whatever the constant is and whatever comes later."""
    programs = [program for program, _ in pictures.blocks(pictures.PAGES[1]) if "def prepared" in program]
    cells = np.random.default_rng(seed).normal(50, 10, (60, 3))
    cells[:, 1] = constant
    cells[::7, 0] = cells[3::11, 1] = np.nan
    names = {"x": cells.copy(), "np": np}
    exec(programs[0], names)
    assert (names["x"][np.isnan(cells)] == 0).all() and (abs(names["x"]) < 10).all()
    assert (abs(names["x"][:, 1]) <= 1e-12 * abs(constant)).all()
    later, at_prediction = np.asarray([[np.nan, other, 50.0], [60.0, np.nan, np.nan]]), {"np": np}
    exec(re.search(r"def prepared.*?\n\n", programs[1], re.DOTALL)[0], at_prediction)
    mean, std = names["mean"], names["std"]
    rows = at_prediction["prepared"](later, mean, std)
    assert np.array_equal(rows, names["prepared"](later, mean, std)) and (rows[np.isnan(later)] == 0).all()
    assert rows[0, 1] == other - mean[1] and abs(rows[0, 2]) < 1


def test_a_block_that_is_to_fail_must_fail_as_it_says():
    pictures.run("int('x')\n# ValueError: invalid ... for int()...\n", README, {})
    with pytest.raises(AssertionError, match="promises # ValueError: no, but nothing was raised"):
        pictures.run("int('1')\n# ValueError: no\n", README, {})
    for promise in ("TypeError: invalid literal", "ValueError: literal ... invalid", "invalid literal", "Error: ..."):
        with pytest.raises(ValueError, match="invalid literal for int"):
            pictures.run(f"int('x')\n# {promise}\n", README, {})


def test_numbers_that_differ_are_found():
    assert_printed("90.5% of 1,438\n", "90.7% of 1,438\n")
    for shown in ("99.9% of 1,438\n", "90.5% of 1,538\n", "90.5% in 1,438\n", "90.5%\n"):
        with pytest.raises(AssertionError):
            assert_printed("90.5% of 1,438\n", shown)


@pytest.mark.parametrize("page", [README, *pictures.PAGES], ids=lambda page: page.name)
def test_no_block_has_a_fence_that_hides_it_from_the_tests(page):
    fences = re.findall(r"^ *(```|~~~)(.*)$", page.read_text(), re.MULTILINE)
    assert {language for _, language in fences} <= {"", "python", "sh"} and {mark for mark, _ in fences} == {"```"}


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_link_anchor_and_picture_exists(page):
    text = without_code(page.read_text())
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'\b(?:src|href)="([^"]+)"', text)
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"
    for path in re.findall(r"(?:examples|tests|purenn)/[\w/.-]*\w", page.read_text()):
        assert any((folder / path).exists() for folder in (ROOT, page.parent, ROOT / "examples")), path


def test_every_committed_picture_is_shown():
    shown = "".join(without_code(page.read_text()) for page in TEXTS)
    for picture in [*ROOT.glob("examples/pictures/*"), *ROOT.glob("examples/guide/pictures/*")]:
        assert f"/{picture.name}" in shown


def test_the_readme_has_the_map_of_the_package_and_is_one_page():
    text = README.read_text()
    assert nn.__doc__.split("\n\n")[1] in text
    assert len(text.splitlines()) <= 180
    assert len(text.split()) <= 1300


GRANTED = {  # the wishes of the README's table, and what the value of their line must be
    "sample weights": lambda value, n: close(value, nn.grads(n["params"], n["x"][:1], n["y"][:1])),
    "your own loss": lambda value, n: close(value, nn.grads(n["params"], n["x"], n["y"])),
    "frozen layers": lambda value, n: value == n["params"],
    "gradient accumulation": lambda value, n: close(value, nn.grads(n["params"], n["x"], n["y"])),
    "resuming with identical bits": lambda value, n: nn.load("file") == (n["params"], n["state"], n["epoch"]),
    "an activation per layer": lambda value, n: (
        [layer.activation for layer in value.layers] == [nn.gelu, nn.tanh, nn.softmax]
    ),
    "BatchNorm, to copy": lambda value, n: nn.forward(value, n["x"]).shape == (4, 2),
    "label smoothing": lambda value, n: close(
        value, 0.9 * nn.grads(n["params"], n["x"], n["y"]) + 0.1 * nn.grads(n["params"], n["x"], np.full((4, 2), 0.5))
    ),
    "finding the first NaN": lambda value, n: "first values that are not finite: the input: 1 of 8" in n["printed"],
    "saving with the architecture": lambda value, n: value == n["params"],
}


def close(a, b):
    return nn.global_norm(a - b) <= 1e-6 * nn.global_norm(b)


@pytest.mark.parametrize("wish", GRANTED)
def test_every_wish_of_the_readme_is_granted_by_its_line(wish, tmp_path, monkeypatch):
    rows = dict(re.findall(r"^\| \[?([\w ,]+)(?:\]\(.*?\))? \| `(.*)` \|$", README.read_text(), re.MULTILINE))
    assert rows.keys() == GRANTED.keys()
    monkeypatch.chdir(tmp_path)
    x, y = np.random.default_rng(0).standard_normal((4, 2)), np.asarray([0, 1, 1, 0])
    params = nn.init(0, (2, 8, 2), (nn.tanh, nn.softmax), dtype="float64")
    n = {"nn": nn, "params": params, "x": x, "y": y, "grads": nn.grads(params, x, y), "state": nn.adam_init(params)}
    n |= {"w": np.asarray([1.0, 0, 0, 0]), "np": np, "dz": (nn.forward(params, x) - np.eye(2)[y]) / 4}
    n |= {"parts": [(0.75, (x[:3], y[:3])), (0.25, (x[3:], y[3:]))], "path": "file", "epoch": 3, "k": 2}
    n |= {"tree_of_rates": nn.tree_map(lambda p: 0.0, params)}
    if "BatchNorm" in wish:
        pytest.importorskip("matplotlib", reason="needs the extra 'examples'")
        n |= {
            "BatchNorm": module(ROOT / "examples" / "batchnorm.py").BatchNorm,
            "scale": np.ones(8),
            "shift": np.ones(8),
        }
        n["dense"], n["last"] = params.layers
    if "NaN" in wish:
        n["x"] = np.where(np.arange(8).reshape(4, 2) == 3, np.nan, x)
    *statements, expression = rows[wish].split("; ")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec("; ".join(statements), n)
        value = eval(expression, n)
    assert GRANTED[wish](value, n | {"printed": printed.getvalue()})
