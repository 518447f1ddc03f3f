"""Chats: what a model reads of a conversation, by the template that its folder has."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError, TemplateAssertionError, TemplateError

from minislm.errors import DataError, MinislmError, ModelFileError, UnsupportedError, clipped, unknown
from minislm.text.chat_formats import FORMATS
from minislm.text.reader import Reader
from minislm.text.roles import DEFAULT, USUAL
from minislm.text.template_budget import BUDGET, LARGEST, MOST_STEPS, ROOM, Budget, limit, measure
from minislm.text.template_limits import LimitedEnvironment, RejectedError
from minislm.text.tokenizer import Tokenizer

LONGEST_TEMPLATE = 2**16  # characters
DEEPEST = 32
GROWTH = 4  # a value may be so many times as large as the conversation, and more
MARK, SHIELD = "\U0010fffd", "\U0010fffc"  # for private use; doubled until no text has them

Message = Mapping[str, Any]


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    template: str = DEFAULT,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> str:
    """Write a conversation as the text that the model was trained on.

    Parameters
    ----------
    tokenizer : Tokenizer
        Whose chat template.
    messages : sequence of mapping
        Each with "role" and "content", and what else the template knows.
    template : str
        The template's name: one of the tokenizer's, if it has several, or of `chat_formats.FORMATS`.
    tools : sequence of mapping, optional
        Functions that the model may call, as JSON schemas.
    add_generation_prompt : bool
        Whether the text ends where the assistant's answer begins.
    **variables : Any
        More for the template, such as ``enable_thinking``; plain JSON values.

    Returns
    -------
    str
        The text, special tokens spelled out.

    Raises
    ------
    UnsupportedError
        Code ``no_chat_template``; ``unknown_chat_template``; ``template_limit``: the template takes too many steps, too
        much room or time; ``template_unsafe``: it does what chat templates have no need of.
    ModelFileError
        Code ``template_invalid``: it is no template, or fails.
    DataError
        Code ``bad_chat``: messages are not plain JSON values. Code ``chat_rejected``: the template refuses them, with
        its own words.
    """
    given = {"messages": messages, "tools": tools, "documents": None, **variables}
    values = {name: _plain(value, name, DEEPEST) for name, value in given.items()}
    return _rendered(tokenizer, template, values, add_generation_prompt)


def encode_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    template: str = DEFAULT,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> list[int]:
    """Turn a conversation into what the model reads; only the template writes special tokens, never a message.

    If a message spells a special token, it is rendered with a sign of private use in its place. What the template wrote
    is then found by its spelling and marked, the message's text is put back, and all is encoded at once by a reader
    that knows the marks and no special tokens.

    Parameters
    ----------
    tokenizer : Tokenizer
        Whose chat template.
    messages : sequence of mapping
        As of `render_chat`, like what follows.
    template : str
        The template's name: one of the tokenizer's, if it has several, or of `chat_formats.FORMATS`.
    tools : sequence of mapping, optional
        Functions that the model may call.
    add_generation_prompt : bool
        Whether the text ends where the assistant's answer begins.
    **variables : Any
        More for the template.

    Returns
    -------
    list of int
        Token ids. Nothing is put around them: the template writes BOS itself.

    Raises
    ------
    UnsupportedError, ModelFileError, DataError
        As `render_chat`. Code ``template_reads_tokens``: the template writes another text if a message spells a special
        token otherwise, so that the two cannot be told apart.
    """
    given = {"messages": messages, "tools": tools, "documents": None, **variables}
    values = {name: _plain(value, name, DEEPEST) for name, value in given.items()}
    text = _rendered(tokenizer, template, values, add_generation_prompt)
    special = sorted(tokenizer.special_ids, key=lambda token: (-len(token), token))
    pattern = re.compile("|".join(map(re.escape, special)) or "(?!)")
    shield, shields = _unused(SHIELD, text), {token: chr(Reader.MARKED + i) for i, token in enumerate(special)}
    shielded = text
    hidden = _hidden(values, pattern, shield, shields)
    if hidden != values:
        shielded = _rendered(tokenizer, template, hidden, add_generation_prompt)
        if _restored(shielded, shield, shields) != text:
            raise UnsupportedError(
                "template_reads_tokens",
                "a message spells a special token, and the template treats it unlike other text; remove it from the "
                "message",
            )
    mark = _unused(MARK, text)
    reader = Reader(tokenizer.inner, tokenizer.roles, mark) if mark != MARK else _reader(tokenizer)
    marked = pattern.sub(lambda found: reader.marks[found[0]], shielded)
    try:
        return tokenizer.read(reader, _restored(marked, shield, shields))
    except DataError as error:
        raise _in_its_message(tokenizer, messages, error) from error


def _in_its_message(tokenizer: Tokenizer, messages: Sequence[Message], error: DataError) -> DataError:
    """Find what cannot be encoded in the message that holds it; the error tells of the whole text."""
    for number, message in enumerate(messages, start=1):
        content = message.get("content")
        try:
            tokenizer.encode(content if isinstance(content, str) else "")
        except DataError as own:
            name = "the last message" if number == len(messages) else f"message {number}"
            return DataError(own.code, name + str(own).removeprefix("text 1"))
    return error


@functools.lru_cache(maxsize=8)
def _reader(tokenizer: Tokenizer) -> Reader:
    return Reader(tokenizer.inner, tokenizer.roles, MARK)


@functools.lru_cache(maxsize=64)
def _compiled(text: str) -> jinja2.Template:
    """Compile a template once."""
    if len(text) > LONGEST_TEMPLATE:
        raise limit(f"{len(text)} characters of its own; at most {LONGEST_TEMPLATE} are read")
    return LimitedEnvironment().compiled(text)


def _rendered(tokenizer: Tokenizer, name: str, values: Mapping[str, Any], add_generation_prompt: bool) -> str:
    """Render within a budget, and name what goes wrong."""
    templates = {**FORMATS, **tokenizer.roles.templates}
    if name == DEFAULT and not tokenizer.roles.templates:
        raise UnsupportedError(
            "no_chat_template",
            "this model has no chat template. If it was not trained on chats, use generate; if it was, name its format "
            f"({', '.join(FORMATS)}) or give a template: minislm chat --template",
        )
    if name not in templates:
        raise unknown("chat_template", name, templates)
    tokens = {f"{role}_token": getattr(tokenizer.roles, role) for role in USUAL}
    named = {key: token for key, token in tokens.items() if token is not None}
    size = measure(values)
    budget = Budget(MOST_STEPS + size, ROOM + 16 * GROWTH * size, LARGEST + GROWTH * size)
    before = BUDGET.set(budget)
    try:
        pieces, n_characters = [], 0
        arguments = {**named, **values, "add_generation_prompt": add_generation_prompt}
        for piece in _compiled(templates[name]).generate(**arguments):
            pieces.append(piece)
            n_characters += len(piece)
            if n_characters > budget.largest:
                raise limit(f"to write more than {budget.largest} characters")
        return "".join(pieces)
    except MinislmError:
        raise
    except RejectedError as error:
        raise DataError("chat_rejected", f"the chat template refuses the conversation: {error.message}") from error
    except (SecurityError, TemplateAssertionError) as error:
        raise UnsupportedError("template_unsafe", f"the chat template is not run: {clipped(error.message)}") from error
    except (RecursionError, MemoryError, OverflowError) as error:
        raise limit(f"more depth or larger numbers than allowed ({clipped(str(error))})") from error
    except (TemplateError, ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, ValueError) as error:
        raise ModelFileError("template_invalid", f"the chat template failed: {clipped(str(error))}") from error
    finally:
        BUDGET.reset(before)


def _plain(value: Any, name: str, depth: int) -> Any:
    """Copy plain JSON values, and refuse others, whose methods a template could call."""
    if depth == 0:
        raise DataError("bad_chat", f"{name} is nested more than {DEEPEST} deep")
    if value is None or isinstance(value, bool | int | float | str):
        for kind in (bool, int, float, str):
            if isinstance(value, kind):
                return value if type(value) is kind else kind(value)
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {str(key): _plain(part, f"{name}.{key}"[:80], depth - 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, f"{name}[{number}]", depth - 1) for number, part in enumerate(value)]
    raise DataError("bad_chat", f"{name} is of type {type(value).__name__}; a chat is made of plain JSON values")


def _hidden(value: Any, pattern: re.Pattern[str], shield: str, shields: Mapping[str, str]) -> Any:
    """Put signs in place of the special tokens that texts spell."""
    if isinstance(value, str):
        return pattern.sub(lambda found: shield + shields[found[0]], value)
    if isinstance(value, dict):
        return {key: _hidden(part, pattern, shield, shields) for key, part in value.items()}
    if isinstance(value, list):
        return [_hidden(part, pattern, shield, shields) for part in value]
    return value


def _restored(text: str, shield: str, shields: Mapping[str, str]) -> str:
    """Undo `_hidden`."""
    if shield not in text:
        return text
    tokens = {sign: token for token, sign in shields.items()}
    return re.sub(re.escape(shield) + "(.)", lambda found: tokens.get(found[1], found[0]), text, flags=re.DOTALL)


def _unused(sign: str, text: str) -> str:
    """Double a sign until the text does not have it."""
    while sign in text:
        sign += sign[0]
    return sign
