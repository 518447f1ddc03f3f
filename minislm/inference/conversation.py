"""Conversation: a chat with a model, which remembers what was said."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minislm.inference.decoding import Stream
from minislm.inference.held import Held
from minislm.text.chat import encode_chat
from minislm.text.roles import DEFAULT

if TYPE_CHECKING:
    from minislm.inference.generation import Generation
    from minislm.language_model import LanguageModel

Message = Mapping[str, Any]
LEAST_ROOM = 64  # tokens that an answer should have; what was said first is forgotten to make it


class Conversation:
    """Messages in turn; what the model has read of them stays in its cache.

    Parameters
    ----------
    lm : LanguageModel
        A decoder whose tokenizer has a chat template.
    messages : sequence of mapping
        What was said before: each with "role" ("system", "user" or "assistant") and "content".
    template : str
        The chat template's name, as of `text.chat.encode_chat`.
    **options : Any
        Fields of `GenerationSettings` that are to differ from the model's.
    """

    def __init__(
        self, lm: LanguageModel, messages: Sequence[Message] = (), *, template: str = DEFAULT, **options: Any
    ) -> None:
        self.lm, self.template = lm, template
        self.messages: list[Message] = list(messages)
        self.settings = lm.settings.replaced(**options)
        self.forgotten = 0  # messages that the model no longer sees
        self.result: Generation | None = None  # of the last answer that was not broken off
        self._program = lm.program()
        self._held = Held.empty(lm.model.config, self.settings.cache)

    def say(self, text: str) -> Iterator[str]:
        """Say something; iterate over the answer as it comes.

        Who stops iterating breaks the answer off; what came of it stays in the conversation.

        Parameters
        ----------
        text : str
            The user's message.

        Yields
        ------
        str
            Pieces of the answer, none of them empty.

        Raises
        ------
        UnsupportedError, ModelFileError, DataError
            As `text.chat.encode_chat`.
        GenerationError
            Code ``context_length_exceeded``: the message alone is longer than the model's context.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        ids, messages = self._fitting(messages)
        answer, self.result = "", None
        settings = dataclasses.replace(self.settings, seed=(self.settings.seed + len(messages)) % 2**64)
        stream = Stream(self._program, self.lm.tokenizer, ids, settings, held=self._held)
        try:
            for piece in stream:
                answer += piece
                yield piece
            self.result = stream.result
        finally:
            self.messages = [*messages, {"role": "assistant", "content": answer}]

    def _fitting(self, messages: list[Message]) -> tuple[list[int], list[Message]]:
        """Encode the conversation, without its oldest turns where it is too long."""
        context = self.lm.model.config.context
        room = min(LEAST_ROOM, self.settings.max_new_tokens, context // 4)
        while True:
            ids = encode_chat(self.lm.tokenizer, messages, template=self.template)
            first = next((i for i, message in enumerate(messages) if message["role"] != "system"), 0)
            later = [i for i, message in enumerate(messages) if message["role"] == "user" and i > first]
            if len(ids) + room <= context or not later:
                return ids, messages
            self.forgotten += later[0] - first
            messages = messages[:first] + messages[later[0] :]
