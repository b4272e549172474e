"""``python -m dpbench``, and the command ``dpbench``."""

from __future__ import annotations

import sys

from dpbench.core.signals import interrupting, interruption_code


def main() -> None:
    """Run the command line; what ends it before it can speak is said in one line all the same."""
    with interrupting():
        try:
            from dpbench.cli import main as command_line  # takes a moment, in which signals come

            command_line()
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)  # noqa: T201
            sys.exit(interruption_code())
        except MemoryError:
            print("Error: out of memory at the start: allow more", file=sys.stderr)  # noqa: T201
            sys.exit(1)
        finally:
            # After an interruption inside exec of a string, as dataclasses have, CPython ends the
            # process by SIGINT, whatever its exit code: unless another string was executed since.
            exec("")


if __name__ == "__main__":
    main()
