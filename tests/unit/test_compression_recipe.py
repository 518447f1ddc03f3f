"""Recipes: YAML there and back, and errors that name file, step and key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minislm.compression.distil import Distil
from minislm.compression.prune import Prune
from minislm.compression.quantize import Quantize
from minislm.compression.recipe import Recipe, Step, StepStarted
from minislm.errors import ConfigError, NotFoundError, UsageError
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.testing.examples import sample_data
from minislm.training.settings import TrainSettings

TEXT = """
teacher: original
steps:
  - method: distil
    training: {steps: 20, learning_rate: 1e-3}
    student: scratch
    sizes: {n_layers: 2}
  - method: prune
    where: blocks.*.weight
    pattern: 2:4
  - {method: quantize, format: int8, where: embedding.weight}
"""


def test_a_recipe_is_read_by_the_rules_of_yaml_1_2():
    recipe = Recipe.from_yaml(TEXT)
    assert recipe == Recipe(
        (
            Step(Distil(TrainSettings(steps=20, learning_rate=0.001), student="scratch", sizes={"n_layers": 2})),
            Step(Prune(pattern="2:4"), "blocks.*.weight"),
            Step(Quantize("int8"), "embedding.weight"),
        )
    )


def test_a_recipe_survives_its_file(tmp_path):
    recipe = Recipe.from_yaml(TEXT)
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe


@given(
    where=st.text(min_size=1) | st.sampled_from(["2:4", "1e-3", "yes", "null", "~", "010", "1_000", "0x1f", "*"]),
    teacher=st.text(alphabet="ab/.-0123456789e:", min_size=1),
    sparsity=st.floats(0, 1, exclude_max=True),
    steps=st.integers(1, 2**40),
)
def test_any_recipe_survives_yaml(where, teacher, sparsity, steps):
    recipe = Recipe((Step(Prune(sparsity=sparsity, training=TrainSettings(steps=steps)), where),), teacher)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a list named steps"),
        ("steps: 3", "a list named steps"),
        ("steps: []", "empty"),
        ("steps: [{method: quantize}]\nteachr: x", "Did you mean 'teacher'"),
        ("steps: [{method: quantize}]\nteacher: 3", "teacher must be"),
        ("steps: [quantize]", "step 1: expected a mapping"),
        (
            "steps: [{method: quantize}, {method: quantise}]",
            "step 2: unknown method 'quantise'. Did you mean 'quantize'",
        ),
        ("steps: [{method: quantize, fromat: int4}]", "step 1: unknown option 'fromat'. Did you mean 'format'"),
        ("steps: [{method: quantize, format: int9}]", "step 1: unknown format"),
        ("steps: [{method: quantize, format: 4}]", "step 1: quantize: format must be text, not 4"),
        ("steps: [{method: quantize, where: 3}]", "step 1: where must be"),
        ("steps: [{method: prune, sparsity: half}]", "sparsity must be a number or nothing, not 'half'"),
        ("steps: [{method: prune, sparsity: true}]", "sparsity must be a number or nothing, not True"),
        ("steps: [{method: prune, sparsity: .nan}]", "sparsity must"),
        ("steps: [{method: prune, sparsity: 0.5, pattern: '2:4'}]", "exactly one of"),
        ("steps: [{method: train, training: {lerning_rate: 1}}]", "lerning_rate"),
        ("steps: [{method: train, training: 3}]", "training must be"),
        ("steps: [{method: train}]", "training is missing"),
        ("steps: [{method: prune, sparsity: 0.5, sparsity: 0.6}]", "'sparsity' stands twice"),
        ("steps: [", "no readable YAML"),
        ("steps: !!python/object:os.system []", "no readable YAML"),
    ],
)
def test_bad_recipes_are_refused_by_place_and_name(text, words, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Recipe.load(path)
    assert caught.value.code == "recipe_invalid"
    assert "bad.yaml" in str(caught.value)
    assert words in str(caught.value)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(NotFoundError, match=r"none\.yaml"):
        Recipe.load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        Recipe.load(tmp_path / "binary.yaml")


def test_a_recipe_needs_a_step():
    with pytest.raises(ConfigError):
        Recipe(())


def test_steps_run_in_order_and_are_announced():
    model = Decoder.create(DecoderConfig.uniform(vocab_size=11, d_model=8, context=4, n_layers=1, n_heads=2))
    events = []
    recipe = Recipe(
        (
            Step(Prune(pattern="2:4"), "blocks.*"),
            Step(Quantize("int4"), "blocks.*"),
            Step(Quantize("int8"), "embedding.*"),
        )
    )
    small = recipe.run(model, report=events.append)
    assert events == [
        StepStarted(1, 3, "prune", "blocks.*"),
        StepStarted(2, 3, "quantize", "blocks.*"),
        StepStarted(3, 3, "quantize", "embedding.*"),
    ]
    assert small.weights()["blocks.0.mlp.up.weight"].spec()["values"]["format"] == "int4"
    assert small.weights()["embedding.weight"].spec()["format"] == "int8"


LATE_FAULTS = (
    (Step(Quantize("int4"), "blocks.9.*"), "step 3: no weight matches 'blocks.9.*'"),
    (Step(Quantize("int8", activations="static", calibration="mse")), "step 3: quantize: it needs data"),
    (Step(Distil(TrainSettings(steps=1)), "blocks.*"), "step 3: distil: acts on the whole model"),
)


@pytest.mark.parametrize(("step", "words"), LATE_FAULTS)
def test_what_is_wrong_in_a_late_step_is_told_before_the_first_one_runs(step, words):
    model = Decoder.create(DecoderConfig.uniform(vocab_size=11, d_model=8, context=4, n_layers=2, n_heads=2))
    recipe = Recipe((Step(Prune(pattern="2:4"), "blocks.*"), Step(Quantize("int8"), "embedding.*"), step))
    started = []
    data = None if "needs data" in words else sample_data(model)
    with pytest.raises(UsageError) as caught:
        recipe.run(model, data, report=started.append)
    assert words in str(caught.value)
    assert started == []


def test_the_patterns_behind_a_student_are_those_of_the_student():
    model = Decoder.create(DecoderConfig.uniform(vocab_size=11, d_model=8, context=4, n_layers=4, n_heads=2))
    data, student = sample_data(model), Step(Distil(TrainSettings(steps=1, batch_size=1)))
    small = Recipe((student, Step(Quantize("int4"), "blocks.1.*"))).run(model, data)
    assert small.weights()["blocks.1.mlp.up.weight"].format.name == "int4"
    with pytest.raises(UsageError, match=r"step 2: no weight matches 'blocks\.2"):
        Recipe((student, Step(Quantize("int4"), "blocks.2.*"))).run(model, data)
