"""Installs drivers and compilers into a folder. Parts that are there are used again; delete one to have it made anew."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from . import mesa_shims
from .compiling import FOLDER

HERE = Path(__file__).parent
# In every chroot: drivers, their loader, and SPIR-V's validator.
DRIVERS = "mesa-vulkan-drivers,libvulkan1,spirv-tools"
# The release that the shims are built in, from its source of Mesa.
SHIMS = "trixie"
PROGRAM = "pipeline_stats"


def install(folder: Path, roots: set[str], front_ends: bool) -> None:
    """Makes sure that chroots of these Debian releases, shims and, if asked for, the other front ends are in `folder`."""
    if os.geteuid() != 0:
        raise RuntimeError("chroots need root: run it as root, or with sudo")
    folder.mkdir(parents=True, exist_ok=True)
    for root in sorted({*roots, SHIMS, "sid"}):
        _chroot(folder, root)
    _shims(folder)
    _program(folder)
    for root in roots - {SHIMS}:
        _copy_tools(folder / SHIMS, folder / root)
    if front_ends:
        _tint(folder)
        _slang(folder)


def _say(text: str) -> None:
    print(f"compile-everywhere: {text}", file=sys.stderr)


def _run(command: list, **options) -> None:
    """Runs a command whose output is only of interest if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        lines = done.stdout.splitlines()[-20:]
        raise RuntimeError("\n".join([f"{' '.join(map(str, command))} failed:", *lines]))


def _in(root: Path, *command: str, at: str = "/") -> None:
    """Runs a command in a chroot."""
    variables = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
    script = 'cd "$0" && exec "$@"'
    _run(["chroot", root, "/usr/bin/env", "-i", *variables, "/bin/sh", "-c", script, at, *command])


def _need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise RuntimeError(f"{program} is missing: install it (on Debian: apt-get install {package}) and try again")


def _chroot(folder: Path, root: str) -> None:
    if (folder / root).is_dir():
        return
    _need("debootstrap", "debootstrap")
    _say(f"installing Debian {root} with Mesa's drivers (some minutes)")
    part = folder / f"{root}.part"
    shutil.rmtree(part, ignore_errors=True)
    _run(["debootstrap", "--variant=minbase", f"--include={DRIVERS}", root, part])
    part.rename(folder / root)


def _tools(root: Path) -> Path:
    return root / FOLDER.lstrip("/")


def _shims(folder: Path) -> None:
    """Builds the libraries that stand in for kernel drivers."""
    root = folder / SHIMS
    tools = _tools(root)
    libraries = [tools / f"lib{name}_noop_drm_shim.so" for name in mesa_shims.LIBRARIES]
    if all(library.is_file() for library in libraries):
        return
    _say("building the stand-ins for kernel drivers from Debian's source of Mesa (some minutes)")
    sources = (root / "etc/apt/sources.list").read_text().replace("deb ", "deb-src ")
    (root / "etc/apt/sources.list.d/sources.list").write_text(sources)
    _in(root, "apt-get", "update", "-q")
    _in(root, "apt-get", "install", "-y", "-q", "--no-install-recommends", *mesa_shims.PACKAGES)
    work = root / "tmp/mesa"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    # As root, apt-get would fetch as a user who may not write here.
    _in(root, "apt-get", "-o", "APT::Sandbox::User=root", "source", "-q", "mesa", at="/tmp/mesa")
    source = next(path for path in work.iterdir() if path.is_dir())
    mesa_shims.edit(source)
    _in(root, "meson", "setup", "/tmp/mesa/build", *mesa_shims.OPTIONS, at=f"/tmp/mesa/{source.name}")
    _in(root, "ninja", "-C", "/tmp/mesa/build", *mesa_shims.TARGETS)
    tools.mkdir(parents=True, exist_ok=True)
    for target in mesa_shims.TARGETS:
        shutil.copy(work / "build" / target, tools)
    shutil.rmtree(work)


def _program(folder: Path) -> None:
    """Builds `pipeline_stats`, again where its source has changed."""
    tools = _tools(folder / SHIMS)
    source, program = HERE / f"{PROGRAM}.c", tools / PROGRAM
    if program.is_file() and program.stat().st_mtime > source.stat().st_mtime:
        return
    shutil.copy(source, tools)
    name = f"{FOLDER}/{PROGRAM}"
    _in(folder / SHIMS, "gcc", "-O1", "-o", f"{name}.part", f"{name}.c", "-lvulkan")
    (tools / f"{PROGRAM}.part").rename(program)


def _copy_tools(source: Path, root: Path) -> None:
    _tools(root).mkdir(parents=True, exist_ok=True)
    for path in _tools(source).iterdir():
        copy = _tools(root) / path.name
        if not copy.is_file() or copy.stat().st_mtime < path.stat().st_mtime:
            shutil.copy2(path, copy)


def _tint(folder: Path) -> None:
    """Dawn, whose front end for WGSL is Tint."""
    if (folder / "tint/node_modules/webgpu").is_dir():
        return
    _need("npm", "npm")
    _say("installing Tint (npm: webgpu)")
    (folder / "tint").mkdir(exist_ok=True)
    _run(["npm", "install", "--no-audit", "--no-fund", "--prefix", folder / "tint", "webgpu"])


def _slang(folder: Path) -> None:
    """Slang, which has a front end for HLSL."""
    if (folder / "slang/slangpy").is_dir():
        return
    _say("installing Slang (PyPI: slangpy)")
    part = folder / "slang.part"
    shutil.rmtree(part, ignore_errors=True)
    _run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", part, "slangpy"])
    part.rename(folder / "slang")
