"""TextStream: tokens that come one by one, decoded without ever cutting a character."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minislm.text.tokenizer import Tokenizer


class TextStream:
    """Decodes tokens as they come, and never gives out a part of a character.

    The pieces, joined, equal the text of all tokens decoded at once.

    Parameters
    ----------
    tokenizer : Tokenizer
        Whose tokens they are.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []  # since the last token that ended with a character
        self.given = 0  # characters of their text that are out

    def push(self, token_id: int) -> str:
        """Take one token.

        Parameters
        ----------
        token_id : int
            The next token.

        Returns
        -------
        str
            The whole characters that it completes; empty while the last one is unfinished.
        """
        self.ids.append(token_id)
        text = self.tokenizer.decode(self.ids)
        whole = text.rstrip("\ufffd")  # what an unfinished character decodes to
        piece, self.given = whole[self.given :], len(whole)
        if whole == text:
            self.ids, self.given = [], 0
        return piece

    def finish(self) -> str:
        """Give out what was held back, and start anew.

        Returns
        -------
        str
            U+FFFD for a character that never became whole; most often nothing.
        """
        piece = self.tokenizer.decode(self.ids)[self.given :]
        self.ids, self.given = [], 0
        return piece
