"""Render ``docs/images/phantom_contact_sheet.png``: each kind of glomerulus in HE and PAS.

Run: ``python docs/figures/phantom_contact_sheet.py``. Every picture is synthetic.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from glomerulab.phantom.crops import render_crop
from glomerulab.phantom.glomerulus import Lesions
from glomerulab.phantom.section import draw_section, scanner_park

OUT = Path(__file__).parents[1] / "images" / "phantom_contact_sheet.png"
SEED = 7
SIDE, GAP, HEAD = 288, 6, 26
COLUMNS = {
    "normal": Lesions(),
    "mspgn": Lesions(mspgn=0.7),
    "fsg": Lesions(fsg=0.6),
    "cgn": Lesions(cgn=0.6),
    "fsg + cgn": Lesions(fsg=0.5, cgn=0.6),
}
ROWS = ("HE", "PAS", "HE", "PAS")


def main() -> None:
    step = SIDE + GAP
    sheet = Image.new("RGB", (len(COLUMNS) * step, HEAD + len(ROWS) * step), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    park = scanner_park(SEED)
    for row, stain in enumerate(ROWS):
        rng = np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(row,)))
        section = draw_section(stain, rng, scanner=park[row])
        for column, (name, lesions) in enumerate(COLUMNS.items()):
            seed = np.random.SeedSequence(SEED, spawn_key=(row, column))
            crop = Image.fromarray(render_crop(lesions, section, seed).pixels)
            place = (column * step, HEAD + row * step)
            sheet.paste(crop.resize((SIDE, SIDE), Image.Resampling.LANCZOS), place)
            if row == 0:
                draw.text((column * step + 4, 4), f"{name} (synthetic)", "black", font)
            label = f"{stain}, synthetic"
            box = draw.textbbox((place[0] + 4, place[1] + SIDE - 20), label, font)
            draw.rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), "white")
            draw.text((place[0] + 4, place[1] + SIDE - 20), label, "black", font)
    OUT.parent.mkdir(exist_ok=True)
    # 256 colours keep the page light; the crops themselves are never reduced.
    sheet.quantize(256, kmeans=2, dither=Image.Dither.FLOYDSTEINBERG).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
