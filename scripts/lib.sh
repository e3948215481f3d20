# shellcheck shell=bash disable=SC2034
# What the scripts in this folder share; sourced by them, never run.
#
# Each script stays runnable alone on a machine where nothing was installed by hand: it names the
# Debian packages it uses with `packages` and calls `rust` before cargo.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { echo "${0##*/}: $*" >&2; }

die() {
    say "$*"
    exit 1
}

# usage: the header of the script that runs, from its second line to the first that is no comment.
usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"; }

need_root() {
    [ "$(id -u)" = 0 ] || die "must run as root ($1); try: sudo $0"
}

# packages NAME...: installs those Debian packages that are missing, as root, with apt.
packages() {
    local name missing=()
    command -v dpkg-query >/dev/null || die "this is no Debian or Ubuntu: install by hand what these packages hold: $*"
    for name in "$@"; do
        case $(dpkg-query -W -f '${Status}' "$name" 2>/dev/null || true) in
        'install ok installed') ;;
        *) missing+=("$name") ;;
        esac
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    need_root "these packages are missing: ${missing[*]}"
    say "installing ${missing[*]}"
    # The lists may be absent (a container image) or older than the mirror: one update, one more try.
    apt_install "${missing[@]}" 2>/dev/null || {
        apt-get update -qq >&2
        apt_install "${missing[@]}"
    }
}

# Services that a package brings are not started: nothing here needs one, and a registry that starts
# by itself takes a port.
apt_install() {
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made=1
    fi
    local rc=0
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=600 "$@" >&2 || rc=$?
    [ -z "$made" ] || rm -f "$policy"
    return "$rc"
}

# rust: cargo and rustc of a version that the workspace accepts, installed with rustup if there is none.
#
# Debian has a package of rustup from trixie on, which needs nothing but the mirror. Before that the
# project's own installer is used, which needs curl and the network.
rust() {
    export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    if ! command -v cargo >/dev/null; then
        if ! command -v rustup >/dev/null; then
            packages gcc libc6-dev
            install_rustup
        fi
        rustup default >/dev/null 2>&1 || rustup toolchain install stable --profile minimal >&2
    fi
    cargo --version >/dev/null || die 'cargo is there but does not run; try: rustup default stable'
}

install_rustup() {
    need_root 'cargo and rustup are missing'
    [ -n "$(ls /var/lib/apt/lists/*_Packages* 2>/dev/null)" ] || apt-get update -qq >&2
    if apt-cache show rustup >/dev/null 2>&1; then
        packages rustup
        rustup default stable >&2
    else
        say 'this suite has no package of rustup: using its own installer'
        packages curl ca-certificates
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -y --profile minimal --default-toolchain stable --no-modify-path >&2
    fi
}

# rust_components NAME...: parts of the toolchain that the minimal profile leaves out.
rust_components() {
    local name
    for name in "$@"; do
        case $name in
        rustfmt) cargo fmt --version >/dev/null 2>&1 && continue ;;
        clippy) cargo clippy --version >/dev/null 2>&1 && continue ;;
        esac
        rustup component add "$name" >&2
    done
}
