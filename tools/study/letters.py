#!/usr/bin/env python3
"""Draws letters and digits in 306 fonts of five kinds, 64 x 64 pixels: a shift from sans-serif fonts to those of other kinds.

    pip install pillow==13.0.0 brotli==1.2.1 fonttools==4.68.0 numpy==2.4.6
    tools/study/letters.py runs/letters

The fonts are npm packages (@fontsource/NAME), which npm fetches; letters.csv beside this script has each one's split, version,
licence, and the SHA-256 of its file and of its pixels. OUT gets SPLIT/CLASS/FONT-CODEPOINT.png, fonts/ with each licence's text, and
lists/. train, radius and select are sans-serif; sans, serif, mono, hand and display are test sets. No font is in two splits.

The 35 classes are letters whatever their case, and the digits 1 to 9. 0, I and l are left out: many fonts draw them as O and 1.
A lower-case letter that its font draws as the capital is left out, and so are two classes that a font draws alike.
"""

import argparse
import csv
import functools
import hashlib
import io
import itertools
import os
import shutil
import string
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TABLE = Path(__file__).resolve().parent / "letters.csv"
COLUMNS = ["split", "font", "version", "licence", "sha256", "images", "pixels"]
GLYPHS = [c for c in string.ascii_uppercase + string.ascii_lowercase + string.digits if c not in "0Il"]
SIZE, LARGEST, START = 64, 56, 44
# Lists of labels don't mix names and numbers.
CLASS = {c: f"digit-{c}" if c.isdigit() else c.upper() for c in GLYPHS}
# Share of the ink that differs below which two images are taken for the same drawing.
ALIKE = 0.05
WEIGHTS = (400, 300, 500, 700, 200, 800, 600, 900, 100)
AT_ONCE = 8  # packages that are fetched side by side


class Failure(Exception):
    """One line that tells the user what is wrong, where, and what to do."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# Fonts


def take(archive, row):
    """The package's Latin letters at a weight of 400, or the nearest that there is; its licence's name and text."""
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
        files = [f"package/files/{row['font']}-latin-{weight}-normal.woff2" for weight in WEIGHTS]
        file = next((file for file in files if file in names), None)
        if file is None:
            raise Failure(f"{archive.name} has no upright Latin letters")
        text = tar.extractfile("package/LICENSE").read().decode("utf-8", "replace") if "package/LICENSE" in names else ""
        return tar.extractfile(file).read(), text


def fetch_one(row, fonts, pin):
    """Puts a font that is missing or wrong into `fonts`, with its licence's text. With `pin`, a font there is right."""
    place, text = fonts / f"{row['font']}.woff2", fonts / f"{row['font']}.LICENSE"
    if not place.is_file() or (not pin and sha256(place.read_bytes()) != row["sha256"]):
        package = f"@fontsource/{row['font']}@{row['version']}"
        with tempfile.TemporaryDirectory(dir=fonts, prefix=".part-") as folder:
            done = subprocess.run(["npm", "pack", "--silent", "--ignore-scripts", package], cwd=folder, stdout=subprocess.DEVNULL)
            if done.returncode:
                raise Failure(f"npm could not fetch {package}")
            data, words = take(Path(folder) / f"fontsource-{row['font']}-{row['version']}.tgz", row)
            text.write_text(words, encoding="utf-8")
            (Path(folder) / "font").write_bytes(data)
            os.replace(Path(folder) / "font", place)
        say(f"fetched {package}")
    found = sha256(place.read_bytes())
    if pin:
        row |= {"sha256": found, "licence": licence(text.read_text(encoding="utf-8"))}
    elif found != row["sha256"]:
        raise Failure(f"{place} is not the font of {TABLE.name}: its SHA-256 differs")


def licence(text):
    """Its SPDX name."""
    known = {
        "SIL OPEN FONT LICENSE": "OFL-1.1",
        "Apache License": "Apache-2.0",
        "UBUNTU FONT LICENCE": "Ubuntu-font-1.0",
        "Bitstream Vera Fonts Copyright": "Bitstream-Vera",
        "CC0 1.0": "CC0-1.0",
        "MIT License": "MIT",
    }
    names = [name for words, name in known.items() if words.lower() in text.lower()]
    return names[0] if names else "unknown"


# Images


@functools.lru_cache(START)
def face(data, size):
    """The font at a size in pixels per em."""
    from PIL import ImageFont

    return ImageFont.truetype(io.BytesIO(data), size, layout_engine=ImageFont.Layout.BASIC)


def draw(data, glyph):
    """The glyph in the middle of a white square, as large as START if it fits. None if the font draws nothing."""
    from PIL import Image, ImageDraw

    for size in range(START, 4, -2):
        left, top, right, bottom = face(data, size).getbbox(glyph)
        if max(right - left, bottom - top) <= LARGEST:
            break
    if right <= left or bottom <= top:
        return None
    image = Image.new("L", (SIZE, SIZE), 255)
    place = (SIZE / 2 - (left + right) / 2, SIZE / 2 - (top + bottom) / 2)
    ImageDraw.Draw(image).text(place, glyph, font=face(data, size), fill=0)
    return image if image.getextrema()[0] < 128 else None


def alike_pairs(images):
    """Which pairs of images are the same drawing, as a matrix."""
    import numpy

    ink = 255 - numpy.stack([numpy.asarray(image, dtype=numpy.int32).ravel() for image in images])
    total = ink.sum(axis=1)
    apart = numpy.stack([numpy.abs(ink - one).sum(axis=1) for one in ink])
    return apart < ALIKE * numpy.maximum(total[:, None], total[None, :])


def images(row, data):
    """Glyph to image of a font, without those it lacks, repeats or draws alike for two classes; and those left out, and why."""
    from fontTools.ttLib import TTFont

    known = TTFont(io.BytesIO(data)).getBestCmap()
    drawn, left_out = {}, []
    for glyph in GLYPHS:
        image = draw(data, glyph) if ord(glyph) in known else None
        if image is None:
            left_out.append((glyph, "missing"))
        else:
            drawn[glyph] = image
    same = alike_pairs(list(drawn.values()))
    for i, glyph in enumerate(drawn):
        alike = [other for j, other in enumerate(drawn) if i != j and same[i, j]]
        if any(CLASS[other] != CLASS[glyph] for other in alike):
            left_out.append((glyph, "like " + " ".join(alike)))
        elif glyph.islower() and glyph.upper() in alike:
            left_out.append((glyph, "as the capital"))
    for glyph, _ in left_out:
        drawn.pop(glyph, None)
    return drawn, left_out


def digest(drawn):
    """The SHA-256 of glyphs and pixels."""
    sha = hashlib.sha256()
    for glyph, image in drawn.items():
        sha.update(glyph.encode() + b"\0" + image.tobytes())
    return sha.hexdigest()


def near(pixels, splits):
    """Pairs of fonts of different splits that draw over a tenth of their common glyphs alike, with the share."""
    common, same = Counter(), Counter()
    for glyph in GLYPHS:
        fonts = [font for font in pixels if glyph in pixels[font]]
        alike = alike_pairs([pixels[font][glyph] for font in fonts])
        for i, font in enumerate(fonts):
            for j in range(i):
                if splits[font] != splits[fonts[j]]:
                    common[font, fonts[j]] += 1
                    same[font, fonts[j]] += bool(alike[i, j])
    return [(same[pair] / common[pair], *pair) for pair in common if same[pair] > 0.1 * common[pair]]


def write_lists(out, splits):
    """Lists of train and radius together, and of every third image of each class of a split, over all of its fonts."""
    (out / "lists").mkdir(exist_ok=True)
    files = {split: sorted((out / split).glob("*/*.png")) for split in splits}
    lists = {"train-and-radius": files["train"] + files["radius"]}
    for split in splits:
        by_class = [list(group) for _, group in itertools.groupby(files[split], key=lambda file: file.parent.name)]
        lists[f"{split}-third"] = [file for group in by_class for file in group[::3]]
    for name, chosen in lists.items():
        lines = [f"../{file.relative_to(out).as_posix()} {file.parent.name}\n" for file in chosen]
        (out / "lists" / f"{name}.txt").write_text("".join(lines), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(prog="letters.py", description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for images, fonts and lists")
    parser.add_argument("--pin", action="store_true", help=f"write fonts and glyphs as they were fetched and drawn to {TABLE.name}, instead of comparing them")
    args = parser.parse_args()
    try:
        import brotli, fontTools, numpy, PIL  # noqa: F401
    except ImportError as error:
        raise Failure(f"Python has no {error.name}: see the first lines of {__file__}") from None
    if shutil.which("npm") is None:
        raise Failure("npm is not installed: it fetches the fonts")
    with open(TABLE, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    fonts = args.out / "fonts"
    fonts.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:  # npm mostly waits
        for _ in pool.map(lambda row: fetch_one(row, fonts, args.pin), rows):
            pass
    pixels, counts, reasons = {}, {}, {}
    for split in dict.fromkeys(row["split"] for row in rows):
        # Made beside its place and moved there whole.
        place, part = args.out / split, args.out / f"{split}.part"
        shutil.rmtree(part, ignore_errors=True)
        for row in (row for row in rows if row["split"] == split):
            data = (fonts / f"{row['font']}.woff2").read_bytes()
            drawn, left_out = images(row, data)
            if args.pin:
                row |= {"images": str(len(drawn)), "pixels": digest(drawn)}
            elif (str(len(drawn)), digest(drawn)) != (row["images"], row["pixels"]):
                raise Failure(f"{row['font']} is drawn otherwise than {TABLE.name} says (Pillow {PIL.__version__} is used; 13.0.0 was)")
            pixels[row["font"]] = drawn
            for glyph, why in left_out:
                reasons.setdefault(why.split(" ")[0], []).append(f"{row['font']} {glyph} {why}")
            for glyph, image in drawn.items():
                path = part / CLASS[glyph] / f"{row['font']}-{ord(glyph):04x}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.convert("RGB").save(path)
            counts[split] = counts.get(split, 0) + len(drawn)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(part, place)
        print(f"{split}: {sum(row['split'] == split for row in rows)} fonts, {counts[split]:,} images", flush=True)
    (args.out / "left-out.txt").write_text("".join(f"{line}\n" for lines in reasons.values() for line in lines))
    print("left out: " + ", ".join(f"{len(lines)} {why}" for why, lines in reasons.items()) + ", as left-out.txt says")
    write_lists(args.out, list(counts))
    if args.pin:
        for share, font, other in sorted(near(pixels, {row["font"]: row["split"] for row in rows}), reverse=True):
            say(f"{font} and {other} draw {share:.0%} of their glyphs alike, in two splits")
        with open(TABLE, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    try:
        main()
    except Failure as error:
        sys.exit(f"letters.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
