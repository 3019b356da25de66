#!/usr/bin/env python3
"""Draws capital letters in fonts of five kinds, 64 x 64 pixels: a small shift from the letters of one kind of font to those of others.

    pip install pillow brotli
    python3 tools/study/letters.py runs/letters

The fonts are npm packages (@fontsource/NAME), which npm fetches; most are under the SIL Open Font License, their LICENSE files lie in
OUT/packages. OUT/train and OUT/val have sans-serif fonts, 24 and 8 of them; OUT/serif, mono, hand and display have the others.
No font is in two splits. One image per letter and font, under OUT/SPLIT/LETTER/FONT.png.
"""

import io
import pathlib
import subprocess
import sys
import tarfile

from PIL import Image, ImageDraw, ImageFont

VERSION = "5.3.0"
OTHER_VERSIONS = {"source-code-pro": "5.3.1", "source-sans-3": "5.3.1", "source-serif-4": "5.3.1"}
SANS = """inter roboto open-sans lato montserrat poppins source-sans-3 nunito noto-sans work-sans raleway oswald quicksand rubik
    karla mulish barlow cabin dm-sans fira-sans hind manrope exo-2 titillium-web heebo nunito-sans oxygen ubuntu asap public-sans
    overpass archivo""".split()
FONTS = {
    "train": SANS[:24],
    "val": SANS[24:],
    "serif": """merriweather playfair-display lora pt-serif crimson-text bitter eb-garamond libre-baskerville noto-serif
        source-serif-4 cormorant""".split(),
    "mono": "roboto-mono jetbrains-mono fira-code space-mono ibm-plex-mono source-code-pro inconsolata ubuntu-mono".split(),
    "hand": """dancing-script caveat satisfy great-vibes shadows-into-light indie-flower kalam permanent-marker amatic-sc sacramento
        pacifico""".split(),
    "display": """lobster bebas-neue righteous fredoka abril-fatface alfa-slab-one bangers comfortaa press-start-2p
        monoton""".split(),
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SIZE, LARGEST, START = 64, 56, 44


def font(name: str, packages: pathlib.Path) -> bytes:
    """The font's Latin letters at a weight of 400, or the nearest that there is."""
    version = OTHER_VERSIONS.get(name, VERSION)
    archive = packages / f"fontsource-{name}-{version}.tgz"
    if not archive.exists():
        subprocess.run(["npm", "pack", "--silent", f"@fontsource/{name}@{version}"], cwd=packages, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(archive) as tar:
        for weight in (400, 300, 500, 700):
            member = f"package/files/{name}-latin-{weight}-normal.woff2"
            if member in tar.getnames():
                return tar.extractfile(member).read()
    sys.exit(f"{archive} has no Latin letters at a weight of 300 to 700")


def draw(data: bytes, letter: str) -> Image.Image:
    """The letter in the middle of a white square, as large as START if it fits."""
    for size in range(START, 4, -2):
        face = ImageFont.truetype(io.BytesIO(data), size)
        left, top, right, bottom = face.getbbox(letter)
        if max(right - left, bottom - top) <= LARGEST:
            break
    if right <= left or bottom <= top:
        sys.exit(f"a font draws nothing for {letter}")
    image = Image.new("RGB", (SIZE, SIZE), "white")
    place = (SIZE / 2 - (left + right) / 2, SIZE / 2 - (top + bottom) / 2)
    ImageDraw.Draw(image).text(place, letter, font=face, fill="black")
    return image


def main() -> None:
    out = pathlib.Path(sys.argv[1])
    packages = out / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    for split, names in FONTS.items():
        for name in names:
            data = font(name, packages)
            for letter in LETTERS:
                path = out / split / letter / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                draw(data, letter).save(path)
        print(f"{split}: {len(names)} fonts, {len(names) * len(LETTERS)} images")


if __name__ == "__main__":
    main()
