"""The GPUs whose compilers run here, and how a driver is made to believe in one of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """A GPU as a driver is told of it."""

    name: str
    vendor: str  # AMD, Intel, NVIDIA or Qualcomm: a table each
    root: str  # the Debian release whose Mesa is used: sid or trixie
    driver: str  # stem of the driver's file in /usr/share/vulkan/icd.d
    shim: str | None  # stem of the library that stands in for the kernel
    variables: dict[str, str]  # what makes driver or library choose this chip

    @property
    def compiles_all(self) -> bool:
        """Whether it is among the few that all variants are compiled for."""
        return self.name in ("vega10", "navi31", "tgl", "bmg", "ampere", "a730")

    def environment(self, folder: str) -> dict[str, str]:
        """Environment for a program in the chroot; `folder` is where the shims are there."""
        shim = {"LD_PRELOAD": f"{folder}/lib{self.shim}_noop_drm_shim.so"} if self.shim else {}
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": "/tmp",
            "XDG_RUNTIME_DIR": "/tmp",
            "MESA_SHADER_CACHE_DISABLE": "1",
            "VK_DRIVER_FILES": f"/usr/share/vulkan/icd.d/{self.driver}_icd.json",
            **shim,
            **self.variables,
        }


def _amd(name: str) -> Chip:
    return Chip(name, "AMD", "sid", "radeon", "amdgpu", {"AMDGPU_GPU_ID": name})


def _intel(name: str) -> Chip:
    return Chip(name, "Intel", "sid", "intel", "intel", {"INTEL_STUB_GPU_PLATFORM": name})


def _nvidia(name: str, chipset: str) -> Chip:
    variables = {"NVK_I_WANT_A_BROKEN_VULKAN_DRIVER": "1", "NOUVEAU_CHIPSET": chipset}
    return Chip(name, "NVIDIA", "sid", "nouveau", "nouveau", variables)


def _qualcomm(name: str) -> Chip:
    return Chip(f"a{name}", "Qualcomm", "sid", "freedreno", "freedreno", {"FD_GPU_ID": name})


CHIPS = [
    *map(_amd, ["polaris10", "vega10", "navi10", "navi21", "navi31", "gfx1150"]),
    # RDNA 4, which the shim does not know, by the driver's own pretended device; only trixie's driver has it.
    Chip("gfx1201", "AMD", "trixie", "radeon", None, {"RADV_FORCE_FAMILY": "gfx1201"}),
    *map(_intel, ["skl", "tgl", "dg2", "lnl", "bmg"]),
    *[_nvidia(name, chipset) for name, chipset in [("turing", "162"), ("ampere", "172"), ("ada", "192")]],
    *map(_qualcomm, ["630", "730", "750"]),
]
