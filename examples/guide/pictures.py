"""Make the committed pictures: the guide's pages and the examples draw them, or a browser shows them.

    python examples/guide/pictures.py                     # all; the benchmark and simard2003 take half an hour
    python examples/guide/pictures.py notebook playground # some
    python examples/guide/pictures.py --data DIR          # with MNIST's four files from a directory

Needs ``pip install -e ".[examples,bench,test,dev]" && apt-get install chromium``.
"""

import argparse
import contextlib
import functools
import io
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import purenn as nn

GUIDE = Path(__file__).resolve().parent
PAGES = sorted(GUIDE.glob("*.md"))
EXAMPLES = GUIDE.parent


def blocks(page):
    """Return each Python block of a page, and what the page says it prints, or None.

    A block is a program, below as many empty lines as in the page, so that tracebacks have the page's line numbers.
    """
    text = page.read_text()
    found = re.finditer(r"^```python\n(.*?)^```$(?:\n\n```\n(.*?)^```$)?", text, re.MULTILINE | re.DOTALL)
    return [("\n" * (text[: block.start()].count("\n") + 1) + block[1], block[2]) for block in found]


def run(program, page, names):
    """Run a block. If its last line is a comment such as ``# ValueError: x is ...``, it must raise that error."""
    expected = re.search(r"^# (\w+): (.+)\n\Z", program, re.MULTILINE)
    try:
        exec(compile(program, str(page), "exec"), names)
    except Exception as error:
        if not expected or type(error).__name__ != expected[1]:
            raise
        if not re.search(".*".join(map(re.escape, expected[2].split("..."))), str(error), re.DOTALL):
            raise
    else:
        if expected:
            raise AssertionError(f"{page.name} promises {expected[0].strip()}, but nothing was raised")


def guide_page(page, data):
    """Run the blocks of a page in a temporary folder, and keep the pictures that they draw."""
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.chdir(folder):
            names = {}
            for program, _ in blocks(page):
                run(program, page, names)
        for picture in Path(folder).glob("*.png"):
            shutil.copy(picture, GUIDE / "pictures")


def example(script, *options, data):
    """Run an example, and keep the pictures that it draws."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, EXAMPLES / script, "--output", folder, *options]
        subprocess.run([*command, "--data", data] if data else command, check=True)
        for picture in Path(folder).glob("*.png"):
            shutil.copy(picture, EXAMPLES / "pictures")


@contextlib.contextmanager
def chromium():
    """Start the browser."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or sys.exit("error: chromium is not installed; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def notebook(data):
    """Show a network, its inspection and the data, in light and in dark."""
    digits = nn.mnist.digits()
    params = nn.init(0, (64, 32, 10), (nn.tanh, nn.softmax))
    for epoch in range(10):
        for batch in nn.batches((0, epoch), digits.train_images, digits.train_labels, batch_size=32):
            params = nn.sgd_step(params, nn.grads(params, *batch), lr=0.2)
    trees = params, nn.inspect(params, digits.test_images, digits.test_labels), digits
    body = "".join(f"<p>{tree._repr_html_()}</p>" for tree in trees)
    halves = "".join(
        f'<div style="color-scheme:{s};background:Canvas;color:CanvasText">{body}</div>' for s in ("light", "dark")
    )
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1000, "height": 400}, color_scheme="light", device_scale_factor=1)
        page.set_content(
            f'<!doctype html><body style="margin:0;display:grid;grid-template-columns:1fr 1fr">{halves}</body>'
        )
        page.screenshot(path=GUIDE / "pictures" / "notebook.png", full_page=True)


@contextlib.contextmanager
def server(data):
    """Start the playground, and give its address."""
    command = [sys.executable, EXAMPLES / "playground", "--no-browser", "--port", "0", "--data", data or "digits"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield re.search(r"http://\S+:\d+", process.stdout.readline())[0]
        finally:
            process.terminate()


def playground(data):
    """Show the playground in one animation."""
    from PIL import Image

    with chromium() as browser, server(data) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        page.goto(address)
        pictures, durations = zip(*scenes(page), strict=True)
    pictures = [Image.open(io.BytesIO(picture)) for picture in pictures]
    path = EXAMPLES / "pictures" / "playground.webp"
    options = {"duration": durations, "loop": 0, "quality": 60, "method": 6}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    print(f"{path}: {len(pictures)} frames, {path.stat().st_size:,} bytes")


def scenes(page):
    """Train, draw a digit, go back in time, branch, and look at a plane; yield screenshots, and how long each stays."""

    def frames(seconds, times=1):
        for _ in range(times):
            page.wait_for_timeout(1000 * seconds)
            yield page.screenshot(), 1000 * max(seconds, 0.1)

    def click(name):
        page.get_by_role("button", name=name, exact=True).click()

    yield from frames(1)
    click("Train")
    yield from frames(0.5, 8)
    click("Clear")
    box, place = page.locator("#paper").bounding_box(), []
    for k in range(20):  # a three: two arcs
        turn = (-0.6 + 1.4 * (k % 10) / 9) * math.pi if k < 10 else (-0.45 + 1.25 * (k % 10) / 9) * math.pi
        radius, middle = (0.17, 0.32) if k < 10 else (0.2, 0.67)
        place.append((0.47 + radius * math.cos(turn), middle + radius * math.sin(turn)))
    place = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in place]
    page.mouse.move(*place[0])
    page.mouse.down()
    for k, point in enumerate(place):
        page.mouse.move(*point, steps=3)
        if k % 2:
            yield from frames(0.1)
    page.mouse.up()
    page.get_by_label("Correct answer").select_option("3")
    yield from frames(0.5, 4)
    click("Pause")
    steps = int(page.get_by_label("Moment", exact=True).get_attribute("max"))
    for k in range(10):
        page.get_by_label("Moment", exact=True).fill(str(round(steps * (1 - k / 13))))
        yield from frames(0.2)
    page.get_by_label("Learning rate").fill("0.5")
    page.get_by_label("Learning rate").blur()
    yield from frames(0.8)
    click("Branch from here")
    yield from frames(0.5, 6)
    page.get_by_label("Data").select_option("circles")
    click("Start over")
    click("Train")
    yield from frames(0.3, 12)
    yield from frames(1.5)


MAKERS = {
    **{page.stem: functools.partial(guide_page, page) for page in PAGES if "savefig" in page.read_text()},
    "notebook": notebook,
    "playground": playground,
    "mnist": functools.partial(example, "mnist.py"),
    "simard2003": functools.partial(example, "simard2003.py", "--seeds", "0", "1", "2"),
    "benchmark": functools.partial(example, "benchmark.py"),
}


def main():
    """Make all pictures, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=[], metavar="NAME", help=", ".join(MAKERS))
    parser.add_argument("--data", metavar="DIR", help="directory with MNIST's files")
    options = parser.parse_args()
    if unknown := {*options.names} - {*MAKERS}:
        parser.error(f"no picture has the name {', '.join(unknown)}; choose from {', '.join(MAKERS)}")
    os.environ.setdefault("MPLBACKEND", "agg")
    for name in options.names or MAKERS:
        MAKERS[name](data=options.data)


if __name__ == "__main__":
    main()
