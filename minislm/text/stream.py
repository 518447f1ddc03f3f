"""TextStream: tokens that come one by one, decoded without ever cutting a character."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minislm.text.tokenizer import Tokenizer


class TextStream:
    """Decodes tokens as they come, and never gives out a part of a character.

    The pieces, joined, equal the text of all tokens decoded at once. A token's text may depend on whether it is the
    first one, so the tokens of the last piece are decoded again, before those that come.

    Parameters
    ----------
    tokenizer : Tokenizer
        Whose tokens they are.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.before: list[int] = []  # tokens of the last whole piece
        self.ids: list[int] = []  # tokens since then
        self.given = 0  # characters of the text of both that are out

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
        text = self.tokenizer.decode(self.before + self.ids)
        whole = text.rstrip("\ufffd")  # what an unfinished character decodes to
        if len(whole) <= self.given:
            return ""
        piece, self.given = whole[self.given :], len(whole)
        if whole == text:
            self.before, self.ids = self.ids, []
            self.given = len(self.tokenizer.decode(self.before))
        return piece

    def finish(self) -> str:
        """Give out what was held back, and start anew.

        Returns
        -------
        str
            U+FFFD for a character that never became whole; most often nothing.
        """
        piece = self.tokenizer.decode(self.before + self.ids)[self.given :]
        self.before, self.ids, self.given = [], [], 0
        return piece
