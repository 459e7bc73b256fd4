import os
import signal
from pathlib import Path
from threading import Event

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.errors import GlomerulabError, ImageFileError
from glomerulab.images import write_image
from glomerulab.models.preprocessing import read_crop
from glomerulab.taxonomy import load_taxonomy
from glomerulab.training.augmentation import StainJitter
from glomerulab.training.dataset import Augment, BatchLoader, CropDataset, ItemKey, batches
from tests.support.beer_lambert import section


@pytest.fixture
def manifest(tmp_path: Path, rng: np.random.Generator) -> Manifest:
    for number in range(6):
        image = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        write_image(image, tmp_path / f"{number}.png")
    rows = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(6)],
            "image_path": [f"{n}.png" for n in range(6)],
            "normal": [1, 1, 0, 0, 0, None],
            "mspgn": [0, 0, 1, 0, 0, None],
            "fsg": [0, 0, 0, 1, 1, None],
            "cgn": [0, 0, 0, 0, 1, 1],
        }
    )
    return manifest_from_rows(rows, folder=tmp_path, taxonomy=load_taxonomy("paper"))


def _shift(image: torch.Tensor, rng: np.random.Generator, partner: object) -> torch.Tensor:
    return image + float(rng.random())


def test_items_are_normalised_squares_with_labels(manifest: Manifest) -> None:
    dataset = CropDataset(manifest, input_size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    image, labels, row = dataset[5]
    assert (image.shape, image.dtype, row) == ((3, 32, 32), torch.float32, 5)
    expected = (read_crop(manifest.image_paths()[5], 32).float() / 255 - 0.5) / 0.25
    assert torch.allclose(image, expected)
    assert labels[1:3].isnan().all()
    assert labels[3] == 1


def test_a_label_that_is_present_makes_what_it_excludes_absent(manifest: Manifest) -> None:
    table = manifest.table.copy()
    table.loc[table.index[0], ["mspgn", "fsg", "cgn"]] = pd.NA
    dataset = CropDataset(manifest.with_table(table), input_size=16)
    assert dataset.labels[0].tolist() == [1, 0, 0, 0]
    # A crescent excludes normal and leaves the other lesions unknown.
    assert dataset.labels[5].isnan().tolist() == [False, True, True, False]
    assert dataset.labels[5, 0] == 0


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    write_image(stripes, tmp_path / "stripes.png")
    small = read_crop(tmp_path / "stripes.png", 16).numpy()
    peer = Image.fromarray(stripes).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.abs(small.transpose(1, 2, 0).astype(int) - np.asarray(peer)).max() <= 1


def test_batches_do_not_depend_on_the_number_of_workers(manifest: Manifest) -> None:
    keys = [[ItemKey(4, 7), ItemKey(0, 7)], [ItemKey(2, 7)]]
    dataset = CropDataset(manifest, input_size=16, augment=_shift, seed=3)
    alone = list(batches(dataset, keys))
    shared = list(batches(dataset, keys, n_workers=2))
    assert [batch.rows.tolist() for batch in alone] == [[4, 0], [2]]
    for one, two in zip(alone, shared, strict=True):
        assert torch.equal(one.images, two.images)


def test_the_next_batch_is_loaded_while_one_is_in_use(manifest: Manifest) -> None:
    seen = {place: Event() for place in range(3)}
    dataset = CropDataset(manifest, input_size=16, augment=_noticed(seen))
    loaded = batches(dataset, [[ItemKey(place, 0)] for place in range(3)])
    next(loaded)
    assert seen[1].wait(timeout=30)
    assert not seen[2].is_set()  # one ahead, no more: memory does not grow
    loaded.close()  # type: ignore[attr-defined] # ends the thread, or the test run would hang


def _noticed(seen: dict[int, Event]) -> Augment:
    places = iter(range(len(seen)))

    def notice(image: torch.Tensor, rng: np.random.Generator, partner: object) -> torch.Tensor:
        del rng, partner
        seen[next(places)].set()
        return image

    return notice


def test_prefetching_does_not_change_the_random_draws_of_training(manifest: Manifest) -> None:
    dataset = CropDataset(manifest, input_size=16, augment=_shift)
    keys = [[ItemKey(place, 0)] for place in range(4)]
    torch.manual_seed(11)
    drawn = [torch.rand(1).item() for _ in batches(dataset, keys)]
    torch.manual_seed(11)
    assert [torch.rand(1).item() for _ in batches(dataset, keys)] == drawn


def test_one_pool_of_processes_loads_every_dataset_and_keeps_its_cache(manifest: Manifest) -> None:
    scale = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "augment": _process_id}
    dataset = CropDataset(manifest, input_size=16, **scale)
    other = CropDataset(manifest, input_size=8, **scale)
    keys = [[ItemKey(row, 0)] for row in range(4)]
    with BatchLoader([dataset, other], n_workers=1) as loader:
        first = list(loader.batches(dataset, keys))
        for path in manifest.image_paths():
            path.unlink()
        again = list(loader.batches(dataset, keys))
        with pytest.raises(ImageFileError):
            list(loader.batches(other, keys))
    processes = {float(batch.images.max()) for batch in (*first, *again)}
    assert len(processes) == 1
    assert float(os.getpid()) not in processes


def _process_id(image: torch.Tensor, rng: np.random.Generator, partner: object) -> torch.Tensor:
    return image * 0 + os.getpid()


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_killed_worker_is_one_error(manifest: Manifest, n_workers: int) -> None:
    dataset = CropDataset(manifest, input_size=16, augment=_kill)
    with pytest.raises(GlomerulabError, match="n_workers"):
        list(batches(dataset, [[ItemKey(0, 0)]], n_workers=n_workers))


def _kill(image: torch.Tensor, rng: np.random.Generator, partner: object) -> torch.Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return image


def test_each_epoch_draws_anew(manifest: Manifest) -> None:
    dataset = CropDataset(manifest, input_size=16, augment=_shift, seed=3)
    assert not torch.equal(dataset[ItemKey(0, 1)][0], dataset[ItemKey(0, 2)][0])
    assert torch.equal(dataset[ItemKey(0, 1)][0], dataset[ItemKey(0, 1)][0])


@pytest.fixture
def stained(tmp_path: Path) -> Manifest:
    """An HE image, the same one of an unnamed stain, and a blank one called HE."""
    tissue = section(1, size=96).image
    images = {"a": tissue, "b": tissue, "c": np.full((96, 96, 3), 240, np.uint8)}
    for name, image in images.items():
        write_image(image, tmp_path / f"{name}.png")
    rows = pd.DataFrame(
        {
            "image_id": list(images),
            "image_path": [f"{name}.png" for name in images],
            "stain": ["HE", "other", "HE"],
            "normal": [1, 1, 1],
        }
    )
    return manifest_from_rows(rows, folder=tmp_path, taxonomy=load_taxonomy("paper"))


def test_stains_are_varied_where_they_are_known(stained: Manifest) -> None:
    unaugmented = CropDataset(stained, input_size=64)
    dataset = CropDataset(stained, input_size=64, two_stain_jitter=StainJitter(), seed=5)
    changes = [
        float((dataset[place][0] - unaugmented[place][0]).abs().mean()) for place in range(3)
    ]
    assert changes[0] > 0.02
    assert changes[1:] == [0.0, 0.0]
    assert torch.equal(dataset.without_augmentation()[0][0], unaugmented[0][0])
    assert not torch.equal(dataset[ItemKey(0, 1)][0], dataset[ItemKey(0, 2)][0])


def test_varied_stains_do_not_depend_on_the_number_of_workers(stained: Manifest) -> None:
    dataset = CropDataset(stained, input_size=64, two_stain_jitter=StainJitter(), augment=_shift)
    keys = [[ItemKey(0, 3), ItemKey(1, 3)], [ItemKey(2, 3)]]
    pairs = zip(batches(dataset, keys), batches(dataset, keys, n_workers=2), strict=True)
    assert all(torch.equal(alone.images, shared.images) for alone, shared in pairs)


def test_partners_have_the_very_same_labels(manifest: Manifest) -> None:
    dataset = CropDataset(manifest, input_size=16)
    assert [found.tolist() for found in dataset.same_labels] == [[0, 1], [0, 1], [2], [3], [4], [5]]


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_corrupt_image_is_named_in_one_line(manifest: Manifest, n_workers: int) -> None:
    bad = manifest.image_paths()[1]
    bad.write_bytes(bad.read_bytes()[:100])
    dataset = CropDataset(manifest, input_size=16)
    with pytest.raises(ImageFileError, match=r"1\.png: .*cannot be read") as caught:
        list(batches(dataset, [[ItemKey(0, 0)], [ItemKey(1, 0)]], n_workers=n_workers))
    assert "\n" not in str(caught.value)
