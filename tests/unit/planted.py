"""Encoders that know what they were told: each head says of a token what a table has for it, whatever stands around."""

import numpy as np

from minislm.language_model import LanguageModel
from minislm.layers.base import PLAIN
from minislm.models.encoder import Encoder, EncoderConfig
from minislm.text.tokenizer import Tokenizer

TEXT = (
    "play some jazz by Nina Simone in Berlin tomorrow at noon. rate this book five stars; will it rain in New York? "
    "who wrote the play that Ana saw in Paris, and where was it?"
)
SURE = 12.0  # the logit of what a head is told to say


def tokenizer():
    """WordPiece that knows every word of TEXT as one token."""
    return Tokenizer.train([TEXT] * 3, 260, kind="wordpiece", lowercase=True)


def planted(heads, said, *, context=40, pooling="mean"):
    """An encoder whose heads give the logit SURE to columns for tokens: said = {head: {token: column or columns}}.

    What a table has under "" holds for all tokens that it does not name. The blocks add nothing to the stream, so that
    a hidden state depends on its token alone, and each head's matrix solves a system of linear equations.
    """
    words = tokenizer()
    config = EncoderConfig.uniform(
        vocab_size=words.vocab_size,
        d_model=words.vocab_size + 3,
        context=context,
        n_layers=1,
        n_heads=1,
        d_ff=2,
        heads=heads,
        pooling=pooling,
        pooler=False,
    )
    model = Encoder.create(config, seed=1)
    silent = ("positions", "types", "attention.output", "mlp.down")
    arrays = {
        name: np.zeros_like(array) for name, array in model.arrays().items() if any(part in name for part in silent)
    }
    rng = np.random.default_rng(2)
    shape = model.arrays()["embedding.weight"].shape
    model = model.with_arrays({**arrays, "embedding.weight": rng.standard_normal(shape).astype(np.float32)})
    hidden_VD = model.hidden(np.arange(words.vocab_size)[:, None], PLAIN)[:, 0].astype(np.float64)
    solved = {}
    for head, table in said.items():
        n_columns = model.arrays()[f"heads.{head}.output.weight"].shape[0]
        wanted = np.zeros((words.vocab_size, n_columns))
        for number, token in words.tokens.items():
            if (columns := table.get(token, table.get(""))) is not None:
                wanted[number, columns] = SURE
        solution = np.linalg.lstsq(hidden_VD, wanted, rcond=None)[0]
        solved[f"heads.{head}.output.weight"] = solution.T.astype(np.float32)
    return LanguageModel(model.with_arrays(solved), words)
