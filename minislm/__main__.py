"""``python -m minislm``, and the command ``minislm``: the command line, and what Ctrl-C does before it stands."""

import signal


def main() -> None:
    """Run the command line. Ctrl-C while it is imported ends the process, as it ends any other, with no traceback."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # and not ignored, as in the background
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from minislm.cli import main as command

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command()


if __name__ == "__main__":
    main()
