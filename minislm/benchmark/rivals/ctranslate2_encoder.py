"""CTranslate2's encoders, in float32 and int8."""

from __future__ import annotations

import ctranslate2
import numpy as np

from minislm.benchmark.engine import Facts
from minislm.benchmark.forbid import amx_in_use
from minislm.benchmark.rivals.encoder import RivalEncoder
from minislm.benchmark.shapes import kept_name


class Encoder(RivalEncoder):
    """An Encoder of CTranslate2, which leaves padding out by itself.

    Parameters
    ----------
    model, cache, format : str
        As `RivalEncoder`; formats: ``"float32"`` and ``"int8"``.
    """

    def load(self) -> None:
        """Convert the folder once, and open it."""
        path = self.cache / f"{kept_name(self.model)}-ctranslate2-{self.format}"
        if not path.exists():
            converter = ctranslate2.converters.TransformersConverter(str(self.folder), low_cpu_mem_usage=False)
            converter.convert(str(path), quantization=self.format)
        self.weights_bytes = (path / "model.bin").stat().st_size
        self.encoder = ctranslate2.Encoder(
            str(path), device="cpu", compute_type=self.format, intra_threads=self.threads, inter_threads=1
        )

    def hidden(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        """Run it on lists of ids, or on the array where nothing is padded."""
        if mask_BT.all():
            ids = ctranslate2.StorageView.from_array(ids_BT.astype(np.int32))
            lengths = ctranslate2.StorageView.from_array(mask_BT.sum(axis=1).astype(np.int32))
            found = self.encoder.forward_batch(ids, lengths)
        else:
            rows = zip(ids_BT, mask_BT.sum(axis=1), strict=True)
            found = self.encoder.forward_batch([ids[:length].tolist() for ids, length in rows])
        return np.asarray(found.last_hidden_state)

    def facts(self) -> Facts:
        """Tell the version and the type that it computes in, and whether AMX was asked for."""
        instructions = "by processor" + (", AMX" if amx_in_use() else "")
        return Facts(ctranslate2.__version__, instructions, self.encoder.compute_type, self.weights_bytes)
