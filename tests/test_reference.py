"""The map of the package, and the reference that pdoc makes: complete, in the order of the map, every link working."""

import contextlib
import inspect
import posixpath
import pydoc
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import purenn as nn


def test_the_map_names_every_public_name_once_and_in_order():
    named = re.findall(r"`(?:purenn\.)?(\w+)`", nn.__doc__)
    assert named == nn.__all__


def test_help_opens_with_the_map():
    text = pydoc.plain(pydoc.render_doc(nn))
    assert text.index("`ravel`") < text.index("PACKAGE CONTENTS") < text.index("class Activation")


@pytest.mark.parametrize("name", ["forward", "vjp"])
def test_help_and_signature_show_layer_and_x(name):
    function = getattr(nn, name)
    assert list(inspect.signature(function).parameters) == ["layer", "x"]
    text = pydoc.plain(pydoc.render_doc(function))
    assert re.search(rf"\b{name}\(layer: (purenn\.trees\.)?Layer, x: (purenn\.arrays\.)?Array\) -> ", text)


def test_type_checkers_see_the_parameters_of_forward_and_vjp(tmp_path):
    api = pytest.importorskip("mypy.api", reason="needs the extra 'dev'")
    script = tmp_path / "script.py"
    script.write_text("import purenn as nn\nnn.forward(3)\nnn.vjp(3)\ny, pullback = nn.vjp(3, 4)\npullback()\n")
    report, _, _ = api.run(["--cache-dir", str(tmp_path), str(script)])
    assert re.findall(r"script\.py:(\d).*Missing positional argument", report) == ["2", "3"]
    assert re.findall(r"script\.py:(\d).*Too few arguments", report) == ["5"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return the reference, as its README command makes it: the HTML of each page by its path."""
    pytest.importorskip("pdoc", reason="needs the extra 'docs'")
    folder = tmp_path_factory.mktemp("reference")
    command = [sys.executable, "-W", "error", "-m", "pdoc", "--docformat", "numpy", "purenn", "--output-dir", folder]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert run.stdout + run.stderr == ""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.html")}


def entries(page):
    """Return what a page shows of each public name, without its source and its members."""
    page = re.sub(r'<div class="pdoc-code.*?</pre>\s*</div>', "", page, flags=re.DOTALL)
    parts = re.split(r'<section id="([^".]+)">', page)
    shown = (text.partition('class="classattr"')[0] for text in parts[2::2])
    return dict(zip(parts[1::2], shown, strict=True))


def test_every_public_name_is_in_the_reference_with_text_and_types(pages):
    shown = entries(pages["purenn.html"])
    assert list(shown) == [name for name in nn.__all__ if name not in ("mnist", "initializers")]
    modules = [entries(pages[f"purenn/{name}.html"]) for name in ("mnist", "initializers")]
    for name, text in [item for page in (shown, *modules) for item in page.items()]:
        assert '<div class="docstring"' in text, f"{name} has no description"
        assert "unknown" not in text, f"{name} has no signature"
        assert "Annotated" not in text, f"{name} has a signature that nobody can read"
        signature = re.sub("<[^>]+>", "", text.partition('class="docstring"')[0])
        assert not re.search(r"\b(params|layer|tree|x|y|a|b|seed):\s*Any", signature), f"{name}: {signature}"
    assert [*modules[0]] == ["MIRRORS", "FILES", "Dataset", "digits", "load", "read_idx"]


def test_docstrings_are_rendered_as_meant(pages):
    for page in pages.values():
        text = re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)
        for sign in ("----", "&gt;&gt;&gt;", "::</", "<strong>Raises ", "``"):
            assert sign not in text, f"{sign}: {text[text.index(sign) - 200 : text.index(sign)]}"


def test_every_link_of_the_reference_leads_somewhere(pages):
    anchors = {path: set(re.findall(r'\bid="([^"]+)"', page)) for path, page in pages.items()}
    for path, page in pages.items():
        for link in re.findall(r'<a [^>]*?href="([^"$]+)"', page):
            if link.startswith("http"):
                continue
            target, _, anchor = link.partition("#")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), target)) if target else path
            assert target in anchors, f"{path} links to {link}"
            assert not anchor or anchor in anchors[target], f"{path} links to {link}"


@pytest.mark.parametrize("name", ["Array", "Layer", "Seed", "Tree"])
def test_help_says_what_the_annotations_are(name):
    assert f"The annotation of a{'n' * (name == 'Array')} " in pydoc.render_doc(getattr(nn, name))


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.rglob("test_*.py")), ids=lambda path: path.stem)
def test_every_test_file_can_be_imported(path):  # pytest skips one that cannot, since doctests may lack JAX
    with contextlib.suppress(pytest.skip.Exception):
        runpy.run_path(str(path))
