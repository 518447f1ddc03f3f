"""Figures of tasks: what they count, and what they refuse to compare."""

import re
import string
import sys

import pytest

from minislm.errors import DataError, UnsupportedError
from minislm.evaluation.accuracy import accuracy, frames
from minislm.evaluation.answers import answer_scores
from minislm.evaluation.spans import span_scores
from minislm.evaluation.translation import bleu


def test_a_span_is_right_or_wrong_as_a_whole():
    true = [[(0, 3, "city")], [], [(0, 3, "city"), (4, 6, "time")]]
    assert span_scores(true, true).f1 == 1.0
    for wrong in ((0, 2, "city"), (1, 3, "city"), (0, 3, "time")):
        scores = span_scores(true, [[wrong], [], true[2]])
        assert (scores.n_true, scores.n_predicted, scores.n_correct) == (3, 3, 2)
    scores = span_scores(true, [[], [(9, 10, "city")], [(0, 3, "city")]])
    assert (scores.precision, scores.recall) == (1 / 2, 1 / 3)
    assert scores.f1 == pytest.approx(2 / 5)


def test_a_span_of_one_text_does_not_count_in_another():
    assert span_scores([[(0, 3, "city")], []], [[], [(0, 3, "city")]]).n_correct == 0


def test_no_spans_at_all_score_nothing():
    scores = span_scores([[]], [[]])
    assert (scores.precision, scores.recall, scores.f1) == (0.0, 0.0, 0.0)


def test_frames_need_the_class_and_every_span():
    labels, spans = ["play", "rate"], [[(0, 3, "song"), (4, 6, "artist")], []]
    assert accuracy(frames(labels, spans), frames(labels, [reversed(spans[0]), []])) == 1.0
    assert accuracy(frames(labels, spans), frames(["play", "play"], spans)) == 0.5
    assert accuracy(frames(labels, spans), frames(labels, [spans[0][:1], []])) == 0.5
    assert accuracy(frames(labels, spans), frames(labels, [spans[0], [(0, 1, "song")]])) == 0.5


def test_the_nearest_of_several_answers_counts():
    scores = answer_scores([["Denver Broncos", "the Broncos"]], ["Broncos!"])
    assert (scores.exact_match, scores.f1) == (1.0, 1.0)
    assert answer_scores([["Denver Broncos", "Panthers"]], ["Broncos"]).f1 == pytest.approx(2 / 3)


def test_a_question_without_an_answer_is_met_by_none():
    assert answer_scores([[], []], ["", "something"]).exact_match == 0.5


def squad_words(text):
    """SQuAD's own normalization, step by step: small letters, no punctuation, no articles, single spaces."""
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(right, given):
    right, given = squad_words(right).split(), squad_words(given).split()
    left, same = list(right), 0
    for word in given:
        if word in left:
            left.remove(word)
            same += 1
    if not right or not given:
        return float(right == given)
    precision, recall = same / len(given), same / len(right)
    return 2 * precision * recall / (precision + recall) if same else 0.0


def test_answers_are_scored_as_squad_scores_them(rng):
    words = ["The", "a", "red", "Red,", "house", "of", "an", "U.S.", "(Navy)", "théâtre", "1,000", "-"]
    for _ in range(200):
        right, given = (" ".join(rng.choice(words, rng.integers(0, 6))) for _ in range(2))
        scores = answer_scores([[right]], [given])
        assert scores.exact_match == (squad_words(right) == squad_words(given)), (right, given)
        assert scores.f1 == pytest.approx(squad_f1(right, given)), (right, given)


@pytest.mark.parametrize("compare", [accuracy, span_scores, answer_scores, frames, bleu])
@pytest.mark.parametrize(("true", "predicted"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_what_does_not_belong_together_is_not_compared(compare, true, predicted):
    with pytest.raises(DataError) as caught:
        compare(true, predicted)
    assert caught.value.code == ("labels_misaligned" if predicted != true else "empty_text")


def test_bleu_without_sacrebleu_says_what_to_install(monkeypatch):
    for name in ("sacrebleu", "sacrebleu.metrics", "sacrebleu.metrics.bleu"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnsupportedError, match=r"pip install -e '\.\[eval\]'") as caught:
        bleu(["a"], ["a"])
    assert caught.value.code == "eval_extra_missing"
