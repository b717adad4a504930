from hypothesis import settings

# CI is slow at times, and a test must not fail for that; the examples of a run can be repeated.
settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile("deep", deadline=None, max_examples=200_000)  # meant for `-k fuzz`
settings.load_profile("default")
