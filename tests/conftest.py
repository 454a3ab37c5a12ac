"""What holds for every test: no settings from outside, a cache of the run's own, and repeatable random tests."""

import os
import tempfile

import hypothesis
import pytest

# A slow machine is no failure. In CI the examples are the same in every run; at home each run looks for new ones.
hypothesis.settings.register_profile("antiphon", deadline=None, derandomize="CI" in os.environ, print_blob=True)
hypothesis.settings.load_profile("antiphon")


def pytest_configure(config):
    """Nothing of the user's is read or written, by tests or by the processes that they start.

    Before the tests are collected, since a test file may ask the API description for its parameters.
    """
    environment = pytest.MonkeyPatch()
    cache = tempfile.TemporaryDirectory(prefix="antiphon-tests-")
    for name in [name for name in os.environ if name.startswith(("ANTIPHON_", "OPENAI_"))]:
        if not name.startswith("ANTIPHON_TEST_"):
            environment.delenv(name)
    environment.setenv("XDG_CACHE_HOME", cache.name)
    config.add_cleanup(environment.undo)
    config.add_cleanup(cache.cleanup)
