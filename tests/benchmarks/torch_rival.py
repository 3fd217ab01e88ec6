"""The same VAE in PyTorch, compiled, fed with one batch from memory. Without TensorFlow: the LLVMs of the two clash.

`python -m tests.benchmarks.torch_rival FIRST_STEPS.npz` trains in turns of one step, once its losses of those first
steps are found to be the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from tests.benchmarks.measure import Turns
from tests.benchmarks.net import BATCH, FILTERS, KL_WEIGHT, LEARNING_RATE, SIZE, TOLERANCE, Z_DIM

Step = Callable[[np.ndarray, Any], float]


def compiled_step(first_weights: list[np.ndarray]) -> Step:
    """A training step on uint8 images (batch, size, size, 3) and noise (batch, z_dim), from Keras' weights.

    Images come mirrored, up and down and left and right, because PyTorch pads at the top and left where Keras pads at
    the bottom and right: the weights are mirrored too, so that all is the same.
    """
    layers: list[Any] = []
    for before, after in zip((3, *FILTERS[:-1]), FILTERS, strict=True):
        convolution = torch.nn.Conv2d(before, after, 3, stride=2, padding=1)
        layers += [convolution, torch.nn.BatchNorm2d(after, eps=1e-3, momentum=0.01), torch.nn.LeakyReLU(0.3)]
    side, depth = SIZE // 16, FILTERS[-1]
    encoder = torch.nn.Sequential(*layers, torch.nn.Flatten())
    heads = torch.nn.Linear(side**2 * depth, 2 * Z_DIM)
    layers = [torch.nn.Linear(Z_DIM, side**2 * depth), torch.nn.Unflatten(1, (depth, side, side))]
    for before, after in zip(FILTERS[::-1], (*FILTERS[:-1][::-1], 3), strict=True):
        layers += [torch.nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)]
        if after != 3:
            layers += [torch.nn.BatchNorm2d(after, eps=1e-3, momentum=0.01), torch.nn.LeakyReLU(0.3)]
    decoder = torch.nn.Sequential(*layers)
    with torch.no_grad():
        take_weights(encoder, heads, decoder, iter(first_weights))
    weights = [weight for part in (encoder, heads, decoder) for weight in part.parameters()]
    adam = torch.optim.Adam(weights, lr=LEARNING_RATE, eps=1e-7)

    def total_loss(images: Any, epsilon: Any) -> Any:
        mu, log_var = heads(encoder(images)).chunk(2, dim=1)
        logits = decoder(mu + torch.exp(0.5 * log_var) * epsilon)
        pixels = torch.nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
        kl = -0.5 * (1 + log_var - mu**2 - log_var.exp()).sum(dim=1)
        return pixels.mean(dim=1).sum(dim=(1, 2)).mean() + KL_WEIGHT * kl.mean()

    compiled = torch.compile(total_loss)

    def step(pixels: np.ndarray, epsilon: Any) -> float:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        adam.zero_grad()
        loss = compiled(images, epsilon)
        loss.backward()
        adam.step()
        return float(loss.detach())

    return step


def take_weights(encoder: Any, heads: Any, decoder: Any, weights: Iterator[np.ndarray]) -> None:
    """Keras' weights, mirrored: kernels (height, width, ...), dense weights over (height, width, channels)."""

    def take(target: Any, values: np.ndarray) -> None:
        target.copy_(torch.from_numpy(np.ascontiguousarray(values)))

    def take_layers(layers: Any) -> None:
        for layer in layers:
            if isinstance(layer, torch.nn.BatchNorm2d):
                for target in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                    take(target, next(weights))
            elif isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
                take(layer.weight, next(weights)[::-1, ::-1].transpose(3, 2, 0, 1))
                take(layer.bias, next(weights))

    def mirrored(values: np.ndarray) -> np.ndarray:
        """(height * width * channels, ...) to (channels * height * width, ...)."""
        maps = values.reshape(side, side, -1, *values.shape[1:])[::-1, ::-1]
        return np.moveaxis(maps, 2, 0).reshape(values.shape)

    take_layers(encoder)
    side = SIZE // 16
    of_mu, mu_bias, of_log_var, log_var_bias = (next(weights) for _ in range(4))
    take(heads.weight, np.concatenate([mirrored(of_mu), mirrored(of_log_var)], axis=1).T)
    take(heads.bias, np.concatenate([mu_bias, log_var_bias]))
    take(decoder[0].weight, mirrored(next(weights).T))
    take(decoder[0].bias, mirrored(next(weights)))
    take_layers(decoder)


def main() -> None:
    """Train in turns, until nobody asks."""
    turns = Turns()
    torch.set_num_threads(1)
    with np.load(sys.argv[1]) as known:
        first = dict(known)
    pixels, epsilon, losses = (first.pop(name) for name in ("pixels", "epsilon", "losses"))
    step = compiled_step(list(first.values()))
    pixels = np.ascontiguousarray(pixels[:, :, ::-1, ::-1])
    theirs = np.array([step(*batch) for batch in zip(pixels, torch.from_numpy(epsilon), strict=True)])
    if not np.allclose(theirs, losses, rtol=TOLERANCE, atol=0):
        raise RuntimeError(f"PyTorch's losses are {theirs}, ours {losses}: they do not compute the same")
    while True:
        step(pixels[0], torch.randn(BATCH, Z_DIM))
        turns.step_done()


if __name__ == "__main__":
    main()
