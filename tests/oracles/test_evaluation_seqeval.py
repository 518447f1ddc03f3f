"""Spans are scored as seqeval scores them, and BLEU is sacrebleu's."""

import warnings

import pytest

from minislm.evaluation.spans import span_scores
from minislm.evaluation.translation import bleu
from minislm.text.spans import bio_labels, spans_of

pytestmark = pytest.mark.oracle


def spans_by_word(tags):
    return spans_of(tags, [(word, word + 1) for word in range(len(tags))])


def test_spans_are_scored_as_seqeval_scores_them(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = pytest.importorskip("seqeval.metrics")
    labels = bio_labels(["city", "time", "part-of-day"])  # a dash inside a label, and I- after anything
    for n_texts in (1, 2, 30, 200):
        true = [rng.choice(labels, rng.integers(1, 9)).tolist() for _ in range(n_texts)]
        predicted = [[rng.choice([tag, tag, rng.choice(labels)]) for tag in tags] for tags in true]
        scores = span_scores(list(map(spans_by_word, true)), list(map(spans_by_word, predicted)))
        expected = [
            metrics.precision_score(true, predicted, zero_division=0),
            metrics.recall_score(true, predicted, zero_division=0),
            metrics.f1_score(true, predicted, zero_division=0),
        ]
        assert [scores.precision, scores.recall, scores.f1] == pytest.approx(expected, abs=1e-12)
    assert 0 < scores.f1 < 1


def test_bleu_is_sacrebleus():
    sacrebleu = pytest.importorskip("sacrebleu")
    references = ["Ein Mann fährt ein blaues Fahrrad.", "Zwei Hunde spielen im Schnee."]
    translations = ["Ein Mann fährt ein rotes Fahrrad.", "Zwei Hunde laufen im Schnee."]
    found = bleu(references, translations)
    assert found.score == sacrebleu.corpus_bleu(translations, [references]).score
    assert 0 < found.score < 100
    assert "version" in found.signature
    assert bleu(references, references).score == pytest.approx(100)
    assert bleu(references, [text.lower() for text in references], lowercase=True).score == pytest.approx(100)
