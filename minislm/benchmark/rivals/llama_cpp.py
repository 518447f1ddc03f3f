"""The decoders of llama.cpp by its low-level interface: what its own benchmark does, on the weights of minislm."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from minislm.benchmark.engine import Engine, Facts
from minislm.benchmark.forbid import amx_in_use
from minislm.benchmark.inputs import prompt_ids
from minislm.benchmark.own import LONGEST, ROWS_COMPARED
from minislm.benchmark.rivals.gguf_file import gguf_file
from minislm.benchmark.stored import AS_STORED


class LlamaCpp(Engine):
    """A context of llama.cpp, with its own choice of repacked layouts.

    Parameters
    ----------
    model : str
        A shape, a published LLaMA folder, or a GGUF file.
    cache : str
        Where models are kept.
    format : str
        A type, such as ``"q4_0"``, and ``fa`` behind it for flash attention.
    """

    def __init__(self, model: str, cache: str, format: str) -> None:
        kind = format.removesuffix(" fa")
        self.file = Path(model) if kind == AS_STORED else gguf_file(model, Path(cache), kind)
        threads = int(os.environ["OMP_NUM_THREADS"])
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(self.file).encode(), options)
        if not self.model:
            raise ValueError(f"llama.cpp cannot load {self.file}")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = LONGEST, 2048, 512
        settings.n_threads = settings.n_threads_batch = threads
        settings.flash_attn_type = int(format.endswith(" fa"))
        settings.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self.settings = f"{format}, n_ubatch 512"

    def facts(self) -> Facts:
        """Tell the version and the features that it says it was built with."""
        features = llama_cpp.llama_print_system_info().decode()
        used = [part.split("=")[0].strip() for part in features.split("|") if part.strip().endswith("= 1")]
        kept = [name.split(":")[-1].strip() for name in used]
        instructions = " ".join(kept) + (" (AMX in use)" if amx_in_use() else "")
        size = int(llama_cpp.llama_model_size(self.model))
        return Facts(llama_cpp.__version__, instructions, self.settings, size)

    def output(self) -> np.ndarray:
        """Return the logits of every position of a short prompt."""
        ids = prompt_ids(ROWS_COMPARED, self.vocab_size)
        self._forget()
        batch = llama_cpp.llama_batch_init(ids.size, 0, 1)
        batch.n_tokens = ids.size
        for i, token in enumerate(ids.tolist()):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
        self._check(llama_cpp.llama_decode(self.context, batch))
        found = llama_cpp.llama_get_logits(self.context)
        logits = np.ctypeslib.as_array(found, (ids.size, self.vocab_size)).copy()
        llama_cpp.llama_batch_free(batch)
        return logits

    def run(self, work: Mapping[str, Any]) -> float:
        """Read a prompt, or go on from one, which is not counted."""
        ids = prompt_ids(work["prompt"], self.vocab_size)
        self._forget()
        start = time.perf_counter()
        for first in range(0, ids.size, 2048):
            token = self._pass(ids[first : first + 2048].tolist())
        if new_tokens := work.get("new"):
            start = time.perf_counter()
            for _ in range(new_tokens):
                token = self._pass([token])
        return time.perf_counter() - start

    def _pass(self, tokens: list[int]) -> int:
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        self._check(llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(array, len(tokens))))
        found = llama_cpp.llama_get_logits_ith(self.context, -1)
        return int(
            np.ctypeslib.as_array(ctypes.cast(found, ctypes.POINTER(ctypes.c_float)), (self.vocab_size,)).argmax()
        )

    def _forget(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)

    def _check(self, code: int) -> None:
        if code:
            raise ValueError(f"llama_decode gave {code}")
