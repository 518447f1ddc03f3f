"""Sentences that people say to a calendar, and the events that they mean, for models to learn from.

    sentence    [2026-11-23 Mon] lunch with Ana next Tuesday at noon
    event       lunch with Ana | 2026-12-01T12:00/13:00

An event is written as a title and an interval of ISO 8601, which leaves out of the end what is as in the start.
Rules: a week begins on Monday, and "next Tuesday" lies in the week after this one; "on Tuesday" is the first one to
come; a date without a year is the first one to come; an event lasts an hour unless told otherwise.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import NamedTuple

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
SPRING, AUTUMN = ("January", "February", "March", "April", "May", "June"), ("July", "August", "September", "October")
MONTHS = (*SPRING, *AUTUMN, "November", "December")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

SHARED = ("lunch", "dinner", "coffee", "call", "meeting", "interview", "planning", "review", "tennis", "chess")
ALONE = ("dentist", "haircut", "yoga class", "piano lesson", "team standup", "car inspection", "gym", "board meeting")
PEOPLE = (
    "Ana",
    "Ben",
    "Carla",
    "David",
    "Elif",
    "Finn",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
    "Kira",
    "Leo",
    "Mia",
    "Noah",
)
OPENINGS = ("", "", "schedule ", "book ", "please add ", "put in ")
ORDERS = ("{title} {day} {time}{length}", "{title} {time} {day}{length}", "{day} {time} {title}{length}")

RELATIVE = {"today": 0, "tomorrow": 1, "the day after tomorrow": 2, "in a week": 7, "in two weeks": 14}
RELATIVE |= {f"in {word} days": n for n, word in enumerate(NUMBERS, start=2)}
PARTS_OF_DAY = {"in the morning": 9, "at noon": 12, "in the afternoon": 15, "in the evening": 19}
LENGTHS = {"": 60, " for an hour": 60, " for half an hour": 30, " for 45 minutes": 45, " for 90 minutes": 90}
LENGTHS |= {f" for {word} hours": 60 * n for n, word in enumerate(NUMBERS[:2], start=2)}

WEEKDAY_WORDS = ("on", "this", "a week from", "next")


class World(NamedTuple):
    """What is spoken of: as it stands, all that the grammar knows; smaller worlds are learned sooner."""

    first_day: date = date(2024, 1, 1)
    n_days: int = 8 * 365
    held_out: float = 0.1  # of the days
    ways: tuple[str, ...] = ("relative", "weekday", "date")  # to say a day
    relative: Mapping[str, int] = RELATIVE
    weekday_words: tuple[str, ...] = WEEKDAY_WORDS
    lengths: Mapping[str, int] = LENGTHS
    until: float = 0.2  # of the sentences: they tell the end instead of the length
    openings: tuple[str, ...] = OPENINGS
    orders: tuple[str, ...] = ORDERS
    people: tuple[str, ...] = PEOPLE
    shared: tuple[str, ...] = SHARED
    alone: tuple[str, ...] = ALONE


WHOLE = World()


class Example(NamedTuple):
    """What is said on a day, and the event that it means."""

    sentence: str
    event: str


def examples(n: int, *, held_out: bool, seed: int = 0, world: World = WHOLE) -> list[Example]:
    """Write examples; those that are held out speak of days, and are said on days, that no other example ever names."""
    rng = random.Random(f"{held_out} {seed}")
    return [_example(rng, held_out, world) for _ in range(n)]


def is_held_out(day: date, part: float = WHOLE.held_out) -> bool:
    """Tell whether a day is kept from training."""
    return zlib.crc32(day.isoformat().encode()) < part * 2**32


def _example(rng: random.Random, held_out: bool, world: World) -> Example:
    way = WAYS[rng.choice(world.ways)]  # before the day, so that it is as frequent in both parts
    while True:
        today = world.first_day + timedelta(rng.randrange(world.n_days))
        day_phrase, day = way(rng, today, world)
        if is_held_out(today, world.held_out) == is_held_out(day, world.held_out) == held_out:
            break
    time_phrase, start = _time(rng, day)
    length_phrase, end = _length(rng, start, world)
    title = _title(rng, world)
    said = rng.choice(world.orders).format(title=title, day=day_phrase, time=time_phrase, length=length_phrase)
    event = f"{title} | {start:%Y-%m-%dT%H:%M}/{end:%H:%M}"
    return Example(f"[{today} {WEEKDAYS[today.weekday()][:3]}] {rng.choice(world.openings)}{said}", event)


def _title(rng: random.Random, world: World) -> str:
    people = rng.sample(world.people, rng.choice((0, 1, 1, 2)))
    return f"{rng.choice(world.shared)} with {' and '.join(people)}" if people else rng.choice(world.alone)


def _relative(rng: random.Random, today: date, world: World) -> tuple[str, date]:
    phrase = rng.choice([*world.relative])
    return phrase, today + timedelta(world.relative[phrase])


def _weekday(rng: random.Random, today: date, world: World) -> tuple[str, date]:
    wanted = rng.randrange(7)
    coming = (wanted - today.weekday() - 1) % 7 + 1
    days = {"on": coming, "this": coming, "a week from": coming + 7, "next": 7 - today.weekday() + wanted}
    word = rng.choice(world.weekday_words)
    return f"{word} {WEEKDAYS[wanted]}", today + timedelta(days[word])


def _date(rng: random.Random, today: date, _: World) -> tuple[str, date]:
    soon = today + timedelta(rng.randrange(1, 28))  # in less than a month, so that the number of the day tells it
    later = today + timedelta(rng.randrange(1, 365))
    month, number = MONTHS[later.month - 1], later.day
    return rng.choice(
        (
            (f"on the {_ordinal(soon.day)}", soon),
            (f"on {number} {month}", later),
            (f"on {month} {_ordinal(number)}", later),
        )
    )


WAYS = {"relative": _relative, "weekday": _weekday, "date": _date}


def _ordinal(number: int) -> str:
    ending = "th" if 10 < number < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _time(rng: random.Random, day: date) -> tuple[str, datetime]:
    if rng.random() < 0.25:
        phrase = rng.choice([*PARTS_OF_DAY])
        return phrase, datetime(day.year, day.month, day.day, PARTS_OF_DAY[phrase])
    start = datetime(day.year, day.month, day.day, rng.randrange(7, 21), rng.choice((0, 0, 15, 30, 45)))
    return f"at {_clock(rng, start)}", start


def _length(rng: random.Random, start: datetime, world: World) -> tuple[str, datetime]:
    if rng.random() < world.until:
        end = start + timedelta(minutes=15 * rng.randrange(1, 13))
        return f" until {_clock(rng, end)}", end
    phrase = rng.choice([*world.lengths])
    return phrase, start + timedelta(minutes=world.lengths[phrase])


def _clock(rng: random.Random, time: datetime) -> str:
    if rng.random() < 0.4:
        return f"{time:%H:%M}"
    minutes = f":{time.minute}" if time.minute else ""
    return f"{(time.hour - 1) % 12 + 1}{minutes}{'am' if time.hour < 12 else 'pm'}"
