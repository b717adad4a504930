"""The README and the guide: every Python block runs as pasted, every link, anchor and picture exists."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import purenn as nn

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
sys.path.insert(0, str(ROOT / "examples" / "guide"))
pictures = importlib.import_module("pictures")
sys.path.pop(0)

TEXTS = [README, *pictures.PAGES, *(path for path in ROOT.rglob("*.md") if path.parent.name in ("examples", "data"))]
TEXTS += sorted((ROOT / ".github").glob("*.md"))
EXTRAS = ("jax", "matplotlib", "scipy", "torch", "flax", "equinox")


@pytest.mark.parametrize("page", [README, *pictures.PAGES], ids=lambda page: page.name)
def test_every_block_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    lacks = [extra for extra in EXTRAS if importlib.util.find_spec(extra) is None]
    programs, names = pictures.blocks(page), {}
    assert programs
    for number, program in enumerate(programs):
        missing = [extra for extra in lacks if re.search(rf"^(import|from) {extra}\b", program, re.MULTILINE)]
        if not missing:  # else the page goes on without the block
            pictures.run(program, page, names)
        elif number < 2:
            pytest.skip(f"needs {missing[0]}")


def test_a_block_that_is_to_fail_must_fail_as_it_says():
    page = README
    pictures.run("int('x')\n# ValueError: invalid literal for int()...\n", page, {})
    with pytest.raises(AssertionError, match="promises # ValueError: no, but nothing was raised"):
        pictures.run("int('1')\n# ValueError: no\n", page, {})
    for promise in ("# TypeError: invalid literal\n", "# ValueError: valid ... for float\n", "# invalid literal\n"):
        with pytest.raises(ValueError, match="invalid literal for int"):
            pictures.run("int('x')\n" + promise, page, {})


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_link_anchor_and_picture_exists(page):
    text = re.sub(r"`[^`\n]*`", "", without_code(page.read_text()))
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'\b(?:src|href)="([^"]+)"', text)
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def test_every_committed_picture_is_shown():
    shown = "".join(page.read_text() for page in TEXTS)
    for picture in [*ROOT.glob("examples/pictures/*"), *ROOT.glob("examples/guide/pictures/*")]:
        assert picture.name in shown


def test_the_readme_has_the_map_of_the_package_and_is_one_page():
    text = README.read_text()
    assert nn.__doc__.split("\n\n")[1] in text
    assert len(text.splitlines()) <= 180
    assert len(text.split()) <= 1300


def test_every_wish_of_the_readme_is_granted_by_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sys.path.insert(0, str(ROOT / "examples"))
    calibrated = pytest.importorskip("batchnorm", reason="needs the extra 'examples'").calibrated
    sys.path.pop(0)
    x, y = np.ones((4, 2)), np.asarray([0, 1, 1, 0])
    params = nn.init(0, (2, 8, 2), (nn.tanh, nn.softmax))
    names = {
        "nn": nn,
        "params": params,
        "x": x,
        "y": y,
        "w": np.ones(4),
        "one_hot": np.eye(2)[y],
        "dz": np.ones((4, 2)),
    }
    names |= {"parts": [(0.5, (x[:2], y[:2])), (0.5, (x[2:], y[2:]))], "grads": nn.grads(params, x, y)}
    names |= {"tree_of_rates": nn.tree_map(lambda p: 0.0, params), "path": "file", "epoch": 3, "calibrated": calibrated}
    names |= {"state": nn.adam_init(params)}
    rows = re.findall(r"^\| \[.*?\]\(.*?\) \| `(.*)` \|$", README.read_text(), re.MULTILINE)
    assert len(rows) == 10
    for line in rows:
        exec(line, names)
