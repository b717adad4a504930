import resource
from pathlib import Path

import pytest
from hypothesis import settings

# CI is slow at times, and a test must not fail for that; the examples of a run can be repeated.
settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile("deep", deadline=None, max_examples=200_000)  # meant for `-k fuzz`
settings.load_profile("default")


@pytest.fixture
def little_memory():
    """Let a test take at most 256 MB more than there is; a larger allocation is a MemoryError, which none expects."""
    now = Path("/proc/self/statm")
    if not now.exists():  # not Linux
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(now.read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**28, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
