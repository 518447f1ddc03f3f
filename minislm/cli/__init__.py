"""The command line: one verb in each file, loaded when it is used."""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from typing import Any

import click

from minislm import __version__
from minislm.cli.terminal import tell
from minislm.errors import FAILURE, INTERRUPTED, USAGE, MinislmError, unknown

VERBS = {
    "tour": "tour:command",
    "train": "train:command",
    "compress": "compress:command",
    "eval": "eval:command",
    "info": "info:command",
    "generate": "generate:command",
    "chat": "chat:command",
    "translate": "translate:command",
    "summarize": "summarize:command",
    "classify": "classify:command",
    "tag": "tag:command",
    "answer": "answer:command",
    "fill-mask": "fill_mask:command",
    "embed": "embed:command",
    "bench": "bench:command",
    "doctor": "doctor:command",
}

EXAMPLES = """\b
Examples:
  minislm doctor
  minislm info out/teacher
  minislm generate out/teacher -p "The for statement"

\b
Exit codes: 0 done, 1 failure, 2 usage, 3 not found, 4 unsupported,
  5 a quality gate missed, 130 interrupted.
Results go to stdout, everything else to stderr.
MINISLM_DEBUG=1 shows the traceback of an error."""


class _Verbs(click.Group):
    """Loads a verb's module when it is asked for, and turns errors into one line and an exit code."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the verbs in the order of the table."""
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return a verb's command, or None for a name that is not in the table."""
        if name not in VERBS:
            return None
        module, _, attribute = VERBS[name].partition(":")
        command: click.Command = getattr(importlib.import_module(f"minislm.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb of a command line."""
        if arguments and not arguments[0].startswith("-") and arguments[0] not in VERBS:
            raise click.UsageError(str(unknown("verb", arguments[0], VERBS)), context)
        return super().resolve_command(context, arguments)

    def invoke(self, context: click.Context) -> Any:
        """Run the verb; a reader that goes away, as in ``| head``, ends it quietly."""
        try:
            super().invoke(context)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(0)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command line and exit with its code."""
        # OpenBLAS's idle threads would spin for 30 ms, on the processor that a kernel's helper thread needs.
        os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
        try:
            sys.exit(super().main(*args, **{"prog_name": "minislm", **options, "standalone_mode": False}))
        except click.ClickException as error:
            error.show(told := io.StringIO())
            tell(told.getvalue().rstrip("\n"), err=True)
            sys.exit(USAGE)
        except click.Abort:
            _fail("interrupted", INTERRUPTED)
        except MinislmError as error:
            _fail(f"error: {error} [{error.code}]", error.exit_code)
        except MemoryError as error:
            less = "give it a smaller model, context or batch, or more memory"
            _fail(f"error: memory ran out: {error or 'no more was there'}; {less} [out_of_memory]", FAILURE)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            reason = f"{place}{error.strerror}" if error.strerror else str(error)
            _fail(f"error: {reason}; mend that, or name another place [os_error]", FAILURE)
        except Exception as error:
            _fail(
                f"unexpected {type(error).__name__}: {error}. This is a mistake in minislm: please report it with the "
                "command line, the output of `minislm doctor` and the traceback that MINISLM_DEBUG=1 shows",
                FAILURE,
            )


def _fail(message: str, code: int) -> None:
    """Say in one line what went wrong and exit."""
    if os.environ.get("MINISLM_DEBUG"):
        traceback.print_exc()
    tell(f"minislm: {' '.join(message.split())}", err=True)
    sys.exit(code)


@click.group(
    cls=_Verbs,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="minislm")
def main() -> None:
    """Build, train, compress and run a small language model on an ordinary CPU."""
