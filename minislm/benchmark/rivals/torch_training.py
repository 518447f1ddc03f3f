"""The training steps of torch: the same model, the same weights, its own fused AdamW; eager or compiled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from minislm.benchmark.engine import Engine, Facts
from minislm.benchmark.training import STEPS_COMPARED, recipe
from minislm.models.decoder import Decoder
from minislm.training.data import Batch, TrainingData
from minislm.training.schedule import learning_rate
from minislm.training.settings import TrainSettings


def torch_model(model: Decoder) -> Any:
    """Make the same model the way one writes it in torch.

    Parameters
    ----------
    model : Decoder
        GELU, no biases, tied embedding.

    Returns
    -------
    torch.nn.Module
        From ids and targets to the loss, with the same weights.
    """
    nn: Any = torch.nn
    functional: Any = torch.nn.functional
    config = model.config
    sizes = config.layers[0]

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            d = config.d_model
            self.norm_1, self.norm_2 = nn.LayerNorm(d, bias=False), nn.LayerNorm(d, bias=False)
            self.query_key_value = nn.Linear(d, 3 * d, bias=False)
            self.output = nn.Linear(d, d, bias=False)
            self.up, self.down = nn.Linear(d, sizes.d_ff, bias=False), nn.Linear(sizes.d_ff, d, bias=False)

        def forward(self, x: Any) -> Any:
            b, t, d = x.shape
            q, k, v = (
                part.view(b, t, sizes.n_heads, sizes.d_head).transpose(1, 2)
                for part in self.query_key_value(self.norm_1(x)).split(d, dim=2)
            )
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.output(y.transpose(1, 2).reshape(b, t, d))
            return x + self.down(functional.gelu(self.up(self.norm_2(x))))

    class GPT(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(config.vocab_size, config.d_model)
            self.positions = nn.Embedding(config.context, config.d_model)
            self.blocks = nn.ModuleList(Block() for _ in range(config.n_layers))
            self.final_norm = nn.LayerNorm(config.d_model, bias=False)

        def forward(self, ids: Any, targets: Any) -> Any:
            x = self.embedding(ids) + self.positions(torch.arange(ids.shape[1]))
            for block in self.blocks:
                x = block(x)
            logits = functional.linear(self.final_norm(x), self.embedding.weight)
            return functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    gpt = GPT()
    arrays = model.arrays()
    with torch.no_grad():
        for name, parameter in gpt.named_parameters():
            if "query_key_value" in name:
                parts = [
                    arrays[name.replace("query_key_value", f"attention.{part}")] for part in ("query", "key", "value")
                ]
                array = np.concatenate(parts)
            else:
                ours = name.replace(".output.", ".attention.output.").replace(".up.", ".mlp.up.")
                array = arrays[ours.replace(".down.", ".mlp.down.")]
            parameter.copy_(torch.from_numpy(np.array(array)))
    return gpt


class TorchRun:
    """The steps of `minislm.training.run.Run` in torch.

    Parameters
    ----------
    model : Decoder
        Where training starts.
    data : TrainingData
        What it learns from.
    settings : TrainSettings
        How.
    compiled : bool
        Whether torch.compile is applied.
    """

    def __init__(self, model: Decoder, data: TrainingData, settings: TrainSettings, *, compiled: bool = False) -> None:
        self.data, self.settings = data, settings
        self.model = torch_model(model)
        parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        betas = (settings.beta1, settings.beta2)
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, eps=settings.eps, fused=True)
        self.loss = torch.compile(self.model) if compiled else self.model
        self.step = 0

    def advance(self) -> float:
        """Take one step.

        Returns
        -------
        float
            Its loss.
        """
        settings = self.settings
        batch: Batch = self.data.train.batch(self.step, settings.batch_size, seed=settings.seed)
        self.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, settings)
        loss = self.loss(torch.from_numpy(batch.ids_BT), torch.from_numpy(batch.targets_BT))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        self.optimizer.step()
        return float(loss.item())


class Steps(Engine):
    """The training loop of torch.

    Parameters
    ----------
    name : str
        A recipe of `minislm.benchmark.training`.
    compiled : bool
        Whether torch.compile is applied.
    """

    def __init__(self, name: str, compiled: bool) -> None:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self.compiled, self.steps = compiled, TorchRun(*recipe(name), compiled=compiled)
        self.losses = np.array([self.steps.advance() for _ in range(STEPS_COMPARED)])

    def facts(self) -> Facts:
        """Tell what runs."""
        return Facts(
            torch.__version__, torch.backends.cpu.get_cpu_capability(), "compiled" if self.compiled else "eager"
        )

    def output(self) -> np.ndarray:
        """Return the losses of the first steps."""
        return self.losses

    def run(self, work: Mapping[str, Any]) -> None:
        """Take one step."""
        self.steps.advance()
