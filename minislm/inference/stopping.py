"""Stop strings, matched on decoded text wherever the borders between its pieces fall."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Passes text on up to the first stop string, withholding what may still turn out to be the beginning of one.

    The stop string that is complete first wins; of those that end together, the longest. So the result depends on the
    text alone and not on how it was cut into pieces.

    Parameters
    ----------
    stop : sequence of str
        Stop strings, none empty.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop = tuple(stop)
        self.found = False
        self._withheld = ""

    def push(self, piece: str) -> str:
        """Take a piece of text.

        Parameters
        ----------
        piece : str
            What follows the text so far.

        Returns
        -------
        str
            The text that is now certain to come before any stop string. When `found` has become true it is the last.
        """
        text = self._withheld + piece
        matches = [(text.find(stop) + len(stop), text.find(stop)) for stop in self.stop if stop in text]
        if matches:
            self.found, self._withheld = True, ""
            return text[: min(matches)[1]]
        n_withheld = max((_overlap(text, stop) for stop in self.stop), default=0)
        self._withheld = text[len(text) - n_withheld :]
        return text[: len(text) - n_withheld]

    def finish(self) -> str:
        """End the text.

        Returns
        -------
        str
            What was withheld and has turned out to begin no stop string.
        """
        rest, self._withheld = self._withheld, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop`, and not all of it, begins."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
