"""The encoders of onnxruntime: its own fusions, in float32 and with dynamic int8."""

from __future__ import annotations

import numpy as np
import onnxruntime

from minislm.benchmark.engine import Facts
from minislm.benchmark.forbid import amx_in_use
from minislm.benchmark.rivals.encoder import RivalEncoder
from minislm.benchmark.rivals.onnx_export import onnx_file


class Encoder(RivalEncoder):
    """A session with all graph optimizations and spinning threads.

    Parameters
    ----------
    model, cache, format : str
        As `RivalEncoder`; formats: ``"float32"`` and ``"int8"``.
    """

    def load(self) -> None:
        """Open the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        file = onnx_file(self.model, self.cache, "int8" if self.format == "int8" else "fused")
        self.weights_bytes = file.stat().st_size
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def hidden(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        """Run the session."""
        (hidden,) = self.session.run(["hidden"], {"input_ids": ids_BT, "attention_mask": mask_BT})
        return np.asarray(hidden)

    def facts(self) -> Facts:
        """Tell the version, and whether AMX was asked for; it does not tell its instruction set."""
        instructions = "by processor" + (", AMX" if amx_in_use() else "")
        settings = f"{self.format}, fused, intra_op={self.threads}, spinning"
        return Facts(onnxruntime.__version__, instructions, settings, self.weights_bytes)
