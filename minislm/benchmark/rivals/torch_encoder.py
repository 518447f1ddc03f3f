"""The encoders of torch, as transformers has them: eager, compiled, in bfloat16, and with dynamic int8."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
import transformers

from minislm.benchmark.engine import Facts
from minislm.benchmark.forbid import amx_in_use
from minislm.benchmark.rivals.encoder import RivalEncoder


class Encoder(RivalEncoder):
    """A BertModel with scaled_dot_product_attention, in inference_mode.

    Parameters
    ----------
    model, cache, format : str
        As `RivalEncoder`; formats: ``"float32"``, ``"float32 compiled"``, ``"bfloat16"`` and ``"int8"``.
    """

    def load(self) -> None:
        """Load the folder, then quantize or compile."""
        torch.set_num_threads(self.threads)
        kind = torch.bfloat16 if self.format == "bfloat16" else torch.float32
        model: Any = transformers.AutoModel.from_pretrained(
            self.folder, dtype=kind, attn_implementation="sdpa", local_files_only=True, add_pooling_layer=False
        ).eval()
        if self.format == "int8":
            model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        self.weights_bytes = buffer.tell()
        self.net = torch.compile(model, dynamic=False) if "compiled" in self.format else model

    def hidden(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        """Run it; a batch without padding is given no mask, which is faster."""
        with torch.inference_mode():
            mask = None if mask_BT.all() else torch.from_numpy(mask_BT)
            found = self.net(input_ids=torch.from_numpy(ids_BT), attention_mask=mask).last_hidden_state
            hidden: np.ndarray = found.float().numpy()
            return hidden

    def facts(self) -> Facts:
        """Tell the version and the processor's capability, and whether AMX was asked for."""
        instructions = torch.backends.cpu.get_cpu_capability() + (" AMX" if amx_in_use() else "")
        return Facts(torch.__version__, instructions, f"{self.format}, sdpa", self.weights_bytes)
