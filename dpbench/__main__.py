"""``python -m dpbench``."""

from dpbench.cli import main

main()
