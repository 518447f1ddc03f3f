"""The suites of `minislm bench`: decoders, encoders, training, layers, and what a fresh process costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from minislm.benchmark.engine import Contender
from minislm.benchmark.plan import Row, Suite, Target, matches
from minislm.benchmark.shapes import MINILM, SHAPES, named_place
from minislm.benchmark.stored import AS_STORED
from minislm.benchmark.training import BATCH
from minislm.errors import NotFoundError
from minislm.files.folder import CONFIG, read_json
from minislm.files.gguf import is_gguf

RIVALS = {
    "llama.cpp": "llama_cpp",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "ctranslate2": "ctranslate2",
    "torch": "torch",
}
"""The names of other engines, and the module that each needs."""
LARGE = "llama-1.1b"
DECODERS = (LARGE, "llama-110m", "llama-15m")
ENCODER_TYPES = ("bert", "distilbert", "mobilebert", "encoder")
ENCODERS = (MINILM, "bert-tiny", "bert-mini")


def suites(cache: Path, model: str | None = None, *, n_tokens: int = 64) -> list[Suite]:
    """Make the suites.

    Parameters
    ----------
    cache : Path
        Where models are kept.
    model : str, optional
        A shape or a model folder, which alone is to be measured. None: everything.
    n_tokens : int
        Tokens to generate.

    Returns
    -------
    list of Suite
        Nothing is made or loaded yet.
    """
    if model is not None:
        return [_of_model(model, cache, n_tokens)]
    return [
        *(_decoder(name, cache, n_tokens) for name in DECODERS),
        *(_encoder(name, cache) for name in ENCODERS),
        *(_training(name) for name in BATCH),
        *_layers(),
        _threads(cache),
        _start(cache),
    ]


def chosen(everything: Iterable[Suite], work: Sequence[str], against: Sequence[str]) -> list[Suite]:
    """Keep the rows and the rivals that are asked for.

    Parameters
    ----------
    everything : iterable of Suite
        All suites.
    work : sequence of str
        Names of suites or rows, or patterns of ``suite/row``; empty: all rows.
    against : sequence of str
        Names of `RIVALS`, or ``"none"``; empty: all rivals.

    Returns
    -------
    list of Suite
        Those of which rows are left.
    """
    found = []
    for suite in everything:
        rows = tuple(
            row
            for row in suite.rows
            if not work
            or any(name in (suite.name, row.name) or matches(f"{suite.name}/{row.name}", name) for name in work)
        )
        modules = {RIVALS[name] for name in against if name != "none"} or set(RIVALS.values())
        kept = set() if "none" in against else modules
        contenders = tuple(c for c in suite.contenders if c.ours or c.package in kept)
        if rows:
            found.append(replace(suite, rows=rows, contenders=contenders))
    return found


def _of_model(model: str, cache: Path, n_tokens: int) -> Suite:
    """Make the suite of one model; what is no plain published folder runs as it is stored, beside llama.cpp if GGUF."""
    path = Path(model) if model in SHAPES else named_place(model)
    if model in SHAPES:
        config: Mapping[str, Any] = SHAPES[model]
    elif is_gguf(path) and path.is_file():
        config = {"minislm": "as stored"}
    elif (path / CONFIG).is_file():
        config = read_json(path / CONFIG)
    else:
        shapes = ", ".join(SHAPES)
        raise NotFoundError("model_not_found", f"{model!r} is no model folder, GGUF file or shape; shapes: {shapes}")
    whole = _encoder if config.get("model_type") in ENCODER_TYPES else partial(_decoder, n_tokens=n_tokens)
    suite = whole(model, cache)
    if "minislm" not in config:
        return suite
    options = {"model": model, "cache": str(cache), "format": AS_STORED}
    alone = [replace(suite.contenders[0], label="minislm", options=options)]
    if is_gguf(path):
        kind = next(contender for contender in suite.contenders if not contender.ours)
        alone += [
            replace(kind, label=f"llama.cpp{fa}", options={**options, "format": AS_STORED + fa}) for fa in ("", " fa")
        ]
    rows = tuple(replace(row, targets=(), labels="*") for row in suite.rows)
    return replace(suite, name=Path(model).name, contenders=tuple(alone), rows=rows, reference=None)


def _contenders(module: str, kind: str, label: str, formats: Iterable[str], **options: Any) -> list[Contender]:
    """Make one contender for each format."""
    package = RIVALS.get(label, "")
    return [
        Contender(f"{label} {format}", f"{module}:{kind}", {**options, "format": format}, package) for format in formats
    ]


def _decoder(name: str, cache: Path, n_tokens: int) -> Suite:
    """A decoder in 4 bits, and where it is small in 8, beside llama.cpp's types of as many."""
    where = {"model": name, "cache": str(cache)}
    large = name == LARGE
    own, theirs = ["int4-32"], ["q4_0", "q4_0 fa"]
    theirs += [] if name == "llama-15m" else ["q4_k_m"]  # whose groups do not fit its width
    if not large:
        own, theirs = [*own, "int8-32"], [*theirs, "q8_0"]  # as exact as each other: groups of 32 on both sides
    four, eight = ("minislm int4-32", "llama.cpp q4*"), ("minislm int8-32", "llama.cpp q8*")
    generation = [Target(*four, *((1.5, 2.0) if large else (1.3, 2.0)))]
    generation += [Target(four[0], "memory", 0.65, 0.90)] if large else [Target(*eight, 1.3, 2.0)]
    any_cache = "minislm int4-32*"
    prompt = [Target(any_cache, four[1], 2.5, 4.0), Target(any_cache, "int8 peak", 0.40, 0.60)] if large else []
    rows = [
        Row("generation", f"{n_tokens} tokens, one after the other", {"prompt": 32, "new": n_tokens},
            n_tokens, "tokens/s", tuple(generation)),
        Row("prompt", "a prompt of 512", {"prompt": 512}, 512, "tokens/s", tuple(prompt)),
    ]  # fmt: skip
    mine = _contenders(".own", "Decoder", "minislm", own, **where)
    if name in (LARGE, "llama-110m"):
        mine.append(Contender("minislm int4-32, cache int8", ".own:Decoder", {**mine[0].options, "kept": "int8"}))
    if name == "llama-110m":
        labels = f"{any_cache}|llama.cpp q4_0*"
        rows += [
            Row("context", "a prompt of 4,096", {"prompt": 4096}, 4096, "tokens/s",
                (Target(any_cache, "row prompt", 0.80, 0.92),), labels),
            Row("continuation", "64 tokens after a prompt of 4,096", {"prompt": 4096, "new": 64}, 64, "tokens/s",
                (), labels),
        ]  # fmt: skip
    return Suite(
        name,
        (
            *mine,
            *_contenders(".rivals.llama_cpp", "LlamaCpp", "llama.cpp", theirs, **where),
        ),
        tuple(rows),
        reference=Contender("minislm float16", ".own:Decoder", {**where, "format": "float16"}),
        most_error=0.5 if large else 0.2,  # rounding random weights adds up over the layers; unrelated logits are at 2
        logits=True,
    )


def _encoder(name: str, cache: Path) -> Suite:
    """An encoder in float32 and in 8 bits, beside four other engines."""
    where = {"model": name, "cache": str(cache)}
    small = name in ("bert-tiny", "bert-mini")
    both = ("float32", "int8")
    rivals = {
        "torch": ("float32", "float32 compiled", "int8", "bfloat16"),
        "onnxruntime": both,
        "openvino": ("float32", "int8", "int8 throughput"),
        "ctranslate2": both,
    }
    if small:
        rivals = {"torch": ("float32",), "onnxruntime": both}
    contenders = _contenders(".own", "Encoder", "minislm", both, **where)
    if not small:
        options = {**where, "format": "int8", "attention": "int8"}
        contenders.append(Contender("minislm int8, attention int8", ".own:Encoder", options))
    for label, formats in rivals.items():
        contenders += _contenders(f".rivals.{label}_encoder", "Encoder", label, formats, **where)
    eight = "minislm int8*", "|".join(f"{label} int8*" for label in rivals)
    plain = "minislm float32", "torch float32*|onnxruntime float32"
    if small:
        latency = tuple(Target(f"minislm {format}", f"onnxruntime {format}", 1.5, 3.0) for format in both)
        rows = [Row("sentence", "one sentence of 32 tokens", {"sequences": 1, "tokens": 32}, 1, "ms", latency)]
    else:
        targets = (Target(*eight, 1.5, 2.0), Target(*plain, 1.0, 1.3))
        rows = [
            Row("batch", "32 texts of 128 tokens", {"sequences": 32, "tokens": 128}, 32, "texts/s", targets),
            Row("texts", "1,000 sentences with tokenization", {"texts": 1000}, 1000, "texts/s", targets),
            Row("sentence", "one sentence of 32 tokens", {"sequences": 1, "tokens": 32}, 1, "ms",
                (Target("minislm int8*", "onnxruntime int8", 1.2, 2.0),)),
        ]  # fmt: skip
    reference = Contender("minislm float32", ".own:Encoder", {**where, "format": "float32"})
    return Suite(name, tuple(contenders), tuple(rows), reference=reference, most_error=0.2)


def _training(name: str) -> Suite:
    """Training steps beside torch's."""
    contenders = (
        Contender("minislm", ".training:Steps", {"name": name}),
        Contender("torch eager", ".rivals.torch_training:Steps", {"name": name, "compiled": False}, "torch"),
        Contender("torch compiled", ".rivals.torch_training:Steps", {"name": name, "compiled": True}, "torch"),
    )
    targets = {
        "nanogpt": (Target("minislm", "torch eager", 1.4, 1.8), Target("minislm", "torch compiled", 1.0, 1.3)),
        "10m": (Target("minislm", "torch eager", 1.0, 1.3),),
    }
    what = {"nanogpt": "a step of nanoGPT's recipe for a CPU", "10m": "a step of a 10M decoder, context 256"}
    row = Row("step", f"{what[name]}, batch {BATCH[name]}", {}, 1, "ms", targets[name])
    return Suite(f"training-{name}", contenders, (row,), most_error=1e-6)


def _layers() -> list[Suite]:
    """Chains of products."""

    def chain(stored: str, width: int, n_layers: int) -> Contender:
        options = {"stored": stored, "width": width, "n_layers": n_layers}
        return Contender(stored, ".layers:Chain", options)

    def rows(n: int, *targets: Target) -> Row:
        return Row(f"{n}-rows" if n > 1 else "1-row", f"{n} tokens" if n > 1 else "one token", {"rows": n}, n, "ms",
                   targets)  # fmt: skip

    low_rank = Target("low rank", "float32", 1.6, 1.9)
    return [
        Suite("w8a8", (chain("int8", 2048, 16),), (rows(512, Target("int8", "int8 peak", 0.60, 0.80)),),
              most_error=0.01),
        Suite("formats", (chain("nf4-32", 2048, 64), chain("ternary", 2048, 64), chain("int4-32", 2048, 64)),
              tuple(rows(n, Target("nf4-32", "int4-32", 0.8, 1.0), Target("ternary", "int4-32", 1.2, 1.5))
                    for n in (1, 128)), most_error=0.05),
        Suite("low-rank", (chain("low rank", 2048, 16), chain("float32", 2048, 16)),
              (rows(1, low_rank), rows(128, low_rank)), most_error=1e-8),
        Suite("low-rank-int8", (chain("low rank int8", 2048, 64), chain("int8", 2048, 64)),
              tuple(rows(n, Target("low rank int8", "int8", 1.6, 1.9)) for n in (1, 128)), most_error=0.05),
        Suite("block-sparse", (chain("blocks int8", 2048, 16), chain("int8", 2048, 16)),
              (rows(128, Target("blocks int8", "int8", 1.8, 3.0)),), most_error=0.05),
        Suite("two-of-four", (chain("2:4 int8", 2048, 128), chain("int8", 2048, 128)),
              (rows(1, Target("2:4 int8", "int8", 1.2, 1.5)),), most_error=0.05),
    ]  # fmt: skip


def _threads(cache: Path) -> Suite:
    """More threads than processors."""
    options = {"model": "llama-110m", "cache": str(cache), "format": "int4-32"}
    contenders = (
        Contender("4 threads", ".own:Decoder", options, threads=4),
        Contender("as many as processors", ".own:Decoder", options),
    )
    target = (Target("4 threads", "as many as processors", 0.6, 0.8),)
    return Suite("threads", contenders, (
        Row("generation", "64 tokens of llama-110m", {"prompt": 32, "new": 64}, 64, "tokens/s", target),
        Row("prompt", "a prompt of 512 of llama-110m", {"prompt": 512}, 512, "tokens/s", target),
    ))  # fmt: skip


def _start(cache: Path) -> Suite:
    """Fresh processes."""

    def fresh(label: str, model: str = "", format: str = "") -> Contender:
        return Contender(label, ".start:Fresh", {"model": model, "cache": str(cache), "format": format})

    return Suite("start", (
        fresh("minislm"), fresh("llama-15m int8", "llama-15m", "int8"),
        fresh("llama-110m int8", "llama-110m", "int8"), fresh(f"{LARGE} int4-32", LARGE, "int4-32"),
    ), (
        Row("import", "import minislm", {"start": "import"}, 1, "s",
            (Target("minislm", "nothing", 0.3, 0.15),), "minislm"),
        Row("first-token", "a cold shell to the first token", {"start": "first token"}, 1, "s",
            (Target("llama-15m *", "nothing", 1.0, 0.5),), "llama-15m *"),
        Row("memory", "growth while loading and running", {"start": "memory"}, 1, "x file",
            (Target("llama-110m *", "nothing", 1.15, 1.05), Target("llama-1.1b *", "nothing", 1.15, 1.05)),
            "llama-1*b int4-32|llama-110m *"),
    ))  # fmt: skip
