"""``python -m minislm``: the command line."""

from minislm.cli import main

if __name__ == "__main__":
    main()
