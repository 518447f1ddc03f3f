"""Chats: what is held equals what is read anew, in Python, in a pipe and at a terminal."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import re
import readline
import select
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from minislm import cli
from minislm.cli.terminal import print_text
from minislm.errors import DataError, UnsupportedError
from minislm.inference.settings import GenerationSettings
from minislm.language_model import LanguageModel, save
from minislm.layers.rotary import LongRope, Rotary
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.text.tokenizer import Tokenizer

TEMPLATE = "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}assistant:"
PLAIN = {"temperature": 0.0, "max_new_tokens": 9, "ignore_eos": True}


def chatting(context=200, template=TEMPLATE, seed=3):
    """Make a model that answers nonsense, always the same."""
    config = DecoderConfig.uniform(
        vocab_size=257, d_model=24, context=context, n_layers=2, n_heads=2, positions="rotary", norm="rms"
    )
    model = Decoder.create(config, seed)
    arrays = {name: array * 12 for name, array in model.arrays().items() if array.ndim == 2}
    tokenizer = Tokenizer.train([], kind="bytes")
    templates = {"default": template} if template else {}
    tokenizer = dataclasses.replace(tokenizer, roles=dataclasses.replace(tokenizer.roles, templates=templates))
    return LanguageModel(model.with_arrays(arrays), tokenizer)


def test_a_conversation_equals_answers_to_whole_messages():
    lm = chatting()
    conversation = lm.conversation([{"role": "system", "content": "be brief"}], **PLAIN)
    messages = [{"role": "system", "content": "be brief"}]
    for text in ("hello", "how are you?", "good"):
        said = "".join(conversation.say(text))
        messages.append({"role": "user", "content": text})
        expected = lm.chat(messages, **PLAIN)
        assert said == expected.text
        messages.append({"role": "assistant", "content": said})
        assert conversation.messages == messages
    assert conversation.result.ids == expected.ids


def test_what_cannot_be_encoded_is_found_in_what_was_said():
    lm = chatting()
    with pytest.raises(DataError, match=r"^the last message, character 2: '\\udcff' is half a character"):
        list(lm.conversation([{"role": "system", "content": "be brief"}]).say("ab\udcff"))
    with pytest.raises(DataError, match=r"^message 1, character 0: "):
        list(lm.conversation([{"role": "system", "content": "\udcff"}]).say("ab"))


def test_only_what_is_new_is_read(monkeypatch):
    lm = chatting()
    conversation = lm.conversation(**{**PLAIN, "max_new_tokens": 2})
    list(conversation.say("a long message " * 5))
    read = []
    program = conversation._program
    monkeypatch.setattr(program, "run", lambda ids, *rest, run=program.run: (read.append(len(ids)), run(ids, *rest))[1])
    list(conversation.say("b"))
    assert read[0] < 40


def test_an_answer_that_is_broken_off_stays_as_far_as_it_came():
    lm = chatting()
    broken, whole = (lm.conversation(**PLAIN) for _ in range(2))
    answer = broken.say("hello")
    first = next(answer)
    answer.close()
    assert broken.messages[-1] == {"role": "assistant", "content": first}
    assert broken.result is None
    whole.messages = list(broken.messages)
    assert "".join(broken.say("go on")) == "".join(whole.say("go on"))


def long_chat(path):
    """Save a model that learned 120 positions first, and can rotate by 240."""
    lm = chatting(context=120)
    scaling = LongRope((1.0,) * 6, (2.0,) * 6, 120, 240, 1.0)
    config = dataclasses.replace(lm.model.config, rotaries=(Rotary(10000.0, 12, scaling=scaling),))
    save(dataclasses.replace(lm, model=Decoder.create(config, 3)), path)
    return str(path)


def test_a_prompt_that_needs_more_positions_is_told_how_to_get_them(tmp_path):
    folder = long_chat(tmp_path / "long")
    command = ["generate", folder, "-p", "a" * 150, "-n", "2"]
    found = CliRunner().invoke(cli.main, command)
    assert "shorten it by at least 30" in found.stderr
    assert "let the model see up to 240 (--context)" in found.stderr
    assert CliRunner().invoke(cli.main, [*command, "--context", "240"]).exit_code == 0
    refused = CliRunner().invoke(cli.main, [*command, "--context", "241"])
    assert (refused.exit_code, "learned 240 positions" in refused.stderr) == (2, True)


def test_special_tokens_in_a_prompt_are_told_to_be_text(tmp_path):
    for template, advice in ((TEMPLATE, "; `minislm chat` writes"), (None, "")):
        lm = chatting(template=template)
        (token, *_) = lm.tokenizer.special_ids
        save(lm, tmp_path / "model")
        command = ["generate", str(tmp_path / "model"), "-n", "2", "-p"]
        told = CliRunner().invoke(cli.main, [*command, f"hi {token} you"]).stderr
        assert f"{token} in the prompt is read as plain text, not as a special token{advice}" in told
        assert "plain text" not in CliRunner().invoke(cli.main, [*command, "hi you"]).stderr


def test_a_pipe_is_told_what_is_forgotten(tmp_path):
    options = ["chat", long_chat(tmp_path / "long"), "-n", "9", "--temperature", "0"]
    said = "".join(f"message {n}\n" for n in range(6))
    found = CliRunner().invoke(cli.main, options, input=said)
    assert "is forgotten; opened with --context, up to 240, the model sees more" in found.stderr
    assert "forgotten" not in CliRunner().invoke(cli.main, [*options, "--context", "240"], input=said).stderr


def test_a_pipe_is_read_as_a_terminal_is(tmp_path):
    save(chatting(), tmp_path / "model")
    options = ["chat", str(tmp_path / "model"), "-n", "2", "--json"]
    found = json.loads(CliRunner().invoke(cli.main, options, input="\nhello \r\n\n  \nagain").stdout)
    assert [m["content"] for m in found["messages"] if m["role"] == "user"] == ["hello", "again"]
    wrong = CliRunner().invoke(cli.main, options, input=b"hello\nag\xffain\n")
    assert "standard input, line 2 is not UTF-8 text: byte 2 is 0xff; convert it first [not_utf8]" in wrong.stderr


def test_what_was_said_first_is_forgotten_when_there_is_no_room():
    lm = chatting(context=120)
    conversation = lm.conversation([{"role": "system", "content": "s"}], **PLAIN)
    for n in range(6):
        list(conversation.say(f"message {n}"))
    assert conversation.forgotten > 0
    assert conversation.messages[0]["role"] == "system"
    assert conversation.messages[1]["role"] == "user"
    assert conversation.messages[-2]["content"] == "message 5"
    assert "".join(conversation.say("x")) == lm.chat(conversation.messages[:-1], **PLAIN).text


def test_a_model_without_a_template_says_so():
    lm, hello = chatting(template=None), [{"role": "user", "content": "hello"}]
    with pytest.raises(UnsupportedError, match="orca-2") as caught:
        lm.chat(hello)
    assert caught.value.code == "no_chat_template"
    said = "".join(lm.conversation(template="llama-2", **PLAIN).say("hello"))
    assert said == lm.chat(hello, template="llama-2", **PLAIN).text


@pytest.fixture
def folder(tmp_path):
    """A saved model that chats."""
    lm = dataclasses.replace(chatting(context=2000), settings=GenerationSettings(ignore_eos=True))
    save(lm, tmp_path / "chats")
    return str(tmp_path / "chats")


def test_lines_of_standard_input_are_messages(folder):
    options = ["-n", "5", "--temperature", "0", "--system", "be brief"]
    found = CliRunner().invoke(cli.main, ["chat", folder, *options, "--json"], input="hello\nagain\n")
    assert found.exit_code == 0, found.output
    messages = json.loads(found.stdout)["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert messages[3]["content"] == "again"


def test_a_template_may_be_given(folder, tmp_path):
    (tmp_path / "t.jinja").write_text("{{ messages[-1].content }}?")
    options = ["-n", "3", "--temperature", "0", "--template", str(tmp_path / "t.jinja")]
    assert CliRunner().invoke(cli.main, ["chat", folder, *options], input="hello\n").exit_code == 0
    assert CliRunner().invoke(cli.main, ["chat", folder, *options[:-1], "orca-2"], input="hello\n").exit_code == 0
    (tmp_path / "t.jinja").write_text("{% nothing %}")
    assert CliRunner().invoke(cli.main, ["chat", folder, *options], input="hello\n").exit_code == 1


def until(terminal, text, seconds=60):
    """Read from a terminal until it shows a text."""
    seen, end = "", time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < end, seen
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
            seen = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", seen)  # what the line editor tells the terminal to do
    return seen


@pytest.fixture
def terminal(folder):
    """A chat at a terminal: its process, and the end at which a person sits."""
    person, end = pty.openpty()
    command = [sys.executable, "-m", "minislm", "chat", folder, "-n", "1800", "--threads", "1"]
    with subprocess.Popen(command, stdin=end, stdout=end, stderr=end, close_fds=True, start_new_session=True,
                          env={**os.environ, "TERM": "xterm"}, preexec_fn=_controlling) as process:  # fmt: skip
        os.close(end)
        try:
            until(person, "> ")
            yield process, person
        finally:
            process.kill()
            os.close(person)


def test_ctrl_c_stops_the_answer_and_not_the_chat(terminal):
    process, person = terminal
    os.write(person, b"hello\n")
    until(person, "hello\r\n")
    seen = ""
    while len(seen) < 100:  # control codes of the line editor come before the answer
        assert select.select([person], [], [], 60)[0]
        seen += os.read(person, 4096).decode(errors="replace")
    os.write(person, b"\x03")
    until(person, "(stopped)\r\n> ")
    for said in (b"/nonsense", b"/help"):
        time.sleep(0.5)  # the line editor takes the terminal over once it has shown its prompt
        os.write(person, b"\x03")
        until(person, "to leave)\r\n> ")
        os.write(person, said + b"\n")
    until(person, "Three quotes")
    os.write(person, b"/quit\n")
    assert process.wait(30) == 0


@pytest.mark.skipif("libedit" in str(readline.__doc__), reason="libedit does not know pasted text")
def test_pasted_lines_are_one_message(terminal):
    process, person = terminal
    os.write(person, b"\x1b[200~/odd\nthing\x1b[201~")
    until(person, "thing")
    os.write(person, b"\n")
    until(person, "there is no command /odd\r\nthing;")
    os.write(person, b"/quit\n")
    assert process.wait(30) == 0


def test_ctrl_c_twice_in_a_row_leaves(terminal):
    process, person = terminal
    for shown in ("to leave)\r\n> ", "\r\n"):
        time.sleep(0.5)
        os.write(person, b"\x03")
        until(person, shown)
    assert process.wait(30) == 0


def test_a_message_that_cannot_be_answered_does_not_end_the_chat(terminal):
    process, person = terminal
    os.write(person, b'"""' + b"too long\n" * 300 + b'"""\n')
    until(person, "[context_length_exceeded]")
    os.write(person, b"/quit\n")
    assert process.wait(30) == 0


def test_a_terminal_gets_no_control_characters_of_a_model(monkeypatch, capsys):
    text = "a\x1b[2J\r\x07\x7f\x9b\u0085é水👩\t\n"
    print_text(text)
    assert capsys.readouterr().out == text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_text(text)
    assert capsys.readouterr().out == "a\ufffd[2J" + "\ufffd" * 5 + "é水👩\t\n"


def _controlling():
    """Make standard input the terminal that sends signals."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
