"""Make the pictures that need a browser: guide/pictures/notebook.png, and the animation pictures/playground.webp.

apt-get install chromium && pip install -e ".[examples,dev]" && python examples/guide/screenshots.py [DIR of MNIST]
"""

import io
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import purenn as nn

EXAMPLES = Path(__file__).resolve().parents[1]


def trained(params, data, epochs=10, lr=0.2):
    """Return the parameters after some epochs of gradient descent."""
    for epoch in range(epochs):
        for batch in nn.batches((0, epoch), data.train_images, data.train_labels, batch_size=32):
            params = nn.sgd_step(params, nn.grads(params, *batch), lr)
    return params


def notebook(browser):
    """Show a network, its inspection and the data, in light and in dark."""
    data = nn.mnist.digits()
    params = trained(nn.init(0, (64, 32, 10), (nn.tanh, nn.softmax)), data)
    trees = params, nn.inspect(params, data.test_images, data.test_labels), data
    body = "".join(f"<p>{tree._repr_html_()}</p>" for tree in trees)
    page = browser.new_page(viewport={"width": 1000, "height": 400}, color_scheme="light", device_scale_factor=1)
    halves = "".join(
        f'<div style="color-scheme:{s};background:Canvas;color:CanvasText">{body}</div>' for s in ("light", "dark")
    )
    page.set_content(
        f'<!doctype html><body style="margin:0;display:grid;grid-template-columns:1fr 1fr">{halves}</body>'
    )
    page.screenshot(path=EXAMPLES / "guide" / "pictures" / "notebook.png", full_page=True)


def playground(browser, address):
    """Train, draw a digit, go back in time, branch, and look at a plane, in one animation."""
    page, frames = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light"), []

    def frame(seconds, times=1):
        """Add ``times`` pictures, one every ``seconds`` seconds."""
        for _ in range(times):
            page.wait_for_timeout(1000 * seconds)
            frames.append((Image.open(io.BytesIO(page.screenshot())), 1000 * max(seconds, 0.1)))

    def click(name):
        page.get_by_role("button", name=name, exact=True).click()

    page.goto(address)
    frame(1)
    click("Train")
    frame(0.5, 8)
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
            frame(0.1)
    page.mouse.up()
    page.get_by_label("Correct answer").select_option("3")
    frame(0.5, 4)
    click("Pause")
    steps = int(page.get_by_label("Moment", exact=True).get_attribute("max"))
    for k in range(10):
        page.get_by_label("Moment", exact=True).fill(str(round(steps * (1 - k / 13))))
        frame(0.2)
    page.get_by_label("Learning rate").fill("0.5")
    page.get_by_label("Learning rate").blur()
    frame(0.8)
    click("Branch from here")
    frame(0.5, 6)
    page.get_by_label("Data").select_option("circles")
    click("Start over")
    click("Train")
    frame(0.3, 12)
    frame(1.5)
    pictures, durations = zip(*frames, strict=True)
    path = EXAMPLES / "pictures" / "playground.webp"
    options = {"duration": durations, "loop": 0, "quality": 60, "method": 6}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    print(f"{path}: {len(frames)} frames, {path.stat().st_size:,} bytes")


def main():
    """Make both pictures."""
    browser_path = shutil.which("chromium") or sys.exit("error: chromium is not installed; apt-get install chromium")
    command = [
        sys.executable,
        EXAMPLES / "playground",
        "--no-browser",
        "--port",
        "0",
        "--data",
        *(sys.argv[1:] or ["digits"]),
    ]
    with sync_playwright() as playwright, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        notebook(browser)
        playground(browser, re.search(r"http://\S+:\d+", server.stdout.readline())[0])
        browser.close()
        server.terminate()


if __name__ == "__main__":
    main()
