"""Take the picture of what a notebook shows, with Chromium: ``pictures/notebook.png``.

apt-get install chromium && pip install playwright && python examples/guide/notebook.py
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

import purenn as nn


def trained(params, data, epochs=10, lr=0.2):
    """Return the parameters after some epochs of gradient descent."""
    for epoch in range(epochs):
        for batch in nn.batches((0, epoch), data.train_images, data.train_labels, batch_size=32):
            params = nn.sgd_step(params, nn.grads(params, *batch), lr)
    return params


def main():
    """Show a network, its inspection and the data, in light and in dark."""
    data = nn.mnist.digits()
    params = trained(nn.init(0, (64, 32, 10), (nn.tanh, nn.softmax)), data)
    trees = params, nn.inspect(params, data.test_images, data.test_labels), data
    body = "".join(f"<p>{tree._repr_html_()}</p>" for tree in trees)
    browser_path = shutil.which("chromium") or sys.exit("error: chromium is not installed; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 400}, color_scheme="light", device_scale_factor=1)
        halves = "".join(
            f'<div style="color-scheme:{s};background:Canvas;color:CanvasText">{body}</div>' for s in ("light", "dark")
        )
        page.set_content(
            f'<!doctype html><body style="margin:0;display:grid;grid-template-columns:1fr 1fr">{halves}</body>'
        )
        page.screenshot(path=Path(__file__).with_name("pictures") / "notebook.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
