"""Every Python block of the README runs, in the order in which a reader meets them."""

import importlib.util
import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_every_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = README.read_text()
    names = {}
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert blocks
    has_jax = importlib.util.find_spec("jax") is not None
    for block in blocks:
        if "import purenn.jax" in block.group(1) and not has_jax:  # that section needs the extra
            continue
        line = text[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block.group(1), str(README), "exec"), names)
