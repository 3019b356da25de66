"""The committed tables in docs/compilers.md: writing them, and comparing figures with them."""

import datetime
import re
from pathlib import Path

from . import printing
from .compiling import Compiled, Figures

# The text between these lines of the page is written by `--write`.
HOT = ("<!-- hot kernels: written by tools/compile-everywhere DIR --write -->", "<!-- end of hot kernels -->")
ALL = ("<!-- all variants: written by tools/compile-everywhere DIR --all --write -->", "<!-- end of all variants -->")


class Worst:
    """The faults of a kernel on a chip, or of the worst of several."""

    def __init__(self, fails: bool = False, spills: int = 0, scratch: int = 0):
        self.fails, self.spills, self.scratch = fails, spills, scratch

    @staticmethod
    def of(figures: list[Figures]) -> "Worst":
        fails = any(f.failure for f in figures)
        return Worst(fails, max((f.spills for f in figures), default=0), max((f.scratch for f in figures), default=0))

    @staticmethod
    def in_cell(text: str) -> "Worst":
        number = {letter: int(value) for letter, value in re.findall(r"\*\*([sm])(\d+)\*\*", text)}
        return Worst("fails" in text, number.get("s", 0), number.get("m", 0))

    def than(self, known: "Worst") -> list[str]:
        """In what it is worse than `known`."""
        worse = ["fails"] if self.fails and not known.fails else []
        for what, now, before in [("spills", self.spills, known.spills), ("scratch", self.scratch, known.scratch)]:
            if now > before:
                worse.append(f"{what} {now}, was {before}")
        return worse


def compare(page: Path, compiled: list[Compiled], jobs: list[dict], complete: bool) -> list[str]:
    """In what kernels are worse than the page says. Those that it does not name must be clean. With `complete`, all hot
    kernels are among the jobs, so that the page can't name others."""
    hot, everything = _read(page, HOT), _read(page, ALL)
    unknown = {row for row, _ in hot} - {row for job in jobs for row in job["rows"]} if complete else set()
    problems = [f"{row} is in the table and is no hot kernel: write the table with --write" for row in sorted(unknown)]
    for c in compiled:
        for job in jobs:
            for row in job["rows"]:
                worse = Worst.of([c.figures[job["id"]]]).than(hot.get((row, c.chip.name), Worst()))
                problems += [f"{row} on {c.chip.name}: {what}" for what in worse]
        others = [job for job in jobs if not job["rows"] and c.chip.compiles_all]
        for kernel, figures in _by_kernel(c, others).items():
            worse = Worst.of(figures).than(everything.get((kernel, c.chip.name), Worst()))
            problems += [f"{kernel}, the worst of {len(figures)} variants, on {c.chip.name}: {what}" for what in worse]
    return problems


def write(page: Path, compiled: list[Compiled], jobs: list[dict], everything: bool) -> None:
    """Writes the table of hot kernels or, if all variants were compiled, that of the others."""
    text = page.read_text()
    if not everything:
        text = _replace(text, HOT, _dated(compiled) + _tables(compiled, lambda of_vendor: printing.rows(of_vendor, jobs)))
    else:
        rest = [job for job in jobs if not job["rows"]]
        count = f"{len(rest)} variants besides the hot ones; kernels that are not listed neither spill nor fail.\n"
        text = _replace(text, ALL, _dated(compiled) + count + _tables(compiled, lambda of_vendor: worst_rows(of_vendor, rest)))
    part = page.with_suffix(".part")
    part.write_text(text)
    part.replace(page)


def _by_kernel(c: Compiled, jobs: list[dict]) -> dict[str, list[Figures]]:
    found: dict[str, list[Figures]] = {}
    for job in jobs:
        found.setdefault(f"{job['shader']}::{job['entry']}", []).append(c.figures[job["id"]])
    return found


def worst_rows(compiled: list[Compiled], jobs: list[dict]) -> list[list[str]]:
    """A row for each kernel of which a variant spills or fails on one of these chips."""

    def cell(figures: list[Figures]) -> str:
        worst = Worst.of(figures)
        bad = sum(bool(f.failure or f.spills or f.scratch) for f in figures)
        parts = [f"{bad} of {len(figures)}", "**fails**" if worst.fails else ""]
        parts += [f"**s{worst.spills}**" if worst.spills else "", f"**m{worst.scratch}**" if worst.scratch else ""]
        return " ".join(part for part in parts if part) if bad else ""

    kernels = [_by_kernel(c, jobs) for c in compiled]
    rows = [[name, *(cell(of_chip[name]) for of_chip in kernels)] for name in kernels[0]]
    return [["kernel", *(c.chip.name for c in compiled)], *(row for row in rows if any(row[1:]))]


def _dated(compiled: list[Compiled]) -> str:
    versions = sorted({f"{c.device['version']} ({c.chip.root})" for c in compiled})
    return f"{datetime.date.today()}, {', '.join(versions)}.\n"


def _tables(compiled: list[Compiled], rows_of) -> str:
    text = ""
    for vendor in printing.VENDORS:
        of_vendor = [c for c in compiled if c.chip.vendor == vendor]
        head, *rows = rows_of(of_vendor)
        if not rows:
            text += f"\n### {vendor}\n\nNothing spills or fails on {', '.join(head[1:])}.\n"
            continue
        rule = ["---", *("---:" for _ in head[1:])]
        lines = [" | ".join(["", *row, ""]).strip() for row in [head, rule, *rows]]
        text += f"\n### {vendor}\n\n" + "\n".join(lines) + "\n"
    return text


def _replace(text: str, markers: tuple[str, str], new: str) -> str:
    start, end = (text.index(marker) for marker in markers)
    return text[: start + len(markers[0])] + "\n\n" + new + "\n" + text[end:]


def _read(page: Path, markers: tuple[str, str]) -> dict[tuple[str, str], Worst]:
    """The tables between the markers: by row and chip."""
    text = page.read_text()
    start, end = (text.index(marker) for marker in markers)
    found, head = {}, []
    for line in text[start:end].splitlines():
        if not line.startswith("|"):
            head = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not head:
            head = cells
            continue
        if cells[0] == "---":
            continue
        for chip, cell in zip(head[1:], cells[1:]):
            found[cells[0], chip] = Worst.in_cell(cell)
    return found
