"""The command line of `tools/compile-everywhere`."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import printing, table
from .chips import CHIPS, Chip
from .compiling import Compiled, compile_all
from .front_ends import run_front_ends
from .install import install

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = REPOSITORY / "docs" / "compilers.md"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/compile-everywhere",
        description="Compiles the program's shaders with the compilers of real GPUs, without a GPU.",
        epilog="Exit code 1: a kernel fails, spills or uses scratch where the table in docs/compilers.md says otherwise.",
    )
    parser.add_argument("folder", type=Path, help="where drivers and compilers are installed; those already there are used again")
    parser.add_argument("--all", action="store_true", help="every variant, on a few chips; else the hot kernels on all chips")
    parser.add_argument("--chips", help="these alone, with commas between them: " + ",".join(c.name for c in CHIPS))
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="kernels whose row or title contains this text"
    )
    parser.add_argument(
        "--wgsl", type=Path, metavar="FILE", help="this file in place of the shader of the same name, or a module of its own"
    )
    parser.add_argument("--text", type=Path, metavar="DIR", help="write the drivers' assembly and intermediate texts there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, one line per kernel and chip")
    parser.add_argument("--no-front-ends", action="store_true", help="leave out spirv-val, Tint and Slang")
    parser.add_argument("--write", action="store_true", help="write the table instead of comparing with it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilers at a time (default: one per core)")
    args = parser.parse_args()
    if args.write and (args.chips or args.only or args.wgsl):
        parser.error("--write needs all chips and kernels: leave out --chips, --only and --wgsl")
    return args


def chosen_chips(names: str | None, everything: bool) -> list[Chip]:
    if names is None:
        return [chip for chip in CHIPS if chip.compiles_all or not everything]
    known = {chip.name: chip for chip in CHIPS}
    unknown = [name for name in names.split(",") if name not in known]
    if unknown:
        raise ValueError(f"no chip is called {', '.join(unknown)}: choose from {', '.join(known)}")
    return [known[name] for name in names.split(",")]


def dump(args: argparse.Namespace, shaders: Path) -> list[dict]:
    """Writes the shaders to a folder and returns their index."""
    build = ["cargo", "build", "--quiet", "--release", "--example", "dump_shaders"]
    subprocess.run(build, cwd=REPOSITORY, check=True, env={**os.environ, "CARGO_INCREMENTAL": "1"})
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    command = [REPOSITORY / target / "release" / "examples" / "dump_shaders", shaders]
    command += [] if args.all or args.wgsl else ["--hot"]
    command += [argument for text in args.only for argument in ("--only", text)]
    command += ["--wgsl", args.wgsl] if args.wgsl else []
    subprocess.run(command, check=True, stdout=sys.stderr)
    return [json.loads(line) for line in (shaders / "index.jsonl").read_text().splitlines()]


def compile_on(chips: list[Chip], args: argparse.Namespace, shaders: Path, jobs: list[dict]) -> list[Compiled]:
    total, count, lock = len(chips) * len(jobs), 0, threading.Lock()

    def done() -> None:
        nonlocal count
        with lock:
            count += 1
            if count % 100 == 0 or count == total:
                print(f"{count} of {total} compiled", file=sys.stderr)

    with ThreadPoolExecutor(args.jobs) as pool:
        text = args.text is not None
        return list(pool.map(lambda chip: compile_all(args.folder, chip, shaders, jobs, text, done), chips))


def run(args: argparse.Namespace) -> int:
    """Installs, compiles, shows and compares; the exit code."""
    chips = chosen_chips(args.chips, args.all)
    args.folder = args.folder.resolve()
    install(args.folder, {chip.root for chip in chips}, front_ends=not args.no_front_ends)
    with tempfile.TemporaryDirectory(prefix="shaders-", dir=args.folder) as temporary:
        shaders = Path(temporary)
        jobs = dump(args, shaders)
        problems = [] if args.no_front_ends else run_front_ends(args.folder, shaders, jobs)
        jobs = [job for job in jobs if not job["for_cpu"]]
        compiled = compile_on(chips, args, shaders, jobs)
    if args.text:
        printing.write_texts(args.text, compiled, jobs)
    if args.json:
        printing.write_json(args.json, compiled, jobs)
    if len(jobs) <= 4:
        printing.print_kernels(compiled, jobs)
    else:
        shown = [job for job in jobs if job["rows"] or not args.all]
        printing.print_tables(compiled, lambda of_vendor: printing.rows(of_vendor, shown))
    if args.all and len(jobs) > 4:
        print("\nOf all other variants, by kernel: how many spill, the most spills and scratch")
        rest = [job for job in jobs if not job["rows"]]
        printing.print_tables(compiled, lambda of_vendor: table.worst_rows(of_vendor, rest))
    if args.write:
        table.write(TABLE, compiled, jobs, everything=args.all)
    elif not args.wgsl:
        problems += table.compare(TABLE, compiled, jobs, complete=not args.only)
    for problem in problems:
        print(f"worse: {problem}")
    return 1 if problems else 0


def main() -> int:
    try:
        return run(arguments())
    except subprocess.CalledProcessError:
        return 1  # the program has told why
    except (OSError, ValueError, RuntimeError) as error:
        print(f"compile-everywhere: {error}", file=sys.stderr)
        return 1
