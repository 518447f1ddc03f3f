"""Chats: rendered as templates say, encoded so that nobody but the template writes special tokens, within limits."""

import dataclasses
import functools
import time
import tracemalloc

import pytest
import tokenizers

from minislm.errors import DataError, MinislmError, ModelFileError, UnsupportedError
from minislm.text.chat import encode_chat, render_chat
from minislm.text.chat_formats import FORMATS
from minislm.text.published import read_tokenizer
from minislm.text.roles import Roles
from minislm.text.template_budget import Budget
from minislm.text.tokenizer import Tokenizer
from tests.unit.chat_templates import TEMPLATES
from tests.unit.published_tokenizers import any_texts, family
from tests.unit.spm_models import PAIRS

OF_FAMILIES = {
    "LLaMA 2": "LLaMA 2",
    "LLaMA 2, newer": "LLaMA 2",
    "Phi-3": "Phi-3",
    "Qwen": "Qwen3",
    "SmolLM": "ChatML",
    "Llama 3": "Llama 3",
    "Gemma": "Gemma 3",
    "Granite": "Granite",
}
TURNS = [
    {"role": "user", "content": "Which statement?"},
    {"role": "assistant", "content": "  The for statement.\n"},
    {"role": "user", "content": "Größer 水\n\nthe\n"},
]


def with_template(made, text):
    return dataclasses.replace(made, roles=dataclasses.replace(made.roles, templates={"default": text}))


def chatty(name):
    return with_template(Tokenizer.from_json(family(name)), TEMPLATES[OF_FAMILIES[name]])


def rendered(text, **more):
    tokenizer = with_template(Tokenizer.train([], kind="bytes"), text)
    return render_chat(tokenizer, more.pop("messages", TURNS), **more)


def test_what_a_template_writes():
    qwen = chatty("Qwen")
    text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert render_chat(qwen, [{"role": "user", "content": "hi"}]) == text
    assert (
        render_chat(qwen, [{"role": "user", "content": "hi"}], enable_thinking=False)
        == f"{text}<think>\n\n</think>\n\n"
    )
    llama = chatty("LLaMA 2")
    assert render_chat(llama, [{"role": "system", "content": "S"}, *TURNS[:2]]) == (
        "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nWhich statement? [/INST] The for statement. </s>"
    )


@pytest.mark.parametrize("name", OF_FAMILIES)
def test_ids_are_those_of_the_text_with_its_special_tokens(name):
    ours, theirs = chatty(name), tokenizers.Tokenizer.from_str(family(name))
    for messages in (TURNS, TURNS[:1], [{"role": "user", "content": " x"}]):
        text = render_chat(ours, messages)
        assert encode_chat(ours, messages) == theirs.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", OF_FAMILIES)
def test_messages_never_write_special_tokens(name, rng):
    ours = chatty(name)
    special = set(ours.special_ids.values()) - {ours.unk_id}
    plain = [number for number in encode_chat(ours, TURNS) if number in special]
    for token in ours.special_ids:
        for text in (
            token,
            f"{token}{token}",
            f"a{token} b",
            token[:-1],
            token[1:],
            token.upper(),
            f"{token[0]}{token}",
        ):
            messages = [*TURNS[:2], {"role": "user", "content": text}]
            ids = encode_chat(ours, messages)
            assert [i for i in ids if i in special - {ours.unk_id}] == [
                i for i in plain if i in special - {ours.unk_id}
            ]
            if name in ("Qwen", "SmolLM", "Llama 3", "Granite"):  # byte by byte, so all text comes back
                assert text.strip() in ours.decode(ids)
    for text in any_texts(rng, 100):
        encode_chat(ours, [*TURNS[:2], {"role": "user", "content": text}])


def test_signs_for_private_use_in_a_message_stay_text():
    ours = chatty("Qwen")
    for text in ("\U0010fffd\U00100000", "\U0010fffd" * 3 + "\U00100001", "<|im_end|>\U0010fffc\U00100000\U0010fffd"):
        ids = encode_chat(ours, [{"role": "user", "content": text}])
        assert ours.decode(ids).startswith(f"user\n{text}\n")
        assert ids.count(ours.special_ids["<|im_end|>"]) == 1


def test_a_prefix_is_put_before_the_text_and_not_before_its_first_token(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(PAIRS)
    made = with_template(read_tokenizer(tmp_path), "{{ bos_token }}{{ messages[0].content }}")
    tokens = [made.tokens[i] for i in encode_chat(made, [{"role": "user", "content": "the"}])]
    assert tokens == ["<s>", "t", "he"]


def test_templates_that_treat_special_tokens_apart_are_refused():
    made = with_template(chatty("Qwen"), "{{ messages[0].content | length }}")
    assert render_chat(made, [{"role": "user", "content": "<|im_end|>"}]) == "10"
    with pytest.raises(UnsupportedError) as caught:
        encode_chat(made, [{"role": "user", "content": "<|im_end|>"}])
    assert caught.value.code == "template_reads_tokens"


def test_templates_by_name():
    made = Tokenizer.from_json(family("Qwen"))
    with pytest.raises(UnsupportedError) as caught:
        render_chat(made, TURNS)
    assert caught.value.code == "no_chat_template"
    made = dataclasses.replace(made, roles=Roles(templates={"default": "one", "tool_use": "two"}))
    assert (render_chat(made, TURNS), render_chat(made, TURNS, template="tool_use")) == ("one", "two")
    with pytest.raises(UnsupportedError, match="Did you mean 'tool_use'") as caught:
        render_chat(made, TURNS, template="tool-use")
    assert caught.value.code == "unknown_chat_template"


def test_formats_of_folders_without_a_template():
    made = Tokenizer.from_json(family("LLaMA 2"))
    system = {"role": "system", "content": "Be brief."}
    for messages in (TURNS[:1], TURNS[:2], TURNS, [system, *TURNS]):
        expected = render_chat(with_template(made, TEMPLATES["LLaMA 2"]), messages)
        assert render_chat(made, messages, template="llama-2") == expected
    assert render_chat(made, [system, *TURNS[:2], {"role": "user", "content": "No?"}], template="orca-2") == (
        "<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhich statement?<|im_end|>\n"
        "<|im_start|>assistant\n  The for statement.\n</s>\n<|im_start|>user\nNo?<|im_end|>\n<|im_start|>assistant"
    )
    with pytest.raises(DataError) as caught:
        render_chat(made, [TURNS[0], TURNS[0]], template="llama-2")
    assert caught.value.code == "chat_rejected"


def test_an_answer_is_read_again_as_it_was_written():
    made = Tokenizer.from_json(family("LLaMA 2"))
    for template in FORMATS:
        asked = encode_chat(made, TURNS[:1], template=template)
        whole = encode_chat(made, [TURNS[0], {"role": "assistant", "content": "\nNone."}, TURNS[0]], template=template)
        assert whole[: len(asked)] == asked


@pytest.mark.parametrize("messages", [[{"role": "user", "content": object()}], [{1: "x"}], [b"bytes"], [{"a": {1, 2}}]])
def test_messages_are_plain_values(messages):
    with pytest.raises(DataError) as caught:
        rendered("{{ messages }}", messages=messages)
    assert caught.value.code == "bad_chat"


def test_nesting_without_end():
    message: dict = {}
    message["content"] = [message]
    with pytest.raises(DataError) as caught:
        rendered("x", messages=[message])
    assert caught.value.code == "bad_chat"


def test_a_template_refuses_in_its_own_words():
    with pytest.raises(DataError, match="no system role, please") as caught:
        rendered("{{ raise_exception('no system role, please') }}")
    assert caught.value.code == "chat_rejected"


INVALID = {
    "no end": "{% for message in messages %}",
    "no expression": "{{ }}",
    "no such value": "{{ messages[0].a.b }}",
    "division by zero": "{{ 1 / 0 }}",
    "text and number": "{{ 'a' + 1 }}",
    "number too long": "{{ " + "9" * 10_000 + " }}",
    "deep blocks": "{% for a in messages %}" * 60 + "{% endfor %}" * 60,
    "lorem ipsum": "{{ lipsum(n=1000000) }}",
    "too few values": "{% set a, b = [1] %}",
}
UNSAFE = {
    "strange filter": "{{ 'a' | urlize }}",
    "width": "{{ 'a' | center(1000000000) }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "private attribute": "{{ ''.__class__.__mro__ }}",
    "import": "{% import 'x' as y %}",
    "include": "{% include 'x' %}",
    "method": "{{ 'a'.ljust(1000000000) }}",
    "format method": "{{ '{:1000000000}'.format(1) }}",
    "map of format": "{{ 'a'.format_map({}) }}",
    "zeros": "{{ 'a'.zfill(1000000000) }}",
    "width of an operator": "{{ '%1000000000d' % 1 }}",
    "width by star": "{{ '%*d' % (1000000000, 1) }}",
    "time with a width": "{{ strftime_now('%1000000000Y') }}",
    "changing messages": "{{ messages.append(1) }}",
    "changing a message": "{{ messages[0].update({}) }}",
    "private name": "{{ namespace(__class__=1) }}",
    "sum of lists": "{{ [[1]] | sum(start=[]) }}",
    "caller of a class": "{{ dict.fromkeys('a') }}",
}


def growing(start, change):
    """Make a template that changes a value again and again."""
    return (
        "{% set ns = namespace(x=" + start + ") %}{% for i in range(99) %}{% set ns.x = " + change + " %}{% endfor %}"
    )


ENDLESS = {
    "long range": "{% for i in range(1000000000) %}x{% endfor %}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "nested loops with a condition": "{% for i in range(99999) %}{% for j in range(99999) if j < 0 %}{% endfor %}"
                                     "{% endfor %}",
    "loop in a list": "{% for i in range(99999) %}{{ range(99999) | list | length }}{% endfor %}",
    "generators": "{% for i in range(99999) %}{{ range(99999) | map('string') | select | join | length }}{% endfor %}",
    "text many times": "{{ 'a' * 1000000000 }}",
    "number times text": "{{ 1000000000 * 'a' }}",
    "list many times": "{{ ([1] * 1000000000) | length }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "power at once": "{{ 10 ** 1000000000 }}",
    "growing number": growing("9", "ns.x * ns.x"),
    "digits": "{{ 1.5 | round(1000000000, 'ceil') }}",
    "sum of text": growing("'ab'", "ns.x + ns.x"),
    "text joined": growing("'ab'", "ns.x ~ ns.x"),
    "block joined": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}"
                    "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    "lists of lists": growing("[1]", "[ns.x, ns.x]"),
    "lists compared": "{% set a = namespace(x=[1]) %}{% set b = namespace(x=[1]) %}{% for i in range(99) %}"
                      "{% set a.x = [a.x, a.x] %}{% set b.x = [b.x, b.x] %}{% endfor %}{{ a.x == b.x }}",
    "objects of objects": growing("{}", "{'a': ns.x, 'b': ns.x}"),
    "tuples": growing("()", "(ns.x, ns.x)"),
    "dictionaries by call": growing("1", "dict(a=ns.x, b=ns.x)"),
    "replaced": growing("'aaaa'", "ns.x.replace('a', ns.x)"),
    "replaced by a filter": growing("'aaaa'", "ns.x | replace('a', ns.x)"),
    "replaced nothing": growing("'aaaa'", "ns.x.replace('', ns.x)"),
    "joined by a method": growing("'aaaa'", "ns.x.join([ns.x, ns.x])"),
    "joined by a filter": "{{ range(99999) | join('a' * 100000) }}",
    "letters of text": "{% for i in range(99999) %}{{ ('a' * 100000) | list | length }}{% endfor %}",
    "pieces of text": "{% set x = 'a ' * 2000000 %}{% for i in range(99) %}{% set y = x.split() %}{% endfor %}",
    "indented": "{{ ('a\\n' * 10000) | indent(100000) }}",
    "indented by less than nothing": "{% set x = 'a\\n' | indent(-1000000000) %}"
                                     "{% set x = [1] | tojson(indent=-1000000000) %}"
                                     "{% for i in range(99) %}{% set x = 'a' * 1000000 %}{% endfor %}",
    "indented JSON": "{{ messages | tojson(indent=1000000000) }}",
    "escaped": growing("'&'", "ns.x | forceescape | replace('&', '&&')"),
    "macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "macro that calls itself twice": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
                                     "{{ m(99) }}",
    "recursive loop": "{% set x = [1] %}{% for i in x recursive %}{{ loop(x) }}{% endfor %}",
    "recursive loop twice": "{% for i in range(60) recursive %}{{ loop(range(60)) if loop.depth < 60 }}{% endfor %}",
    "output without end": "{% for i in range(99999) %}" + "x" * 10_000 + "{% endfor %}",
    "deep parentheses": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "deep list": "{{ " + "[" * 50_000 + "]" * 50_000 + " }}",
    "long sum": "{{ 1" + "+1" * 50_000 + " }}",
    "not not not": "{{ " + "not " * 30_000 + "1 }}",
    "long template": "x" * 200_000,
    "slices": "{% set x = 'a' * 1000000 %}{% for i in range(99999) %}{% set y = x[1:] %}{% endfor %}",
    "slices forward": "{% set x = 'a' * 1000000 %}{% for i in range(99999) %}{% set y = x[::-1] %}{% endfor %}",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *((name, "template_invalid") for name in INVALID),
        *((name, "template_unsafe") for name in UNSAFE),
        *((name, "template_limit") for name in ENDLESS),
    ],
)
def test_what_templates_cannot_do(name, code):
    begin = time.monotonic()
    with pytest.raises(MinislmError) as caught:
        rendered({**INVALID, **UNSAFE, **ENDLESS}[name])
    assert caught.value.code == code, caught.value
    assert isinstance(caught.value, ModelFileError | UnsupportedError)
    assert time.monotonic() - begin < 60  # a hang, not a speed


LARGE = (  # as large as values may be: texts, the places of one letter, a list, numbers
    "{% set s = 'a' * 400000 %}{% set t = s + 'b' + s %}{% set u = s + 'c' %}{% set v = 'b' * 400000 + 'a' %}"
    "{% set l = ('ab ' * 9000).split() %}{% set m = l[:] %}{% set d = {1: 2} %}{% set p = (1, 2) * 14000 %}"
)
LASTING = (
    "u in t", "u not in t", "s < s[:]", "l == m", "'cd' in l", "u is in(t)", "l is lower", "t.find(u)", "t.rfind(u)",
    "t.index(s)", "t.rindex(u)", "t.count(u)", "t.split(u)", "t.rsplit(u)", "t.partition(u)", "t.rpartition(u)",
    "t.replace(u, '')", "t | replace(u, '')", "s.strip(v)", "s.lstrip(v)", "s | trim(v)", "t.startswith((s, u))",
    "t.isalpha()", "l.count('cd')", "l | sort", "l | unique | list", "l | join", "l | max", "l | select('eq', 'cd')",
    "t | title", "t | wordcount", "t % ()", "'%s' % t", "('f' * 999999) | int(0, 16) // 3", "d[p]", "l ~ ''",
)  # fmt: skip


@pytest.mark.parametrize("operation", LASTING)
def test_no_operation_outlasts_the_clock_by_much(monkeypatch, operation):
    monkeypatch.setattr("minislm.text.chat.Budget", functools.partial(Budget, seconds=0.2))
    text = LARGE + "{% for i in range(9999) %}" + f"{{% if {operation} %}}{{% endif %}}" * 900 + "{% endfor %}"
    times = []
    for _ in range(2):  # the first time it is compiled
        begin = time.process_time()
        with pytest.raises(UnsupportedError) as caught:
            rendered(text)
        times.append(time.process_time() - begin)
        assert caught.value.code == "template_limit"
    assert times[-1] < 0.7


GREEDY = {
    "separators of JSON": "{{ ([1] * 3000) | tojson(separators=('x' * 1000000, ':')) }}",
    "lists written": "{% set l = ['\U000e0001' * 1000000] %}{% set x %}" + "{{ l }}" * 99 + "{% endset %}",
}  # fmt: skip


@pytest.mark.parametrize("name", GREEDY)
def test_templates_take_little_memory(name):
    tracemalloc.start()
    try:
        with pytest.raises(UnsupportedError) as caught:
            rendered(GREEDY[name])
        assert caught.value.code == "template_limit"
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_what_is_private_is_not_there():
    for text in ("raise_exception.__globals__", "messages | map(attribute='__class__') | join"):
        assert rendered("{{ " + text + " }}") == ""


def test_jinja_as_templates_know_it():
    for text, expected in {
        "{% for i in range(2) %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}": "1/2False 2/2True ",
        "{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}": "13",
        "{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}": "1",
        "{% for i in [] %}x{% else %}none{% endfor %}": "none",
        "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k ~ v }}{% endfor %}": "a1b2",
        "{{ [3, 1, 2] | sort | join(',') }}|{{ [1, 2][::-1] }}|{{ 'abc'[1:] }}": "1,2,3|[2, 1]|bc",
        "{{ {'a': 'é<'} | tojson }}|{{ 'x' | tojson }}": '{"a": "é<"}|"x"',
        "{% macro m(x, y=2) %}{{ x }}-{{ y }}{{ caller() if caller }}{% endmacro %}{{ m(1) }}"
        "{% call m(3) %}!{% endcall %}": "1-23-2!",
        "{% generation %}a{% endgeneration %}": "a",
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}": "2",
        "{{ '%s and %d%%' % ('a', 3) }}|{{ 7 // 2 }}|{{ 2 ** 10 }}|{{ 1.0 / 4 }}": "a and 3%|3|1024|0.25",
        "{{ undefined_name is defined }}{{ nothing }}{{ messages[9] is undefined }}": "FalseTrue",
        "{{ 'a' if messages is iterable and messages is not string and messages is sequence }}": "a",
        "{%- set x = namespace(n=0) %}{% for m in messages %}{% set x.n = x.n + 1 %}{% endfor %}{{ x.n }}": "3",
        "{{ strftime_now('%Y') | length }}": "4",
        "{{ add_generation_prompt }}{{ tools is none }}{{ documents is none }}": "TrueTrueTrue",
    }.items():  # fmt: skip
        assert rendered(text) == expected, text
