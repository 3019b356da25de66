"""How the figures are shown."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from .compiling import Compiled, Figures

VENDORS = ["AMD", "Intel", "NVIDIA", "Qualcomm"]


def names(job: dict) -> list[str]:
    """The rows that show a job: those of the table, or one of its own."""
    return job["rows"] or [f"{job['shader']}::{job['entry']} {job['id']}"]


def cell(figures: Figures) -> str:
    """Figures as in the table: registers/waves (Intel: live registers/lanes of a subgroup), then spills and scratch if any."""
    if figures.lacks:
        return "–"
    if figures.failure:
        return "**fails**"
    second = figures.subgroup if figures.waves is None else figures.waves
    spills = f" **s{figures.spills}**" if figures.spills else ""
    scratch = f" **m{figures.scratch}**" if figures.scratch else ""
    return f"{figures.registers}/{second}{spills}{scratch}"


def rows(compiled: list[Compiled], jobs: list[dict]) -> list[list[str]]:
    """The table of these chips: a head, then a row for each name."""
    head = ["kernel", *(c.chip.name for c in compiled)]
    body = [[name, *(cell(c.figures[job["id"]]) for c in compiled)] for job in jobs for name in names(job)]
    return [head, *body]


def print_tables(compiled: list[Compiled], rows_of: Callable[[list[Compiled]], list[list[str]]]) -> None:
    """One table for each vendor, of the rows that `rows_of` makes of its chips."""
    for vendor in VENDORS:
        of_vendor = [c for c in compiled if c.chip.vendor == vendor]
        if of_vendor:
            print(f"\n{vendor}")
            _print_aligned(rows_of(of_vendor))


def print_kernels(compiled: list[Compiled], jobs: list[dict]) -> None:
    """All figures, a table for each kernel."""
    for job in jobs:
        print(f"\n{', '.join(names(job))}   {job['title'] if not job['rows'] else ''}")
        head = ["chip", "registers", "waves", "subgroup", "spills", "scratch", "instructions", "cycles"]
        body = []
        for c in compiled:
            f = c.figures[job["id"]]
            if f.lacks or f.failure:
                body.append([c.chip.name, f"has no {f.lacks}" if f.lacks else f.failure])
                continue
            values = [f.registers, f.waves, f.subgroup, f.spills, f.scratch, f.instructions, f.cycles]
            body.append([c.chip.name, *("" if value is None else str(value) for value in values)])
        _print_aligned([head, *body])


def _print_aligned(table: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in table if i < len(row) == len(table[0])) for i in range(len(table[0]))]
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def write_texts(folder: Path, compiled: list[Compiled], jobs: list[dict]) -> None:
    """Each kernel's texts for each chip, `KERNEL/CHIP.TEXT.txt`."""
    for c in compiled:
        for job in jobs:
            place = folder / names(job)[0].replace("::", "_").replace(" ", "_")
            place.mkdir(parents=True, exist_ok=True)
            for name, text in c.figures[job["id"]].texts.items():
                stem = "".join(letter if letter.isalnum() else "_" for letter in name)
                (place / f"{c.chip.name}.{stem}.txt").write_text(text)


def write_json(path: Path, compiled: list[Compiled], jobs: list[dict]) -> None:
    """One line for each kernel and chip."""
    with open(path, "w") as file:
        for c in compiled:
            for job in jobs:
                figures = {key: value for key, value in asdict(c.figures[job["id"]]).items() if key != "texts"}
                line = {"chip": c.chip.name, "kernel": names(job), "title": job["title"], **figures}
                file.write(json.dumps(line) + "\n")
