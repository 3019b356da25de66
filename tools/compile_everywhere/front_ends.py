"""SPIR-V, WGSL and HLSL through compilers other than naga."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
# Not sid, whose validator minds that naga tells the stride of arrays in workgroup memory, too, as no shader can help.
SPIRV_RELEASE = "trixie"


def run_front_ends(folder: Path, shaders: Path, jobs: list[dict]) -> list[str]:
    """What spirv-val, Tint or Slang refuse."""
    for_tint = [_tint_job(shaders, job) for job in jobs if not job["wide"] and not job["cooperative"]]
    for_slang = [
        {"id": job["id"], "entry": job["hlsl_entry"], "path": str(shaders / f"{job['id']}.hlsl")}
        for job in jobs
        if job["hlsl_entry"]
    ]
    problems = []
    for name, count, refused in [
        ("spirv-val", len(jobs), _spirv_val(folder, shaders, jobs)),
        ("Tint", len(for_tint), _lines("Tint", ["node", HERE / "wgsl_tint.mjs", folder / "tint"], for_tint)),
        ("Slang", len(for_slang), _lines("Slang", [sys.executable, HERE / "hlsl_slang.py", folder / "slang"], for_slang)),
    ]:
        print(f"{name}: {count} variants, {len(refused)} refused")
        titles = {job["id"]: job["title"] for job in jobs}
        problems += [f"{name} refuses {titles[id]}: {error}" for id, error in refused.items()]
    return problems


def _tint_job(shaders: Path, job: dict) -> dict:
    return {
        "id": job["id"],
        "entry": job["entry"],
        "constants": job["constants"],
        "path": str(shaders / job["wgsl"]),
        "subgroups": job["subgroups"],
    }


def _spirv_val(folder: Path, shaders: Path, jobs: list[dict]) -> dict[str, str]:
    command = ["chroot", folder / SPIRV_RELEASE, "/usr/bin/spirv-val", "--target-env", "vulkan1.3", "-"]

    def refusal(job: dict) -> str:
        code = (shaders / f"{job['id']}.spv").read_bytes()
        done = subprocess.run(command, input=code, capture_output=True)
        return done.stderr.decode(errors="replace").strip() if done.returncode else ""

    with ThreadPoolExecutor() as pool:
        errors = list(pool.map(refusal, jobs))
    return {job["id"]: error for job, error in zip(jobs, errors) if error}


def _lines(name: str, command: list, jobs: list[dict]) -> dict[str, str]:
    """Hands the jobs to a program, a line of JSON each, and collects its errors. Errors if it does not answer them all."""
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    done = subprocess.run(command, input=lines, capture_output=True, text=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0 or len(answers) != len(jobs):
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise RuntimeError(f"{name} ended after {len(answers)} of {len(jobs)} variants: {last}")
    return {answer["id"]: answer["error"] for answer in answers if answer["error"]}
