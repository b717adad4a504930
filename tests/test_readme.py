"""Every Python block of the README runs, in the order in which a reader meets them."""

import importlib.util
import re
from pathlib import Path

from hypothesis import settings

from purenn import checkpoint
from tests import test_checkpoint, test_fuzz, test_purity

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


def test_the_table_of_attacks_counts_what_the_tests_try():
    text = README.read_text()
    assert f"reads the {len(checkpoint._INSTRUCTIONS)}\ninstructions" in text
    assert min(test_checkpoint.FUZZ, test_fuzz.FUZZ) >= 2_000
    others = 4  # a disk limit, a read-only directory, a pipe, a directory as target
    for kind, count in {
        "known attacks by pickle": len(test_checkpoint.ATTACKS),
        "files that want much memory": len(test_checkpoint.HUNGRY),
        "checkpoints with changed": 2_000,
        "instructions in any order": 2_000,
        "a checkpoint cut at": 2 * len(test_checkpoint.SMALL),
        "trees of all kinds, saved": settings.get_profile("default").max_examples,
        "`save` by two processes": 2 * test_checkpoint.SAVES,
        "`save` killed at a random moment": test_checkpoint.KILLS,
        "`save` that fails": len(test_checkpoint.STEPS) * len(test_checkpoint.FAILURES) + others,
        "IDX files, gzip streams": 3 * 2_000,
        "public functions": 2_000,
        "all public functions": test_purity.ROUNDS,
    }.items():
        assert re.search(rf"^\| {kind}[^|]* \| {count:,} \|", text, re.MULTILINE), kind
