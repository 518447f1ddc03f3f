"""The distribution from which a token is drawn equals that of transformers' logits processors."""

import itertools

import numpy as np
import pytest

from minislm.inference import sampling
from minislm.inference.settings import GenerationSettings

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")
processors = pytest.importorskip("transformers.generation.logits_process")


def reference(logits, settings, seen):
    chain = []
    if settings.repetition_penalty != 1.0:
        chain.append(processors.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.temperature != 1.0:
        chain.append(processors.TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        chain.append(processors.TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1.0:
        chain.append(processors.TopPLogitsWarper(settings.top_p))
    if settings.min_p > 0.0:
        chain.append(processors.MinPLogitsWarper(settings.min_p))
    scores = torch.tensor(logits)[None]
    for processor in chain:
        scores = processor(torch.tensor([seen]), scores)
    return scores.softmax(-1)[0].numpy()


@pytest.mark.parametrize("size", [7, 101, 1024])
def test_distributions_equal_those_of_transformers(size):
    rng = np.random.default_rng(size)
    table = itertools.product((1.0, 1.3, 0.8), (1.0, 0.7, 1.9), (0, 1, 5, 2000), (1.0, 0.9, 0.3), (0.0, 0.05, 0.6))
    for penalty, temperature, top_k, top_p, min_p in table:
        settings = GenerationSettings(
            temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty
        )
        logits = (3 * rng.standard_normal(size)).astype(np.float32)
        seen = rng.integers(0, size, 6).tolist()
        error = np.abs(sampling.probabilities(logits, settings, seen) - reference(logits, settings, seen)).max()
        assert not (error > 1e-5), settings


def test_the_order_matters_and_is_theirs():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    settings = GenerationSettings(temperature=3.0, top_p=0.65)
    p = sampling.probabilities(logits, settings, [])
    assert not (np.abs(p - reference(logits, settings, [0])).max() > 1e-5)
    assert np.count_nonzero(p) == 3  # before the temperature two would have been enough
