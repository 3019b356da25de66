"""What Mesa's pretended kernel drivers ("drm-shim") need before they serve today's Vulkan drivers and chips.

Mesa builds them for its own tests, each along with its driver. Here they are built alone, and answer what they do not know yet.
Debian's source of release trixie (Mesa 25.0) is edited in place.
"""

import re
from collections.abc import Callable
from pathlib import Path

LIBRARIES = ["amdgpu", "nouveau", "freedreno", "intel"]

# Targets for ninja.
TARGETS = [
    "src/amd/drm-shim/libamdgpu_noop_drm_shim.so",
    "src/nouveau/drm-shim/libnouveau_noop_drm_shim.so",
    "src/freedreno/drm-shim/libfreedreno_noop_drm_shim.so",
    "src/libintel_noop_drm_shim.so",
]

_WITHOUT = "glx egl gbm gles1 gles2 shared-glapi llvm zstd lmsensors xmlconfig valgrind libunwind"
OPTIONS = [
    "--buildtype=release",
    "-Dtools=drm-shim",
    "-Dopengl=false",
    *[f"-D{kind}=" for kind in ("gallium-drivers", "vulkan-drivers", "platforms", "video-codecs")],
    *[f"-D{part}=disabled" for part in _WITHOUT.split()],
]

PACKAGES = (
    "dpkg-dev meson ninja-build gcc g++ pkgconf libdrm-dev libelf-dev libexpat1-dev zlib1g-dev python3-mako python3-yaml bison "
    "flex libvulkan-dev"
).split()

# The shims have folders of their own, except Intel's, which is a file among Intel's tools.
_FOLDERS = """
  inc_amd = include_directories('amd/common', 'amd')
  inc_intel = include_directories('intel')
  subdir('amd/drm-shim')
  subdir('nouveau/drm-shim')
  subdir('freedreno/drm-shim')
"""

_INTEL = """
if with_tools.contains('drm-shim')
  no_override_init_args = []
  foreach part : ['genxml', 'dev', 'isl', 'common']
    subdir('intel' / part)
  endforeach
  shared_library('intel_noop_drm_shim',
    ['intel/tools/intel_noop_drm_shim.c', intel_dev_serialize_src],
    include_directories : [inc_include, inc_src, inc_intel],
    dependencies : [dep_libdrm, dep_drm_shim, idep_mesautil, idep_libintel_common, idep_intel_dev, idep_parson],
    gnu_symbol_visibility : 'hidden')
endif
"""

# Ada (0x190) has engines of classes that the shim has no names for: copy (Ampere's second), 3D and compute.
_ADA = {"AMPERE_DMA_COPY_A": "0xc7b5", "GA102_3D_CLASS": "0xc997", "GA102_COMPUTE_CLASS": "0xc9c0"}

# What Turnip asks an Adreno's kernel driver: highest bank bit, ray tracing, UBWC's swizzle, macrotile mode, base of the trap
# range, partially resident regions.
_ADRENO = {"0x10": "15", "0x11": "1", "0x12": "6", "0x13": "1", "0x14": "0x1fffffffff000ULL", "0x15": "0"}
_SET_PARAM = """static int
refuse_new_parameters(int fd, unsigned long request, void *arg)
{
   return ((struct drm_msm_param *)arg)->param >= 0x15 ? -EINVAL : 0;
}

"""


def _before(anchor: str, text: str) -> Callable[[str], str]:
    return lambda source: source.replace(anchor, text + anchor, 1)


def _after(anchor: str, text: str) -> Callable[[str], str]:
    return lambda source: source.replace(anchor, anchor + text, 1)


def _like_ampere(source: str) -> str:
    """Ada wherever there is Ampere (0x170), with its own classes."""

    def ada(match: re.Match) -> str:
        assignment, name = match.group(1), match.group(2)
        own = f"case 0x190: {assignment} = {_ADA[name]}; break;\n" if name else "case 0x190:\n"
        return own + match.group(0)

    return re.sub(r"case 0x170:(?:\s*(\S+oclass\[idx\]\.oclass) = (\w+);)?", ada, source)


_EDITS: list[tuple[str, Callable[[str], str]]] = [
    ("src/meson.build", _after("  subdir('drm-shim')\n", _FOLDERS)),
    ("src/meson.build", lambda source: re.sub(r"if with_any_intel\n  subdir\('intel'\)\nendif\n", _INTEL, source)),
    # RADV of Mesa 26 asks for a newer kernel.
    ("src/amd/drm-shim/amdgpu_noop_drm_shim.c", lambda s: re.sub(r"(version_minor = )\d+;", r"\g<1>64;", s)),
    ("src/nouveau/drm-shim/nouveau_noop.c", _like_ampere),
    (
        "src/freedreno/drm-shim/freedreno_noop.c",
        _before(
            "   case MSM_PARAM_VA_START:", "".join(f"   case {n}: gp->value = {v}; return 0;\n" for n, v in _ADRENO.items())
        ),
    ),
    ("src/freedreno/drm-shim/freedreno_noop.c", _before("static ioctl_fn_t driver_ioctls[]", _SET_PARAM)),
    (
        "src/freedreno/drm-shim/freedreno_noop.c",
        lambda s: s.replace("[DRM_MSM_SET_PARAM] = msm_ioctl_noop", "[DRM_MSM_SET_PARAM] = refuse_new_parameters"),
    ),
]


def edit(mesa: Path) -> None:
    """Edits the source in `mesa`. Errors if it is not the one that the edits were made for."""
    for name, change in _EDITS:
        path = mesa / name
        before = path.read_text()
        after = change(before)
        if after == before:
            raise RuntimeError(f"{path} is not as expected: adapt tools/compile_everywhere/mesa_shims.py to this Mesa")
        path.write_text(after)
