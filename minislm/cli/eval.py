"""``minislm eval``: how well a model predicts a text or does a task, how fast, and how close to another."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from minislm.cli.common import Common, activations_option, named_fields, verb
from minislm.cli.terminal import print_table
from minislm.errors import GateError, UsageError

TASKS = ("classify", "tag", "classify+tag", "answer", "translate")
OF_TEXT = ("text", "max_tokens", "against", "layers", "speed", "memory", "max_perplexity_ratio")  # without --task
N_COMPARED = 64  # tokens whose hidden states are compared


@verb(
    "eval",
    examples="""
    minislm eval out/python
    minislm eval out/python-int4 --against out/python --max-perplexity-ratio 1.02
    minislm eval downloads/phi-2 --against downloads/phi-2 --layers transformers
    minislm eval out/python-int4 --against out/python-int4 --activations float
    minislm eval out/mine --text book.txt --speed --memory
    minislm eval out/commands --task classify+tag --data test.jsonl
    minislm eval out/intents --task classify --data test.csv --field label=intent
    minislm eval out/en-de --task translate --data test.en.gz --data test.de.gz --beams 1
    """,
)
@click.argument("model")
@click.option("--task", type=click.Choice(TASKS), help="Judge on labelled texts or pairs of texts instead.")
@click.option(
    "--data", multiple=True, type=click.Path(path_type=Path), help="With --task: as `minislm train` reads it."
)
@click.option("--cut", is_flag=True, help="With --task: cut texts that are too long instead of refusing them.")
@click.option("--beams", default=4, show_default=True, help="With --task translate; 1: greedy.")
@click.option(
    "--text",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Files, folders, JSONL; default: held-out text of this Python.",
)
@click.option(
    "--field", "fields", multiple=True, metavar="[FIELD=]NAME", help="Where records have a field; repeatable."
)
@click.option(
    "--max-tokens", type=click.IntRange(min=0), default=0, help="Judge on so many tokens at most; default: all."
)
@click.option(
    "--against", help="A model to compare with: KL, top 1, perplexity ratio; and hidden states block by block."
)
@click.option(
    "--layers",
    type=click.Choice(["minislm", "transformers"]),
    help="With --against: compare block by block alone, the other model run by this library.",
)
@activations_option
@click.option("--speed", is_flag=True, help="Time a prompt and a continuation.")
@click.option("--memory", is_flag=True, help="Measure peak memory in a fresh process.")
@click.option("--max-perplexity-ratio", type=float, help="With --against: exit with 5 above this ratio.")
def command(common: Common, model: str, task: str | None, **options: Any) -> None:
    """Judge MODEL on held-out text, or on a task.

    \b
    classify      accuracy
    tag           precision, recall and F1 of whole spans, as seqeval counts them
    classify+tag  both, and how often the class and all spans are right
    answer        exact match and F1 of words, as SQuAD counts them
    translate     BLEU by sacrebleu (pip install -e '.[eval]'), and exact match
    """
    if options["max_perplexity_ratio"] is not None and options["against"] is None:
        raise UsageError("bad_option", "--max-perplexity-ratio needs --against")
    if options["layers"] is not None and options["against"] is None:
        raise UsageError("bad_option", "--layers needs --against")
    values = _text_figures(model, options) if task is None else _task_figures(model, task, options)
    common.result(values, lambda: _print(values))
    limit = options["max_perplexity_ratio"]
    if limit is not None and not values["perplexity_ratio"] <= limit:
        raise GateError("perplexity_gate", f"the perplexity ratio is {values['perplexity_ratio']:.4f}, above {limit:g}")


def _print(values: dict[str, Any]) -> None:
    """Print figures, and what is compared block by block."""
    figures = [(name, _words(value)) for name, value in values.items() if name != "layers"]
    print_table(("figure", "value"), figures)
    if "layers" in values:
        click.echo()
        rows = [
            (row["layer"], f"{row['relative']:.2e}", f"{row['largest']:.2e}", f"{row['cosine']:.6f}")
            for row in values["layers"]
        ]
        print_table(("layer", "relative", "largest", "least cosine"), rows, right=(1, 2, 3))


def _compared(lm: Any, ids: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Tell how far the hidden states of two models are apart."""
    from minislm.evaluation.layers import layer_differences, reference_states, states_of
    from minislm.language_model import load

    ids = ids[None, : min(N_COMPARED, lm.model.config.context)]
    if options["layers"] == "transformers":
        reference = reference_states(options["against"], lm.model, ids)
    else:
        reference = states_of(load(options["against"]).model, ids)
    found = layer_differences(states_of(lm.model, ids), reference)
    return {"tokens": ids.size, "layers": [row._asdict() for row in found]}


def _task_figures(model: str, task: str, options: dict[str, Any]) -> dict[str, Any]:
    """Judge on labelled texts or pairs of texts."""
    from minislm.evaluation.labelled import judge_labelled, judge_pairs
    from minislm.language_model import load
    from minislm.text.examples import read_labelled, read_pairs

    if other := [name for name in OF_TEXT if options[name]]:
        raise UsageError("bad_option", f"--{other[0].replace('_', '-')} does not go with --task")
    if not options["data"]:
        raise UsageError("bad_option", "--task needs --data: the labelled texts or pairs of texts to be judged on")
    fields, lm = named_fields(options["fields"]), load(model, activations=options["activations"])
    if task == "translate":
        pairs = read_pairs(options["data"], fields)
        return {"pairs": len(pairs), **judge_pairs(lm, pairs, cut=options["cut"], n_beams=options["beams"])}
    texts = read_labelled(options["data"], task.split("+"), fields)
    return {"texts": len(texts), **judge_labelled(lm, texts, cut=options["cut"])}


def _text_figures(model: str, options: dict[str, Any]) -> dict[str, Any]:
    """Judge by the likelihood of a text."""
    from minislm.evaluation.memory import peak_memory
    from minislm.evaluation.quality import agreement, likelihood, require_decoder, text_bytes
    from minislm.evaluation.speed import measure_speed
    from minislm.language_model import load
    from minislm.models.decoder import Decoder

    if options["data"]:
        raise UsageError("bad_option", "--data needs --task; a text to be predicted is given by --text")
    lm = load(model, activations=options["activations"])
    if options["layers"] or (options["against"] and not isinstance(lm.model, Decoder)):
        return _compared(lm, _tokens(lm, options), options)
    require_decoder(lm.model)
    ids = _tokens(lm, options)
    judged = likelihood(lm.model, ids, n_bytes=text_bytes(lm, ids))
    values: dict[str, Any] = {
        "tokens": judged.n_tokens,
        "nll_nats": judged.nll_nats,
        "perplexity": judged.perplexity,
        "bits_per_byte": judged.bits_per_byte,
    }
    if options["against"] is not None:
        other = load(options["against"])
        values["perplexity_ratio"] = judged.perplexity / likelihood(other.model, ids).perplexity
        close = agreement(lm.model, other.model, ids)
        values["kl_nats"], values["top_1"] = close.kl_nats, close.top_1
        if (
            lm.model.config.layers == other.model.config.layers
            and lm.model.config.d_model == other.model.config.d_model
        ):
            values["layers"] = _compared(lm, ids, options)["layers"]
    if options["speed"]:
        half = lm.model.config.context // 2
        speed = measure_speed(lm, prompt_tokens=half, new_tokens=half)
        values["prompt_tokens_per_s"], values["generation_tokens_per_s"] = dataclasses.astuple(speed)
    if options["memory"]:
        values["memory_growth_bytes"] = peak_memory(model, activations=options["activations"]).growth_bytes
    return values


def _tokens(lm: Any, options: dict[str, Any]) -> Any:
    from minislm.text.corpus import python_corpus, read_documents

    if options["text"]:
        documents = read_documents(options["text"], field=named_fields(options["fields"]).text)
    else:
        documents = list(python_corpus().held_out)
    ids = lm.tokenizer.encode_documents(documents)
    return ids[: options["max_tokens"] or None]


def _words(value: Any) -> str:
    return f"{value:,.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
