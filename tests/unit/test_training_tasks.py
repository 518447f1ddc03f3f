"""Examples for every task: what a batch holds, the order that (seed, epoch, index) decides, what is refused."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import task_runs
from task_runs import CONTEXT, RUNS, labelled_texts, pairs, questions, tokenizer

from minislm.config import Head
from minislm.errors import ConfigError, DataError, UnsupportedError, UsageError
from minislm.layers.base import PLAIN, Grads, Tape
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.text.spans import Span, spans_of
from minislm.text.tokenizer import Tokenizer
from minislm.training.data import Batch, TokenWindows, TrainingData
from minislm.training.loop import fit
from minislm.training.objective import NextToken, Tasks
from minislm.training.settings import TrainSettings
from minislm.training.tasks.labelled import LabelledTexts, heads_for
from minislm.training.tasks.masked import MaskedWindows
from minislm.training.tasks.mixture import Mixture
from minislm.training.tasks.ragged import Ragged
from minislm.training.tasks.sequences import SequencePairs


def same(a, b):
    """Whether two batches are equal."""
    fields = [name for name in vars(a) if name != "labels"]
    return (
        all(np.array_equal(getattr(a, name), getattr(b, name)) for name in fields)
        and a.labels.keys() == b.labels.keys()
        and all(np.array_equal(a.labels[name], b.labels[name]) for name in a.labels)
    )


@pytest.fixture(params=RUNS)
def name(request):
    return request.param


@pytest.fixture
def run(name):
    return RUNS[name]()


# Every kind of examples


def test_a_batch_depends_on_seed_and_index_alone(name):
    train, fresh = (RUNS[name]()[1].train for _ in range(2))
    forwards = [train.batch(i, 4, seed=2) for i in range(30)]
    for i in reversed(range(30)):
        assert same(fresh.batch(i, 4, seed=2), forwards[i])
    assert not all(same(fresh.batch(i, 4, seed=3), forwards[i]) for i in range(5))
    assert not same(forwards[0], forwards[1])


def test_evaluation_is_the_same_every_time(run):
    validation = run[1].validation
    once, again = list(validation.evaluation(3)), list(validation.evaluation(3))
    assert all(map(same, once, again))
    assert len(once) == len(again)
    few = list(validation.evaluation(2, batches=2))
    assert 2 <= len(few) <= 4


def test_what_a_batch_says_fits_the_model(run):
    model, data = run
    data.train.check(model)
    for i in range(8):
        batch = data.train.batch(i, 5, seed=1)
        assert all(a.dtype == np.int64 for a in [*vars(batch).values(), *batch.labels.values()] if hasattr(a, "dtype"))
        tape, grads = Tape(), Grads()
        loss, dy = data.objective.loss(model, batch, batch.context(), tape, grads)
        assert np.isfinite(loss)
        model.backward(dy, tape, grads)
        assert not tape
        assert not grads.side
        assert any(gradient.any() for gradient in grads.values())


def test_what_is_in_a_batch_is_learned(run):
    model, data = run
    settings = TrainSettings(steps=40, batch_size=8, learning_rate=3e-2, weight_decay=0.0, warmup_steps=4)
    result = fit(model, TrainingData(data.train, data.train), settings)
    before = data.objective.judge(model, data.train.evaluation(8))
    assert result.best_loss < 0.9 * before


def test_tokens_are_counted_without_padding(run):
    train = run[1].train
    for i in range(3):
        batch = train.batch(i, 5, seed=1)
        n_tokens = batch.ids_BT.size if batch.lengths_B is None else batch.lengths_B.sum()
        assert batch.n_tokens == n_tokens + (0 if batch.source_BS is None else batch.source_lengths_B.sum())
    n = -(-train.n_examples // 5)
    mean = np.mean([train.batch(i, 5, seed=1).n_tokens for i in range(n)])
    assert train.tokens_per_batch(5) == pytest.approx(mean, rel=0.1)


# Buckets


def rows_of(batch, of):
    """Which examples a batch holds, found by their tokens."""
    n = batch.lengths_B
    return [of[tuple(ids[:length].tolist())] for ids, length in zip(batch.ids_BT, n, strict=True)]


def test_every_epoch_visits_every_example_once():
    n, size = 203, 6
    rows = [[i] * (1 + i * i % 17) for i in range(n)]
    ids = Ragged.of(rows)
    examples = LabelledTexts(ids, ids, {})
    of = {tuple(row): i for i, row in enumerate(rows)}
    per_epoch = -(-n // size)
    orders = set()
    for epoch in range(3):
        found = [rows_of(examples.batch(epoch * per_epoch + i, size, seed=7), of) for i in range(per_epoch)]
        assert sorted(itertools.chain(*found)) == list(range(n))
        assert sorted(map(len, found)) == [n % size, *[size] * (n // size)]
        orders.add(str(found))
    assert len(orders) == 3
    evaluated = [rows_of(batch, of) for batch in examples.evaluation(size)]
    assert sorted(itertools.chain(*evaluated)) == list(range(n))


def test_batches_hold_texts_of_about_the_same_length(rng):
    lengths = rng.integers(1, 60, 2000)
    ids = Ragged.of([[0] * n for n in lengths])
    examples = LabelledTexts(ids, ids, {})
    batches = [examples.batch(i, 8, seed=0) for i in range(250)]
    assert sum(b.ids_BT.size for b in batches) < 1.1 * lengths.sum()  # in any order it would be about 1.8
    means = [b.lengths_B.mean() for b in batches]
    assert np.std(means[:50]) > 10  # short and long ones come in turns


def test_the_order_does_not_change_with_versions():
    ids = Ragged.of([[i] * (1 + i % 3) for i in range(10)])
    examples = LabelledTexts(ids, ids, {})
    assert [examples.batch(i, 4, seed=0).ids_BT[:, 0].tolist() for i in range(4)] == [
        [1, 4, 7, 2],
        [8, 5],
        [0, 9, 3, 6],
        [8, 2],  # of the second epoch
    ]


def test_rows_are_padded_at_the_end(rng):
    rows = [rng.integers(0, 9, n).tolist() for n in (3, 0, 5, 1)]
    ragged = Ragged.of(rows)
    for chosen in ([0], [1, 3], [2, 1, 0, 2]):
        padded = ragged.padded(np.array(chosen), -1)
        longest = max(len(rows[i]) for i in chosen)
        assert padded.tolist() == [rows[i] + [-1] * (longest - len(rows[i])) for i in chosen]


# Labels


def test_labels_stand_at_their_tokens():
    texts = labelled_texts()
    heads = heads_for(texts)
    assert heads == (
        Head("label", "sequence", ("fly", "go", "walk")),
        Head("tags", "token", ("O", "B-city", "I-city")),
    )
    examples = LabelledTexts.of(texts, tokenizer(), heads, CONTEXT)
    batch = examples.take(np.arange(len(texts)))
    for i, text in enumerate(texts):
        ids, _, offsets = tokenizer().encode_pairs([text.text])[0]
        n = len(ids)
        assert batch.ids_BT[i, :n].tolist() == ids
        assert (batch.ids_BT[i, n:] == tokenizer().pad_id).all()
        assert batch.lengths_B[i] == n
        tags = [None if tag < 0 else heads[1].labels[tag] for tag in batch.labels["tags"][i]]
        assert tags[0] is None
        assert tags[n - 1 :] == [None] * (len(tags) - n + 1)
        assert spans_of(tags[:n], offsets) == list(text.spans)
        assert heads[0].labels[batch.labels["label"][i]] == text.label
    assert not batch.types_BT.any()


def test_tags_are_of_the_first_text():
    texts = [text._replace(pair=text.text) for text in labelled_texts()]
    examples = LabelledTexts.of(texts, tokenizer(), heads_for(texts), 2 * CONTEXT)
    batch = examples.take(np.arange(len(texts)))
    tags = batch.labels["tags"]
    assert (tags[batch.types_BT == 1] == -1).all()
    assert ((tags > 0).sum(axis=1) > 0).all()


def test_answers_are_the_tokens_of_their_characters():
    texts = questions()
    examples = LabelledTexts.of(texts, tokenizer(), heads_for(texts), CONTEXT)
    batch = examples.take(np.arange(len(texts)))
    for i, text in enumerate(texts):
        _, types, offsets = tokenizer().encode_pairs([text.text], [text.pair])[0]
        assert batch.types_BT[i, : len(types)].tolist() == types
        first, last = batch.labels["answer"][i]
        if text.answers:
            assert types[first] == types[last] == 1
            assert text.pair[offsets[first][0] : offsets[last][1]] in task_runs.CITIES
        else:
            assert (first, last) == (0, 0)


def test_heads_whose_labels_do_not_exclude_each_other_are_not_trained():
    texts = labelled_texts()
    heads = [dataclasses.replace(head, problem="multi_label") for head in heads_for(texts) if head.kind == "sequence"]
    with pytest.raises(UnsupportedError, match="multi_label"):
        LabelledTexts.of(texts, tokenizer(), heads, 40)


def test_long_texts_are_refused_with_their_line_or_cut():
    texts = labelled_texts()
    heads = heads_for(texts)
    with pytest.raises(DataError, match=r"texts.jsonl, line \d+: \d+ tokens") as caught:
        LabelledTexts.of(texts, tokenizer(), heads, 8)
    assert caught.value.code == "too_long"
    examples = LabelledTexts.of(texts, tokenizer(), heads, 8, cut=True)
    batch = examples.take(np.arange(len(texts)))
    assert batch.lengths_B.max() == 8
    assert (batch.ids_BT[:, 7] == tokenizer().sep_id).any()
    answered = questions()
    with pytest.raises(DataError, match="cut off") as caught:
        LabelledTexts.of(answered, tokenizer(), heads_for(answered), 8, cut=True)
    assert caught.value.code == "too_long"


def test_labels_that_training_does_not_have_are_named():
    texts = labelled_texts()
    heads = heads_for(texts)
    for strange in (texts[0]._replace(label="swim"), texts[0]._replace(spans=(Span(0, 3, "verb"),))):
        with pytest.raises(DataError, match=r"texts.jsonl, line 1: .* not occur in training") as caught:
            LabelledTexts.of([*texts[1:], strange], tokenizer(), heads, CONTEXT)
        assert caught.value.code == "unknown_label"


def test_a_head_that_the_texts_are_not_labelled_for_is_left_out():
    texts = labelled_texts()
    heads = heads_for(texts)
    classed = LabelledTexts.of([text._replace(spans=None) for text in texts], tokenizer(), heads, CONTEXT)
    assert [head.name for head in classed.labels] == ["label"]
    assert classed.take(np.arange(2)).labels.keys() == {"label"}
    with pytest.raises(DataError, match=r"line 1: the model has heads for \['answers'\]") as caught:
        LabelledTexts.of(texts, tokenizer(), heads_for(questions()), CONTEXT)
    assert caught.value.code == "labels_missing"


@pytest.mark.parametrize("change", [{"label": "one"}, {"spans": ()}])
def test_one_class_is_nothing_to_learn(change):
    with pytest.raises(DataError, match=r"texts.jsonl, line 1: .*line 40") as caught:
        heads_for([text._replace(**change) for text in labelled_texts()])
    assert caught.value.code == "one_class"
    with pytest.raises(DataError):
        heads_for([text._replace(answers=()) for text in questions()])
    with pytest.raises(DataError) as caught:
        heads_for([])
    assert caught.value.code == "empty_text"


def test_a_missing_second_text_is_named():
    texts = questions()
    with pytest.raises(DataError, match="line 3: the second text is missing"):
        LabelledTexts.of([*texts[:2], texts[2]._replace(pair=None)], tokenizer(), heads_for(texts), CONTEXT)


# Sequences


def test_the_decoder_reads_the_target_one_token_late():
    made, texts = tokenizer(False), pairs()
    batch = SequencePairs.of(texts, made, CONTEXT).take(np.arange(len(texts)))
    for i, (_, source, target, _) in enumerate(texts):
        wanted = [*made.encode(target), made.eos_id]
        n = len(wanted)
        assert batch.targets_BT[i].tolist() == wanted + [-1] * (batch.targets_BT.shape[1] - n)
        assert batch.ids_BT[i, :n].tolist() == [made.eos_id, *wanted[:-1]]
        read = [*made.encode(source), made.eos_id]
        assert batch.source_BS[i, : len(read)].tolist() == read
        assert (batch.lengths_B[i], batch.source_lengths_B[i]) == (n, len(read))


def test_bad_sequences():
    texts = pairs()
    with pytest.raises(DataError, match=r"line 2: the source has \d+ tokens") as caught:
        SequencePairs.of([texts[0]._replace(source="fly"), *texts[1:]], tokenizer(False), 7)
    assert caught.value.code == "too_long"
    longest = max(len(tokenizer(False).encode(pair.source)) for pair in texts)
    assert SequencePairs.of(texts, tokenizer(False), longest + 1).sources.lengths.max() == longest + 1
    with pytest.raises(DataError, match=f"the source has {longest + 1} tokens"):
        SequencePairs.of(texts, tokenizer(False), longest)
    with pytest.raises(DataError, match="the target has"):
        SequencePairs.of([texts[0]._replace(source="fly", target="fly to Rome please please")], tokenizer(False), 7)
    cut = SequencePairs.of(texts, tokenizer(False), 7, cut=True)
    assert cut.sources.lengths.max() == 7
    assert (cut.sources.values[np.cumsum(cut.sources.lengths) - 1] == cut.eos_id).all()
    with pytest.raises(DataError):
        SequencePairs.of([], tokenizer(False), 7)
    with pytest.raises(UnsupportedError):
        SequencePairs.of(texts, tokenizer(), CONTEXT)


# Masks


@pytest.fixture(scope="module")
def letters():
    """Many tokens of a byte-level encoder, with an end of a document here and there."""
    made = Tokenizer.train([], kind="bytes", encoder=True)
    return made, made.encode_documents([chr(97 + i % 26) * 50 + chr(65 + i % 26) * 50 for i in range(300)])


def test_masks_hide_tokens_as_bert_does(letters):
    made, ids = letters
    examples = MaskedWindows(ids, made, 64)
    batch = examples.batch(5, 400, seed=1)
    labels = batch.labels["masked"]
    judged = labels >= 0
    plain = examples.windows.batch(5, 400, seed=1).ids_BT
    whole = np.where(judged, labels, batch.ids_BT)
    assert (whole[:, 1:-1] == plain).all()
    assert (whole[:, 0] == made.cls_id).all()
    assert (whole[:, -1] == made.sep_id).all()
    assert not judged[np.isin(whole, list(made.special_ids.values()))].any()
    n = judged.sum()
    assert n / (plain < 256).sum() == pytest.approx(0.15, abs=0.01)
    masked, kept = (batch.ids_BT[judged] == made.mask_id).sum(), (batch.ids_BT[judged] == labels[judged]).sum()
    assert masked / n == pytest.approx(0.8, abs=0.03)
    assert kept / n == pytest.approx(0.1, abs=0.03)
    others = batch.ids_BT[judged & (batch.ids_BT != labels) & (batch.ids_BT != made.mask_id)]
    assert len(set(others.tolist())) > 150
    assert others.max() < 256


def test_a_text_is_hidden_in_other_places_the_next_time(letters):
    made, ids = letters
    examples = MaskedWindows(ids[:30], made, 28)
    first, second = (examples.batch(i, 1, seed=1) for i in range(2))
    assert (first.labels["masked"] != second.labels["masked"]).any()


def test_next_texts_follow_and_others_do_not(letters):
    made, _ = letters
    ids = np.arange(3000) % 256  # tokens that tell where they stand
    examples = MaskedWindows(ids, made, 21, next_sentence=True)
    assert examples.heads == (Head("masked", "masked"), Head("next", "sequence", ("next", "other")))
    batch = examples.batch(0, 200, seed=3)
    labels = batch.labels["masked"]
    whole = np.where(labels >= 0, labels, batch.ids_BT)
    middle = 10
    assert (whole[:, [0, middle, -1]] == [made.cls_id, made.sep_id, made.sep_id]).all()
    assert (batch.types_BT == (np.arange(21) > middle)).all()
    follows = (whole[:, middle + 1] - whole[:, middle - 1]) % 256 == 1
    other = batch.labels["next"].astype(bool)
    assert follows[~other].all()
    assert follows[other].mean() < 0.05
    assert other.mean() == pytest.approx(0.5, abs=0.1)
    assert ((np.diff(whole[:, middle + 1 : -1], axis=1) % 256) == 1).all()


def test_bad_masks(letters):
    made, ids = letters
    for arguments, options in (((ids, made, 4), {}), ((ids, made, 20), {"rate": 1.0}), ((ids, made, 20), {"rate": 0})):
        with pytest.raises(UsageError):
            MaskedWindows(*arguments, **options)
    with pytest.raises(UnsupportedError):
        MaskedWindows(ids, Tokenizer.train([], kind="bytes"), 20)
    with pytest.raises(DataError):
        MaskedWindows(ids[:10], made, 20)


# Mixtures


def test_every_part_goes_through_its_epochs():
    rows = [[i] * (1 + i % 5) for i in range(50)]
    short, long = Ragged.of(rows[:11]), Ragged.of(rows[11:])
    parts = [LabelledTexts(short, short, {}), LabelledTexts(long, long, {})]
    mixture = Mixture(*parts)
    all_turns, found_of = set(), ([], [])
    of = {tuple(row): i for i, row in enumerate(rows)}
    per_epoch = 3 + 10
    for epoch in range(3):
        found = [rows_of(mixture.batch(epoch * per_epoch + i, 4, seed=2), of) for i in range(per_epoch)]
        assert sorted(itertools.chain(*found)) == list(range(50))
        assert all(len({row < 11 for row in batch}) == 1 for batch in found)
        turns = [batch[0] < 11 for batch in found]
        assert turns not in (sorted(turns), sorted(turns)[::-1])
        all_turns.add(str(turns))
        for batch in found:
            found_of[batch[0] >= 11].append(batch)
    assert len(all_turns) == 3
    for part, batches in zip(parts, found_of, strict=True):
        assert batches == [rows_of(part.batch(i, 4, seed=2), of) for i in range(len(batches))]
    assert sorted(itertools.chain(*(rows_of(b, of) for b in mixture.evaluation(4)))) == list(range(50))


def test_parts_must_ask_the_same():
    _, sequence = RUNS["sequence"]()
    _, labelled = RUNS["labelled"]()
    for parts in ((), (sequence.train, labelled.train)):
        with pytest.raises(UsageError):
            Mixture(*parts)


# Objectives


def nats(logits, label):
    shifted = logits - logits.max()
    return float(np.log(np.exp(shifted).sum()) - shifted[label])


def test_tasks_add_up_their_heads():
    model, data = task_runs.mixed_run()
    batches = [data.train.batch(i, 5, seed=0) for i in range(6)]
    weights = {"tags": 0.5, "next": 2.0}
    expected: dict[str, list[float]] = {}
    for batch in batches:
        outputs = model.forward(batch.ids_BT, batch.context())
        own = {}
        for name, labels in batch.labels.items():
            flat = outputs[name].reshape(-1, outputs[name].shape[-1])
            own[name] = [nats(row, k) for row, k in zip(flat, labels.reshape(-1), strict=True) if k >= 0]
            expected.setdefault(name, []).extend(own[name])
        loss, dy = Tasks(weights).loss(model, batch, batch.context(), Tape(), Grads())
        assert loss == pytest.approx(sum(weights.get(n, 1.0) * np.mean(v) for n, v in own.items() if v), rel=1e-5)
        assert dy.keys() == batch.labels.keys()
        _, plain = Tasks().loss(model, batch, batch.context(), Tape(), Grads())
        for name, gradient in dy.items():
            np.testing.assert_allclose(gradient, weights.get(name, 1.0) * plain[name], rtol=1e-5, err_msg=name)
    total = sum(weights.get(name, 1.0) * np.mean(values) for name, values in expected.items())
    assert Tasks(weights).judge(model, batches) == pytest.approx(total, rel=1e-5)
    with pytest.raises(UsageError, match="no head 'tag' to weigh"):
        Tasks({"tag": 1.0}).loss(model, batches[0], PLAIN, Tape(), Grads())


def test_smoothing_is_for_training_alone():
    model, data = RUNS["sequence"]()
    batches = list(data.validation.evaluation(4))
    plain, smooth = NextToken(), NextToken(label_smoothing=0.2)
    assert smooth.judge(model, batches) == plain.judge(model, batches)
    values, counts = [], []
    for batch in batches:
        arguments = (model, batch, batch.context(), Tape(), Grads())
        (hard, _), (soft, dsoft) = plain.loss(*arguments), smooth.loss(*arguments)
        logits = model.forward(batch.ids_BT, batch.context())
        judged = batch.targets_BT >= 0
        even = np.mean([np.mean([nats(row, k) for k in range(len(row))]) for row in logits[judged]])
        assert soft == pytest.approx(0.8 * hard + 0.2 * even, rel=1e-4)
        assert not dsoft[~judged].any()
        values.append(hard)
        counts.append(judged.sum())
    assert plain.judge(model, batches) == pytest.approx(np.average(values, weights=counts), rel=1e-6)


def test_examples_for_another_model_are_refused():
    decoder = Decoder.create(DecoderConfig.uniform(vocab_size=300, context=CONTEXT, d_model=8, n_layers=1, n_heads=2))
    settings = TrainSettings(steps=1, batch_size=2)
    runs = {name: make() for name, make in RUNS.items()}
    for model, data in (
        *((decoder, data) for _, data in runs.values()),
        (runs["answer"][0], runs["labelled"][1]),
        (runs["labelled"][0], runs["masked"][1]),
        (runs["labelled"][0], runs["sequence"][1]),
        (runs["labelled"][0], TrainingData(TokenWindows(np.arange(20), 6))),
    ):
        with pytest.raises(ConfigError) as caught:
            fit(model, data, settings)
        assert caught.value.code == "config_invalid"


def test_a_batch_makes_its_context():
    batch = RUNS["sequence"]()[1].train.batch(0, 3, seed=0)
    context = batch.context(dropout=(1, 2, 3))
    assert context.dropout == (1, 2, 3)
    for name in ("lengths_B", "types_BT", "source_BS", "source_lengths_B"):
        assert getattr(context, name) is getattr(batch, name)
    assert Batch(batch.ids_BT).n_tokens == batch.ids_BT.size
