"""`minislm bench`: what it compares, times and reports; on tiny models, without rivals, and no time is asserted."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from minislm.benchmark.engine import Contender, Engine, Facts, Remote, asked
from minislm.benchmark.inputs import encoder_batch, prompt_ids, sentences
from minislm.benchmark.limits import Limit, best, measure_limits
from minislm.benchmark.plan import Row, Suite, Target, matches
from minislm.benchmark.profile import profile_model
from minislm.benchmark.report import engine_rows, limit_rows, plot_roofline, target_rows
from minislm.benchmark.run import Measured, Outcome, Settings, measure
from minislm.benchmark.shapes import SHAPES, layout, model_folder
from minislm.benchmark.suites import ENCODERS, RIVALS, chosen, suites
from minislm.cli import main
from minislm.errors import MinislmError, NotFoundError


class Local:
    """An engine of this process, with the manners of a `Remote`."""

    def __init__(self, contender, threads, *, amx):
        module, _, name = contender.engine.partition(":")
        try:
            self.engine = getattr(importlib.import_module(module, "minislm.benchmark"), name)(**contender.options)
        except OSError as error:
            raise MinislmError("engine_failed", str(error)) from error

    def ask(self, verb, *args):
        try:
            return asked(self.engine, verb, *args)
        except RuntimeError as error:
            raise MinislmError("engine_failed", str(error)) from error

    def close(self):
        self.engine = None


QUICK = Settings(threads=1, rounds=2, seconds=0.0, note=lambda line: None, warm_s=0.0, start=Local)
LIMITS = [Limit("read 1 GiB", 1, 20.0, 19.0, 21.0, "GB/s"), Limit("int8 avx2", 1, 100.0, 99.0, 101.0, "GMAC/s")]


class Fixed(Engine):
    """An engine that answers what it was told."""

    def __init__(self, seconds, output=1.0, kind="good"):
        if kind == "unloadable":
            raise OSError("there is no such file")
        self.seconds, self.value, self.kind = seconds, output, kind

    def facts(self):
        return Facts("1.0", "none", "fixed", 1000, 2000, 3000)

    def output(self):
        return np.full(4, self.value)

    def run(self, work):
        if self.kind == "failing":
            raise RuntimeError("it broke")
        if self.kind == "dying":
            import os

            os._exit(3)
        return self.seconds


def fixed(label, seconds, package="", **options):
    return Contender(label, f"{__name__}:Fixed", {"seconds": seconds, **options}, package)


def only_outcome(contenders, *targets, start=Local, **options):
    suite = Suite("fixed", tuple(contenders), (Row("row", "work", {}, 10, "tokens/s", targets),), **options)
    (outcome,) = measure(suite, LIMITS, replace(QUICK, start=start))
    return outcome


def test_ratios_are_those_of_the_medians():
    outcome = only_outcome(
        [fixed("ours a", 2.0), fixed("ours b", 1.0), fixed("rival", 3.0, "json")],
        Target("ours *", "rival", 2.0, 4.0),
        Target("ours a", "rival", 2.0, 4.0),
        Target("ours b", "memory", 0.5, 0.9),
        Target("ours b", "int8 peak", 1e-9, 1e-8),
        Target("ours b", "nothing", 1.5, 0.5),
        Target("nobody", "rival", 1.0, 1.0),
    )
    assert [(v.ours, v.word) for v in outcome.verdicts] == [
        ("ours b", "met"), ("ours a", "missed"), ("ours b", "missed"), ("ours b", "aim"), ("ours b", "met"),
        ("nobody", "not measured"),
    ]  # fmt: skip
    assert [v.ratio for v in outcome.verdicts[:3]] == [3.0, 1.5, pytest.approx(10 * 2000 / 1e9 / 20)]
    assert [outcome.row.value(one.seconds) for one in outcome.measured] == [5.0, 10.0, pytest.approx(10 / 3)]


def test_encoders_are_held_against_others(tmp_path):
    for suite in suites(tmp_path):
        for target in (target for row in suite.rows for target in row.targets if suite.name in ENCODERS):
            assert any(matches(contender.label, target.ours) for contender in suite.contenders if contender.ours)
            held_against = [contender for contender in suite.contenders if matches(contender.label, target.against)]
            assert held_against
            assert not any(contender.ours for contender in held_against)


def test_an_engine_that_computes_something_else_is_not_timed():
    outcome = only_outcome([fixed("ours", 1.0), fixed("wrong", 0.1, "json", output=1.5)], Target("ours", "wrong", 1, 1))
    wrong = outcome.measured[1]
    assert wrong.error == pytest.approx(0.25)
    assert "error is 0.25" in wrong.failure
    assert not wrong.rounds
    assert outcome.verdicts[0].word == "not measured"


def test_not_a_number_is_not_timed():
    outcome = only_outcome([fixed("ours", 1.0), fixed("wrong", 0.1, "json", output=np.nan)])
    assert "not timed" in outcome.measured[1].failure


def test_fast_but_less_exact_does_not_count():
    target = Target("ours", "rival", 1.0, 5.0)
    contenders = [fixed("exact", 9.0), fixed("ours", 1.0, output=1.02), fixed("rival", 3.0, "json", output=1.01)]
    outcome = only_outcome(contenders, target)
    assert outcome.verdicts[0].word == "error"
    outcome = only_outcome([*contenders[:2], replace(contenders[2], options={"seconds": 3.0, "output": 1.03})], target)
    assert outcome.verdicts[0].word == "met"


@pytest.mark.parametrize(("kind", "message"), [("unloadable", "there is no such file"), ("failing", "it broke")])
def test_an_engine_that_fails_is_reported_and_the_others_go_on(kind, message):
    outcome = only_outcome([fixed("ours", 1.0), fixed("bad", 1.0, "json", kind=kind), fixed("other", 2.0, "json")])
    assert message in outcome.measured[1].failure
    assert [len(one.rounds) for one in outcome.measured] == [2, 0, 2]


def test_an_engine_that_dies_takes_nobody_with_it():
    outcome = only_outcome([fixed("ours", 1.0), fixed("bad", 1.0, "json", kind="dying")], start=Remote)
    assert "exit code 3" in outcome.measured[1].failure
    assert [len(one.rounds) for one in outcome.measured] == [2, 0]


def test_a_rival_that_is_missing_is_named():
    outcome = only_outcome([fixed("ours", 1.0), fixed("rival", 1.0, "no_such_package")])
    assert "no_such_package is not installed" in outcome.measured[1].failure
    assert engine_rows(outcome)[1][2] == "failed"


def test_an_engine_has_its_own_process_and_its_errors_a_code():
    with pytest.raises(MinislmError, match="there is no such file") as caught:
        Remote(fixed("bad", 1.0, kind="unloadable"), 1)
    assert caught.value.code == "engine_failed"


def test_inputs_are_the_same_for_everybody():
    assert prompt_ids(5, 100).tolist() == [47, 51, 75, 95, 3]
    ids_BT, mask_BT = encoder_batch(3, 7, 30522)
    assert ids_BT.shape == mask_BT.shape == (3, 7)
    assert (ids_BT[:, 0] == 101).all()
    texts = sentences()
    assert len(set(texts)) == len(texts) == 1000
    assert texts == sentences()
    assert np.ptp([len(text) for text in texts]) > 100


def test_random_models_are_as_published_and_always_the_same(tmp_path):
    first, how = model_folder("llama-tiny", tmp_path / "a")
    second, _ = model_folder("llama-tiny", tmp_path / "b")
    assert how == "random"
    for file in first.glob("*.safetensors"):
        assert file.read_bytes() == (second / file.name).read_bytes()
    assert layout(SHAPES["llama-tiny"])["model.layers.1.self_attn.k_proj.weight"] == ((32, 64), False)
    with pytest.raises(NotFoundError, match="llama-tiny"):
        model_folder("nowhere", tmp_path)


def test_a_model_is_measured_in_every_format(tmp_path):
    (suite,) = chosen(suites(tmp_path, "llama-tiny", n_tokens=3), ["generation"], ["none"])
    (outcome,) = measure(suite, LIMITS, QUICK)
    assert {one.label for one in outcome.measured} == {"minislm int4-32", "minislm int8-32"}
    for one in outcome.measured:
        assert not one.failure
        assert 0 < one.error < 0.2
        assert 0 < one.divergence < 1
        assert one.facts.unit_products > 0
        assert one.facts.unit_bytes < 1.1 * one.facts.weights_bytes


def test_a_stored_model_is_measured_as_it_is(tmp_path):
    from minislm.benchmark.stored import stored_folder

    folder = stored_folder("llama-tiny", tmp_path, "int8")
    assert stored_folder("llama-tiny", tmp_path, "int8") == folder
    (suite,) = suites(tmp_path, str(folder), n_tokens=3)
    assert [contender.label for contender in suite.contenders] == ["minislm"]
    (outcome, *_) = measure(replace(suite, rows=suite.rows[:1]), [], QUICK)
    assert not outcome.measured[0].failure


def test_every_row_of_the_table_can_be_chosen():
    everything = suites(None)
    names = [f"{suite.name}/{row.name}" for suite in everything for row in suite.rows]
    assert len(set(names)) == len(names)
    for suite in everything:
        for row in suite.rows:
            (only,) = chosen(everything, [f"{suite.name}/{row.name}"], [])
            assert only.rows == (row,)
            for target in row.targets:
                assert target.aim <= target.least if target.against == "nothing" else target.least <= target.aim
    packages = {contender.package for suite in everything for contender in suite.contenders}
    assert packages == {"", *RIVALS.values()}


def test_limits_are_measured_at_every_level_and_set():
    pytest.importorskip("minislm.kernels.roofline_cython")
    from minislm.kernels import instruction_set

    before = instruction_set()
    limits = measure_limits(2, seconds=1e-4, rounds=1, most_bytes=2**20)
    assert instruction_set() == before
    names = {limit.name for limit in limits}
    assert {"read 1 MiB", "barrier"} <= names
    assert {f"{what} {name}" for what in ("fp32", "int8") for name in before.available} <= names
    assert all(limit.value > 0 for limit in limits if limit.name != "barrier")
    assert best(limits, "int8", 1).name.startswith("int8")
    assert best([], "memory", 1) is None
    assert len(limit_rows(limits)) == len(limits)


def test_the_report_shows_targets_and_draws_the_roofline(tmp_path):
    row = Row("row", "work", {"new": 1}, 10, "tokens/s")
    one = Measured("ours int8", False, [1.0, 1.5, 2.0], 1e-3, None, Facts("1", "avx2", "int8", 10**6, 10, 1000))
    outcome = Outcome("suite", row, [one], [])
    assert engine_rows(outcome)[0][:5] == ("suite/row", "ours int8", "6.67", "tokens/s", "67%")
    assert target_rows([outcome]) == []
    plot_roofline(LIMITS, [outcome], 1, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").stat().st_size > 1000


def test_the_command_lists_and_refuses(tmp_path):
    run = CliRunner().invoke(main, ["bench", "--list", "--json", "--cache", str(tmp_path)])
    assert run.exit_code == 0, run.output
    assert "llama-1.1b/generation" in {row["work"] for row in json.loads(run.stdout)}
    run = CliRunner().invoke(main, ["bench", "--work", "nothing", "--cache", str(tmp_path)])
    assert (run.exit_code, "rows: llama-1.1b/generation" in run.stderr) == (2, True)
    run = CliRunner().invoke(main, ["bench", "--against", "llamacpp"])
    assert (run.exit_code, "'llama.cpp'" in run.stderr) == (4, True)
    run = CliRunner().invoke(main, ["bench", "--model", str(tmp_path / "none")])
    assert (run.exit_code, "model_not_found" in run.stderr) == (3, True)


def test_what_is_made_of_a_model_is_kept_for_it_alone(tmp_path):
    from minislm.benchmark.shapes import kept_name
    from minislm.benchmark.stored import stored_folder

    one, _ = model_folder("llama-tiny", tmp_path)
    other = tmp_path / "elsewhere" / one.name
    shutil.copytree(one, other)
    assert kept_name("llama-tiny") == "llama-tiny"
    assert kept_name(str(one)) == kept_name(str(one)) != kept_name(str(other))
    before = kept_name(str(other))
    os.utime(next(other.glob("*.safetensors")), (0, 0))  # as when it is trained further
    assert kept_name(str(other)) != before
    assert stored_folder(str(one), tmp_path, "int4") != stored_folder(str(other), tmp_path, "int4")


def test_a_profile_keeps_to_what_a_model_can_see(tmp_path):
    folder, _ = model_folder("llama-tiny", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 9}))
    assert list(profile_model(str(folder), tmp_path)) == ["a prompt of 8 tokens", "one token after 8"]


@pytest.mark.parametrize(("model", "n_passes"), [("llama-tiny", 2), ("bert-tiny", 1)])
def test_a_profile_has_every_step(tmp_path, model, n_passes):
    profiles = profile_model(model, tmp_path, "int8")
    assert len(profiles) == n_passes
    for rows in profiles.values():
        *steps, every, whole = rows
        assert sum(int(row[1]) for row in steps) == int(every[1]) > 10
        assert sum(float(row[2]) for row in steps) == pytest.approx(float(every[2]), rel=0.05, abs=0.05)
        assert whole[0] == "the pass as it runs"
