"""Model folders: whole or not at all, whatever happens while they are written, and never in place of something else."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minislm.errors import ModelFileError, NotFoundError, UnsupportedError, UsageError
from minislm.files import durable, gguf
from minislm.files.durable import new_file, new_folder, standing
from minislm.files.folder import FILES, ModelFolder, read_folder, write_folder


def content(mark=1):
    return ModelFolder(
        {"mark": mark}, {"a": np.full((3, 2), mark, np.float32)}, {"seed": mark}, {"tokenizer.json": "{}"}
    )


@pytest.fixture
def folder(tmp_path):
    """Return a written model folder."""
    write_folder(tmp_path / "model", content())
    return tmp_path / "model"


def test_round_trip(folder):
    back = read_folder(folder)
    assert back.config == {"mark": 1}
    assert back.generation == {"seed": 1}
    assert (folder / "tokenizer.json").read_text() == "{}"
    np.testing.assert_array_equal(back.arrays["a"], np.ones((3, 2), np.float32))
    assert sorted(os.listdir(folder)) == sorted([*FILES, "tokenizer.json"])
    assert os.listdir(folder.parent) == ["model"]
    (folder / "generation_config.json").unlink()
    assert read_folder(folder).generation == {}


@pytest.mark.parametrize("stands", ["replace", "fresh"])
@pytest.mark.parametrize("how", ["kill", "fail", "limit"])
def test_every_step_of_a_save_may_break(tmp_path, how, stands):
    """kill -9, an error of the disk, and a real limit of file size, at each step: the old or the new always stands."""
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("save_steps.py"), tmp_path, how, stands],
        capture_output=True, text=True, check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    found = json.loads(run.stdout)
    assert found["wrong"] == []
    assert found["steps"] > (5 if how == "limit" else 30)


def test_saving_over_the_mapped_folder(folder):
    loaded = read_folder(folder)
    doubled = {"a": loaded.arrays["a"], "b": loaded.arrays["a"].T}
    write_folder(folder, ModelFolder(loaded.config, doubled, loaded.generation, {"tokenizer.json": "{}"}))
    np.testing.assert_array_equal(loaded.arrays["a"], np.ones((3, 2), np.float32))
    assert set(read_folder(folder).arrays) == {"a", "b"}


def test_a_link_is_followed(tmp_path, folder):
    (tmp_path / "link").symlink_to(folder)
    write_folder(tmp_path / "link", content(2))
    assert (tmp_path / "link").is_symlink()
    assert read_folder(folder).config == {"mark": 2}


@pytest.mark.parametrize("name", ["notes.txt", "README.md", ".git", "model-00001-of-00002.safetensors"])
def test_a_folder_with_other_files_is_not_replaced(folder, name):
    (folder / name).write_text("mine")
    with pytest.raises(UsageError, match=name) as caught:
        write_folder(folder, content(2))
    assert caught.value.code == "not_a_model_folder"
    assert (folder / name).read_text() == "mine"
    assert read_folder(folder).config == {"mark": 1}


def test_what_is_no_model_folder_is_not_replaced(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "config.json").write_text("{}")  # one name in common is not enough
    (tmp_path / "empty").mkdir()
    for name in ("file", "web"):
        with pytest.raises(UsageError) as caught:
            write_folder(tmp_path / name, content())
        assert caught.value.code == "not_a_model_folder"
    write_folder(tmp_path / "empty", content())
    write_folder(tmp_path / "new" / "deep" / "model", content())
    assert read_folder(tmp_path / "empty").config == read_folder(tmp_path / "new" / "deep" / "model").config
    assert (tmp_path / "file").read_text() == "mine"


def spoil(path, how):
    """Damage a model folder."""
    if how.startswith("no "):
        (path / how[3:]).unlink()
    elif how == "pickle":
        (path / "model.safetensors").unlink()
        (path / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    elif how == "shards":
        (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors")
    elif how.startswith("loop "):
        (path / how[5:]).unlink()
        (path / how[5:]).symlink_to(how[5:])
    elif how == "pipe":
        (path / "config.json").unlink()
        os.mkfifo(path / "config.json")
    elif how == "folder":
        (path / "generation_config.json").unlink()
        (path / "generation_config.json").mkdir()
    elif how == "cut":
        whole = (path / "model.safetensors").read_bytes()
        (path / "model.safetensors").write_bytes(whole[:-1])
    else:
        (path / "config.json").write_bytes(how.encode("latin-1"))


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("no config.json", "not_a_model_file"),
        ("no model.safetensors", "not_a_model_file"),
        ("pickle", "unsafe_format"),
        ("pipe", "not_regular_file"),
        ("loop config.json", "not_regular_file"),
        ("loop generation_config.json", "not_regular_file"),
        ("loop model.safetensors", "not_regular_file"),
        ("shards", "missing_index"),
        ('{"quantization_config": {"quant_method": "gptq"}}', "unsupported_quantization"),
        ("folder", "not_regular_file"),
        ("cut", "truncated"),
        ("", "config_invalid"),
        ("{", "config_invalid"),
        ("[]", "config_invalid"),
        ("null", "config_invalid"),
        ("[" * 100_000, "config_invalid"),
        ('{"a": NaN}', "config_invalid"),
        ('{"a": -Infinity}', "config_invalid"),
        (f'{{"a": {"9" * 5000}}}', "config_invalid"),
        ('{"a": 1, "a": 2}', "duplicate_key"),
        ('{"a": {"b": 1, "b": 1}}', "duplicate_key"),
        ("\xff{}", "config_invalid"),
        ("{}\0", "config_invalid"),
    ],
)
def test_damaged_folder_is_named(folder, how, code):
    spoil(folder, how)
    with pytest.raises((ModelFileError, UnsupportedError)) as caught:
        read_folder(folder)
    assert caught.value.code == code
    assert str(folder) in str(caught.value)
    assert str(caught.value).isprintable()


def test_what_git_left_of_a_file_is_named(folder):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4\n"
    (folder / "model.safetensors").write_text(pointer)
    with pytest.raises(ModelFileError, match=r"model\.safetensors is a pointer of Git LFS.*git lfs pull") as caught:
        read_folder(folder)
    assert caught.value.code == "lfs_pointer"
    (folder / "model.gguf").write_text(pointer)
    with pytest.raises(ModelFileError, match=r"model\.gguf is a pointer of Git LFS"):
        gguf.read(folder / "model.gguf")


def test_a_mark_before_a_text_is_passed_over(folder):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text, encoding="utf-8-sig")
    assert read_folder(folder).config == content().config


def test_texts_without_end_are_not_read(folder, monkeypatch):
    monkeypatch.setattr("minislm.files.folder.MAX_TEXT_BYTES", 100)
    (folder / "config.json").write_text(" " * 101)
    with pytest.raises(ModelFileError) as caught:
        read_folder(folder)
    assert caught.value.code == "string_too_long"


def test_wrong_places(tmp_path, folder):
    with pytest.raises(NotFoundError) as missing:
        read_folder(tmp_path / "nowhere")
    assert missing.value.code == "model_not_found"
    for file, code in (
        ("model.safetensors", "not_a_model_file"),
        ("x.pt", "unsafe_format"),
        ("x.bin", "unsafe_format"),
    ):
        (folder / file).touch()
        with pytest.raises(ModelFileError) as caught:
            read_folder(folder / file)
        assert caught.value.code == code


def test_numbers_that_json_does_not_have_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_folder(tmp_path / "model", ModelFolder({"a": float("nan")}, {}, {}))
    assert os.listdir(tmp_path) == []


def test_what_a_dead_writer_left_is_removed_and_what_a_living_one_holds_is_not(tmp_path):
    for name in ("dead", "alive"):
        (tmp_path / f".model.saving-{name}" / "new").mkdir(parents=True)
    (tmp_path / ".model2.saving-other").mkdir()
    lock = os.open(tmp_path / ".model.saving-alive", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        write_folder(tmp_path / "model", content())
    finally:
        os.close(lock)
    assert sorted(os.listdir(tmp_path)) == [".model.saving-alive", ".model2.saving-other", "model"]


def test_the_old_folder_is_found_and_put_back_after_a_kill_between_the_renames(tmp_path, folder):
    work = tmp_path / ".model.saving-dead"
    work.mkdir()
    folder.rename(work / "old")
    assert standing(folder) == work / "old"
    assert read_folder(folder).config == {"mark": 1}
    with pytest.raises(ZeroDivisionError), new_folder(folder):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["model"]
    assert read_folder(folder).config == {"mark": 1}


def test_an_interrupt_between_the_renames_puts_the_old_folder_back(folder, monkeypatch):
    replace = os.replace

    def interrupted(source, target):
        if Path(source).name == "new":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(durable.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, content(2))
    monkeypatch.undo()
    assert os.listdir(folder.parent) == ["model"]
    assert read_folder(folder).config == {"mark": 1}


def test_files_keep_their_old_content_until_the_new_is_whole(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), new_file(path) as temporary:
        temporary.write_text("half" * 10_000 + "\ud800", encoding="utf-8")
    assert path.read_text() == "old"
    with new_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["report.json"]
    with pytest.raises(ModelFileError) as caught, new_file(path):
        pass  # nothing was written
    assert caught.value.code == "write_failed"
    assert path.read_text() == "new"


def test_a_real_full_disk():
    """A file system of 64 KiB, where the user may mount one."""
    code = """
import os, subprocess, sys, numpy as np
from minislm.errors import ModelFileError
from minislm.files.folder import ModelFolder, read_folder, write_folder
os.mkdir("disk")
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "disk"], capture_output=True).returncode:
    print("skipped"); sys.exit()
small, large = ({"a": np.full(n, n, np.float32)} for n in (100, 20_000))
write_folder("disk/model", ModelFolder({}, small, {}))
try:
    write_folder("disk/model", ModelFolder({}, large, {}))
except ModelFileError as error:
    print(error.code, os.listdir("disk"), read_folder("disk/model").arrays["a"][0])
"""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare command: cannot make a file system of our own")
    mine = [unshare, "--mount", "--map-root-user"] if os.getuid() else [unshare, "--mount"]
    place = subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip()
    try:
        run = subprocess.run(
            [*mine, sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False
        )
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if run.returncode or run.stdout == "skipped\n":
        pytest.skip(f"may not mount a file system here: {run.stderr[-200:]}")
    assert run.stdout == "disk_full ['model'] 100.0\n"
