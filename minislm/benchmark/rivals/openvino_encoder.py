"""OpenVINO's encoders: float32, and int8 as nncf calibrates it, for latency and for throughput."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino

from minislm.benchmark.engine import Facts
from minislm.benchmark.inputs import encoder_batch
from minislm.benchmark.rivals.encoder import RivalEncoder
from minislm.benchmark.rivals.onnx_export import onnx_file
from minislm.benchmark.shapes import kept_name


class Encoder(RivalEncoder):
    """A compiled model; for throughput a batch is divided among requests that run at the same time.

    Parameters
    ----------
    model, cache, format : str
        As `RivalEncoder`; formats: ``"float32"``, ``"int8"`` and ``"int8 throughput"``.
    """

    def load(self) -> None:
        """Compile the model."""
        self.file = self._file()
        hint = "THROUGHPUT" if "throughput" in self.format else "LATENCY"
        settings: dict[str, Any] = {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": self.threads}
        if self.format == "float32":
            settings["INFERENCE_PRECISION_HINT"] = "f32"  # else it is bfloat16 where there is AMX
        self.compiled = openvino.Core().compile_model(self.file, "CPU", settings)
        self.hint, self.n_requests = hint, self.compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self.queue = openvino.AsyncInferQueue(self.compiled, self.n_requests)

    def hidden(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        """Run one request, or several of equal parts."""
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
        if self.n_requests == 1 or len(ids_BT) < self.n_requests:
            return np.asarray(self.compiled(inputs)[0])
        parts: dict[int, np.ndarray] = {}
        self.queue.set_callback(lambda request, i: parts.update({i: request.get_output_tensor(0).data.copy()}))
        for i, rows in enumerate(np.array_split(np.arange(len(ids_BT)), self.n_requests)):
            self.queue.start_async({name: array[rows] for name, array in inputs.items()}, i)
        self.queue.wait_all()
        return np.concatenate([parts[i] for i in range(self.n_requests)])

    def facts(self) -> Facts:
        """Tell the version, and which kernels its own account names for products."""
        kinds = set()
        for op in self.compiled.get_runtime_model().get_ops():
            info = op.get_rt_info()
            if info["layerType"].astype(str) in ("FullyConnected", "MatMul"):
                kinds.add(info["primitiveType"].astype(str))
        settings = f"{self.format}, {self.hint}, {self.n_requests} requests"
        size = self.file.with_suffix(".bin").stat().st_size if self.file.suffix == ".xml" else self.file.stat().st_size
        return Facts(openvino.__version__.split("-")[0], " ".join(sorted(kinds)), settings, size)

    def _file(self) -> Path:
        """Find the model, or make it: for int8 all activations are calibrated on 64 random texts."""
        plain = onnx_file(self.model, self.cache, "plain")
        if self.format == "float32":
            return plain
        path = self.cache / f"{kept_name(self.model)}-openvino-int8.xml"
        if not path.exists():
            import nncf

            batches = [encoder_batch(1, 64 + i, self.vocab_size) for i in range(64)]
            data = nncf.Dataset([{"input_ids": ids_BT, "attention_mask": mask_BT} for ids_BT, mask_BT in batches])
            network = openvino.Core().read_model(plain)
            quantized = nncf.quantize(network, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=64)
            openvino.save_model(quantized, path, compress_to_fp16=False)
        return path
