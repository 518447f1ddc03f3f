# %% [markdown]
# # Train a decoder on the manual of your own Python
#
# At the end a small transformer, which starts from random numbers, will predict the language reference that comes with
# the Python that runs this, better than a table of all pairs of tokens can, and will write a sentence in its manner.
# Takes about half a minute.

# %%
from pydoc_data.topics import topics

import numpy as np

from minislm.dispatch import ops
from minislm.layers.base import Context, Grads, Tape
from minislm.text.corpus import from_documents
from minislm.training.settings import TrainSettings
from minislm.training.train import create, train, windows

corpus = from_documents(topics.values())
print(f"{corpus.train_bytes:,} bytes to train on, {corpus.held_out_bytes:,} held out. It begins:\n")
print(corpus.train[0][:300])

# %% [markdown]
# ## Text becomes numbers, numbers become a model
#
# The tokenizer joins the pairs of bytes that occur most until it has 512 tokens. The model looks each token up in a
# table, lets two blocks of attention and feed-forward rework it, and compares the result with the same table: the more
# alike, the likelier that token comes next.

# %%
sizes = {"vocab_size": 512, "d_model": 96, "n_layers": 2, "n_heads": 4, "context": 64}
lm = create(corpus, **sizes, positions="rotary", norm="rms", biases=())
example = "The for statement is used to iterate over the elements of a sequence."
print("|".join(lm.tokenizer.decode([i]) for i in lm.tokenizer.encode(example)))
block = 4 * 96 * 96 + 2 * (4 * 96 * 96) + 2 * 96  # queries, keys, values, output; feed-forward up and down; two norms
print(f"{512 * 96:,} for the tokens + 2 blocks of {block:,} + {96} for the last norm = {lm.model.n_parameters:,}")
assert lm.model.n_parameters == 512 * 96 + 2 * block + 96

# %% [markdown]
# ## One step, by hand
#
# The loss is the mean surprise -log p at the true next token. A model that knows nothing gives each of 512 tokens about
# the same chance, so that its surprise is log 512. Backward walks down the tape that forward wrote, and tells for each
# parameter how the loss changes with it.

# %%
batch = windows(lm, corpus).train.batch(0, 16, seed=0)


def loss_and_gradients(model):
    tape, gradients = Tape(), Grads()
    logits_BTV = model.forward(batch.ids_BT, Context(), tape)
    loss, saved = ops.cross_entropy(logits_BTV.reshape(-1, 512), batch.targets_BT.reshape(-1))
    model.backward(ops.cross_entropy_backward(1.0, saved).reshape(logits_BTV.shape), tape, gradients)
    return loss, gradients


loss, gradients = loss_and_gradients(lm.model)
print(f"loss {loss:.3f} nats, log 512 = {np.log(512):.3f}")
assert abs(loss - np.log(512)) < 0.1
stepped = lm.model.with_arrays({name: w - 0.2 * gradients[name] for name, w in lm.model.parameters().items()})
print(f"after one step downhill on the same batch: {loss_and_gradients(stepped)[0]:.3f}")
assert loss_and_gradients(stepped)[0] < loss - 0.1

# %% [markdown]
# ## A few hundred steps
#
# `train` does just that, with AdamW's steps and new text each time, and examines the model on the held-out text. What
# is there to beat? Two tables: how often each token occurs, and how often it follows each other one.

# %%
train_ids, held_out_ids = (lm.tokenizer.encode_documents(part) for part in (corpus.train, corpus.held_out))
pairs_VV = np.full((512, 512), 0.02)  # a little for pairs that never occurred
np.add.at(pairs_VV, (train_ids[:-1], train_ids[1:]), 1)
unigram_V = pairs_VV.sum(axis=0) / pairs_VV.sum()
bigram_VV = pairs_VV / pairs_VV.sum(axis=1, keepdims=True)
single = float(-np.log(unigram_V[held_out_ids[1:]]).mean())
pairs = float(-np.log(bigram_VV[held_out_ids[:-1], held_out_ids[1:]]).mean())
print(f"tables: {single:.2f} nats by frequency, {pairs:.2f} by the token before")


def show(record):
    if record.step % 40 == 0:
        print(f"step {record.step:3}: loss {record.loss:.2f} " + "█" * round(10 * record.loss))


settings = TrainSettings(steps=400, batch_size=16, learning_rate=3e-3, warmup_steps=20, seed=0)
trained, result = train(lm, corpus, settings, report=show)
print(f"held out: {result.best_loss:.2f} nats")
assert result.best_loss < pairs - 0.3
assert result.best_loss < 3.4

# %% [markdown]
# ## It writes
#
# The next token is drawn from what the model says, with the likely ones made likelier (a temperature below 1), then the
# one after it, and so on to the full stop.

# %%
start = "The for statement is"
sentence = start + trained.generate(start, max_new_tokens=80, temperature=0.5, seed=1, stop=["."]).text + "."
print(" ".join(sentence.split()))
words, known = sentence[len(start) : -1].split(), set(" ".join(corpus.train).replace(".", " ").split())
print(f"{sum(word in known for word in words)} of {len(words)} new words occur in the manual")
assert len(words) > 3
assert sum(word in known for word in words) > 0.6 * len(words)
