"""Engines that run a network on the CPU: images per second, and how each changes the predictions.

    python benchmarks/inference.py speed [--only NAME ...]
    python benchmarks/inference.py answers RUN [--only NAME ...]

``speed`` takes the paper's network at 224 px with batches of 16, beside timm's ResNet50 in its
default form: eager, float32, default layout, images normalised beforehand. Engines alternate in
every round, and the best round counts. ``answers`` compares the predictions of each engine for the
held-out images of a run; quantisation is calibrated on training images. OpenVINO is measured where
it is installed; the package itself does not need it.
"""

import argparse
import copy
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import timm
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

from glomerulab.cohort.manifest import read_manifest
from glomerulab.images import read_image
from glomerulab.inference.engines.base import probabilities_of, stack_images
from glomerulab.inference.engines.onnx_engine import ParallelSession
from glomerulab.inference.engines.torch_engine import NetworkWithFeatures, TorchEngine
from glomerulab.inference.onnx_export import write_int8, write_onnx
from glomerulab.models.registry import create_model

BATCH = 16
PEER = "timm ResNet50, eager float32"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Engines:
    """One network in every engine; each is built at its first use."""

    def __init__(self, network, size, calibration, folder):
        self.network = network.eval().to(memory_format=torch.channels_last)
        self.size, self.calibration, self.folder = size, calibration, folder
        self.made = {}
        self.by_name = {
            "eager float32": self.eager,
            "eager bfloat16, autocast": self.autocast,
            "eager bfloat16 weights": self.bfloat16,
            "inductor float32": lambda: self.compiled(self.network),
            "inductor bfloat16": lambda: self.compiled(self.network, bfloat16=True),
            "ONNX Runtime float32": lambda: self.onnx(self.float32_path()),
            "ONNX Runtime int8, dynamic": self.dynamic,
            "ONNX Runtime int8, static": lambda: self.onnx(self.int8_path()),
        }
        if find_spec("openvino"):
            self.by_name |= {
                "OpenVINO float32": lambda: self.openvino(self.float32_path(), "f32"),
                "OpenVINO bfloat16": lambda: self.openvino(self.float32_path(), "bf16"),
                "OpenVINO int8, static": lambda: self.openvino(self.int8_path(), "f32"),
            }

    def named(self, only):
        """Return the names that hold one of the given parts; all if none is given."""
        return [name for name in self.by_name if not only or any(part in name for part in only)]

    def __getitem__(self, name):
        if name not in self.made:
            start = time.perf_counter()
            self.made[name] = self.by_name[name]()
            self.made[name](np.zeros((BATCH, self.size, self.size, 3), dtype=np.uint8))
            print(f"  ready after {time.perf_counter() - start:.0f} s: {name}", flush=True)
        return self.made[name]

    def eager(self, network=None):
        network = network or self.network

        def answer(images):
            with torch.inference_mode():
                return network(torch.from_numpy(images))[0].float().numpy()

        return answer

    def autocast(self):
        plain = self.eager()

        def answer(images):
            with torch.autocast("cpu", torch.bfloat16):
                return plain(images)

        return answer

    def bfloat16(self):
        network = copy.deepcopy(self.network)
        network.model.to(torch.bfloat16)
        inner = network.model.forward
        network.model.forward = lambda pixels: inner(pixels.to(torch.bfloat16))
        return self.eager(network)

    def compiled(self, network, *, bfloat16=False):
        import torch._inductor.config as settings

        settings.freezing = True  # weights become constants, laid out for the processor
        program = torch.compile(network)
        plain = self.eager(program)

        def answer(images):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                return plain(images)

        return answer

    def float32_path(self):
        path = self.folder / "float32.onnx"
        if not path.exists():
            write_onnx(copy.deepcopy(self.network), self.size, path)
        return path

    def int8_path(self):
        path = self.folder / "int8.onnx"
        if not path.exists():
            write_int8(self.float32_path(), path, self.calibration)
        return path

    def dynamic(self):
        path = self.folder / "dynamic.onnx"
        quantize_dynamic(self.float32_path(), path, weight_type=QuantType.QUInt8)
        return self.onnx(path)

    def onnx(self, path):
        session = ParallelSession(path.read_bytes())
        return lambda images: session.predict(images).logits

    def openvino(self, path, precision):
        import openvino

        program = openvino.Core().compile_model(
            path, "CPU", {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        )
        return lambda images: np.array(program(images)["logits"])


def speed(only, rounds):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (BATCH, 224, 224, 3), dtype=np.uint8)
    network = NetworkWithFeatures(create_model("improved_seresnet50", 4).eval(), MEAN, STD)
    resnet = timm.create_model("resnet50", num_classes=4).eval()
    pixels = torch.randn(BATCH, 3, 224, 224)

    def peer(_):
        with torch.inference_mode():
            return resnet(pixels)

    with tempfile.TemporaryDirectory() as folder:
        engines = Engines(network, 224, images, Path(folder))
        ways = {PEER: peer} | {name: engines[name] for name in engines.named(only)}
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                way(images)
                best[name] = min(best[name], time.perf_counter() - start)
    print(f"\n{torch.get_num_threads()} threads, batch {BATCH}, 224 px, best of {rounds}")
    print("\n| engine | images/s | against timm's ResNet50, eager float32 |\n|---|---|---|")
    for name, seconds in best.items():
        print(f"| {name} | {BATCH / seconds:.1f} | {best[PEER] / seconds:.2f} |")


def answers(run, only):
    engine, manifest = TorchEngine(run), read_manifest(run / "manifest.csv")
    table, size = manifest.table, engine.card.input_size
    paths = np.array(manifest.image_paths(), dtype=object)
    original = table["parent_id"].isna().to_numpy()
    test = original & (table["split"] == "test").to_numpy()
    train = original & (table["split"] == "train").to_numpy()
    shown = stack_images([read_image(path) for path in paths[test]], size)
    calibration = stack_images([read_image(path) for path in paths[train][:64]], size)
    keys = list(engine.card.taxonomy.label_ids)
    truth = table.loc[test, keys].to_numpy(float).argmax(axis=1)
    with tempfile.TemporaryDirectory() as folder:
        engines = Engines(engine.network.cpu(), size, calibration, Path(folder))
        found = {}
        for name in engines.named(only):
            logits = [engines[name](shown[at : at + BATCH]) for at in range(0, len(shown), BATCH)]
            found[name] = probabilities_of(np.concatenate(logits), engine.card.head)
    first = found["eager float32"]
    print(f"\n{len(shown)} held-out images, {size} px")
    print("\n| engine | accuracy | calls changed | largest difference of a probability | mean |")
    print("|---|---|---|---|---|")
    for name, chances in found.items():
        right = (chances.argmax(axis=1) == truth).mean()
        changed = (chances.argmax(axis=1) != first.argmax(axis=1)).sum()
        apart = np.abs(chances - first)
        print(f"| {name} | {right:.1%} | {changed} | {apart.max():.1g} | {apart.mean():.1g} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    one, other = parts.add_parser("speed"), parts.add_parser("answers")
    one.add_argument("--rounds", type=int, default=5)
    other.add_argument("run", type=Path)
    for part in (one, other):
        part.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    if arguments.part == "speed":
        speed(arguments.only, arguments.rounds)
    else:
        answers(arguments.run, arguments.only)


if __name__ == "__main__":
    main()
