"""An interrupted run, resumed, ends in the same bits as one that never was."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import training_runs
from task_runs import RUNS
from training_runs import SETTINGS, decoder_run, same_bits, timeless, tiny_data, tiny_model

from minislm import dispatch
from minislm.errors import TrainingError
from minislm.training.checkpoint import load
from minislm.training.loop import fit
from minislm.training.metrics import read_metrics
from minislm.training.objective import NextToken
from minislm.weights.masked import Masked


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never interrupted, with every one of its checkpoints: 12 steps, 3 epochs."""
    directory = tmp_path_factory.mktemp("whole")
    result = fit(tiny_model(), tiny_data(), SETTINGS, directory=directory)
    assert len(list(directory.glob("step-*"))) == 12
    return directory, result


def interrupted_after(step, whole_directory, directory):
    """Make what a run killed after `step`'s checkpoint leaves, its record being a little ahead and torn."""
    for k in range(1, step + 1):
        shutil.copytree(whole_directory / f"step-{k:08d}", directory / f"step-{k:08d}")
    lines = (whole_directory / "metrics.jsonl").read_text().splitlines(keepends=True)
    (directory / "metrics.jsonl").write_text("".join(lines[: step + 1]) + '{"step": 99, "lo')


def assert_same_run(directory, result, expected_directory, expected):
    """Compare models, records and all that the last checkpoint holds, but for times."""
    assert same_bits(result.model.arrays(), expected.model.arrays())
    assert timeless(result.history) == timeless(expected.history)
    assert timeless(read_metrics(directory / "metrics.jsonl")) == timeless(expected.history)
    assert dataclasses.replace(result, model=None, history=(), notes=()) == dataclasses.replace(
        expected, model=None, history=(), notes=()
    )
    found, known = load(directory)[0], load(expected_directory)[0]
    assert found.step == known.step
    assert found.files.keys() == known.files.keys()
    assert all(same_bits(found.files[name], known.files[name]) for name in known.files)
    for state in (found.state, known.state):
        state["progress"]["elapsed_s"] = 0
    assert found.state == known.state


@pytest.mark.parametrize("step", range(12))
def test_from_every_step_the_bits_are_the_same(whole, tmp_path, step):
    interrupted_after(step, whole[0], tmp_path)
    steps_taken = []
    result = fit(tiny_model(), tiny_data(), SETTINGS, directory=tmp_path, report=lambda r: steps_taken.append(r.step))
    assert steps_taken == list(range(step + 1, 13))
    assert all(a.elapsed_s < b.elapsed_s for a, b in itertools.pairwise(result.history))
    assert result.notes == ()
    assert_same_run(tmp_path, result, *whole)


@pytest.mark.parametrize("name", RUNS)
def test_every_task_resumes_to_the_same_bits(tmp_path, name):
    settings = dataclasses.replace(SETTINGS, steps=6, eval_every=2)
    expected = fit(*RUNS[name](), settings, directory=tmp_path / "whole")
    assert len({record.validation_loss for record in expected.history}) > 2
    for step in (1, 4):
        directory = tmp_path / str(step)
        directory.mkdir()
        interrupted_after(step, tmp_path / "whole", directory)
        result = fit(*RUNS[name](), settings, directory=directory)
        assert result.notes == ()
        assert_same_run(directory, result, tmp_path / "whole", expected)


@pytest.mark.parametrize("name", RUNS)
def test_other_examples_are_another_run(tmp_path, name):
    settings = dataclasses.replace(SETTINGS, steps=1, eval_every=0)
    model, data = RUNS[name]()
    fit(model, data, settings, directory=tmp_path)
    with pytest.raises(TrainingError, match="data was") as error:
        fit(model, dataclasses.replace(data, train=data.validation), settings, directory=tmp_path)
    assert error.value.code == "checkpoint_mismatch"


def test_a_directory_changes_nothing(whole):
    assert same_bits(fit(tiny_model(), tiny_data(), SETTINGS).model.arrays(), whole[1].model.arrays())


def test_a_finished_run_returns_at_once(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    result = fit(tiny_model(), tiny_data(), SETTINGS, directory=tmp_path, report=lambda r: pytest.fail("it trained"))
    assert_same_run(tmp_path, result, *whole)


def test_damage_costs_steps_but_no_bits(whole, tmp_path):
    interrupted_after(8, whole[0], tmp_path)
    for step, file in ((8, "optimizer.safetensors"), (7, "state.json")):
        path = tmp_path / f"step-{step:08d}" / file
        path.write_bytes(path.read_bytes().replace(b"0", b"1"))
    noticed = []
    result = fit(tiny_model(), tiny_data(), SETTINGS, directory=tmp_path, notice=noticed.append)
    assert [note.split()[:2] for note in result.notes] == [
        ["checkpoint_skipped:", "step-00000008:"],
        ["checkpoint_skipped:", "step-00000007:"],
    ]
    assert tuple(noticed) == result.notes
    assert_same_run(tmp_path, result, *whole)


def test_the_best_model_survives_an_interruption(tmp_path):
    settings = dataclasses.replace(
        SETTINGS, steps=40, learning_rate=0.4, warmup_steps=0, eval_every=2, patience=4, eval_batches=0
    )
    expected = fit(tiny_model(), tiny_data(), settings, directory=tmp_path / "whole")
    last = len(expected.history)
    assert expected.stopped == "patience"
    assert 0 < expected.best_step < last - 3
    for step in (expected.best_step + 1, last - 1, last):
        directory = tmp_path / str(step)
        directory.mkdir()
        interrupted_after(step, tmp_path / "whole", directory)
        assert_same_run(
            directory, fit(tiny_model(), tiny_data(), settings, directory=directory), tmp_path / "whole", expected
        )


def prune_a_little_more(step, model):
    """Drop entries that grow in number with the steps, in every other step."""
    path = "blocks.0.mlp.up.weight"
    if step % 2:
        return None
    array = model.parameters()[path]
    return {path: Masked.from_dense(array, np.abs(array) > 0.002 * step)}


def test_masks_survive_an_interruption(tmp_path):
    expected = fit(tiny_model(), tiny_data(), SETTINGS, directory=tmp_path / "whole", rewrite=prune_a_little_more)
    assert (expected.model.weights()["blocks.0.mlp.up.weight"].dense() == 0).sum() > 10
    for step in (1, 2, 5):
        directory = tmp_path / str(step)
        directory.mkdir()
        interrupted_after(step, tmp_path / "whole", directory)
        result = fit(tiny_model(), tiny_data(), SETTINGS, directory=directory, rewrite=prune_a_little_more)
        assert_same_run(directory, result, tmp_path / "whole", expected)


def test_a_changed_environment_is_told_and_the_run_goes_on(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "available_processors", lambda: 256)
    interrupted_after(6, whole[0], tmp_path)
    state = json.loads((whole[0] / "step-00000006" / "state.json").read_text())
    assert {"numpy", "blas", "instruction_sets", "threads", "tiers"} <= state["environment"].keys()
    before = dispatch.threads()
    dispatch.threads(before + 1)
    result = fit(tiny_model(), tiny_data(), SETTINGS, directory=tmp_path)
    assert result.notes == (f"resume_not_bitwise: threads was {before}, is {before + 1}",)
    assert len(result.history) == 12


@dataclasses.dataclass(frozen=True)
class Weighted(NextToken):
    """Another objective, as far as its name and options go."""

    weight: float = 1.0


def test_another_run_is_not_gone_on_with(whole, tmp_path):
    interrupted_after(6, whole[0], tmp_path)
    model, data = tiny_model(), tiny_data()
    other = model.with_arrays({"final_norm.bias": model.arrays()["final_norm.bias"] + np.float32(1e-7)})
    for changed, named in (
        (
            (model, data, dataclasses.replace(SETTINGS, learning_rate=0.02, steps=13)),
            "learning_rate was 0.01, is 0.02; st",
        ),
        ((other, data, SETTINGS), "starting model was"),
        ((model, tiny_data(193), SETTINGS), "data was"),
    ):
        with pytest.raises(TrainingError, match=named) as error:
            fit(*changed, directory=tmp_path)
        assert error.value.code == "checkpoint_mismatch"
    with pytest.raises(TrainingError, match=r"objective was 'NextToken .*', is 'Weighted .* weight=1\.0'"):
        fit(model, data, SETTINGS, directory=tmp_path, objective=Weighted())
    fit(model, data, dataclasses.replace(SETTINGS, checkpoint_every=5, keep_checkpoints=1), directory=tmp_path)


def test_without_resume_a_used_directory_is_refused(whole, tmp_path):
    interrupted_after(2, whole[0], tmp_path)
    with pytest.raises(TrainingError) as error:
        fit(tiny_model(), tiny_data(), SETTINGS, directory=tmp_path, resume=False)
    assert error.value.code == "checkpoint_exists"
    fit(tiny_model(), tiny_data(), SETTINGS, directory=tmp_path / "new", resume=False)


class PoisonedAtStep5(NextToken):
    """The next token's loss, not a number from the fifth step on."""

    def step(self, model, batch, context, tape, grads):
        loss = super().step(model, batch, context, tape, grads)
        return loss if context.dropout[1] < 5 else np.nan


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(TrainingError, match="step 5"):
        fit(tiny_model(), tiny_data(), SETTINGS, directory=tmp_path, objective=PoisonedAtStep5())
    found, skipped = load(tmp_path)
    assert (found.step, skipped) == (4, [])
    assert [r.step for r in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_disk_too_full_for_the_record_is_named(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(TrainingError, match=f"errno {errno.EFBIG}") as error:
            fit(tiny_model(), tiny_data(), dataclasses.replace(SETTINGS, checkpoint_every=0), directory=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.code == "checkpoint_write_failed"
    assert fit(tiny_model(), tiny_data(), SETTINGS, directory=tmp_path).stopped == "steps"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_saves(whole, tmp_path, number):
    settings = dataclasses.replace(SETTINGS, checkpoint_every=0)
    before = signal.getsignal(number)

    def send_at_5(record):
        if record.step == 5:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt, match=f"{number.name}.*step 5"):
        fit(tiny_model(), tiny_data(), settings, directory=tmp_path, report=send_at_5)
    assert signal.getsignal(number) is before
    assert load(tmp_path)[0].step == 5
    fit(tiny_model(), tiny_data(), settings, directory=tmp_path)
    found, known = load(tmp_path)[0], load(whole[0])[0]
    assert all(same_bits(found.files[name], known.files[name]) for name in known.files)


def test_a_second_signal_acts_at_once(tmp_path):
    def send_twice(record):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        fit(tiny_model(), tiny_data(), SETTINGS, directory=tmp_path, report=send_twice)
    assert load(tmp_path) == (None, [])


def assert_nothing_is_left_over(directory):
    """Only whole checkpoints, the record and the lock; a kill may have saved the oldest one from its removal."""
    names = {path.name for path in directory.iterdir()}
    assert all(name in ("lock", "metrics.jsonl") or name.startswith("step-") for name in names)


def killed_after(directory, step, part, steps, name):
    """Run in another process and kill it a part of a step after `step`'s; True if it was still running."""
    arguments = [sys.executable, training_runs.__file__, str(directory), str(steps), name]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
    for _ in range(step):
        began = time.perf_counter()
        assert process.stdout.readline().startswith(b"step ")
    time.sleep(part * (time.perf_counter() - began))
    process.kill()
    process.stdout.close()
    return process.wait() == -signal.SIGKILL


KILLED = {"decoder": decoder_run, "labelled": RUNS["labelled"], "sequence": RUNS["sequence"]}  # one of each family


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "n_kills"),
    [("decoder", 3), ("labelled", 1), ("sequence", 1), *(pytest.param(n, 200, marks=pytest.mark.slow) for n in KILLED)],
)
def test_killed_at_any_instant_it_resumes_to_the_same_bits(tmp_path, name, n_kills):
    """Kill -9 at random instants of a run that saves after every step, so that most of them fall into a save."""
    settings = dataclasses.replace(SETTINGS, keep_checkpoints=2)
    expected = fit(*KILLED[name](), settings, directory=tmp_path / "whole")
    instants = random.Random(1)
    killed = 0
    for i in range(n_kills):
        directory = tmp_path / str(i)
        killed += killed_after(directory, instants.randrange(2, 12), instants.random(), settings.steps, name)
        assert load(directory)[1] == [], "a kill must not leave a damaged checkpoint under a checkpoint's name"
        result = fit(*KILLED[name](), settings, directory=directory)
        assert_same_run(directory, result, tmp_path / "whole", expected)
        assert_nothing_is_left_over(directory)
        shutil.rmtree(directory)
    assert killed > 0.8 * n_kills
    print(f"{name}: killed at {killed} of {n_kills} random instants, resumed to the same bits from all")


# What can change a file. A call that only reads is interrupted as the next of these is: nothing happened in between.
CHANGING = (  # `?`: where there is such a call
    "?open,?openat,?openat2,?creat,?write,?writev,?pwrite64,?pwritev,?pwritev2,?sendfile,"
    "?copy_file_range,?splice,?truncate,?ftruncate,?fallocate,?fsync,?fdatasync,?sync_file_range,?msync,"
    "?mkdir,?mkdirat,?rmdir,?unlink,?unlinkat,?rename,?renameat,?renameat2,?link,?linkat,?symlink,?symlinkat,"
    "?chmod,?fchmod,?fchmodat,?chown,?fchown,?fchownat,?utimensat"
)


def traced(directory, name, trace, *options):
    """Run two steps under strace, which sees nothing of the start; return how the process ended."""
    arguments = [sys.executable, training_runs.__file__, str(directory), "2", name, "wait"]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    strace = ["strace", "-f", "-qq", "-e", f"trace={trace}", *options, "-p", str(process.pid)]
    tracer = subprocess.Popen(strace)
    while "TracerPid:\t0\n" in Path(f"/proc/{process.pid}/status").read_text():
        assert tracer.poll() is None, "strace could not attach"
        time.sleep(0.01)
    process.communicate(b"\n")
    tracer.wait()
    return process.returncode


def calls_of_a_run(folder, name):
    """Count the calls of each kind that may change a file."""
    log = folder / "calls"
    assert traced(folder / "traced", name, CHANGING, "-o", str(log)) == 0
    return Counter(re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("name", KILLED)
def test_killed_at_every_system_call_something_whole_is_left(tmp_path, name):
    """Kill -9 as the process enters each call in turn that may change a file, in two steps and their saves."""
    settings = dataclasses.replace(SETTINGS, steps=2, keep_checkpoints=1)
    expected = fit(*KILLED[name](), settings, directory=tmp_path / "whole")
    calls = calls_of_a_run(tmp_path, name)
    assert calls.keys() >= {"openat", "write", "fsync", "mkdir", "rename", "unlinkat", "rmdir"}
    for call, n in [(call, n) for call, count in calls.items() for n in range(1, count + 1)]:
        directory = tmp_path / f"{call}-{n}"
        inject = f"inject={call}:signal=KILL:when={n}"
        assert traced(directory, name, call, "-o", os.devnull, "-e", inject) == -signal.SIGKILL
        if (directory / "metrics.jsonl").exists():
            found, skipped = load(directory)
            steps_recorded = len(read_metrics(directory / "metrics.jsonl"))
            assert skipped == []
            assert (found.step if found else 0) >= steps_recorded - 1
        result = fit(*KILLED[name](), settings, directory=directory)
        assert_same_run(directory, result, tmp_path / "whole", expected)
        assert_nothing_is_left_over(directory)
        shutil.rmtree(directory)
    print(f"{name}: killed at all of {calls.total()} calls, resumed to the same bits: {dict(calls)}")


def test_paths_may_be_text(tmp_path):
    fit(tiny_model(), tiny_data(), SETTINGS, directory=str(tmp_path / "a" / "b"))
    assert load(Path(tmp_path / "a" / "b"))[0].step == 12
