"""Every Python block of the README and of the guide runs, in the order in which a reader meets them."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples" / "guide"))
blocks = importlib.import_module("run").blocks
sys.path.pop(0)

PAGES = [ROOT / "README.md", *sorted((ROOT / "examples" / "guide").glob("*.md"))]
EXTRAS = ("jax", "matplotlib")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    programs, names = list(blocks(page)), {}
    assert programs
    lacks = [extra for extra in EXTRAS if importlib.util.find_spec(extra) is None]
    for program in programs:
        if missing := [extra for extra in lacks if re.search(rf"^import .*{extra}", program, re.MULTILINE)]:
            if page.name == "README.md":  # whose other blocks do without these
                continue
            pytest.skip(f"the rest of the page needs {missing[0]}")
        exec(compile(program, str(page), "exec"), names)


def test_every_picture_is_there():
    for page in PAGES:
        for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
            assert (page.parent / path).is_file(), f"{page.name} shows {path}"
