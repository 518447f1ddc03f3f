"""What SentencePiece does to a text before it looks for pieces."""

from __future__ import annotations

import re
from dataclasses import dataclass

from minislm.text.charsmap import Charsmap

SPACE = "▁"
NEVER = " "  # a piece that begins with it is never found, because text has `SPACE` for it


@dataclass(frozen=True)
class SpmNormalizer:
    """Replaces characters, then spaces.

    Parameters
    ----------
    charsmap : Charsmap, optional
        The characters to replace. None: none.
    dummy_prefix : bool
        Whether a space is put before a text that is not empty.
    strip : bool
        Whether spaces around the text, and all but one of several, are taken out.
    """

    charsmap: Charsmap | None
    dummy_prefix: bool
    strip: bool

    def apply(self, text: str) -> str:
        """Make of a text what pieces are made of.

        Parameters
        ----------
        text : str
            Any text.

        Returns
        -------
        str
            With a lower one-eighth block in place of each space.
        """
        if self.charsmap is not None:
            text = self.charsmap.apply(text)
        if self.strip:
            text = re.sub(" +", " ", text.strip(" "))
        if self.dummy_prefix and text:
            text = f" {text}"
        text = text.replace(" ", SPACE)
        return text.rstrip(SPACE) if self.strip else text
