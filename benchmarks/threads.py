"""Training rate on a busy machine, by how OpenMP's threads wait: alone, beside others, on one core.

    python benchmarks/threads.py [SECONDS]

Each setting runs in a process of its own, since OpenMP reads it once. "Beside one": a second
training with the same setting. "Beside eight": eight processes that count.
"""

import importlib
import os
import subprocess
import sys
import time

SETTINGS = {
    "OpenMP's default": {"GOMP_SPINCOUNT": "30000000000", "KMP_BLOCKTIME": "200"},
    "glomerulab's": {},
}
BATCH, SIZE, N_ROUNDS = 16, 64, 2


def train(seconds: float) -> float:
    """Return images per second of training steps."""
    # glomerulab sets how threads wait when it is imported: before torch.
    create_model = importlib.import_module("glomerulab.models.registry").create_model
    torch = importlib.import_module("torch")
    model = create_model("improved_seresnet_small", 4).train()
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.rand(BATCH, 3, SIZE, SIZE)

    def step() -> None:
        model(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(3):
        step()
    n_steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        n_steps += 1
    return n_steps * BATCH / (time.perf_counter() - start)


def started(setting: dict[str, str], seconds: float, *prefix: str) -> subprocess.Popen[str]:
    """Start a training in a process of its own."""
    command = [*prefix, sys.executable, __file__, "--train", str(seconds)]
    return subprocess.Popen(
        command, env={**os.environ, **setting}, stdout=subprocess.PIPE, text=True
    )


def rate(process: subprocess.Popen[str]) -> float:
    """Return the rate that a training printed."""
    return float(process.communicate()[0])


def beside(setting: dict[str, str], seconds: float, *, n_counting: int) -> float:
    """Return the rate beside a second training, or beside processes that count."""
    if not n_counting:
        one, other = started(setting, seconds), started(setting, seconds)
        return (rate(one) + rate(other)) / 2
    counting = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_counting)
    ]
    try:
        return rate(started(setting, seconds))
    finally:
        for one in counting:
            one.kill()


def main() -> None:
    """Print the table."""
    if sys.argv[1:2] == ["--train"]:
        print(train(float(sys.argv[2])))
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 6.0
    print("| setting | alone | on one core | beside one | beside eight | share beside one |")
    print("|---|---|---|---|---|---|")
    for name, setting in SETTINGS.items():
        rounds = [
            (
                rate(started(setting, seconds)),
                rate(started(setting, seconds, "taskset", "-c", "0")),
                beside(setting, seconds, n_counting=0),
                beside(setting, seconds, n_counting=8),
            )
            for _ in range(N_ROUNDS)
        ]
        best = [max(column) for column in zip(*rounds, strict=True)]
        cells = " | ".join(f"{one:.0f}" for one in best)
        print(f"| {name} | {cells} | {best[2] / best[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
