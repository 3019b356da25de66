#!/bin/sh
# Installs what building and running tpgm needs and this machine lacks: a linker, a Rust toolchain and, on Linux
# without any Vulkan driver, the software one. Anything already there is left as it is.
#
#   tools/setup.sh          for `make demo`
#   tools/setup.sh test     and Python, which one test runs a script with, and MPI
#   tools/setup.sh lint     rustfmt and clippy too, and MPI
#
# Without the feature mpi (make test FEATURES=), MPI is not installed.
set -eu

say() { echo "setup: $*" >&2; }
fail() {
    say "$@"
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Whether packages can be installed here: apt-get, and the right to use it.
can_apt() { has apt-get && { [ "$(id -u)" = 0 ] || has sudo; }; }

updated=no
apt_update() {
    [ "$updated" = no ] || return 0
    updated=yes
    # One broken source must not keep packages from the others.
    as_root apt-get update -q >&2 || say "apt-get update had errors; going on with the package lists there are"
}

# apt_install WHAT-FOR PACKAGE...
apt_install() {
    what=$1
    shift
    can_apt || fail "$what is missing. Install it with your system's package manager (on Debian: apt-get install $*)," \
        "then try again"
    say "$what is missing: installing $*"
    apt_update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >&2 ||
        fail "could not install $*: see the messages of apt-get above"
}

linux() { [ "$(uname -s)" = Linux ]; }

ensure_linker() {
    case $(uname -s) in
    MINGW* | MSYS* | CYGWIN*) return 0 ;; # the toolchain finds Visual Studio's linker by itself
    esac
    has cc && return 0
    [ "$(uname -s)" != Darwin ] || fail "the C compiler is missing: run xcode-select --install, then try again"
    apt_install "a C compiler and linker" build-essential
}

# Where rustup puts cargo; a shell that was open before the installation does not look there yet.
PATH=$PATH:${CARGO_HOME:-${HOME:-}/.cargo}/bin
export PATH

install_rust() {
    if can_apt; then
        apt_update
        # Debian's cargo package is older than this crate's Rust; its rustup package fetches a current one.
        if LC_ALL=C apt-cache policy rustup 2>/dev/null | grep -q 'Candidate: [0-9]'; then
            apt_install "Rust" rustup
            return
        fi
        has curl || apt_install "curl, to fetch Rust," curl ca-certificates
    fi
    has curl || fail "Rust is missing, and curl to fetch it too: install Rust from https://rustup.rs, then try again"
    say "Rust is missing: installing it with rustup"
    installer=$(mktemp)
    trap 'rm -f "$installer"' EXIT
    curl --proto '=https' --tlsv1.2 -sSf https://static.rust-lang.org/rustup/rustup-init.sh -o "$installer" ||
        fail "could not download rustup: install Rust from https://rustup.rs, then try again"
    sh "$installer" -y -q --profile minimal --no-modify-path >&2 || fail "rustup could not install Rust"
}

# at_least HAVE WANT: whether version HAVE (1.88.0) is WANT (1.88) or newer
at_least() {
    awk -v have="$1" -v want="$2" 'BEGIN {
        split(have, h, "."); split(want, w, ".")
        exit !(h[1] + 0 > w[1] + 0 || (h[1] + 0 == w[1] + 0 && h[2] + 0 >= w[2] + 0))
    }'
}

ensure_rust() {
    has cargo || has rustup || install_rust
    # A fresh rustup has no toolchain yet; then its cargo only prints an error.
    if has rustup && ! cargo --version >/dev/null 2>&1; then
        say "rustup has no toolchain: installing stable"
        rustup toolchain install stable --profile minimal >&2 || fail "rustup could not install the stable toolchain"
        # Which toolchain is the default is the user's choice, where there is one.
        cargo --version >/dev/null 2>&1 || rustup default stable >&2 || fail "rustup could not choose stable"
    fi
    has cargo || fail "cargo is not on the PATH: install Rust from https://rustup.rs, then try again"
    version=$(cargo --version 2>/dev/null | awk '{ print $2 }')
    [ -n "$version" ] || fail "cargo does not run: cargo --version says why"
    wanted=$(sed -n 's/^rust-version *= *"\(.*\)".*/\1/p' "$(dirname "$0")/../Cargo.toml")
    at_least "$version" "$wanted" || fail "cargo $version is too old, $wanted is needed:" \
        "run rustup update stable, or replace your system's Rust by the one from https://rustup.rs"
}

ensure_lint_tools() {
    if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then return 0; fi
    has rustup || fail "rustfmt or clippy is missing: install them beside your cargo, then try again"
    say "installing rustfmt and clippy"
    rustup component add rustfmt clippy >&2 || fail "rustup could not install rustfmt and clippy"
}

# The folders in which the Vulkan loader looks for drivers, one per line.
icd_dirs() {
    printf '%s\n' "${XDG_CONFIG_HOME:-${HOME:-}/.config}" /etc/xdg /usr/local/etc /etc \
        "${XDG_DATA_HOME:-${HOME:-}/.local/share}" /usr/local/share /usr/share /run/opengl-driver/share
    printf '%s\n' "${XDG_CONFIG_DIRS:-}:${XDG_DATA_DIRS:-}" | tr ':' '\n' | sed '/^$/d'
}

has_driver() {
    [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}${VK_ADD_DRIVER_FILES:-}" ] || return 0
    found=$(icd_dirs | while IFS= read -r dir; do
        for json in "$dir"/vulkan/icd.d/*.json; do
            [ ! -f "$json" ] || echo "$json"
        done
    done)
    [ -n "$found" ]
}

has_loader() {
    for lib in /usr/lib/libvulkan.so.1 /usr/lib64/libvulkan.so.1 /usr/lib/*-linux-*/libvulkan.so.1 \
        /usr/local/lib/libvulkan.so.1 /lib/libvulkan.so.1 /lib/*-linux-*/libvulkan.so.1; do
        [ ! -e "$lib" ] || return 0
    done
    PATH=$PATH:/sbin:/usr/sbin
    ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1'
}

ensure_vulkan() {
    linux || return 0 # macOS and Windows bring Metal and DirectX
    if has_driver; then
        # Whoever runs a system without /usr/lib keeps the loader elsewhere and LD_LIBRARY_PATH points there.
        has_loader || [ -n "${LD_LIBRARY_PATH:-}" ] || apt_install "the Vulkan loader" libvulkan1
        return 0
    fi
    if ! can_apt; then
        fail "no Vulkan driver was found. Install your GPU's, or the software driver: mesa-vulkan-drivers libvulkan1" \
            "(Debian, Ubuntu), mesa-vulkan-drivers vulkan-loader (Fedora), vulkan-swrast vulkan-icd-loader (Arch)," \
            "mesa-vulkan-swrast vulkan-loader (Alpine)"
    fi
    apt_install "a Vulkan driver" mesa-vulkan-drivers libvulkan1
}

# The library and the headers that belong to it, wherever bindgen finds them.
has_libclang() {
    [ "$(uname -s)" != Darwin ] || return 0 # comes with the C compiler
    [ -z "${LIBCLANG_PATH:-}" ] || return 0
    for headers in /usr/lib/llvm*/lib/clang/*/include /usr/lib/clang/*/include /usr/lib64/clang/*/include; do
        [ -e "$headers/stddef.h" ] || continue
        for lib in /usr/lib/llvm*/lib/libclang*.so* /usr/lib/*-linux-*/libclang-*.so* /usr/lib/libclang.so* \
            /usr/lib64/libclang.so* /usr/lib64/llvm*/lib/libclang.so*; do
            [ ! -e "$lib" ] || return 0
        done
    done
    return 1
}

# For the feature mpi: a library with its headers, its launcher, and libclang, which reads the headers.
ensure_mpi() {
    case "${FEATURES-mpi}" in *mpi*) ;; *) return 0 ;; esac
    missing=
    has mpicc || missing="$missing libopenmpi-dev"
    has mpirun || missing="$missing openmpi-bin"
    has_libclang || missing="$missing libclang-dev"
    [ -n "$missing" ] || return 0
    can_apt || fail "MPI or libclang is missing. Install them with your system's package manager (on Debian:" \
        "apt-get install$missing; on macOS: brew install open-mpi), or leave them out: make test FEATURES="
    # shellcheck disable=SC2086 # a list of packages
    apt_install "MPI" $missing
}

ensure_python() { has python3 || apt_install "Python" python3; }

case ${1:-} in
'' | test) ;;
lint) ;;
*)
    echo "usage: $0 [test|lint]" >&2
    exit 2
    ;;
esac
ensure_linker
ensure_rust
if [ "${1:-}" = lint ]; then ensure_lint_tools; else ensure_vulkan; fi
[ "${1:-}" != test ] || ensure_python
[ -z "${1:-}" ] || ensure_mpi
