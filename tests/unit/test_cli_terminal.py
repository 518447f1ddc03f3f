"""What verbs print, on a terminal and elsewhere."""

import io
import sys

import click
import pytest
from click.testing import CliRunner

from minislm import cli
from minislm.cli.common import Common
from minislm.cli.terminal import print_table


def test_tables_are_plain_where_there_is_no_terminal(capsys):
    print_table(("name", "count", "ratio"), [("a" * 150, 1234567, "0.5"), ("b", 2, "10.5")], right=(2,))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["name", "count", "ratio"],
        ["a" * 150, "1,234,567", "0.5"],
        ["b", "2", "10.5"],
    ]
    assert len({len(line) for line in lines}) == 1  # aligned to the right
    assert not any("\x1b" in line for line in lines)


def in_terminal(monkeypatch):
    """Put terminals of 40 columns in place of stdout and stderr; what is returned tells the lines that came."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    return lambda name="stdout": click.unstyle(getattr(sys, name).getvalue()).splitlines()


def test_titles_of_tables_are_folded_between_words_in_a_terminal(monkeypatch):
    terminal = in_terminal(monkeypatch)
    title = "dropout 0.0, " * 9 + "[bold] 5"
    print_table(("a", "b"), [(1, 2)], title=title)
    assert max(map(len, terminal())) <= 40
    assert " ".join(terminal()).startswith(title)


def test_tables_break_no_word_in_a_terminal(monkeypatch):
    terminal = in_terminal(monkeypatch)
    rows = [("blocks.0.mlp.up", "dense float32 and more", 1234567), ("é界", "of 2 bits", 5)]
    print_table(("tensor", "storage", "size bytes"), rows)
    assert terminal() == [
        "tensor          storage             size",
        "                                   bytes",
        "\u2500" * 40,
        "blocks.0.mlp.up dense float32  1,234,567",
        "                and more",
        "é界             of 2 bits              5",
    ]


def test_the_first_cell_stands_above_the_others_where_they_do_not_fit_beside_it(monkeypatch):
    terminal = in_terminal(monkeypatch)
    name = "encoder.blocks.0.attention.query.weight"
    print_table(("tensor", "shape", "bytes"), [(name, "64x64", 16384)])
    assert terminal() == ["tensor", "  shape  bytes", "\u2500" * 40, name, "  64x64 16,384"]


def test_a_word_longer_than_half_a_terminal_is_broken_in_later_columns(monkeypatch):
    terminal = in_terminal(monkeypatch)
    print_table(("label", "text"), [("good", "x" * 50)])
    assert terminal()[2:] == ["good  " + "x" * 34, "      " + "x" * 16]


def test_lines_are_folded_between_words_in_a_terminal(monkeypatch):
    terminal = in_terminal(monkeypatch)
    Common(json=False, quiet=False, seed=0).note("a" * 30 + " b-c" * 5 + "\n" + "  as it was\n" + "d" * 50)
    assert terminal("stderr") == ["a" * 30 + " b-c b-c", "b-c b-c b-c", "  as it was", "d" * 50]


def test_tables_keep_what_looks_like_markup(capsys):
    print_table(("a",), [("[bold]x[/bold] :smile:",)])
    assert "[bold]x[/bold] :smile:" in capsys.readouterr().out


@pytest.mark.parametrize(("verb", "code"), [("nothing", 2), ("info", 3)])
def test_errors_are_folded_between_words_in_a_terminal_and_nowhere_else(monkeypatch, verb, code):
    terminal = in_terminal(monkeypatch)
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "not-there"])
    assert ended.value.code == code
    lines = terminal("stderr")
    assert max(map(len, lines)) <= 40
    piped = CliRunner().invoke(cli.main, [verb, "not-there"], prog_name="minislm").stderr
    assert " ".join(lines).split() == piped.split()
    assert max(map(len, piped.splitlines())) > 40
