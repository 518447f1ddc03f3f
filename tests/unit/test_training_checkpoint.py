"""Checkpoints: whole or not at all, every damage noticed, the old kept until the new one stands."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from minislm.errors import TrainingError
from minislm.training import checkpoint
from minislm.training.checkpoint import load, locked, save

ARRAYS = {"model": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, "optimizer": {"m.w": np.ones((2, 3), "f4")}}


def saved(directory, *steps, keep=100):
    for step in steps:
        save(directory, step, ARRAYS, {"note": step * 10}, keep=keep)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def damage(directory, step):
    path = directory / f"step-{step:08d}" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def test_what_is_saved_is_loaded(tmp_path):
    assert load(tmp_path) == (None, [])
    saved(tmp_path, 3, 12)
    found, skipped = load(tmp_path)
    assert (found.step, found.state, skipped) == (12, {"note": 120, "step": 12}, [])
    assert found.path == tmp_path / "step-00000012"
    assert {file: list(arrays) for file, arrays in found.files.items()} == {"model": ["w"], "optimizer": ["m.w"]}
    assert (found.files["model"]["w"] == ARRAYS["model"]["w"]).all()


def test_the_newest_stay(tmp_path):
    saved(tmp_path, 1, 2, 3, 10, 9_999_999_999, keep=2)
    assert names(tmp_path) == ["step-00000010", "step-9999999999"]
    saved(tmp_path, 10_000_000_000, keep=1)
    assert names(tmp_path) == ["step-10000000000"]


def test_a_damaged_one_is_passed_over_and_replaced(tmp_path):
    saved(tmp_path, 1, 2, 3, 4)
    damage(tmp_path, 3)
    damage(tmp_path, 4)
    found, skipped = load(tmp_path)
    assert found.step == 2
    assert [line.partition(" has ")[0] for line in skipped] == [
        "checkpoint_skipped: step-00000004: model.safetensors",
        "checkpoint_skipped: step-00000003: model.safetensors",
    ]
    saved(tmp_path, 3, keep=2)  # going on from 2, with the damaged 4 ahead, which may be worth a look
    assert names(tmp_path) == ["step-00000002", "step-00000003", "step-00000004"]
    assert load(tmp_path)[0].step == 3
    saved(tmp_path, 4, keep=2)
    assert names(tmp_path) == ["step-00000003", "step-00000004"]
    assert load(tmp_path)[1] == []


def test_if_all_are_damaged_it_says_so_and_removes_nothing(tmp_path):
    saved(tmp_path, 1, 2)
    damage(tmp_path, 1)
    damage(tmp_path, 2)
    with pytest.raises(TrainingError, match="step-00000002") as error:
        load(tmp_path)
    assert error.value.code == "no_whole_checkpoint"
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def flipped(path, bit):
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize("n_flips", [60, pytest.param(10**6, marks=pytest.mark.slow)])
def test_every_single_bit_is_watched_over(tmp_path, n_flips):
    saved(tmp_path, 1, 2)
    rng = np.random.default_rng(0)
    for path in sorted((tmp_path / "step-00000002").iterdir()):
        n_bits = 8 * path.stat().st_size
        for bit in rng.choice(n_bits, min(n_flips, n_bits), replace=False):
            flipped(path, int(bit))
            found, skipped = load(tmp_path)
            assert found.step == 1, f"bit {bit} of {path.name} was not noticed"
            assert len(skipped) == 1
            flipped(path, int(bit))
    assert load(tmp_path)[0].step == 2


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"])
def test_a_missing_or_empty_file_is_noticed(tmp_path, file):
    saved(tmp_path, 1, 2)
    (tmp_path / "step-00000002" / file).write_bytes(b"")
    assert load(tmp_path)[0].step == 1
    (tmp_path / "step-00000002" / file).unlink()
    assert load(tmp_path)[0].step == 1


def test_a_checkpoint_of_another_version_or_name_is_passed_over(tmp_path, monkeypatch):
    saved(tmp_path, 1)
    (tmp_path / "step-00000001").rename(tmp_path / "step-00000005")
    saved(tmp_path, 3)
    monkeypatch.setattr(checkpoint, "FORMAT", "minislm checkpoint 0")
    saved(tmp_path, 4)
    monkeypatch.undo()
    found, skipped = load(tmp_path)
    assert found.step == 3
    assert "holds step 1" in skipped[0]
    assert "another version" in skipped[1]


def test_strangers_in_the_directory_are_left_alone(tmp_path):
    (tmp_path / "step-3").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with locked(tmp_path):
        saved(tmp_path, 1, keep=1)
    assert load(tmp_path)[0].step == 1
    assert names(tmp_path) == ["lock", "notes.txt", "step-00000001", "step-3"]


FAILING = [(os, "fsync"), (os, "replace"), (os, "mkdir"), (checkpoint.safetensors, "write_in_place"), (os, "open")]


@pytest.mark.parametrize(("module", "name"), FAILING)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_call_keeps_the_old_one(tmp_path, monkeypatch, module, name, number):
    """Each call of a save fails in its turn; `load` finds the old checkpoint, or the new one if it already stands."""
    saved(tmp_path, 1, 2)
    real = getattr(module, name)
    failures = 0
    for failing in range(100):
        calls = 0

        def sometimes(*args, failing=failing, **options):
            nonlocal calls
            calls += 1
            if calls == failing + 1:
                raise OSError(number, os.strerror(number))
            return real(*args, **options)

        with locked(tmp_path):
            monkeypatch.setattr(module, name, sometimes)
            error = None
            try:
                save(tmp_path, 3, ARRAYS, {"note": 30}, keep=1)
            except TrainingError as caught:
                error = caught
            monkeypatch.undo()
        if error is not None:
            failures += 1
            assert error.code == "checkpoint_write_failed"
            assert f"errno {number}" in str(error)
        with locked(tmp_path):
            found, skipped = load(tmp_path)
            assert found.step in (2, 3)
            assert skipped == []
            assert all(not entry.startswith(".") for entry in names(tmp_path))
        if calls <= failing:
            break
        saved(tmp_path, 1, 2)
    assert failures > 0
    assert found.step == 3


def test_a_place_that_cannot_be_written_has_no_checkpoints(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(TrainingError, match=r"Not a directory \(errno 20\); mend that and run again$"),
        locked(tmp_path / "file" / "run"),
    ):
        pass


def test_a_full_disk_is_named(tmp_path):
    saved(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(TrainingError, match=f"errno {errno.EFBIG}") as error:
            save(tmp_path, 2, {"model": {"w": np.zeros(3000, np.float32)}}, {}, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.code == "checkpoint_write_failed"
    assert str(error.value).count("errno") == 1
    assert "go on from the newest checkpoint" in str(error.value)
    assert names(tmp_path) == ["step-00000001"]
    assert load(tmp_path)[0].step == 1


def test_one_trainer_to_a_directory(tmp_path):
    with locked(tmp_path / "new"):
        with pytest.raises(TrainingError, match=f"process {os.getpid()}") as error, locked(tmp_path / "new"):
            pass
        assert error.value.code == "checkpoint_dir_locked"
    with locked(tmp_path / "new"):
        pass


HOLD = """
import sys, time
from pathlib import Path
from minislm.training.checkpoint import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(TrainingError, match=f"process {holder.pid}"), locked(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError) as error, locked(tmp_path / "file" / "under"):
        pass
    assert error.value.code == "checkpoint_write_failed"
