"""Training and inference speed of the improved network against timm's ResNet50 and SE-ResNet50.

    OMP_NUM_THREADS=2 python benchmarks/models.py

A training step is forward, backward and AdamW at batch 16; inference is a forward pass. Both are in
bfloat16 under autocast with maps laid out channels last, on images of 224 px that are already in
memory. Training is in the package's `autocast`, and in torch's own. Every round runs every network
and the best round counts, so that other load affects all of them. Each network runs in its own
process: the cache of compiled convolutions is too small for several networks, and its misses would
be measured instead.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch

from glomerulab.models.hardware import autocast
from glomerulab.models.registry import create_model

NETWORKS: dict[str, tuple[str, dict[str, object]]] = {
    "improved": ("improved_seresnet50", {}),
    "improved, ReLU inside": ("improved_seresnet50", {"activation_inside_pair": True}),
    "ResNet50 (timm)": ("resnet50", {}),
    "SE-ResNet50 (timm)": ("seresnet50", {}),
    "lite0": ("lite0", {}),
    "lite2": ("lite2", {}),
}
BATCH, SIZE, N_CLASSES = 16, 224, 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="timed in each round")
    parser.add_argument("--one", help="measure this network and print JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(args.one, n_steps=args.steps)))
        return
    best: dict[str, dict[str, float]] = {name: {} for name in NETWORKS}
    for _ in range(args.rounds):
        for name in NETWORKS:
            command = [sys.executable, __file__, "--one", name, "--steps", str(args.steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            for what, speed in json.loads(done.stdout.splitlines()[-1]).items():
                best[name][what] = max(speed, best[name].get(what, 0.0))
    report(best, args.rounds)


def measured(name: str, *, n_steps: int) -> dict[str, float]:
    """Return images per second of the fastest step."""
    registered, options = NETWORKS[name]
    model = create_model(registered, N_CLASSES, options=options)
    model = model.to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    targets = torch.arange(BATCH) % N_CLASSES
    optimizer = torch.optim.AdamW(model.parameters())

    def train(precision: Callable[[], AbstractContextManager[None]]) -> None:
        with precision():
            logits = model(images)
        torch.nn.functional.cross_entropy(logits.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def infer() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            model(images)

    cpu = torch.device("cpu")
    contexts: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "training": partial(autocast, cpu, use_bfloat16=True),
        "all in bfloat16": partial(torch.autocast, "cpu", torch.bfloat16),
    }
    model.train()
    speeds = {name: BATCH / fastest(partial(train, one), n_steps) for name, one in contexts.items()}
    model.eval()
    return speeds | {"inference": BATCH / fastest(infer, 2 * n_steps)}


def fastest(step: Callable[[], None], n_steps: int) -> float:
    step()  # compiles the convolutions
    seconds = []
    for _ in range(n_steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def report(best: dict[str, dict[str, float]], n_rounds: int) -> None:
    print(f"batch {BATCH}, {SIZE} px, bfloat16, channels last; best of {n_rounds} rounds;")
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print(
        "| network | training, img/s | × ResNet50 | × SE-ResNet50 | all in bfloat16 "
        "| inference, img/s | × | × |"
    )
    print("|---|---|---|---|---|---|---|---|")
    peers = [best["ResNet50 (timm)"], best["SE-ResNet50 (timm)"]]
    for name, speeds in best.items():
        cells = [name]
        for what in ("training", "inference"):
            cells.append(f"{speeds[what]:.1f}")
            cells += [f"{speeds[what] / peer[what]:.2f}" for peer in peers]
            if what == "training":
                cells.append(f"{speeds['all in bfloat16']:.1f}")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
