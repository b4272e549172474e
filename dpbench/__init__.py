"""dpbench: a benchmark of differentially private image generation.

Importing this package imports no torch. From a program, ``dpbench.runs.request.plan`` checks
a request and ``dpbench.runs.execute.execute`` carries it out.
"""


def __getattr__(name: str) -> str:
    """Look ``__version__`` up only where it is asked for: the help needs none, and that is slow."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dpbench-images")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
