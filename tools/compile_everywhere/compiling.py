"""Runs `pipeline_stats` for one chip and reads what the driver says."""

import json
import select
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from .chips import Chip

# In a chroot: the shims and `pipeline_stats`.
FOLDER = "/opt/compile-everywhere"
# For one kernel; the slowest seen needs a few.
SECONDS = 120


@dataclass
class Figures:
    """What a compiler made of a kernel. Figures that a driver does not tell are None."""

    lacks: str | None = None  # what the chip does not have that the kernel needs
    failure: str | None = None
    subgroup: int = 0
    registers: int | None = None  # of a lane
    waves: int | None = None  # at a time, on what the vendor counts by
    spills: int = 0
    scratch: int = 0  # bytes of a lane
    instructions: int | None = None
    cycles: int | None = None  # the compiler's own estimate
    texts: dict[str, str] = field(default_factory=dict)


# By vendor: what the driver calls each figure, now or in an older version.
_NAMES = {
    "AMD": {
        "registers": ["VGPRs"],
        "waves": ["Subgroups per SIMD"],
        "spills": ["Spilled VGPRs"],
        "scratch": ["Scratch size"],
        "instructions": ["Instructions"],
        "cycles": ["Latency"],
    },
    "Intel": {
        "registers": ["Max live registers"],
        "spills": ["Spills"],
        "scratch": ["Scratch Memory Size"],
        "instructions": ["Instructions", "Instruction Count"],
        "cycles": ["Cycles", "Cycle Count"],
    },
    "NVIDIA": {
        "registers": ["Number of GPRs"],
        "waves": ["Max warps/SM"],
        "spills": ["Spills to memory"],
        "scratch": ["SLM size"],
        "instructions": ["Instruction count"],
        "cycles": ["Static cycle count"],
    },
    "Qualcomm": {
        "registers": ["Registers used"],
        "waves": ["Max Waves Per Core"],
        "spills": ["STP Count"],
        "instructions": ["Instruction Count"],
    },
}


def figures_of(vendor: str, answer: dict) -> Figures:
    """The figures in a line of `pipeline_stats`."""
    if "lacks" in answer:
        return Figures(lacks=answer["lacks"])
    if answer["result"] != 0:
        return Figures(failure=f"the driver refuses it ({answer['result']})")
    # A driver may make code for several widths of subgroup; the widest comes last and is run.
    executable = answer["executables"][-1]
    statistics = executable["statistics"]
    figures = Figures(subgroup=executable["subgroup"], texts=executable["texts"])
    for name, keys in _NAMES[vendor].items():
        key = next((key for key in keys if key in statistics), None)
        if key is None:
            raise ValueError(f"the driver has no statistic named {' or '.join(keys)}: it has {', '.join(statistics)}")
        setattr(figures, name, int(statistics[key]))
    return figures


class _Compiler:
    """A running `pipeline_stats`."""

    def __init__(self, folder: Path, chip: Chip, text: bool):
        variables = [f"{name}={value}" for name, value in chip.environment(FOLDER).items()]
        program = [f"{FOLDER}/pipeline_stats", *(["--text"] if text else [])]
        logs = folder / "logs"
        logs.mkdir(exist_ok=True)
        with open(logs / f"{chip.name}.txt", "ab") as errors:
            self.process = subprocess.Popen(
                ["chroot", str(folder / chip.root), "/usr/bin/env", "-i", *variables, *program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.device = self.answer()

    def answer(self) -> dict | None:
        """The next line; None if the program has ended or takes too long."""
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        line = self.process.stdout.readline() if ready else b""
        return json.loads(line) if line else None

    def ask(self, job: dict, code: bytes) -> dict | None:
        bindings = ",".join(map(str, job["bindings"]))
        head = f"{job['id']} {job['entry']} {bindings} {job['immediates']} {len(code)}\n"
        try:
            self.process.stdin.write(head.encode() + code)
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        return self.answer()

    def end(self) -> str:
        """Stops the program; how it ended."""
        try:
            # After a crash the system takes a moment to tell.
            code = self.process.wait(timeout=1)
            return f"the compiler crashed ({code})"
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"no answer in {SECONDS} s"

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@dataclass
class Compiled:
    """What one chip's compiler made of all kernels."""

    chip: Chip
    device: dict
    figures: dict[str, Figures]  # by the job's id


def compile_all(folder: Path, chip: Chip, shaders: Path, jobs: list[dict], text: bool, done) -> Compiled:
    """Compiles the SPIR-V of all jobs for a chip; `done` is called after each."""
    compiler = _open(folder, chip, text)
    device = compiler.device
    figures = {}
    for job in jobs:
        matrices = job["matrices"]
        if matrices and matrices not in device["matrices"]:
            # Drivers may do anything with sizes that they do not offer.
            figures[job["id"]] = Figures(lacks=f"matrices of {matrices}")
            done()
            continue
        code = (shaders / f"{job['id']}.spv").read_bytes()
        answer = compiler.ask(job, code)
        if answer is None or answer.get("result", 0) != 0:
            # The stand-ins for kernels run out of memory after some hundred pipelines: only a fresh compiler's failure counts.
            compiler.end()
            compiler = _open(folder, chip, text)
            answer = compiler.ask(job, code)
        if answer is None:
            figures[job["id"]] = Figures(failure=compiler.end())
            compiler = _open(folder, chip, text)
        else:
            figures[job["id"]] = figures_of(chip.vendor, answer)
        done()
    compiler.close()
    return Compiled(chip, device, figures)


def _open(folder: Path, chip: Chip, text: bool) -> _Compiler:
    compiler = _Compiler(folder, chip, text)
    if compiler.device is None:
        raise RuntimeError(f"{chip.name}: {compiler.end()} before the first kernel: see {folder / 'logs' / chip.name}.txt")
    return compiler
