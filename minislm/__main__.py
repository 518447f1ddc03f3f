"""``python -m minislm``: the command line."""

from minislm.cli import main

main()
