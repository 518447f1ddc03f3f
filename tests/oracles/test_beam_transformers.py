"""Beam search gives what transformers gives, for models whose logits it is fed, decoders and encoder-decoders."""

from types import SimpleNamespace

import numpy as np
import pytest

from minislm.config import LayerSizes
from minislm.inference.cache import KVCache
from minislm.inference.decoding import generate
from minislm.inference.settings import GenerationSettings

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCAB, EOS, CONTEXT = 13, 5, 16
TOKENIZER = SimpleNamespace(
    eos_id=EOS, vocab_size=VOCAB, encode=lambda text: [ord(letter) % VOCAB for letter in text], decode=str, target=None
)
SEARCH = [(2, 0.0, 1.0), (2, 1.0, 1.4), (5, 1.0, 1.0), (5, 2.5, 1.4)]


class Fed:
    """Stands for a Program: keeps tokens as keys in the cache, and asks a torch model for the logits of all of them."""

    def __init__(self, model, *, source=None):
        self.model, self.source = model, source
        self.config = SimpleNamespace(
            context=CONTEXT, longest_context=CONTEXT, vocab_size=VOCAB, layers=(LayerSizes(1, 1, 1, 1),)
        )

    def cache(self, slots, capacity, **options):
        return KVCache.create(self.config.layers, slots, capacity, **options)

    def run(self, ids, slots, counts, cache):
        tokens = ids.astype(np.float32).reshape(-1, 1, 1)
        cache.write(0, cache.place(slots, counts)[0], tokens, tokens)
        cache.advance(slots, counts)
        return np.stack([self.logits(cache, slot) for slot in slots])

    def run_all(self, ids, counts, *, cache, slots_B):
        tokens = ids.astype(np.float32).reshape(-1, 1, 1)
        cache.sources.write(0, cache.place_source(slots_B, counts)[0], tokens, tokens)

    def logits(self, cache, slot):
        ids = {"input_ids": torch.tensor(cache.k_layers[0].array[slot, : cache.lengths_C[slot], 0, 0])[None].long()}
        if cache.source_lengths_C[slot]:
            source = torch.tensor(cache.source(0, np.array([slot]))[0][:, :, 0, 0]).long()
            ids = {"input_ids": source, "decoder_input_ids": ids["input_ids"]}
        with torch.no_grad():
            return self.model(**ids).logits[0, -1].numpy()


def decoder(seed):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_positions=64, n_embd=12, n_layer=1, n_head=2, initializer_range=0.6
    )
    return transformers.GPT2LMHeadModel(config).eval()


def encoder_decoder(seed):
    torch.manual_seed(seed)
    config = transformers.BartConfig(
        vocab_size=VOCAB,
        d_model=12,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=64,
        init_std=0.6,
        decoder_start_token_id=EOS,
        forced_eos_token_id=None,
    )
    return transformers.BartForConditionalGeneration(config).eval()


def theirs(model, prompt, settings):
    """Their best sequence of new tokens, up to its end, and its score."""
    found = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        generation_config=transformers.GenerationConfig(
            num_beams=settings.n_beams,
            length_penalty=settings.length_penalty,
            repetition_penalty=settings.repetition_penalty,
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=None if settings.ignore_eos else EOS,
            pad_token_id=1,
            decoder_start_token_id=EOS,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        ),
    )
    begin = 1 if model.config.is_encoder_decoder else len(prompt)
    ids = found.sequences[0, begin:].tolist()
    if not settings.ignore_eos and EOS in ids:
        ids = ids[: ids.index(EOS) + 1]
    return ids, float(found.sequences_scores[0])


def check(model, prompts, settings, source=None):
    results = generate(Fed(model), TOKENIZER, prompts, settings, source=source)
    for prompt, result in zip(prompts, results, strict=True):
        ids, score = theirs(model, prompt, settings)
        assert result.ids == ids, settings
        assert result.score == pytest.approx(score, abs=1e-5)
    return results


@pytest.mark.parametrize(("n_beams", "length_penalty", "repetition_penalty"), SEARCH)
def test_a_decoder_is_searched_as_transformers_does(n_beams, length_penalty, repetition_penalty):
    settings = GenerationSettings(
        temperature=0.0,
        n_beams=n_beams,
        length_penalty=length_penalty,
        repetition_penalty=repetition_penalty,
        max_new_tokens=9,
    )
    stopped = [result.stopped for seed in range(2) for result in check(decoder(seed), [[1, 2, 3], [7]], settings)]
    assert set(stopped) <= {"eos", "length"}


@pytest.mark.parametrize(("n_beams", "length_penalty", "repetition_penalty"), SEARCH)
def test_an_encoder_decoder_is_searched_as_transformers_does(n_beams, length_penalty, repetition_penalty):
    settings = GenerationSettings(
        temperature=0.0,
        n_beams=n_beams,
        length_penalty=length_penalty,
        repetition_penalty=repetition_penalty,
        max_new_tokens=8,
    )
    for seed in range(2):
        model = encoder_decoder(seed)
        check(model, [[1, 2, 3, EOS], [9, EOS], [4, 4, 4, 4, 4, 4]], settings, source=Fed(model))


@pytest.mark.parametrize("n_new", [1, 2, 12])
@pytest.mark.parametrize("ignore_eos", [False, True])
def test_short_and_long_limits_and_texts_without_an_end(n_new, ignore_eos):
    settings = GenerationSettings(temperature=0.0, n_beams=3, max_new_tokens=n_new, ignore_eos=ignore_eos)
    for seed in range(2):
        check(decoder(seed), [[1, 2], [3]], settings)
