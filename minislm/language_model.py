"""LanguageModel: a model, its tokenizer and its generation settings; what `load` returns and `save` writes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from minislm.errors import DataError, GenerationError, ModelFileError, UnsupportedError, UsageError, unknown
from minislm.files.checkpoint import described, read_checkpoint
from minislm.files.folder import ModelFolder, write_folder
from minislm.files.sentence_folder import sentence_files
from minislm.inference import answering, tagging, tasks
from minislm.inference.conversation import Conversation
from minislm.inference.decoding import Stream, generate
from minislm.inference.generation import Generation, Prompt, source_ids
from minislm.inference.program import Program
from minislm.inference.settings import GenerationSettings
from minislm.inference.settings_file import read_fields, read_settings, write_settings
from minislm.inference.spares import Spares
from minislm.layers.base import Context
from minislm.models.base import Model
from minislm.models.encoder import Encoder
from minislm.models.transformer import Transformer
from minislm.text.chat import encode_chat
from minislm.text.published import tokenizer_files
from minislm.text.roles import DEFAULT
from minislm.text.tokenizer import Tokenizer
from minislm.weights.quantized import CHOICES

ATTENTION = ("float32", "int8")
WRITES, READS = "writes", "reads a source"  # kinds of programs


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A model with its tokenizer: text in, text out; or, with an encoder, what its heads say about texts.

    Parameters
    ----------
    model : Model
        From token ids to logits.
    tokenizer : Tokenizer
        From text to token ids. The model has a row for each that its own vocabulary has; for tokens that were added
        later it may have none, and a text that has one of them is refused.
    settings : GenerationSettings
        What `generate` does unless told otherwise.
    history : tuple of dict
        The compression recipes that made the model, first to last.
    published : str, optional
        The ``model_type``, of `minislm.models.PUBLISHED`, of the checkpoint that it was loaded from; `save` prefers it.
    trained_for : mapping of str to dict
        What an encoder-decoder was trained for, such as "summarization": the ``prefix`` of its texts, and settings in
        the words of generation_config.json; config.json has them as ``task_specific_params``.
    attention : {"float32", "int8"}
        How texts that are read as a whole, by an encoder, attend; as of `load`. It is not saved.
    """

    model: Model
    tokenizer: Tokenizer
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    history: tuple[Mapping[str, Any], ...] = ()
    published: str | None = None
    trained_for: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    attention: str = "float32"
    spares: Spares = field(default_factory=Spares, init=False, repr=False)

    def __post_init__(self) -> None:
        largest = max(self.tokenizer.learned_ids, default=0)
        if largest >= self.model.config.vocab_size:
            raise ModelFileError(
                "tokenizer_invalid",
                f"the tokenizer has {largest + 1} tokens, and the model knows only {self.model.config.vocab_size}; use "
                "the tokenizer that the model was trained with",
            )

    classify = tasks.classify
    tag = tagging.tag
    answer = answering.answer
    fill_mask = tasks.fill_mask
    embed = tasks.embed

    def generate(self, prompt: Prompt, **options: Any) -> Generation:
        """Continue a text, or write what an encoder-decoder makes of it.

        Parameters
        ----------
        prompt : str or sequence of int
            Text, or token ids.
        **options : Any
            Fields of `GenerationSettings` that are to differ from `settings`.

        Returns
        -------
        Generation
            The new text, the new ids, why it stopped, and how fast it was.

        Raises
        ------
        UnsupportedError
            Code ``cannot_write``: the model is an encoder.
        GenerationError, DataError, UsageError
            As `inference.decoding.generate`.
        """
        return self.generate_batch([prompt], **options)[0]

    def generate_batch(self, prompts: Sequence[Prompt], **options: Any) -> list[Generation]:
        """Continue several texts of any lengths together, each as it would be alone.

        Parameters
        ----------
        prompts : sequence of str or of sequences of int
            Texts, or token ids.
        **options : Any
            Fields of `GenerationSettings` that are to differ from `settings`.

        Returns
        -------
        list of Generation
            One for each prompt.

        Raises
        ------
        UnsupportedError, GenerationError, DataError, UsageError
            As `generate`.
        """
        settings = self.settings.replaced(**options)
        program, source = self._taken()
        found = generate(program, self.tokenizer, prompts, settings, source=source)
        self._give(program, source)
        return found

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """Continue a text and give out the pieces as they come.

        Parameters
        ----------
        prompt : str or sequence of int
            Text, or token ids.
        **options : Any
            Fields of `GenerationSettings` that are to differ from `settings`.

        Returns
        -------
        Stream
            Iterate over it for the pieces; its `result` is what `generate` would have returned.

        Raises
        ------
        UnsupportedError, GenerationError, DataError, UsageError
            As `generate`.
        """
        settings = self.settings.replaced(**options)
        program, source = self._taken()
        finished = partial(self._give, program, source)
        return Stream(program, self.tokenizer, prompt, settings, source=source, finished=finished)

    def chat(self, messages: Sequence[Mapping[str, Any]], *, template: str = DEFAULT, **options: Any) -> Generation:
        """Answer the last message of a conversation, by the chat template of the model's tokenizer.

        Parameters
        ----------
        messages : sequence of mapping
            Each with "role" ("system", "user" or "assistant") and "content".
        template : str
            The template's name, as of `text.chat.encode_chat`, such as ``"orca-2"`` where the folder has none.
        **options : Any
            Fields of `GenerationSettings` that are to differ from `settings`.

        Returns
        -------
        Generation
            The answer.

        Raises
        ------
        UnsupportedError, ModelFileError, DataError
            As `text.chat.encode_chat`.
        GenerationError, UsageError
            As `generate`.
        """
        return self.generate(encode_chat(self.tokenizer, messages, template=template), **options)

    def conversation(
        self, messages: Sequence[Mapping[str, Any]] = (), *, template: str = DEFAULT, **options: Any
    ) -> Conversation:
        """Begin a conversation that remembers what was said, and reads only what is new.

        Parameters
        ----------
        messages : sequence of mapping
            What was said before, as of `chat`.
        template : str
            As of `chat`.
        **options : Any
            Fields of `GenerationSettings` that are to differ from `settings`.

        Returns
        -------
        Conversation
            Its `say` streams answers.

        Raises
        ------
        UsageError
            Code ``bad_generation_setting``.
        """
        return Conversation(self, messages, template=template, **options)

    def translate(
        self, texts: Sequence[str], *, task: str | None = None, cut: bool = False, **options: Any
    ) -> list[Generation]:
        """Write what an encoder-decoder makes of texts, each the likeliest that a search with beams finds.

        Parameters
        ----------
        texts : sequence of str
            What it reads.
        task : str, optional
            One of `trained_for`, whose prefix and settings hold; None: the only translation, if there is but one.
        cut : bool
            Whether a text that is longer than the model's context loses its end. False: it is an error.
        **options : Any
            Fields of `GenerationSettings` that are to differ from `settings`, from the task's and from this search,
            which has as many beams as `settings`, or 4 where these have none.

        Returns
        -------
        list of Generation
            One for each text.

        Raises
        ------
        UnsupportedError
            Code ``not_an_encoder_decoder``; code ``unknown_task``.
        UsageError
            Code ``bad_texts``: a single text instead of a list. Code ``bad_option``: several translations, none named.
        GenerationError
            Code ``empty_source``: a text is blank; code ``context_length_exceeded``: it is too long.
        DataError, UsageError
            As `inference.decoding.generate`.
        """
        return self._written("translation", texts, task, cut, {}, options)

    def summarize(
        self, texts: Sequence[str], *, task: str | None = None, cut: bool = False, **options: Any
    ) -> list[Generation]:
        """Write what an encoder-decoder makes of texts, by `translate`'s search with a bent for longer ones.

        Parameters
        ----------
        texts : sequence of str
            What it reads.
        task : str, optional
            One of `trained_for`, whose prefix and settings hold; None: the only summarization, if there is but one.
        cut : bool
            Whether a text that is longer than the model's context loses its end. False: it is an error.
        **options : Any
            As of `translate`; unless `settings` or the task have another length penalty it is 2, as BART's for CNN /
            Daily Mail (Lewis et al. 2019, arXiv 1910.13461).

        Returns
        -------
        list of Generation
            One for each text.

        Raises
        ------
        UnsupportedError, GenerationError, DataError, UsageError
            As `translate`.
        """
        bent = {"length_penalty": 2.0} if self.settings.length_penalty == 1 else {}
        return self._written("summarization", texts, task, cut, bent, options)

    def _written(
        self,
        kind: str,
        texts: Sequence[str],
        task: str | None,
        cut: bool,
        usual: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> list[Generation]:
        """Let an encoder-decoder do one of its tasks."""
        if not isinstance(self.model, Transformer):
            raise UnsupportedError(
                "not_an_encoder_decoder",
                f"translate and summarize need an encoder-decoder; this model is of type {self.model.config.type!r}",
            )
        if isinstance(texts, str):
            raise UsageError("bad_texts", "expected a list of texts, and a single text came; put it into a list")
        values = self._task(kind, task)
        n_beams = self.settings.n_beams if self.settings.n_beams > 1 else 4
        own = {"temperature": 0.0, "n_beams": n_beams, **usual, **read_fields(values, apart=True)}
        prefix = values.get("prefix") or ""
        for number, text in enumerate(texts, start=1):
            if isinstance(text, str) and not text.strip():
                raise GenerationError("empty_source", f"text {number} is empty; give it words, or leave it out")
        prompts: list[Prompt] = [prefix + text if isinstance(text, str) else text for text in texts]  # ids as they are
        if cut:
            longest = self.model.config.context
            prompts = [source_ids(p, self.tokenizer, longest) if isinstance(p, str) else p for p in prompts]
        try:
            return self.generate_batch(prompts, **{**own, **options})
        except GenerationError as error:
            if error.code != "context_length_exceeded":
                raise
            raise GenerationError(error.code, f"{error}, or let it be cut (--cut)") from error

    def _task(self, kind: str, task: str | None) -> Mapping[str, Any]:
        """Return what is known of a task, or of the only one of a kind."""
        if task is not None and task not in self.trained_for:
            if not self.trained_for:
                raise UnsupportedError(
                    "unknown_task",
                    f"config.json names no tasks (task_specific_params), so {task!r} neither; leave the task out",
                )
            raise unknown("task", task, self.trained_for)
        names = [task] if task is not None else [name for name in self.trained_for if name.startswith(kind)]
        if len(names) > 1:
            raise UsageError("bad_option", f"the model was trained for {', '.join(names)}; name one of them as task")
        return self.trained_for[names[0]] if names else {}

    def logits(self, ids: Any, mask: Any = None, decoder_ids: Any = None) -> Any:
        """Return the logits of the token after each position, or what an encoder's heads say.

        Parameters
        ----------
        ids : array of int, (T,) or (B, T)
            Token ids; of an encoder-decoder, the source.
        mask : array of bool, as `ids`, optional
            False where a row is padded at its end. None: nowhere.
        decoder_ids : array of int, (T,) or (B, T), optional
            Of an encoder-decoder, the target so far, from the token that it begins with.

        Returns
        -------
        ndarray of float32, (T, V) or (B, T, V), or dict of str to ndarray
            Logits; those of padding mean nothing. Of an encoder, a dictionary by the names of its heads.

        Raises
        ------
        DataError
            Code ``bad_token_ids``.
        UsageError
            Code ``bad_mask``; code ``bad_option``: `decoder_ids` are missing, or given to another model.
        GenerationError
            Code ``context_length_exceeded``.
        """
        reads_source = isinstance(self.model, Transformer)
        if reads_source != (decoder_ids is not None):
            raise UsageError("bad_option", "decoder_ids are what an encoder-decoder needs, and no other model takes")
        rows, lengths_B = _batched(ids), _lengths(ids, mask)
        if reads_source:
            context = Context(source_BS=rows, source_lengths_B=lengths_B)
            return _unbatched(self.model.forward(_batched(decoder_ids), context), ids)
        return _unbatched(self.model.forward(rows, Context(lengths_B=lengths_B)), ids)

    def encode(self, ids: Any, mask: Any = None) -> np.ndarray:
        """Return the last hidden state of each position; of an encoder-decoder, its encoder's.

        Parameters
        ----------
        ids : array of int, (T,) or (B, T)
            Token ids.
        mask : array of bool, as `ids`, optional
            False where a row is padded at its end. None: nowhere.

        Returns
        -------
        ndarray of float32, (T, D) or (B, T, D)
            What the head or the decoder reads; that of padding means nothing.

        Raises
        ------
        DataError, UsageError, GenerationError
            As `logits`.
        """
        rows, lengths_B = _batched(ids), _lengths(ids, mask)
        if isinstance(self.model, Transformer):
            hidden = self.model.encode(rows, Context(source_lengths_B=lengths_B))
        else:
            hidden = self.model.hidden(rows, Context(lengths_B=lengths_B))
        found: np.ndarray = _unbatched(hidden, ids)
        return found

    def program(self) -> Program:
        """Lower the part of the model that writes.

        Returns
        -------
        Program
            Over the model's arrays.

        Raises
        ------
        UnsupportedError
            Code ``cannot_write``: the model is an encoder.
        """
        if isinstance(self.model, Encoder):
            raise UnsupportedError(
                "cannot_write", "an encoder reads and does not write; use classify, tag, answer, fill-mask or embed"
            )
        return Program.of(self.model)

    def _taken(self) -> tuple[Program, Program | None]:
        """Take the programs of a call: what writes, and what reads the source of an encoder-decoder."""
        program = self.spares.take(WRITES, self.program)
        if not isinstance(self.model, Transformer):
            return program, None
        return program, self.spares.take(READS, partial(Program.of_source, self.model, attention=self.attention))

    def _give(self, program: Program, source: Program | None) -> None:
        """Give them back."""
        self.spares.give(WRITES, program)
        if source is not None:
            self.spares.give(READS, source)


def load(
    path: str | os.PathLike[str],
    *,
    context: int | None = None,
    activations: str | None = None,
    attention: str = "float32",
) -> LanguageModel:
    """Load a model folder: nothing of it is executed, and its weights are mapped, not read.

    Parameters
    ----------
    path : path
        A folder that `save` wrote; one as Hugging Face's libraries write it, of an architecture in
        `minislm.models.PUBLISHED`; a GGUF file; or the name of a folder in the local cache of its hub, such as
        ``"microsoft/phi-2"``. Nothing is ever downloaded.
    context : int, optional
        Positions that a model without a table of them is opened with, of those that it learned; None: those of its
        config.json, or, where it can rotate by more than it first learned (LongRoPE), those that it first learned.
    activations : {"float", "int8", "int8-row", "int8-32"}, optional
        How inputs enter the products of quantized matrices: as they are, or rounded to signed bytes, as
        `minislm.weights.quantized.Quantized` says. None: as each was stored; a GGUF file does not say, and is run with
        bytes, as llama.cpp runs it.
    attention : {"float32", "int8"}
        How an encoder's tokens attend to each other: as they are, or, faster and off by about 1 % of the root mean
        square, with bytes on both sides of every product (`ops.packed.attention_packed_int8`). A decoder attends as its
        cache stores; see `cache` of `GenerationSettings`.

    Returns
    -------
    LanguageModel
        Its matrices are read from the file as they are used.

    Raises
    ------
    NotFoundError
        Code ``model_not_found``.
    ModelFileError
        Codes of `files.folder.read_folder` for damaged files; ``config_invalid``, ``config_vs_weights`` and
        ``tokenizer_invalid`` for files that contradict themselves or each other.
    ConfigError
        Code ``config_invalid``: no possible model.
    UsageError
        Code ``bad_option``: `context` for a model with a table of positions, or out of range; or `path` is none.
    UnsupportedError
        Codes ``unknown_architecture``, ``unknown_weight``, ``unsupported_version``, ``unknown_activations``,
        ``unknown_attention`` and the like.
    """
    known = [choice for choice in CHOICES if choice != "static"]  # whose scales are found on data
    if activations is not None and activations not in known:
        raise unknown("activations", activations, known)
    if attention not in ATTENTION:
        raise unknown("attention", attention, ATTENTION)
    found = read_checkpoint(path, context)
    apart = isinstance(found.model, Transformer)
    eos_id = found.tokenizer.eos_id
    settings = read_settings(found.generation, found.config, eos_id, apart=apart, folder=os.fspath(path))
    tasks = _tasks(path, found.config)
    model = found.model
    if activations is not None:
        model = model.replaced({p: weight.with_activations(activations) for p, weight in model.weights().items()})
    return LanguageModel(model, found.tokenizer, settings, found.history, found.published, tasks, attention)


def save(lm: LanguageModel, path: str | os.PathLike[str]) -> None:
    """Write a model folder, whole or not at all.

    Parameters
    ----------
    lm : LanguageModel
        What to write.
    path : path
        Where. A model that stands there is replaced, even the one that `lm` was loaded from.

    Raises
    ------
    UsageError
        Code ``not_a_model_folder``: something else stands there.
    ModelFileError
        Code ``disk_full`` or ``write_failed``; `path` is what it was, or whole and new.
    """
    tokenizer = lm.tokenizer
    config, arrays = described(lm.model, tokenizer, lm.history, lm.published)
    further = {**tokenizer_files(tokenizer), **sentence_files(config.pop("sentence", {}))}
    if lm.trained_for:
        config["task_specific_params"] = dict(lm.trained_for)
    generation = write_settings(lm.settings, tokenizer.eos_id, tokenizer.pad_id)
    write_folder(path, ModelFolder(config, arrays, generation, further))


def _tasks(path: str | os.PathLike[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what config.json says of tasks, by their names."""
    tasks = config.get("task_specific_params") or {}
    if not isinstance(tasks, dict) or not all(isinstance(values, dict) for values in tasks.values()):
        raise ModelFileError(
            "config_invalid", f"{os.path.join(path, 'config.json')}: task_specific_params must be objects by names"
        )
    return tasks


def _batched(ids: Any) -> np.ndarray:
    """Return token ids as rows, one row where there is but one."""
    try:
        rows = np.asarray(ids)
    except ValueError as error:
        raise DataError("bad_token_ids", "rows must have one length; pad them at the end and pass a mask") from error
    return rows[None] if rows.ndim == 1 else rows


def _lengths(ids: Any, mask: Any) -> np.ndarray | None:
    """Return how many positions of each row are valid; None: all."""
    if mask is None:
        return None
    mask, shape = np.asarray(mask), np.shape(ids)
    lengths_B: np.ndarray = np.atleast_1d(mask.astype(bool).sum(-1))
    if mask.shape != shape or not np.array_equal(np.atleast_2d(mask), np.arange(shape[-1]) < lengths_B[:, None]):
        raise UsageError("bad_mask", f"a mask must have the shape {shape} of the ids; true, then false along each row")
    return lengths_B


def _unbatched(found: Any, ids: Any) -> Any:
    """Take the one row out where one came in."""
    if np.ndim(ids) != 1:
        return found
    return {name: y[0] for name, y in found.items()} if isinstance(found, dict) else found[0]
