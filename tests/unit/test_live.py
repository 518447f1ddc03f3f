"""The live line of long work, on a terminal and elsewhere."""

import io
import sys

import pytest

from minislm.cli import live
from minislm.compression.recipe import StepStarted
from minislm.training.metrics import StepRecord


def record(step, **options):
    return StepRecord(step, 100, 1.5, 1e-3, 1.0, 8 * step, 12_345.6, 2.0 * step, **options)


def test_lines_without_a_terminal_say_stage_step_and_time(monkeypatch, capsys):
    monkeypatch.setattr(live, "PLAIN_EVERY_S", -1.0)
    with live.Live(quiet=False) as shown:
        shown.name("[6/26] make pruned-2:4")
        shown(StepStarted(1, 1, "prune", "*"))
        shown(record(1, validation_loss=2.5))
        shown(StepStarted(2, 3, "prune", "*"))
        shown(record(50))
        shown(record(51))
    assert capsys.readouterr().err.splitlines() == [
        "[6/26] make pruned-2:4: step 1 of 100, loss 1.500  12,346 tokens/s, 198 s left",
        "[6/26] make pruned-2:4: step 1, validation loss 2.5000",
        "[6/26] make pruned-2:4: prune (2 of 3): goes on after step 49",
        "[6/26] make pruned-2:4: prune (2 of 3): step 50 of 100, loss 1.500  12,346 tokens/s, 100 s left",
        "[6/26] make pruned-2:4: prune (2 of 3): step 51 of 100, loss 1.500  12,346 tokens/s, 98 s left",
    ]


def test_quiet_shows_nothing(capsys):
    with live.Live(quiet=True) as shown:
        shown.name("work")
        shown(record(100, validation_loss=2.5))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("name", "method"), [("combined", "distil"), ("int3-qat", "quantization_aware")])
def test_a_terminal_of_80_columns_shows_all_but_a_part_of_the_bar(monkeypatch, name, method):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with live.Live(quiet=False) as shown:
        shown.name(f"[12/26] make {name}")
        shown(StepStarted(1, 4, method, "*"))
        shown(record(25))
        shown.bar.refresh()
    assert f"make {name}: {method} (1 of 4)" in terminal.getvalue()
    assert "…" not in terminal.getvalue()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_only_an_interruption_can_be_gone_on_from(error, capsys):
    with pytest.raises(error), live.Live(quiet=True):
        raise error
    assert ("run the same command again" in capsys.readouterr().err) == (error is KeyboardInterrupt)
