"""``minislm chat``: talk with a model in the terminal."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minislm.cli.common import Common, activations_option, context_option, decoded, read_text, verb
from minislm.cli.sampling_options import sampling_options
from minislm.cli.terminal import counted, print_text, tell
from minislm.errors import MinislmError

if TYPE_CHECKING:
    from minislm.inference.conversation import Conversation

EXAMPLES = """
minislm chat downloads/SmolLM2-360M-Instruct
minislm chat downloads/Orca-2-7b --template orca-2 --system "You answer in one sentence."
minislm chat phi-3.gguf --context 4096 -n 400
echo "What is a list?" | minislm chat out/mine --json
"""
COMMANDS = [
    ("/help", "this text"),
    ("/clear", "forget what was said"),
    ("/system ...", "say what the model is to be; forgets what was said"),
    ("/again", "answer the last message anew"),
    ("/quit", "leave; so does Ctrl-D, and Ctrl-C twice"),
]
MORE = "Three quotes begin and end a message of several lines; pasted lines are one. Ctrl-C stops an answer."
QUOTES = '"""'


@verb("chat", examples=EXAMPLES)
@click.argument("model")
@click.option("--system", help="What the model is to be.")
@click.option("--template", help="A format (llama-2, orca-2) or a file with a template (Jinja), not the model's own.")
@context_option
@activations_option
@click.option("-n", "--max-new-tokens", type=int, default=1024, show_default=True, help="Longest answer in tokens.")
@sampling_options
def command(
    common: Common,
    model: str,
    system: str | None,
    template: str | None,
    context: int | None,
    activations: str | None,
    **options: Any,
) -> None:
    """Talk with MODEL.

    In a terminal, type a message and Return. Otherwise each line of standard input that is not blank is a message. The
    model must have been trained to chat: its tokenizer has a template that says how.
    """
    from minislm.language_model import load
    from minislm.text.chat import render_chat
    from minislm.text.chat_formats import FORMATS

    lm = load(model, context=context, activations=activations)
    format_name = template if template in FORMATS else "default"
    if template is not None and template not in FORMATS:
        roles = dataclasses.replace(lm.tokenizer.roles, templates={"default": read_text(template)})
        lm = dataclasses.replace(lm, tokenizer=dataclasses.replace(lm.tokenizer, roles=roles))
    begun = [{"role": "system", "content": system}] if system else []
    render_chat(
        lm.tokenizer, [*begun, {"role": "user", "content": ""}], template=format_name
    )  # or says at once why not
    given = {name: value for name, value in options.items() if value is not None}
    conversation = lm.conversation(begun, template=format_name, seed=common.seed, **given)
    if sys.stdin.isatty() and not common.json:
        _Terminal(common, conversation, Path(model).name).run()
        return
    for number, line in enumerate(sys.stdin.buffer, start=1):
        message = decoded(line, f"standard input, line {number}").strip()
        if not message:
            continue
        before = conversation.forgotten
        for piece in conversation.say(message):
            if not common.json:
                print_text(piece)
        if not common.json:
            click.echo()
        _tell_forgotten(common, conversation, before)
    common.result({"messages": conversation.messages, "seed": common.seed}, lambda: None)


class _Terminal:
    """A person at a terminal."""

    def __init__(self, common: Common, conversation: Conversation, name: str) -> None:
        self.common, self.conversation, self.name = common, conversation, name

    def run(self) -> None:
        """Read messages until the person leaves."""
        import readline  # lines can be edited, and earlier ones called back

        readline.parse_and_bind("set enable-bracketed-paste on")  # what is pasted is one message, whatever its lines
        self.common.note(f"chatting with {self.name}; /help for help, Ctrl-D to leave")
        for message in self._messages():
            word, _, rest = message.partition(" ")
            if word == "/quit":
                return
            if word == "/help":
                self.common.note(_help())
            elif word in ("/clear", "/system"):
                system = [m for m in self.conversation.messages if m["role"] == "system"]
                self.conversation.messages = [{"role": "system", "content": rest}] if word == "/system" else system
                self.common.note("(begun anew)")
            elif word == "/again":
                self._again()
            elif word.startswith("/"):
                self.common.note(f"there is no command {word}; /help lists them")
            elif message:
                self._answer(message)

    def _messages(self) -> Iterator[str]:
        """Read what the person types; Ctrl-C empties the line, and twice in a row it leaves."""
        leaving = False
        while True:
            try:
                line = input("> ")
                while line.startswith(QUOTES) and (len(line) == len(QUOTES) or not line.endswith(QUOTES)):
                    line += "\n" + input(". ")
            except KeyboardInterrupt:
                click.echo()
                if leaving:
                    return
                leaving = True
                self.common.note("(Ctrl-C again, or Ctrl-D, to leave)")
                continue
            except EOFError:
                click.echo()
                return
            leaving = False
            yield line.removeprefix(QUOTES).removesuffix(QUOTES) if line.startswith(QUOTES) else line.strip()

    def _answer(self, message: str) -> None:
        """Print the answer as it comes; neither Ctrl-C nor a message that cannot be answered ends the chat."""
        before = self.conversation.forgotten
        try:
            for piece in self.conversation.say(message):
                print_text(piece)
            click.echo()
        except KeyboardInterrupt:
            click.echo()
            self.common.note("(stopped)")
        except MinislmError as error:
            tell(f"error: {error} [{error.code}]", err=True)
            return
        _tell_forgotten(self.common, self.conversation, before)
        if self.conversation.result is not None:
            timings = self.conversation.result.timings
            tokens = counted(len(self.conversation.result.ids), "token")
            self.common.note(f"({tokens}, {timings.generation_tokens_per_s:,.1f} tokens/s)")

    def _again(self) -> None:
        """Take the last turn back and answer it once more, by other chance."""
        messages = self.conversation.messages
        last = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=None)
        if last is None:
            self.common.note("nothing was said yet")
            return
        self.conversation.messages = messages[:last]
        settings = self.conversation.settings
        if settings.temperature == 0:
            self.common.note(
                "(at temperature 0 the answer is always the same; --temperature 0.7 leaves some to chance)"
            )
        self.conversation.settings = settings.replaced(seed=settings.seed + 1)
        self._answer(messages[last]["content"])


def _tell_forgotten(common: Common, conversation: Conversation, before: int) -> None:
    """Say that the last message took the place of older ones, and what would leave them theirs."""
    if conversation.forgotten > before:
        config = conversation.lm.model.config
        longest = config.longest_context or 0
        more = f"; opened with --context, up to {longest}, the model sees more" if longest > config.context else ""
        common.note(f"(the beginning of the conversation no longer fits, and is forgotten{more})")


def _help() -> str:
    """Lay the commands out for the width of the terminal."""
    formatter = click.HelpFormatter(width=min(80, shutil.get_terminal_size().columns))
    formatter.write_dl(COMMANDS)
    formatter.write_text(MORE)
    return formatter.getvalue().rstrip("\n")
