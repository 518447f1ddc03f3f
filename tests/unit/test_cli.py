"""The command line's frame, and the verbs generate, info and doctor."""

import importlib
import json
import os
import shlex
import signal
import subprocess
import sys

import click
import numpy as np
import pytest
from click.testing import CliRunner

import minislm
from minislm import cli, language_model
from minislm.cli import common
from minislm.cli.live import Live
from minislm.compression import METHODS
from minislm.dispatch import runs_compiled
from minislm.errors import DataError, MinislmError, UnsupportedError
from minislm.inference.settings import GenerationSettings
from minislm.language_model import LanguageModel
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.text.tokenizer import Tokenizer
from minislm.training.metrics import StepRecord
from minislm.weights.dense import Dense
from minislm.weights.quantized import Quantized


def called(*arguments, **options):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments], **options)


def in_process(*arguments, **options):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", **options.pop("env", {})}
    command = [sys.executable, "-m", "minislm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, env=environment, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model with several storages."""
    config = DecoderConfig.uniform(vocab_size=257, d_model=16, context=24, n_layers=1, n_heads=2)
    model = Decoder.create(config, seed=1)
    w = model.weights()["blocks.0.mlp.up.weight"].dense()
    low = Dense(np.ones((64, 2), np.float32)) @ Dense(np.ones((2, 16), np.float32))
    query = model.weights()["blocks.0.attention.query.weight"].dense()
    model = model.replaced(
        {
            "blocks.0.mlp.up.weight": Quantized.nearest(w, "int4-32", "int8-row") + low,
            "blocks.0.attention.query.weight": Quantized.nearest(query, "int8"),
        }
    )
    settings = GenerationSettings(max_new_tokens=5, temperature=1.0, ignore_eos=True)
    path = tmp_path_factory.mktemp("models") / "model"
    language_model.save(LanguageModel(model, Tokenizer.train([], kind="bytes"), settings), path)
    return path


# The frame


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_with_examples_and_the_common_options(verb):
    result = called(verb, "--help")
    assert result.exit_code == 0
    for part in ("Examples:", f"minislm {verb}", "--json", "--quiet", "--seed", "--threads"):
        assert part in result.stdout


def test_an_interrupt_before_the_command_line_stands_shows_no_traceback(tmp_path):
    (tmp_path / "click.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "minislm", "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == -signal.SIGINT  # of which shells make 130


def test_help_lists_every_verb_and_the_exit_codes():
    result = called("--help")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.split("Commands:\n")[1].split("\n\n")[0].splitlines()] == list(
        cli.VERBS
    )
    assert "130 interrupted" in result.stdout
    assert "..." not in called("--help", terminal_width=80).stdout.split("Commands:\n")[1]  # summaries are whole


def test_help_fits_the_width():
    for width in (60, 100):
        result = called("generate", "--help", terminal_width=width)
        lines = result.stdout.split("Examples:")[0].splitlines()
        assert width - 25 < max(map(len, lines)) <= width


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_fits_80_columns(verb):
    lines = called(verb, "--help", terminal_width=80).stdout.splitlines()
    assert [line for line in lines if len(line) > 80] == []


def test_an_example_is_folded_between_options_and_says_the_same():
    line = 'minislm eval out/model --task classify+tag --data a-long-name.jsonl --beams 1 -t "two  words" --json - > x'
    folded = common._folded(line)
    assert max(map(len, folded.splitlines())) <= 80
    assert shlex.split(folded.replace("\\\n", "")) == shlex.split(line)
    assert folded.count("--data a-long-name.jsonl") == 1


def test_the_help_of_compress_names_every_method():
    lines = called("compress", "--help").stdout.splitlines()
    assert [words[0] for words in map(str.split, lines) if words and words[0] in METHODS] == [
        "quantize",
        "quantization_aware",
        "prune",
        "narrow",
        "low_rank",
        "factorise",
        "lora",
        "train",
        "distil",
    ]
    assert len(METHODS) == 9


def test_a_run_that_goes_on_says_so(capsys):
    for steps, said in (((1, 2, 3, 1, 2), ""), ((7, 8), "train x: goes on after step 6\n")):
        live = Live(quiet=False, what="train x")
        for step in steps:
            live(StepRecord(step, 10, 1.0, 1e-3, 1.0, 8, 8.0, 1.0))
        assert capsys.readouterr().err == said


def test_version():
    assert called("--version").stdout.split()[-1] == minislm.__version__


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["genrate"], 2, "Did you mean 'generate'?"),
        (["generate", "--no-such-option"], 2, "--no-such-option"),
        (["generate"], 2, "MODEL"),
        (["doctor", "--threads", "0"], 2, "--threads"),
        (["doctor", "--seed", "-1"], 2, "--seed"),
        (["tour", "--quick", "--full"], 2, "[bad_option]"),
        (["info", "/no/such/model"], 3, "[model_not_found]"),
    ],
)
def test_mistakes_have_their_exit_codes_and_leave_stdout_empty(arguments, code, words):
    result = called(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr


def failing(error):
    @click.command("info")
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("empty_text", "no text\nat all"), 1, "minislm: error: no text at all [empty_text]"),
        (UnsupportedError("unknown_thing", "no"), 4, "minislm: error: no [unknown_thing]"),
        (MinislmError("gate", "missed", exit_code=5), 5, "minislm: error: missed [gate]"),
        (KeyboardInterrupt(), 130, "minislm: interrupted"),
        (PermissionError(13, "Permission denied", "/x"), 1, "[os_error]"),
        (MemoryError("Unable to allocate 477. GiB"), 1, "give it a smaller model, context or batch"),
        (ZeroDivisionError("oh"), 1, "please report it"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(error, code, line, monkeypatch):
    monkeypatch.setattr(cli._Verbs, "get_command", lambda self, context, name: failing(error))
    result = called("info")
    assert (result.exit_code, result.stdout) == (code, "")
    assert line in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr
    assert "Traceback" in called("info", env={"MINISLM_DEBUG": "1"}).stderr


def test_a_reader_that_goes_away_ends_it_quietly():
    with subprocess.Popen(
        [sys.executable, "-m", "minislm", "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=120) == 0


def test_verbs_are_loaded_without_numpy_so_that_the_thread_limit_holds():
    code = (
        "import sys, importlib; from minislm.cli import VERBS; "
        "[importlib.import_module('minislm.cli.' + row.partition(':')[0]) for row in VERBS.values()]; "
        "print([name for name in ('numpy', 'numba', 'rich', 'tokenizers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
    values = json.loads(in_process("doctor", "--json", "--threads", "1").stdout)
    assert values["machine"]["threads of the kernels"] == 1
    assert "OPENBLAS_NUM_THREADS=1" in values["machine"]["threads of BLAS"]


def test_json_has_null_for_what_is_not_finite(capsys):
    values = {"a": [float("nan"), 1.5, {"b": float("inf")}], "c": "é"}
    common.Common(json=True, quiet=False, seed=0).result(values, lambda: None)
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": [None, 1.5, {"b": None}], "c": "é"}
    assert "é" in out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--heads", "3"], "--width (128) must be a multiple of --heads (3)"),
        (["--heads", "4", "--kv-heads", "3"], "--heads (4) must be a multiple of --kv-heads (3)"),
        (["--width", "100000000"], "--width 100000000 and --heads 4 make heads wider than 65536"),
    ],
)
def test_sizes_that_cannot_be_are_told_by_their_options(options, told, tmp_path):
    result = called("train", "-o", tmp_path / "model", *options)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_place_that_cannot_be_written_is_told_without_the_words_of_the_system(tmp_path):
    (tmp_path / "file").write_text("")
    result = called("bench", "--limits", "-o", tmp_path / "file" / "x")
    assert result.exit_code == 1
    assert f"error: {tmp_path / 'file' / 'x'}: Not a directory; mend that, or name another place" in result.stderr
    assert "[Errno" not in result.stderr


def test_bench_refuses_a_folder_for_reading_alone_before_it_measures(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    result = called("bench", "--limits", "-o", tmp_path)
    assert result.exit_code == 2
    assert "is not writable" in result.stderr


def test_a_dry_run_says_what_the_weights_are(tmp_path):
    result = called("train", "-o", tmp_path / "model", "--layers", "1", "--tokens", "2000", "--dry-run")
    assert "weights, and their copy that is trained" in result.stdout


def test_a_context_that_cannot_be_is_told_by_its_option(folder):
    result = called("generate", folder, "-p", "a", "--context", "0")
    assert result.exit_code == 2
    assert "'--context'" in result.stderr


# generate


def test_generate_writes_the_text_to_stdout_and_the_rest_to_stderr(folder):
    lm = language_model.load(folder)
    result = called("generate", folder, "-p", "Hello", "--seed", 5)
    assert result.exit_code == 0
    expected = lm.generate("Hello", seed=5).text
    assert result.stdout.rstrip("\n") == expected.rstrip("\n")
    assert "prompt 5 tokens" in result.stderr
    assert "generated 5 tokens" in result.stderr
    assert "stopped: length; seed 5" in result.stderr
    assert called("generate", folder, "-p", "Hello", "--seed", 5, "--quiet").stderr == ""
    assert called("generate", folder, "-p", "Hello", "--seed", 6).stdout != result.stdout


def test_generate_takes_every_option(folder):
    options = "-n 7 --temperature 0.5 --top-k 9 --top-p 0.9 --min-p 0.01 --repetition-penalty 1.2 --ignore-eos --seed 3"
    result = called("generate", folder, "-p", "x", *options.split(), "--stop", "zzzz", "--stop", "\\n\\n\\n", "--json")
    values = json.loads(result.stdout)
    expected = language_model.load(folder).generate(
        "x",
        max_new_tokens=7,
        temperature=0.5,
        top_k=9,
        top_p=0.9,
        min_p=0.01,
        repetition_penalty=1.2,
        ignore_eos=True,
        seed=3,
        stop=["zzzz", "\n\n\n"],
    )
    assert (values["text"], values["ids"], values["stopped"]) == (expected.text, expected.ids, expected.stopped)
    assert values["timings"]["new_tokens"] == 7
    assert values["seed"] == 3


def test_a_stop_string_may_say_a_line_end(folder, monkeypatch):
    given = {}

    def stream(self, prompt, **options):
        given.update(options)
        raise DataError("enough", "the options are known")

    monkeypatch.setattr(LanguageModel, "stream", stream)
    assert called("generate", folder, "-p", "x", "--stop", "a\\n\\n", "--stop", "é").exit_code == 1
    assert given == {"seed": 0, "stop": ["a\n\n", "é"]}


def test_generate_reads_files_and_standard_input(folder, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("Grüße\n", encoding="utf-8", newline="")
    from_prompt = called("generate", folder, "-p", "Grüße\n", "--json").stdout
    for result in (
        called("generate", folder, "-f", file, "--json"),
        called("generate", folder, "-", "--json", input="Grüße\n"),
    ):
        assert json.loads(result.stdout)["ids"] == json.loads(from_prompt)["ids"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "[bad_prompt]"),
        (["-p", "a", "-"], 2, "[bad_prompt]"),
        (["-f", "/no/such/file"], 3, "[file_not_found]"),
        (["-p", "a", "--top-p", "2"], 2, "[bad_generation_setting]"),
        (["-p", "a", "-n", "-1"], 2, "[bad_generation_setting]"),
        (["-p", "a" * 25], 1, "[context_length_exceeded]"),
    ],
)
def test_generate_refuses(folder, arguments, code, words):
    result = called("generate", folder, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr


def test_prompts_that_are_no_utf8_are_refused(folder, tmp_path):
    file = tmp_path / "latin"
    file.write_bytes(b"gr\xfc\xdfe")
    for arguments, options in (
        (["-f", file], {}),
        (["-"], {"input": b"gr\xfc\xdfe"}),
    ):
        result = in_process("generate", folder, *arguments, **options)
        assert result.returncode == 1
        assert b"byte 2 is 0xfc" in result.stderr
        assert b"[not_utf8]" in result.stderr
    result = in_process("generate", folder, "-p", b"gr\xfc".decode("utf-8", "surrogateescape"))
    assert result.returncode == 1
    assert b"[unencodable_text]" in result.stderr


# info


def test_info_accounts_for_every_byte(folder):
    values = json.loads(called("info", folder, "--json").stdout)
    model = language_model.load(folder).model
    assert values["parameters"] == model.n_parameters
    assert values["size_bytes"] == sum(row["size_bytes"] for row in values["tensors"]) == model.nbytes
    rows = {row["name"]: row for row in values["tensors"]}
    assert len(rows) == len(list(model.parts()))
    up = rows["blocks.0.mlp.up.weight"]
    assert (up["shape"], up["activations"]) == ([64, 16], "int8-row")
    assert up["storage"] == "sum(int4-32, product(dense, dense))"
    assert rows["blocks.0.attention.query.weight"]["storage"] == "int8"
    assert rows["embedding.weight"]["storage"] == "dense float32"
    assert rows["final_norm.bias"]["bits"] == 32.0
    assert values["config"]["type"] == "decoder"
    other = json.loads(called("info", folder, "--activations", "float", "--json").stdout)["tensors"]
    assert {row["activations"] for row in other} == {"float"}


def test_info_shows_every_tensor(folder):
    result = called("info", folder)
    assert result.exit_code == 0
    for name, _ in language_model.load(folder).model.parts():
        assert f"\n{name} " in result.stdout
    assert "total: " in result.stdout


def test_info_shows_the_program(folder):
    values = json.loads(called("info", folder, "--program", "--json").stdout)["token"]
    ops = [step["op"] for step in values["steps"]]
    assert ops[:3] == ["embedding", "embedding", "add"]
    panels = runs_compiled("float_panel_product")
    assert ops[-1] == ("float_panel_product" if panels else "linear")
    assert ("low_rank_product" in ops) == (not panels)  # in panels, a step for each factor
    assert {"decoded_panel_product" if panels else "quantized_product", "attend", "outputs"} <= set(ops)
    assert {"panel_product", "quantized_product_int8"} & set(ops)
    assert values["operations"] == sum(step["operations"] for step in values["steps"]) > 0
    lines = called("info", folder, "--program").stdout.splitlines()
    assert len(lines) == len(ops) + 4
    assert lines[-1] == f"Python takes part in: {', '.join(values['interpreted']) or 'no step'}"
    assert panels or {"add", "attend", "linear"} <= set(values["interpreted"])


# doctor


def test_doctor_explains_every_op():
    values = json.loads(called("doctor", "--json").stdout)
    assert values["versions"]["minislm"] == minislm.__version__
    assert values["versions"]["numpy"] == np.__version__
    assert set(values["ops"]) == set(minislm.backend())
    assert all(row["tier"] in ("numpy", "numba", "cython") and row["reason"] for row in values["ops"].values())
    assert values["machine"]["processors available"] >= 1
    assert "C compiler" in values["kernels"]
    result = called("doctor")
    assert result.exit_code == 0
    assert "\nlinear " in result.stdout


def test_doctor_compiles_the_numba_kernels_when_asked_to():
    states = [json.loads(called("doctor", "--json", *options).stdout)["kernels"] for options in ((), ("--warm",))]
    if not states[0]["installed"]:
        pytest.skip("kernels/ was removed")
    assert "doctor --warm" in states[0]["numba modules"]
    (warm,) = states[1]["numba modules"]
    n_modules = warm.split()[0]
    assert warm == f"{n_modules} of {n_modules} ready"
    assert f" of {n_modules}  adamw_numba " in called("doctor", "--warm").stderr


def test_doctor_tries_the_compiler_that_an_installation_would_take(monkeypatch):
    from minislm.cli.doctor import _compiler

    monkeypatch.setenv("CC", "/no/such/cc -O2")
    assert _compiler().startswith("/no/such/cc is not found")
    monkeypatch.setenv("CC", "false")
    assert _compiler().endswith("does not work: no kernels can be compiled here")
    monkeypatch.setenv("CC", f"{sys.executable} -I")  # whatever tells its version
    assert _compiler() == sys.executable


def test_doctor_names_modules_that_are_not_built(monkeypatch):
    from minislm.cli.doctor import _states

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert _states(["a", "b"]) == ["none of 2 is built; install minislm again where there is a C compiler"]
    monkeypatch.setattr(importlib, "import_module", lambda name: missing(name) if name.endswith(".a") else None)
    assert _states(["a", "b"]) == ["1 of 2 ready", "a is not built"]
    monkeypatch.setattr(importlib, "import_module", lambda name: missing("numba"))
    assert _states(["a"]) == ["0 of 1 ready", "a cannot be used: No module named 'numba'"]
