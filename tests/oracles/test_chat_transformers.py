"""Chats are rendered as transformers renders them, and encoded as it encodes what is rendered."""

import pytest
import tokenizers

from minislm.errors import MinislmError
from minislm.text.chat import encode_chat, render_chat
from minislm.text.tokenizer import Tokenizer
from tests.unit.chat_templates import TEMPLATES
from tests.unit.published_tokenizers import any_texts, family
from tests.unit.test_chat import OF_FAMILIES, chatty, with_template

pytestmark = pytest.mark.oracle
theirs = pytest.importorskip("transformers.utils.chat_template_utils")

TOOLS = [{"type": "function", "function": {"name": "größe", "description": "<b> & 'x'", "parameters": {"a": [1.5]}}}]


def text_of(rng):
    return any_texts(rng, 6)[int(rng.integers(3, 6))]


def conversation(rng):
    """Make messages, most in turns, some with parts, calls of functions and thoughts."""
    messages = [{"role": "system", "content": text_of(rng)}] if rng.random() < 0.4 else []
    for turn in range(int(rng.integers(1, 6))):
        role = ("user", "assistant")[turn % 2]
        if rng.random() < 0.1:
            role = str(rng.choice(["tool", "system", "user", "skip", "ipython"]))
        message = {"role": role, "content": text_of(rng)}
        if rng.random() < 0.1:
            message["content"] = [{"type": "text", "text": text_of(rng)}, {"type": "image"}]
        if role == "assistant" and rng.random() < 0.2:
            call = {"name": "f", "arguments": {"x": text_of(rng), "y": [1, 2.5, None, True]}}
            message["tool_calls"] = [{"type": "function", "function": call}]
        if role == "assistant" and rng.random() < 0.2:
            message["content"] = f"<think>\n{text_of(rng)}\n</think>\n\n{text_of(rng)}"
        messages.append(message)
    return messages


@pytest.mark.parametrize("name", TEMPLATES)
def test_texts_are_those_of_transformers(name, rng):
    made = with_template(Tokenizer.from_json(family("LLaMA 2")), TEMPLATES[name])
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    n_rendered = 0
    for _ in range(300):
        messages, options = conversation(rng), {"tools": TOOLS if rng.random() < 0.3 else None}
        options["add_generation_prompt"] = bool(rng.random() < 0.5)
        if rng.random() < 0.3:
            options["enable_thinking"] = bool(rng.random() < 0.5)
        try:
            found, _ = theirs.render_jinja_template([messages], chat_template=TEMPLATES[name], **tokens, **options)
        except Exception:  # what a template does not expect, it answers in any way
            with pytest.raises(MinislmError):
                render_chat(made, messages, **options)
            continue
        assert render_chat(made, messages, **options) == found[0]
        n_rendered += 1
    assert n_rendered > 100


@pytest.mark.parametrize("name", OF_FAMILIES)
def test_ids_are_those_of_the_rendered_text(name, rng):
    ours, library = chatty(name), tokenizers.Tokenizer.from_str(family(name))
    for _ in range(300):
        messages = [
            {"role": ("user", "assistant")[turn % 2], "content": text_of(rng)}
            for turn in range(int(rng.integers(1, 5)))
        ]
        if any(token in message["content"] for message in messages for token in ours.special_ids):
            continue
        text = render_chat(ours, messages)
        assert encode_chat(ours, messages) == library.encode(text, add_special_tokens=False).ids, ascii(text)
