"""Where a test can be run at all."""

import sys

import pytest

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and fork are POSIX's")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
