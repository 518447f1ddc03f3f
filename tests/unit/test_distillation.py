"""Students: how they begin, what they learn from inside the teacher, and what is refused before the first step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_models import FAMILIES, HEADS, small_model

from minislm.compression.distil import Distil
from minislm.compression.distillation import Distillation
from minislm.compression.finetune import Train
from minislm.compression.layer_map import block_pairs
from minislm.compression.student import Student, every_other_layer, fresh_projection
from minislm.config import Head
from minislm.errors import MinislmError, TrainingError, UnsupportedError, UsageError
from minislm.layers.base import Grads, Tape
from minislm.models.decoder import Decoder
from minislm.models.encoder import Encoder
from minislm.ops.loss import kl_divergence
from minislm.testing import methods as laws
from minislm.testing.examples import sample_data
from minislm.testing.models import sample_ids
from minislm.training.objective import NextToken, Tasks
from minislm.training.settings import TrainSettings
from minislm.weights.dense import Dense

SHORT = TrainSettings(steps=3, batch_size=2)
INSIDE = {"hidden_weight": 0.7, "attention_weight": 0.6, "cosine_weight": 0.5}


@pytest.fixture(scope="module")
def model():
    return small_model("gpt2", n_layers=4)


@pytest.fixture(scope="module")
def data(model):
    return sample_data(model)


def batch_of(data, size=3):
    return next(data.train.evaluation(size))


# ---- students


def ends_a_part(path):
    return path.startswith(("blocks.1.", "blocks.3.")) and path.endswith(("output.weight", "down.weight"))


def test_a_student_of_every_other_layer_begins_with_its_teachers_numbers(model):
    student = every_other_layer(model)
    assert student.config.n_layers == 2
    assert student.blocks[1].mlp.up.weight is model.blocks[2].mlp.up.weight
    assert student.blocks[1].norm_1.weight is model.blocks[2].norm_1.weight
    assert student.embedding.weight is model.embedding.weight
    ids = sample_ids(model, 2, 5)
    silent = {path: Dense(np.zeros(w.shape, np.float32)) for path, w in model.weights().items() if ends_a_part(path)}
    silent |= {f"{path.removesuffix('weight')}bias": np.zeros(16, np.float32) for path in silent}
    assert np.array_equal(student.forward(ids), model.replaced(silent).forward(ids))  # blocks 1 and 3 add nothing


def test_both_sides_of_a_transformer_are_thinned():
    teacher = small_model("transformer", n_layers=3, n_encoder_layers=5)
    student = every_other_layer(teacher)
    assert (len(student.config.layers), len(student.config.encoder_layers)) == (2, 3)
    assert student.decoder_blocks[1].cross_attention.key.weight is teacher.decoder_blocks[2].cross_attention.key.weight
    assert student.encoder_blocks[2].mlp.up.bias is teacher.encoder_blocks[4].mlp.up.bias


def test_a_student_from_scratch_has_its_own_sizes(model, data):
    small = Distil(SHORT, student="scratch", sizes={"n_layers": 1, "d_model": 8}).run(model, data)
    assert (small.config.n_layers, small.config.d_model, small.config.layers[0].d_ff) == (1, 8, 10)
    assert small.config.activation == model.config.activation
    with pytest.raises(UsageError, match="multiple of n_heads"):
        Distil(SHORT, student="scratch", sizes={"d_model": 9}).run(model, data)
    with pytest.raises(UsageError, match="n_encoder_layers"):
        Distil(SHORT, student="scratch", sizes={"n_encoder_layers": 1}).run(model, data)
    teacher = small_model("transformer")
    sizes = {"n_layers": 1, "n_encoder_layers": 3, "d_ff": 7}
    small = Distil(SHORT, student="scratch", sizes=sizes).foresee(teacher)
    assert [sizes.d_ff for sizes in (*small.config.layers, *small.config.encoder_layers)] == [7] * 4


def test_a_student_of_its_own_teacher_has_nothing_to_learn_from_it(model, data):
    still = TrainSettings(steps=2, batch_size=2, weight_decay=0.0)
    small = Distil(still, student="itself", hard_weight=0.0, **INSIDE).run(model, data)
    for name, array in small.arrays().items():
        assert np.abs(array - model.arrays()[name]).max() < 5e-3  # Adam makes steps of rounding errors


@pytest.mark.parametrize("family", FAMILIES)
def test_hard_labels_alone_are_plain_training(family):
    model = small_model(family)
    data = sample_data(model)
    alone = Distil(SHORT, student="itself", hard_weight=1.0).run(model, data)
    assert laws.digest(alone) == laws.digest(Train(SHORT).run(model, data))


def test_the_student_comes_near_its_teacher(model, data):
    settings = TrainSettings(steps=60, batch_size=8, learning_rate=5e-3)
    teacher = Train(settings).run(model, data)
    alone = Distil(settings, student="scratch", sizes={"n_layers": 1}, hard_weight=1.0, seed=3).run(teacher, data)
    taught = Distil(settings, student="scratch", sizes={"n_layers": 1}, hard_weight=0.0, seed=3).run(teacher, data)
    ids = batch_of(data, 16).ids_BT

    def distance(student):
        return kl_divergence(student.forward(ids).reshape(-1, 23), teacher.forward(ids).reshape(-1, 23))[0]

    assert distance(taught) < distance(alone)


# ---- what lies inside


def learner(family, dtype=np.float64, **sizes):
    """A student with all targets and projections, its loss, and a batch with padding."""
    teacher = small_model(family, seed=2, dtype=dtype, n_layers=3)
    student = small_model(family, seed=1, dtype=dtype, **sizes)
    data = sample_data(teacher)
    targets = Distil(SHORT, **INSIDE).targets(student, teacher)
    widths = teacher.config.d_model, student.config.d_model
    n_projections = sum(getattr(target, "projection", None) is not None for target in targets)
    projections = tuple(fresh_projection(i, *widths, seed=0) for i in range(n_projections))
    own = Student("", student, projections)
    own = own.with_arrays({name: array.astype(dtype) for name, array in own.arrays().items()})
    return own, Distillation(teacher, 2.0, 0.3, data.objective, targets), batch_of(data)


@pytest.mark.parametrize("width", [16, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_of_everything_that_is_learnt(family, width):
    student, objective, batch = learner(family, d_model=width)

    def loss(other):
        return objective.loss(other, batch, batch.context(), Tape(), Grads())[0]

    tape, grads = Tape(), Grads()
    _, dy = objective.loss(student, batch, batch.context(), tape, grads)
    student.backward(dy, tape, grads)
    assert not tape
    assert not grads.side, "a layer did not take what was put aside for it"
    parameters = student.parameters()
    assert set(grads) == set(parameters)
    assert ("projections.0.weight" in parameters) == (width == 8)
    rng = np.random.default_rng(0)
    places = {name: ".".join(name.split(".")[:2]) for name in parameters}
    for place in set(places.values()):  # all arrays of a block, a head or a projection at once
        moved = {name: rng.standard_normal(parameters[name].shape) for name in parameters if places[name] == place}
        ends = [
            loss(student.with_arrays({name: parameters[name] + way * 1e-5 * d for name, d in moved.items()}))
            for way in (1, -1)
        ]
        expected, got = (ends[0] - ends[1]) / 2e-5, sum((grads[name] * d).sum() for name, d in moved.items())
        size = sum(np.square(grads[name]).sum() for name in moved) ** 0.5 * sum(d.size for d in moved.values()) ** 0.5
        assert abs(got - expected) <= 1e-6 * (size + 1e-2), f"{place}: {got} against {expected}"


@pytest.mark.parametrize("family", [family for family in FAMILIES if FAMILIES[family][0] is not Decoder])
def test_padding_teaches_nothing(family):
    student, objective, batch = learner(family)
    tape = Tape()
    before = objective.loss(student, batch, batch.context(), tape, Grads())[0]
    rubbish = {"ids_BT": batch.ids_BT.copy()}
    rubbish["ids_BT"][np.arange(batch.ids_BT.shape[1]) >= batch.lengths_B[:, None]] = 7
    if batch.source_BS is not None:
        rubbish["source_BS"] = batch.source_BS.copy()
        rubbish["source_BS"][np.arange(batch.source_BS.shape[1]) >= batch.source_lengths_B[:, None]] = 7
    assert batch.lengths_B.min() < batch.ids_BT.shape[1]
    other = dataclasses.replace(batch, **rubbish)
    assert objective.loss(student, other, other.context(), Tape(), Grads())[0] == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_lies_inside_comes_nearer(family):
    teacher = small_model(family, seed=3, n_layers=1)
    data = sample_data(teacher)
    settings = TrainSettings(steps=15, batch_size=8, learning_rate=5e-3, weight_decay=0.0)
    student = small_model(family, seed=4, n_layers=1)
    for option in INSIDE:
        method = Distil(settings, student="itself", **{option: 30.0})
        taught = method.run(student, data, original=teacher)

        def distance(model, method=method):
            objective = Distillation(teacher, 1.0, 1.0, data.objective, method.targets(model, teacher))
            batch = batch_of(data, 24)
            plain = data.objective.loss(model, batch, batch.context(), Tape(), Grads())[0]
            return objective.loss(model, batch, batch.context(), Tape(), Grads())[0] - plain

        assert distance(taught) < 0.8 * distance(student), option


def test_projections_are_trained_and_dropped(model, data, tmp_path):
    method = Distil(SHORT, student="scratch", sizes={"d_model": 8}, hidden_weight=1.0, cosine_weight=1.0)
    small = method.run(model, data)
    assert type(small) is type(model)
    assert not any("projection" in name for name in small.arrays())
    laws.check_round_trip(small, tmp_path)

    settings = dataclasses.replace(SHORT, steps=6, checkpoint_every=2)
    method = dataclasses.replace(method, training=settings)

    def stop(record):
        if record.step == 5:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        method.run(model, data, directory=tmp_path / "run", report=stop)
    again = method.run(model, data, directory=tmp_path / "run")
    assert laws.digest(again) == laws.digest(method.run(model, data))


@pytest.mark.parametrize("change", [{"hidden_weight": 2.0}, {"layers": "last"}, {"cosine_weight": 1.0}])
def test_checkpoints_of_another_loss_are_refused(change, model, data, tmp_path):
    method = Distil(dataclasses.replace(SHORT, steps=2), hidden_weight=1.0)
    method.run(model, data, directory=tmp_path)
    with pytest.raises(TrainingError) as caught:
        dataclasses.replace(method, **change).run(model, data, directory=tmp_path)
    assert caught.value.code == "checkpoint_mismatch"
    smoothed = dataclasses.replace(data, objective=NextToken(label_smoothing=0.1))
    with pytest.raises(TrainingError):
        method.run(model, smoothed, directory=tmp_path)


def test_losses_of_pairs_are_averaged_and_those_of_heads_weighed():
    teacher, student = small_model("encoder", seed=2), small_model("encoder")
    data = sample_data(teacher)
    batch = batch_of(data)

    def loss(hard_weight, hard, **weights):
        targets = Distil(SHORT, **weights).targets(student, teacher)
        objective = Distillation(teacher, 1.0, hard_weight, hard, targets)
        return objective.loss(student, batch, batch.context(), Tape(), Grads())[0]

    for option in ("hidden_weight", "attention_weight"):
        maps = ("uniform", {"blocks.0": "blocks.0"}, {"blocks.1": "blocks.1"})
        alone = loss(1.0, Tasks())
        both, first, second = (loss(1.0, Tasks(), **{option: 3.0, "layers": layers}) - alone for layers in maps)
        assert both == pytest.approx((first + second) / 2, rel=1e-5)
        assert first != pytest.approx(second, rel=1e-2)
    heads = {head.name: loss(0.0, Tasks({other.name: float(other is head) for other in HEADS})) for head in HEADS}
    weights = {"words": 0.5, "topic": 2.0, "names": 0.0, "answer": 3.0}
    expected = sum(weights[name] * value for name, value in heads.items())
    assert loss(0.0, Tasks(weights)) == pytest.approx(expected, rel=1e-6)


# ---- layer maps


def test_maps():
    teacher, student = small_model("transformer", n_layers=4, n_encoder_layers=6), small_model("transformer")

    def numbers(layers):
        return [pair.teacher for pair in block_pairs(student, teacher, layers)]

    uniform = ["encoder.blocks.2", "encoder.blocks.5", "decoder.blocks.1", "decoder.blocks.3"]
    assert numbers("uniform") == uniform
    assert numbers("last") == ["encoder.blocks.4", "encoder.blocks.5", "decoder.blocks.2", "decoder.blocks.3"]
    assert numbers({"decoder.blocks.0": "decoder.blocks.3"}) == ["decoder.blocks.3"]
    assert [pair.teacher for pair in block_pairs(teacher, student)][:6] == [
        *["encoder.blocks.0"] * 3,
        *["encoder.blocks.1"] * 3,
    ]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"layers": {"blocks.0": "blocks.4"}}, "unknown_block"),
        ({"layers": {"blocks.2": "blocks.0"}}, "unknown_block"),
        ({"layers": {"0": "1"}}, "unknown_block"),
        ({"layers": {}}, "bad_option"),
        ({"layers": "last", "student": "scratch", "sizes": {"n_layers": 5}}, "bad_option"),
        ({"attention_weight": 1.0, "student": "scratch", "sizes": {"n_heads": 2}}, "heads_differ"),
    ],
)
def test_maps_that_fit_no_model_are_refused_before_training(options, code, model, data):
    method = Distil(SHORT, **{"hidden_weight": 1.0, **options})
    for run in (method.run, lambda model, data: method.foresee(model)):
        with pytest.raises(MinislmError) as caught:
            run(model, data)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"hidden_weight": -1.0}, "bad_option"),
        ({"cosine_weight": float("nan")}, "bad_option"),
        ({"attention_weight": float("inf")}, "bad_option"),
        ({"hidden_weight": 1.0, "layers": "first"}, "bad_option"),
        ({"hidden_weight": 1.0, "layers": {"blocks.0": 1}}, "bad_option"),
        ({"layers": "last"}, "contradicting_options"),
        ({"cosine_weight": 1.0, "layers": {"blocks.0": "blocks.1"}}, "contradicting_options"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, code):
    with pytest.raises(MinislmError) as caught:
        Distil(SHORT, **options)
    assert caught.value.code == code


def test_options_survive_json():
    method = Distil(SHORT, hidden_weight=1.0, layers={"blocks.0": "blocks.1"})
    options = method.to_json()
    assert Distil.from_json({name: value for name, value in options.items() if name != "method"}) == method


# ---- teachers


def test_teachers_whose_answers_mean_something_else_are_refused(model, data):
    encoder = small_model("encoder")
    fewer = encoder.with_heads([Head("topic", "sequence", ("a", "b")), *(h for h in HEADS if h.name != "topic")])
    for student, teacher, code in (
        (model, small_model("gpt2", vocab_size=24), "vocabulary_differs"),
        (model, encoder, "architecture_differs"),
        (encoder, fewer, "heads_differ"),
    ):
        with pytest.raises(UnsupportedError) as caught:
            Distil(SHORT, student="itself").run(student, data, original=teacher)
        assert caught.value.code == code


def test_the_teacher_drops_nothing(data):
    model = small_model("gpt2", dropout=0.5)
    batch = batch_of(data)
    context = batch.context(dropout=(0, 1, 0))
    soft = Distillation(model, 1.0, 0.0)
    assert soft.loss(model, batch, context, Tape(), Grads())[0] > 1e-2
    assert soft.loss(model, batch, batch.context(), Tape(), Grads())[0] == 0.0


def test_a_teacher_with_a_shorter_context_is_refused(model, data):
    with pytest.raises(MinislmError) as caught:
        Distil(SHORT, student="itself").run(model, data, original=small_model("gpt2", context=4))
    assert caught.value.code == "config_invalid"


def test_checkpoints_of_another_teacher_are_refused(model, data, tmp_path):
    settings = TrainSettings(steps=2, batch_size=2)
    student = Distil(settings, student="itself")
    student.run(model, data, directory=tmp_path)
    with pytest.raises(TrainingError) as caught:
        student.run(model, data, original=small_model("gpt2", seed=9, n_layers=4), directory=tmp_path)
    assert caught.value.code == "checkpoint_mismatch"


def test_every_head_learns_from_the_teachers():
    teacher = small_model("encoder", seed=5)
    data = sample_data(teacher)
    settings = TrainSettings(steps=30, batch_size=8, learning_rate=5e-3, weight_decay=0.0)
    student = every_other_layer(teacher)
    taught = Distil(settings, hard_weight=0.0).run(teacher, data)
    assert isinstance(taught, Encoder)
    batch = batch_of(data, 24)
    answers = teacher.forward(batch.ids_BT, batch.context())
    for name, answer in answers.items():
        distance = [
            kl_divergence(
                model.forward(batch.ids_BT, batch.context())[name].reshape(-1, answer.shape[-1]),
                answer.reshape(-1, answer.shape[-1]),
            )[0]
            for model in (taught, student)
        ]
        assert distance[0] < distance[1], name


def test_a_head_without_labels_learns_from_the_teacher_alone():
    teacher = small_model("encoder", seed=5)
    data = sample_data(teacher)
    batch = dataclasses.replace(batch_of(data), labels={})
    student = small_model("encoder")
    loss, dy = Distillation(teacher, 1.0, 0.5, data.objective).loss(student, batch, batch.context(), Tape(), Grads())
    assert loss > 0
    assert set(dy) == {head.name for head in HEADS}
    assert all(np.abs(gradient).max() > 0 for gradient in dy.values())
