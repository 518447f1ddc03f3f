"""The verbs of encoders, on models that were told what to say, and on random ones against forward."""

import dataclasses
import itertools

import numpy as np
import pytest
from planted import SURE, TEXT, planted, tokenizer

from minislm.config import Head
from minislm.errors import DataError, GenerationError, UnsupportedError, UsageError
from minislm.inference import reading, tagging
from minislm.language_model import LanguageModel
from minislm.layers.base import Context
from minislm.models.decoder import Decoder, DecoderConfig
from minislm.models.encoder import Encoder, EncoderConfig
from minislm.text.tokenizer import Tokenizer

INTENT = Head("intent", "sequence", ("play", "rate", "weather"))
TAGS = Head("tags", "token", ("O", "B-city", "I-city", "B-name", "I-name"))
SPAN = Head("answer", "span")
WORDS = Head("words", "masked")
TEXTS = ["play jazz", "will it rain in New York tomorrow?", "rate this book", "play some jazz by Nina Simone in Berlin"]


@pytest.fixture(scope="module")
def lm():
    """Knows intents by one word each, cities and names by theirs, and answers by where they start and end."""
    return planted(
        (INTENT, TAGS, SPAN),
        {
            "intent": {"play": 0, "rate": 1, "rain": 2},
            "tags": dict.fromkeys(tokenizer().tokens.values(), 0)
            | {"new": 1, "york": 2, "berlin": 1, "paris": 1, "nina": 3, "simone": 4, "ana": 3},
            "answer": {"nina": 0, "simone": 1, "berlin": [0, 1]},
        },
    )


@pytest.fixture(scope="module")
def noisy():
    """Random in every number, so that everything counts."""
    words = tokenizer()
    heads = (INTENT, Head("pairs", "sequence", ("no", "yes")), TAGS, SPAN, WORDS)
    config = EncoderConfig.uniform(
        vocab_size=words.vocab_size + 2, d_model=12, context=40, n_layers=2, n_heads=2, heads=heads
    )
    model = Encoder.create(config, seed=1)
    rng = np.random.default_rng(2)
    arrays = model.arrays().items()
    noisy = {name: array + 0.3 * rng.standard_normal(array.shape).astype(np.float32) for name, array in arrays}
    return LanguageModel(model.with_arrays(noisy), words)


def forward(lm, encoded):
    types = np.array([encoded.types])
    ids = np.array([encoded.ids])
    return lm.model.forward(ids, Context(types_BT=types)), lm.model.hidden(ids, Context(types_BT=types))


def softmax(logits):
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


# classify


def test_classify_names_the_class_of_each_text(lm):
    found = lm.classify(TEXTS)
    assert [one.label for one in found] == ["play", "weather", "rate", "play"]
    assert all(one.score == max(one.scores.values()) for one in found)
    assert all(list(one.scores) == list(INTENT.labels) for one in found)
    assert [sum(one.scores.values()) for one in found] == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("tokens", [1, 12, 1024])
def test_any_mix_of_lengths_gives_what_forward_gives(noisy, tokens, monkeypatch):
    monkeypatch.setattr(reading, "TOKENS", tokens)
    texts = [*TEXTS, "rate", *TEXTS]
    found = noisy.classify(texts, head="intent")
    for text, one in zip(texts, found, strict=True):
        said, _ = forward(noisy, noisy.tokenizer.encode_pairs([text])[0])
        assert list(one.scores.values()) == pytest.approx(softmax(said["intent"][0]).tolist(), abs=1e-5)


@pytest.mark.parametrize("problem", ["multi_label", "regression"])
def test_labels_that_do_not_exclude_each_other(noisy, problem):
    heads = (dataclasses.replace(noisy.model.config.heads[0], problem=problem), *noisy.model.config.heads[1:])
    model = dataclasses.replace(noisy.model, config=dataclasses.replace(noisy.model.config, heads=heads))
    found = LanguageModel(model, noisy.tokenizer).classify(TEXTS, head="intent")
    for text, one in zip(TEXTS, found, strict=True):
        logits = forward(noisy, noisy.tokenizer.encode_pairs([text])[0])[0]["intent"][0]
        expected = 1 / (1 + np.exp(-logits)) if problem == "multi_label" else logits
        assert list(one.scores.values()) == pytest.approx(expected.tolist(), abs=1e-5)
        assert one.scores[one.label] == one.score == max(one.scores.values())


def test_a_pair_is_read_as_two_texts(noisy):
    one = noisy.classify(["rate this"], ["play jazz"], head="pairs")[0]
    said, _ = forward(noisy, noisy.tokenizer.encode_pairs(["rate this"], ["play jazz"])[0])
    assert list(one.scores.values()) == pytest.approx(softmax(said["pairs"][0]).tolist(), abs=1e-5)
    assert one != noisy.classify(["rate this play jazz"], head="pairs")[0]


# tag


def test_tag_finds_spans_with_their_characters(lm):
    text = "Will it  rain in New York, Berlin or where Nina Simone and Ana saw Paris?"
    found = lm.tag([text, "rate this", "New York"])
    assert [(one.text, one.label) for one in found[0]] == [
        ("New York", "city"),
        ("Berlin", "city"),
        ("Nina Simone", "name"),
        ("Ana", "name"),
        ("Paris", "city"),
    ]
    assert all(text[one.start : one.end] == one.text for one in found[0])
    assert found[1] == []
    assert [one[:3] for one in found[2]] == [(0, 8, "city")]
    assert all(one.score > 0.99 for one in found[0])


def test_the_score_of_a_span_is_the_mean_of_its_tokens(noisy):
    text = TEXT[:100]
    encoded = noisy.tokenizer.encode_pairs([text])[0]
    p = softmax(forward(noisy, encoded)[0]["tags"][0])
    found = noisy.tag([text])[0]
    assert found
    for one in found:
        inside = [at for at, (start, end) in enumerate(encoded.offsets) if one.start <= start < end <= one.end]
        tags = [f"B-{one.label}", *[f"I-{one.label}"] * (len(inside) - 1)]
        expected = [p[at, TAGS.labels.index(tag)] for at, tag in zip(inside, tags, strict=True)]
        assert one.score == pytest.approx(np.mean(expected), abs=1e-5)


def test_a_span_holds_whole_words_where_words_have_spaces():
    assert [tagging._same_word(text, 2, 2) for text in ("jazz", "é1é1", "ja-z", "ja z", "漢字漢字", "ab漢")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    assert not tagging._same_word("jazz", 2, 1)


def test_the_likeliest_sequence_of_tags_is_that_of_all_that_make_sense(rng):
    labels = ("O", "B-a", "I-a", "B-b", "I-b")
    lengths = [*rng.integers(1, 5, 19), 4, 0]
    p = [rng.dirichlet(np.ones(5), n) for n in lengths]
    inside = [(rng.random(n) < 0.3) & (np.arange(n) > 0) for n in lengths]
    for n, own, parts, found in zip(lengths, p, inside, tagging.likeliest_tags(p, labels, inside), strict=True):

        def possible(tags, inside=parts):
            for at, tag in enumerate(tags):
                before = tags[at - 1] if at else "O"
                if tag[0] == "I" and before[2:] != tag[2:]:
                    return False
                if inside[at] and (tag[0] == "B" or (tag == "O") != (before == "O")):
                    return False
            return True

        sequences = [tags for tags in itertools.product(range(5), repeat=n) if possible([labels[i] for i in tags])]
        best = max(sequences, key=lambda tags, own=own: np.log(own[np.arange(len(own)), list(tags)]).sum())
        assert found.tolist() == list(best)


def test_labels_of_words_name_each_word():
    words = Head("kinds", "token", ("noun", "verb", "O"))
    said = dict.fromkeys(tokenizer().tokens.values(), 2) | {"play": 1, "jazz": 0, "nina": 0, "simone": 0}
    own = planted((words,), {"kinds": said})
    found = own.tag(["play jazz, Nina Simone!", "in"])
    assert [(one.text, one.label) for one in found[0]] == [
        ("play", "verb"),
        ("jazz", "noun"),
        ("Nina", "noun"),
        ("Simone", "noun"),
    ]
    assert found[1] == []


def test_labels_both_bio_and_not_are_refused():
    lm = planted((Head("kinds", "token", ("noun", "B-city", "I-city")),), {})
    with pytest.raises(UnsupportedError, match="'noun'") as caught:
        lm.tag(["play"])
    assert caught.value.code == "labels_not_bio"


# answer


def test_answer_finds_the_part_and_its_place(lm):
    context = "In Paris they play some jazz by Nina  Simone at noon."
    found = lm.answer("who wrote the play?", context)
    assert (found.text, context[found.start : found.end]) == ("Nina  Simone", "Nina  Simone")
    assert 0.5 < found.score <= 1.0


@pytest.mark.parametrize("n_before", [0, 5, 17, 18, 19, 40, 90])
def test_a_long_context_is_read_in_windows(lm, n_before):
    context = "it " * n_before + "Nina Simone" + " it" * (100 - n_before)
    found = lm.answer("who?", context)
    assert (found.text, found.start) == ("Nina Simone", 3 * n_before)


def test_the_longest_answer_has_so_many_tokens(lm):
    context = "Nina it it it it Simone"
    assert lm.answer("who?", context).text == context
    assert lm.answer("who?", context, max_tokens=6).text == context
    assert lm.answer("who?", context, max_tokens=5).text != context


def test_an_answer_never_ends_before_it_starts(lm):
    found = lm.answer("who?", "Simone it Nina")
    assert found.text in ("Simone", "Nina", "Simone it Nina", "Nina it")
    assert found.start < found.end


def test_no_answer_is_the_first_position():
    lm = planted((SPAN,), {"answer": {"[CLS]": [0, 1], "berlin": [0, 1]}})
    assert lm.answer("where?", "in Paris it was")[:3] == ("", 0, 0)
    spoken = planted((SPAN,), {"answer": {"berlin": [0, 1]}})
    assert spoken.answer("where?", "in Paris it was in Berlin").text == "Berlin"


@pytest.mark.parametrize(("context", "answered"), [("Ana saw the play in Paris", True), ("the play", False)])
def test_the_score_is_the_product_of_both_probabilities(noisy, context, answered):
    question = "who wrote it?"
    encoded = noisy.tokenizer.encode_pairs([question], [context])[0]
    rows = forward(noisy, encoded)[0]["answer"][0].T
    prefix = encoded.types.index(1)
    p = softmax(np.concatenate([rows[:1], rows[prefix:-1]]).T).T
    n = len(p)
    best = max((p[i, 0] * p[j, 1], i, j) for i in range(1, n) for j in range(i, n))
    found = noisy.answer(question, context)
    assert found.score == pytest.approx(max(best[0], p[0].prod()), rel=1e-4)
    start, end = (encoded.offsets[prefix + i - 1] for i in best[1:])
    assert (found.start, found.end) == ((start[0], end[1]) if answered else (0, 0))


def test_a_question_that_leaves_no_room_is_refused(lm):
    with pytest.raises(GenerationError, match=r"question 1 has 4\d tokens.*at most 37") as caught:
        lm.answer("it " * 40, "Nina Simone")
    assert caught.value.code == "context_length_exceeded"
    assert lm.answer("it " * 35, "it Nina Simone it").text == "Nina Simone"


# fill_mask and embed


def test_fill_mask_ranks_tokens_for_each_mask(noisy):
    words = noisy.tokenizer
    found = noisy.fill_mask("play [MASK] by [MASK].", top_k=3)
    ids = [words.cls_id, *words.encode("play"), words.mask_id, *words.encode("by"), words.mask_id, *words.encode(".")]
    ids.append(words.sep_id)
    logits = noisy.model.forward(np.array([ids]))["words"][0]
    assert [len(fillings) for fillings in found] == [3, 3]
    for fillings, place in zip(found, (2, 4), strict=True):
        p = softmax(logits[place, : words.vocab_size])
        assert [filling.id for filling in fillings] == np.argsort(-p)[:3].tolist()
        assert [filling.score for filling in fillings] == pytest.approx(np.sort(p)[::-1][:3].tolist(), abs=1e-5)
        assert [filling.text for filling in fillings] == [words.decode([filling.id]) for filling in fillings]


def test_spaces_before_a_mask_belong_to_it(noisy):
    byte_level = Tokenizer.train([TEXT], 280, encoder=True)
    config = EncoderConfig.uniform(
        vocab_size=byte_level.vocab_size, d_model=8, context=30, n_layers=1, n_heads=1, heads=(WORDS,)
    )
    lm = LanguageModel(Encoder.create(config), byte_level)
    assert lm.fill_mask("play [MASK] by") == lm.fill_mask("play[MASK] by")
    assert lm.fill_mask("play [MASK] by") != lm.fill_mask("play [MASK]by")


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_embed_pools_and_normalizes(noisy, pooling):
    rows = noisy.embed(TEXTS, pooling=pooling, normalized=False)
    for text, row in zip(TEXTS, rows, strict=True):
        hidden = forward(noisy, noisy.tokenizer.encode_pairs([text])[0])[1][0]
        np.testing.assert_allclose(row, hidden.mean(axis=0) if pooling == "mean" else hidden[0], rtol=1e-4, atol=1e-5)
    unit = noisy.embed(TEXTS, pooling=pooling)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(unit * np.linalg.norm(rows, axis=1, keepdims=True), rows, rtol=1e-4, atol=1e-5)


def test_embed_pools_as_the_config_says(noisy, lm):
    np.testing.assert_array_equal(noisy.embed(TEXTS), noisy.embed(TEXTS, pooling="first"))
    np.testing.assert_array_equal(lm.embed(TEXTS), lm.embed(TEXTS, pooling="mean"))


# Bad input


VERBS = {
    "classify": lambda lm, text: lm.classify([text], head="intent"),
    "tag": lambda lm, text: lm.tag([text]),
    "answer": lambda lm, text: lm.answer("who?", text),
    "embed": lambda lm, text: lm.embed([text]),
}


def test_no_texts_no_results(noisy):
    assert noisy.classify([], head="intent") == []
    assert noisy.tag([]) == []
    assert noisy.embed([]).shape == (0, 12)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("text", "code"), [("", "empty_text"), (" \n", "empty_text"), (7, "unencodable_text")])
def test_texts_with_nothing_to_read_are_refused(noisy, verb, text, code):
    with pytest.raises(DataError) as caught:
        VERBS[verb](noisy, text)
    assert caught.value.code == code


@pytest.mark.parametrize("verb", ["classify", "tag", "embed"])
def test_a_text_longer_than_the_context_is_refused(noisy, verb):
    VERBS[verb](noisy, "it " * 38)
    with pytest.raises(GenerationError, match=r"text 1 has 41 tokens.*context 40") as caught:
        VERBS[verb](noisy, "it " * 39)
    assert caught.value.code == "context_length_exceeded"


def test_a_text_that_may_be_cut_loses_its_end(noisy, lm):
    long, short = "it " * 60, "it " * 38
    assert noisy.classify([long], head="intent", cut=True) == noisy.classify([short], head="intent")
    np.testing.assert_array_equal(noisy.embed([long], cut=True), noisy.embed([short]))
    assert [one.start for one in lm.tag(["Berlin " * 60], cut=True)[0]] == [7 * number for number in range(38)]


@pytest.mark.parametrize("verb", ["classify", "tag", "embed"])
def test_a_single_text_is_no_list(noisy, verb):
    with pytest.raises(UsageError) as caught:
        getattr(noisy, verb)("play")
    assert caught.value.code in ("bad_texts", "ambiguous_head")


@pytest.mark.parametrize(
    ("use", "error", "code"),
    [
        (lambda lm: lm.classify(["a"]), UsageError, "ambiguous_head"),
        (lambda lm: lm.classify(["a"], head="tags"), UnsupportedError, "head_missing"),
        (lambda lm: lm.classify(["a"], head="nothing"), UnsupportedError, "head_missing"),
        (lambda lm: lm.classify(["a", "b"], ["c"], head="intent"), UsageError, "bad_option"),
        (lambda lm: lm.classify(["a"], [""], head="intent"), DataError, "empty_text"),
        (lambda lm: lm.answer("who?", "a", max_tokens=0), UsageError, "bad_option"),
        (lambda lm: lm.answer("", "a"), DataError, "empty_text"),
        (lambda lm: lm.fill_mask("no mask"), DataError, "mask_missing"),
        (lambda lm: lm.fill_mask("[MASK]", top_k=0), UsageError, "bad_option"),
        (lambda lm: lm.fill_mask("it " * 40 + "[MASK]"), GenerationError, "context_length_exceeded"),
        (lambda lm: lm.embed(["a"], pooling="last"), UsageError, "bad_option"),
        (lambda lm: lm.generate("a"), UnsupportedError, "cannot_write"),
        (lambda lm: lm.translate(["a"]), UnsupportedError, "not_an_encoder_decoder"),
    ],
)
def test_what_cannot_be_asked_of_an_encoder(noisy, use, error, code):
    with pytest.raises(error) as caught:
        use(noisy)
    assert caught.value.code == code


def test_a_missing_head_is_an_error_that_names_those_there_are():
    lm = planted((INTENT,), {})
    for use, kind in ((lambda: lm.tag(["a"]), "token"), (lambda: lm.answer("a", "b"), "span")):
        with pytest.raises(UnsupportedError, match=f"needs a {kind} head; .*'intent' \\(sequence\\)") as caught:
            use()
        assert caught.value.code == "head_missing"
    with pytest.raises(UnsupportedError, match="heads of this model: none"):
        planted((), {}).fill_mask("[MASK]")


def test_other_models_are_refused():
    model = Decoder.create(DecoderConfig.uniform(vocab_size=257, d_model=8, context=9, n_layers=1, n_heads=1))
    lm = LanguageModel(model, Tokenizer.train([], kind="bytes"))
    for use in (*VERBS.values(), lambda lm, text: lm.fill_mask(text)):
        with pytest.raises(UnsupportedError, match="'decoder'") as caught:
            use(lm, "a")
        assert caught.value.code == "not_an_encoder"


def test_a_tokenizer_without_special_tokens_is_refused(noisy):
    plain = LanguageModel(noisy.model, Tokenizer.train(["abc who?"], kind="characters"))
    for use in (*VERBS.values(), lambda lm, text: lm.fill_mask(text)):
        with pytest.raises(UnsupportedError) as caught:
            use(plain, "a")
        assert caught.value.code == "no_special_tokens"


def test_the_planted_models_say_what_they_were_told(lm):
    ids = np.array([[lm.tokenizer.inner.token_to_id("berlin")]])
    np.testing.assert_allclose(lm.model.forward(ids)["answer"][0, :, 0], SURE, rtol=1e-3)
