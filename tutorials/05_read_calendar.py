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
# heads of the last block, at the moment when the decoder writes the day.

# %%
ids, event_ids = ([*lm.tokenizer.encode(text), lm.tokenizer.eos_id] for text in unknown[0])
shown, tape = [event_ids[-1], *event_ids[:-1]], Tape()  # the decoder begins with the end-of-text token
lm.model.forward(np.array([shown]), Context(source_BS=np.array([ids])), tape)
p_TS = attention_probabilities(dict(tape)["decoder.blocks.1.cross_attention"])[0].mean(0)
place = tokens(event_ids).index("T") - 1
for token, part in zip(tokens(ids), p_TS[place], strict=True):
    print(f"to write {tokens(event_ids)[place]}, at {token or '(space)':10} {part:4.0%} " + "█" * round(40 * part))
assert np.allclose(p_TS.sum(axis=1), 1.0), "all of the attention is spent, on each token"

# %% [markdown]
# That is a hint and no proof: in the encoder the words told each other what they say, so that much may be read where
# other words stand. The proof is to change one thing in a sentence, and to see just its part of the event change.

# %%
asked = {
    f"[{date(2026, 11, day):%Y-%m-%d %a}] dinner with Ben {word} {hour}": f"Ben | 2026-11-{day + i:02}T{start}"
    for day in range(9, 22)
    for i, word in enumerate(("today", "tomorrow"))
    for hour, start in {"at 10:00": "10:00", "at 13:30": "13:30", "at noon": "12:00"}.items()
}
told = [answer.text for answer in lm.generate_batch(list(asked), temperature=0.0, max_new_tokens=40)]
print("\n".join(f"{sentence}: {answer}" for sentence, answer in list(zip(asked, told, strict=True))[:7]))
right = sum(start in answer for answer, start in zip(told, asked.values(), strict=True))
print(f"{right} of {len(asked)} events change as their sentences do")
assert right > 0.9 * len(asked)

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
