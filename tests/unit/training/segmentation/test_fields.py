"""Fields of images and slides: which are used, which are not and why, and what is read."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glomerulab.errors import ConfigError, ImageFileError, TrainingError
from glomerulab.training.segmentation.run import divide, hold_out
from glomerulab.training.segmentation.sets import open_fields
from tests.unit.training.segmentation.conftest import Configure, MakeFields, disc_set, draw_discs


def outline_set(folder: Path, **changes: object) -> dict[str, Any]:
    return {
        "name": "outlines",
        "images": folder / "images",
        "masks": folder / "regions",
        "classes": {"Glomerulus": "glomerulus"},
        "knows": ["glomerulus"],
        "mpp": 1.0,
        **changes,
    }


def coco(folder: Path, mask: np.ndarray, *, size: list[int] | None = None) -> Path:
    """Write a COCO file with the mask of f0 as run lengths."""
    flat = mask.T.ravel().astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends, flat.size]).tolist()
    content = {
        "images": [{"id": 1, "file_name": "f0.png", "width": mask.shape[1], "height": len(mask)}],
        "categories": [{"id": 1, "name": "Glomerulus"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "segmentation": {"counts": runs, "size": size or list(mask.shape)},
            }
        ],
    }
    path = folder / "coco.json"
    path.write_text(json.dumps(content))
    return path


def test_images_are_read_with_their_masks_at_the_mpp_of_the_training(
    make_fields: MakeFields, configure: Configure
) -> None:
    folder = make_fields(1)
    config = configure(disc_set(folder, mpp=0.5), mpp=1.0)
    (field,) = open_fields(config).usable
    assert field.size == (48, 48)
    image, labels = field.read((24.0, 24.0), 48.0, 48)
    _, mask = draw_discs(0)
    np.testing.assert_array_equal(labels.present > 0, mask[1::2, 1::2])
    assert image[labels.present > 0].mean() < image[labels.present == 0].mean() - 50
    assert len(field.anchors[0]) >= 1


def test_a_square_beyond_the_image_mirrors_image_and_mask_alike(
    make_fields: MakeFields, configure: Configure
) -> None:
    (field,) = open_fields(configure(disc_set(make_fields(1)))).usable
    image, labels = field.read((48.0, 48.0), 240.0, 240)
    assert image.shape == (240, 240, 3)
    is_dark = image.astype(int).sum(2) < 480
    assert (is_dark == (labels.present > 0)).mean() > 0.99


def test_images_that_cannot_be_used_are_named_and_the_rest_is_used(
    make_fields: MakeFields, configure: Configure
) -> None:
    folder = make_fields(6)
    (folder / "masks" / "f0.png").unlink()
    Image.new("L", (9, 9)).save(folder / "masks" / "f1.png")
    Image.new("L", (96, 96), 3).save(folder / "masks" / "f2.png")
    (folder / "images" / "f3.png").write_bytes(b"")
    costly = io.BytesIO()
    Image.new("L", (96, 96), 255).save(costly, "PNG")
    chunk = struct.pack(">I", 2**31 - 1) + b"prVt"  # of 2 GiB, which decoding would take
    (folder / "masks" / "f5.png").write_bytes(costly.getvalue()[:-12] + chunk)
    found = open_fields(configure(disc_set(folder)))
    assert [one.facts.name for one in found.usable] == ["f4"]
    reasons = {one.name: one.reason for one in found.failures}
    assert set(reasons) == {"f0", "f1", "f2", "f3", "f5"}
    assert "bytes in one chunk" in reasons["f5"]
    assert "9 x 9" in reasons["f1"]
    assert "3" in reasons["f2"]


def test_sets_of_which_nothing_can_be_used_stop_the_training(
    make_fields: MakeFields, configure: Configure, tmp_path: Path
) -> None:
    folder = make_fields(1)
    with pytest.raises(ImageFileError, match=r"f0.*mpp"):
        open_fields(configure(disc_set(folder, mpp=None)))
    (tmp_path / "empty").mkdir()
    for images in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match="discs"):
            open_fields(configure(disc_set(folder, images=images)))


def test_a_table_gives_masks_groups_and_stains(
    make_fields: MakeFields, configure: Configure
) -> None:
    folder = make_fields(3)
    table = folder / "table.csv"
    table.write_text(
        "image,mask,kind,case,stain,mpp\n"
        "images/f0.png,masks/f0.png,a,p1,PAS,1.0\n"
        "images/f1.png,masks/f1.png,b,p2,HE,2.0\n"
        "images/f2.png,masks/f2.png,a,p1,HE,1.0\n"
    )
    given = disc_set(folder, images=table, masks=None, where={"kind": "a"}, group="case", mpp=None)
    found = open_fields(configure(given)).usable
    facts = [(one.facts.name, one.facts.group, one.facts.stain) for one in found]
    assert facts == [("f0", "p1", "PAS"), ("f2", "p1", "HE")]
    for change in ({"group": "patient"}, {"where": {"sort": "a"}}):
        with pytest.raises(ConfigError, match=r"patient|sort"):
            open_fields(configure(given | change))
    table.write_text(table.read_text().replace("HE", "H&E"))
    with pytest.raises(ConfigError, match="H&E"):
        open_fields(configure(given))
    with pytest.raises(ConfigError, match="where"):
        open_fields(configure(given | {"where": {"kind": "c"}}))


def test_two_sets_of_the_same_images_have_their_own_labels(
    make_fields: MakeFields, configure: Configure
) -> None:
    folder = make_fields(1)
    other = make_fields(1, name="other")
    Image.fromarray(np.full((96, 96), 7, np.uint8)).save(other / "masks" / "f0.png")
    tubules = disc_set(folder, name="tubules", masks=other / "masks", knows=["tubule"])
    tubules["values"] = {"7": "tubule"}
    one, two = open_fields(configure(disc_set(folder), tubules)).usable
    assert (one.vocabulary.structures, sorted(one.anchors), sorted(two.anchors)) == (
        ("tubule", "glomerulus"),
        [1],
        [0],
    )


def test_outlines_give_what_their_mask_gives(make_fields: MakeFields, configure: Configure) -> None:
    folder = make_fields(1)
    (folder / "regions").mkdir()
    square = [[[20, 30], [60, 30], [60, 70], [20, 70], [20, 30]]]
    hole = [[[35, 45], [45, 45], [45, 55], [35, 55], [35, 45]]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": square + hole},
        "properties": {"classification": {"name": "Glomerulus"}},
    }
    (folder / "regions" / "f0.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [feature]})
    )
    (field,) = open_fields(configure(outline_set(folder))).usable
    _, labels = field.read_window(next(iter(field.windows())))
    mask = np.zeros((96, 96), bool)
    mask[30:70, 20:60] = True
    mask[45:55, 35:45] = False
    np.testing.assert_array_equal(labels.present > 0, mask)
    _, part = field.read((48.0, 48.0), 48.0, 96)
    np.testing.assert_array_equal(part.present > 0, mask[24:72, 24:72].repeat(2, 0).repeat(2, 1))
    with pytest.raises(ConfigError, match="centre"):
        open_fields(configure(outline_set(folder, group="centre")))


def test_run_lengths_keep_the_holes_of_their_mask(
    make_fields: MakeFields, configure: Configure
) -> None:
    folder = make_fields(1)
    mask = np.zeros((96, 96), bool)
    mask[10:80, 10:80] = True
    mask[20:60, 20:60] = False
    mask[30:40, 30:40] = True
    (field,) = open_fields(configure(outline_set(folder, masks=coco(folder, mask)))).usable
    _, labels = field.read_window(next(iter(field.windows())))
    np.testing.assert_array_equal(labels.present > 0, mask)


def test_run_lengths_of_another_shape_are_named(
    make_fields: MakeFields, configure: Configure
) -> None:
    folder = make_fields(1)
    mask = np.zeros((96, 96), bool)
    mask[10:20, 10:20] = True
    for size in ([96, 95], [48, 192]):
        config = configure(outline_set(folder, masks=coco(folder, mask, size=size)))
        with pytest.raises(ImageFileError, match="f0"):
            open_fields(config)


def test_groups_are_never_divided(make_fields: MakeFields, configure: Configure) -> None:
    folder = make_fields(6)
    rows = [f"images/f{n}.png,masks/f{n}.png,g{n % 3},{'PAS' if n % 2 else 'HE'}" for n in range(6)]
    (folder / "t.csv").write_text("\n".join(["image,mask,case,stain", *rows]))
    given = disc_set(folder, images=folder / "t.csv", masks=None, group="case")
    fields = open_fields(configure(given)).usable
    fold_of = divide(fields, 3, seed=0)
    assert sorted(fold_of.values()) == [0, 1, 2]
    parts = hold_out(fields, 0.34, seed=0)
    trained, held = ({f.facts.group for f in some} for some in (parts.training, parts.held_out))
    assert len(held) == 1
    assert not trained & held
    assert hold_out(fields, 0.0, seed=0).held_out == []
    with pytest.raises(TrainingError, match="3 groups"):
        divide(fields, 4, seed=0)
