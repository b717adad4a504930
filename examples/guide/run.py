"""Run the Python blocks of pages of the guide, in order, in the folder ``pictures``, where they save what they draw.

python examples/guide/run.py examples/guide/2-composing.md
"""

import os
import re
import sys
from pathlib import Path


def blocks(page):
    """Yield each block as a program. Empty lines above it make tracebacks give the line numbers of the page."""
    text = Path(page).read_text()
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield "\n" * (text[: block.start()].count("\n") + 1) + block[1]


if __name__ == "__main__":
    pages = [Path(page).resolve() for page in sys.argv[1:]]
    os.chdir(Path(__file__).with_name("pictures"))
    for page in pages:
        names = {}
        for block in blocks(page):
            exec(compile(block, str(page), "exec"), names)
