"""dpbench: a benchmark of differentially private image generation.

Importing this package imports no torch; ``dpbench.run.execute`` is the programmatic entry point.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dpbench-images")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
