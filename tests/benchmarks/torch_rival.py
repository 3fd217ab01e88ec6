"""The same VAE in PyTorch, compiled, fed with one batch from memory. Without TensorFlow: the LLVMs of the two clash.

`python -m tests.benchmarks.torch_rival BATCH.npy STEPS` trains in turns of STEPS.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tests.benchmarks.measure import Turns
from tests.benchmarks.net import FILTERS, KL_WEIGHT, LEARNING_RATE, SIZE, Z_DIM


def compiled_step() -> Callable[[np.ndarray], float]:
    """A training step on uint8 images (batch, size, size, 3)."""
    layers: list[Any] = []
    for before, after in zip((3, *FILTERS[:-1]), FILTERS, strict=True):
        convolution = torch.nn.Conv2d(before, after, 3, stride=2, padding=1)
        layers += [convolution, torch.nn.BatchNorm2d(after), torch.nn.LeakyReLU(0.3)]
    side, depth = SIZE // 16, FILTERS[-1]
    encoder = torch.nn.Sequential(*layers, torch.nn.Flatten())
    heads = torch.nn.Linear(side**2 * depth, 2 * Z_DIM)
    layers = [torch.nn.Linear(Z_DIM, side**2 * depth), torch.nn.Unflatten(1, (depth, side, side))]
    for before, after in zip(FILTERS[::-1], (*FILTERS[:-1][::-1], 3), strict=True):
        layers += [torch.nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)]
        layers += [torch.nn.BatchNorm2d(after), torch.nn.LeakyReLU(0.3)] if after != 3 else []
    decoder = torch.nn.Sequential(*layers)
    weights = [weight for part in (encoder, heads, decoder) for weight in part.parameters()]
    adam = torch.optim.Adam(weights, lr=LEARNING_RATE, eps=1e-7)

    def total_loss(images: Any) -> Any:
        mu, log_var = heads(encoder(images)).chunk(2, dim=1)
        logits = decoder(mu + torch.exp(0.5 * log_var) * torch.randn_like(mu))
        pixels = torch.nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
        kl = -0.5 * (1 + log_var - mu**2 - log_var.exp()).sum(dim=1)
        return pixels.mean(dim=1).sum(dim=(1, 2)).mean() + KL_WEIGHT * kl.mean()

    compiled = torch.compile(total_loss)

    def step(pixels: np.ndarray) -> float:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        adam.zero_grad()
        loss = compiled(images)
        loss.backward()
        adam.step()
        return float(loss.detach())

    return step


def main() -> None:
    """Train in turns, until nobody asks."""
    path, num_steps = sys.argv[1:]
    turns = Turns(int(num_steps))
    torch.set_num_threads(1)
    pixels, step = np.load(path), compiled_step()
    while True:
        step(pixels)
        turns.step_done()


if __name__ == "__main__":
    main()
