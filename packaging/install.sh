#!/bin/sh
# Installs Pensieve from an archive into a prefix, for the user who runs it: no root is needed.
# `sh install.sh --help` says how. Everything is in functions, so that half a script does nothing.

usage() {
    cat <<'EOF'
usage: install.sh [--from PLACE] [--prefix DIR] [--version VERSION] [--cuda [--nvidia]] [--uninstall]

  --from PLACE       where the archives and SHA256SUMS are: a folder, or the address of one (https://…);
                     default: $PENSIEVE_BASE_URL, else the folder of this script
  --prefix DIR       where to install: DIR/bin/pensieve and so on; default: $PENSIEVE_PREFIX, else ~/.local
  --version VERSION  which, if there are archives of several
  --cuda             Linux: the archive for NVIDIA GPUs (driver 580 or later, CUDA 13)
  --nvidia           with --cuda: fetch NVIDIA's libraries from PyPI, about 2 GB (python3 with pip)
  --uninstall        remove what was installed in the prefix
EOF
}

fail() {
    printf 'install.sh: %s\n' "$1" >&2
    exit 1
}

# What archives for this machine are called.
target() {
    system=$(uname -s) machine=$(uname -m)
    case "$system $machine" in
        'Darwin arm64') ;;
        'Darwin x86_64')
            # A shell under Rosetta is told so.
            [ "$(sysctl -n hw.optional.arm64 2>/dev/null)" = 1 ] ||
                fail 'Pensieve needs a Mac with Apple Silicon (M1 or later)'
            ;;
        'Linux x86_64') ;;
        *) fail "there is no archive for $system on $machine: build it from source (README.md)" ;;
    esac
    if [ "$system" = Darwin ]; then
        [ -z "$cuda" ] || fail '--cuda is for Linux'
        release=$(sw_vers -productVersion 2>/dev/null) || release=14
        [ "${release%%.*}" -ge 14 ] || fail "macOS 14 or later is needed, this is $release"
        echo macos-arm64
        return
    fi
    # Where getconf says nothing, there is no glibc.
    libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || libc=
    case "$libc" in
        'glibc '*) ;;
        *) fail 'glibc 2.36 or later is needed, and this system has another C library' ;;
    esac
    libc=${libc#glibc }
    minor=${libc#*.}
    [ "${libc%%.*}" -gt 2 ] || [ "${minor%%.*}" -ge 36 ] ||
        fail "glibc 2.36 or later is needed (Debian 12, Ubuntu 24.04), this is $libc"
    echo "linux-x86_64${cuda:+-cuda}"
}

# fetch NAME FILE: NAME out of $from.
fetch() {
    case "$from" in
        http://* | https://*) ;;
        *)
            [ -f "$from/$1" ] || fail "$from has no $1"
            cp "$from/$1" "$2"
            return
            ;;
    esac
    url=${from%/}/$1
    if command -v curl >/dev/null; then
        curl --fail --silent --show-error --location --retry 3 --output "$2" "$url"
    elif command -v wget >/dev/null; then
        wget --quiet --tries 3 --output-document "$2" "$url"
    elif command -v python3 >/dev/null; then
        python3 -c 'import sys, urllib.request as u; u.urlretrieve(sys.argv[1], sys.argv[2])' "$url" "$2"
    else
        fail 'curl, wget or python3 is needed to fetch'
    fi || fail "cannot fetch $url"
}

sha256() {
    if command -v sha256sum >/dev/null; then
        sha256sum <"$1"
    elif command -v shasum >/dev/null; then
        shasum -a 256 <"$1"
    else
        fail 'sha256sum or shasum is needed to check the archive'
    fi | cut -d ' ' -f 1
}

# Takes the files away that the list of an installation names.
uninstall() {
    list=$prefix/lib/pensieve/installed
    [ -f "$list" ] || fail "nothing was installed in $prefix"
    while IFS= read -r name; do
        case "/$name/" in
            *'/../'*) fail "$list names $name" ;;
        esac
        rm -f "$prefix/$name"
    done <"$list"
    rm -rf "$prefix/lib/pensieve" "$prefix/share/doc/pensieve"
    echo "removed from $prefix"
}

install() {
    name_of=$(target)
    work=$(mktemp -d "$prefix/.pensieve.XXXXXX") || fail "cannot write in $prefix"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    fetch SHA256SUMS "$work/sums"
    # The name's start and end are known; between them is the version.
    archives=$(while read -r _ name; do
        case "$name" in
            */*) ;;
            "pensieve-${version:-[0-9]*}-$name_of.tar.gz") echo "$name" ;;
            pensieve-[0-9]*-"$name_of".tar.gz) [ -n "$version" ] || echo "$name" ;;
        esac
    done <"$work/sums")
    case "$archives" in
        '') fail "$from has no archive for $name_of${version:+ of version $version}" ;;
        *'
'*) fail "$from has several: choose one with --version
$archives" ;;
    esac
    archive=$archives
    expected=$(while read -r sum name; do
        [ "$name" != "$archive" ] || echo "$sum"
    done <"$work/sums")
    fetch "$archive" "$work/archive"
    found=$(sha256 "$work/archive")
    [ "$found" = "$expected" ] ||
        fail "$archive is damaged: its SHA-256 is $found, expected $expected; nothing was installed"
    tar -xzf "$work/archive" -C "$work" || fail "cannot unpack $archive"
    new=$work/${archive%.tar.gz}
    [ -f "$new/bin/pensieve" ] || fail "$archive has no program in it"
    if [ -z "$cuda" ]; then
        "$new/bin/pensieve" --version >/dev/null || fail 'the program does not start here; nothing was installed'
    fi

    (cd "$new" && find bin share -type f) >"$new/lib/pensieve/installed" || fail 'find does not work'
    mkdir -p "$prefix/bin" "$prefix/lib" "$prefix/share"
    old=$prefix/lib/pensieve
    if [ -d "$old" ]; then
        # NVIDIA's libraries are large, and not of the archive.
        if [ -n "$cuda" ] && [ -d "$old/nvidia" ]; then
            mv "$old/nvidia" "$new/lib/pensieve/nvidia"
        fi
        mv "$old" "$work/old"
    fi
    mv "$new/lib/pensieve" "$old"
    while IFS= read -r name; do
        mkdir -p "$(dirname "$prefix/$name")"
        mv -f "$new/$name" "$prefix/$name"
    done <"$old/installed"
    # What only the version before had.
    if [ -f "$work/old/installed" ]; then
        while IFS= read -r name; do
            grep -Fqx -e "$name" "$old/installed" || rm -f "$prefix/$name"
        done <"$work/old/installed"
    fi

    if [ -n "$nvidia" ]; then
        python3 -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
            --upgrade --target "$old" --requirement "$old/nvidia.txt" ||
            fail "NVIDIA's libraries could not be installed; again with: install.sh --cuda --nvidia"
    fi
    if [ -n "$cuda" ] && ! "$prefix/bin/pensieve" --version >/dev/null 2>&1; then
        # The loader names the first library that it lacks.
        lacks=$("$prefix/bin/pensieve" --version 2>&1 | sed -n 's/.*libraries: \([^:]*\):.*/\1/p')
        case "$lacks" in
            libcuda.so*) advice="that is of NVIDIA's driver (580 or later)" ;;
            *) advice="it needs NVIDIA's driver (580 or later) and, from PyPI, its libraries; --nvidia fetches those" ;;
        esac
        echo "The program is installed, but does not start${lacks:+ without $lacks}: $advice."
    fi
    echo "installed $archive in $prefix"
    case ":$PATH:" in
        *":$prefix/bin:"*) ;;
        *) echo "$prefix/bin is not in PATH; add it: export PATH=\"$prefix/bin:\$PATH\"" ;;
    esac
}

main() {
    set -eu
    umask 022
    from=${PENSIEVE_BASE_URL:-}
    prefix=${PENSIEVE_PREFIX:-${HOME:-}/.local}
    version='' cuda='' nvidia='' remove=''
    while [ $# -gt 0 ]; do
        case "$1" in
            --from | --prefix | --version)
                [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 needs a value"
                case "$1" in
                    --from) from=$2 ;;
                    --prefix) prefix=$2 ;;
                    --version) version=$2 ;;
                esac
                shift
                ;;
            --cuda) cuda=yes ;;
            --nvidia) nvidia=yes ;;
            --uninstall) remove=yes ;;
            -h | --help) usage && exit 0 ;;
            *) usage >&2 && fail "$1 is not known" ;;
        esac
        shift
    done
    [ -z "$nvidia" ] || [ -n "$cuda" ] || fail '--nvidia goes with --cuda'
    [ "$prefix" != /.local ] || fail 'HOME is not set: give --prefix'
    mkdir -p "$prefix" || fail "cannot make $prefix"
    prefix=$(cd "$prefix" && pwd)
    if [ -n "$remove" ]; then
        uninstall
        return
    fi
    if [ -z "$from" ]; then
        from=$(dirname "$0")
        [ -f "$from/SHA256SUMS" ] || fail 'say with --from where the archives are'
    fi
    install
}

main "$@"
