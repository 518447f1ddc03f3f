# %% [markdown]
# # Read sentences into a calendar
#
# At the end a small encoder-decoder, which started from random numbers, will read "[2026-11-18 Wed] lunch with Ana next
# Friday at noon" and write the event: its title, day, start and end. It is judged on sentences that were not in its
# training, and shows which words it looks at. Takes about half a minute.
#
# A grammar writes sentences, each with the day on which it is said, and the events that they mean. All of it speaks of
# eight years, and takes more than half an hour to learn (`tests/benchmarks/bench_calendar.py`). Here all is said in two
# weeks, few enough to learn every day's "next Friday" by heart; new is how days, times and titles come together.

# %%
import re
from datetime import date
from pathlib import Path

import numpy as np
from calendar_grammar import ORDERS, World, examples

from minislm.layers.base import Context, Tape
from minislm.ops.attention import attention_probabilities
from minislm.text.examples import TextPair
from minislm.text.records import Record
from minislm.training.data import TrainingData
from minislm.training.settings import TrainSettings
from minislm.training.tasks.sequences import SequencePairs
from minislm.training.train import create, train

WORLD = World(
    first_day=date(2026, 11, 9),
    n_days=14,
    held_out=0.0,
    ways=("relative", "weekday", "weekday"),
    relative={"today": 0, "tomorrow": 1},
    weekday_words=("on", "next"),
    lengths={"": 60, " for half an hour": 30, " for two hours": 120},
    until=0.0,
    openings=("",),
    orders=ORDERS[:2],
    people=("Ana", "Ben", "Carla", "David", "Elif", "Finn", "Grace", "Hugo"),
    shared=("lunch", "dinner", "coffee", "call", "meeting", "interview"),
    alone=("dentist", "haircut", "yoga class", "piano lesson"),
)
learned = examples(20000, held_out=False, world=WORLD)
known = {example.sentence for example in learned}
unknown = [e for e in examples(2000, held_out=False, seed=1, world=WORLD) if e.sentence not in known][:500]
for sentence, event in unknown[:5]:
    print(f"{sentence}\n    {event}")

# %% [markdown]
# ## Text becomes numbers
#
# The encoder reads the whole sentence at once. The decoder writes the event token by token: it sees what it wrote, and
# by cross-attention what the encoder made of the sentence. Dates and times are cut at their dashes and colons:
# "2026-11-27" is five tokens that all occur often, of which the last is the hard one.

# %%
texts = [text for example in learned[:3000] for text in example]
fresh = create(texts, family="transformer", vocab_size=500, d_model=64, n_layers=2, n_heads=4, d_ff=256, context=48)


def tokens(ids):
    return [fresh.tokenizer.decode([i]).strip() for i in ids]


for text in unknown[0]:
    print(" | ".join(tokens(fresh.tokenizer.encode(text))))
print(f"{fresh.model.n_parameters:,} parameters")
assert tokens(fresh.tokenizer.encode("2026-11-27")) == ["2026", "-", "11", "-", "27"]

# %% [markdown]
# ## Training
#
# The loss is the mean surprise -log p at each next token of the event. Titles are copied, an hour is read from one
# place; the day takes two: when the sentence is said, and what the day is called in it.

# %%
pairs = [TextPair(Record({}, Path("grammar"), i + 1), *example) for i, example in enumerate(learned)]
data = TrainingData(SequencePairs.of(pairs, fresh.tokenizer, context=48))
settings = TrainSettings(steps=600, batch_size=32, learning_rate=4e-3, warmup_steps=50, beta2=0.98, weight_decay=0.01)


def show(record):
    if record.step % 50 == 0:
        print(f"step {record.step:3}: loss {record.loss:.3f} " + "█" * round(40 * record.loss))


lm, _ = train(fresh, data, settings, report=show)

# %% [markdown]
# ## The examination
#
# An answer counts if it is right to the letter. Each new token is the likeliest one (temperature 0).

# %%
written = lm.generate_batch([sentence for sentence, _ in unknown], temperature=0.0, max_new_tokens=40)
wrong = [(*example, found.text) for example, found in zip(unknown, written, strict=True) if found.text != example.event]
for sentence, event, answer in wrong[:3]:
    print(f"{sentence}\n    {answer}, and not {event}")
print(f"{1 - len(wrong) / len(unknown):.1%} of {len(unknown)} events are right to the letter")
assert len(wrong) <= 0.05 * len(unknown)

# %% [markdown]
# ## What it looks at
#
# The tape of a forward pass keeps what attention saved, from which its probabilities follow: here the mean over the
# heads of the last block, first while the decoder writes one hour, then over many sentences.


# %%
def looks(sentence, event):
    ids, event_ids = ([*lm.tokenizer.encode(text), lm.tokenizer.eos_id] for text in (sentence, event))
    shown, tape = [event_ids[-1], *event_ids[:-1]], Tape()  # the decoder begins with the end-of-text token
    lm.model.forward(np.array([shown]), Context(source_BS=np.array([ids])), tape)
    return tokens(event_ids), attention_probabilities(dict(tape)["decoder.blocks.1.cross_attention"])[0].mean(0), ids


event_tokens, p_TS, ids = looks(*unknown[0])
hour = event_tokens.index("T") + 1
for token, part in zip(tokens(ids), p_TS[hour], strict=True):
    print(f"to write {event_tokens[hour]}, at {token or '(space)':10} {part:4.0%} " + "█" * round(40 * part))

TELLS = {"day": r"\[.+\]|today|tomorrow|(on|next) \w+day", "hour": r"at \S+|in the \w+"}
spent = {part: [] for part in TELLS}
for sentence, event in unknown[:200]:
    event_tokens, p_TS, ids = looks(sentence, event)
    ends = np.cumsum([len(lm.tokenizer.decode([i])) for i in ids[:-1]])  # where each token ends in the sentence
    for part, place in {"day": event_tokens.index("T") - 1, "hour": event_tokens.index("T") + 1}.items():
        spans = [found.span() for found in re.finditer(TELLS[part], sentence)]
        spent[part].append(sum(p_TS[place, :-1][(ends > start) & (ends <= end)].sum() for start, end in spans))
for part, shares in spent.items():
    print(f"to write the {part}, it spends {np.mean(shares):.0%} of its attention on the words that tell it")
assert np.mean(spent["day"]) > 0.8
assert np.mean(spent["hour"]) > 0.4

# %% [markdown]
# ## Sentences of your own
#
# In the words of this world, on its days. A name that it has never seen becomes another.

# %%
own = ["lunch with Ana next Friday at noon", "haircut tomorrow at 16:45 for two hours", "dinner with Zoe today at 7pm"]
answers = lm.generate_batch([f"[2026-11-18 Wed] {sentence}" for sentence in own], temperature=0.0, max_new_tokens=40)
print("\n".join(f"{sentence}: {answer.text}" for sentence, answer in zip(own, answers, strict=True)))
assert answers[0].text == "lunch with Ana | 2026-11-27T12:00/13:00"
assert "Zoe" not in answers[2].text
