#!/bin/sh
# run [BOARD...]: same inputs, same bytes. Builds SDK and binary of each board (default: all) from
# nothing in two folders, and compares them byte by byte.
#
# What may not matter differs: the path and its length, the temporary folder, the home, the time zone, the
# permissions that new files get, and how many compilers run at a time. Sources are those of this checkout
# as it stands, committed or not; downloads are shared, as make-sdk checks the sum of each.
#
# On a difference: exit status 1, the first one that there is, and both files in build/reproducible.

set -eu
LC_ALL=C
export LC_ALL
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cd "$root"
[ $# -gt 0 ] || set -- aarch64 armv7 armv6 riscv64 x86_64
for board; do
    [ -f "Toolchain/boards/$board.conf" ] || {
        echo "run: no board '$board'; there is: $(cd Toolchain/boards && echo *.conf | sed 's/\.conf//g')" >&2
        exit 2
    }
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
kept=build/reproducible
rm -rf "$kept"
mkdir -p build/downloads "$kept"

# Two checkouts whose paths have nothing in common below the first folder, nor one length.
first=$scratch/a
second=$scratch/another/checkout-with-a-longer-path/culvert
for checkout in "$first" "$second"; do
    mkdir -p "$checkout/build" "$checkout.tmp" "$checkout.home"
    git ls-files -z --cached --others --exclude-standard -- Package.swift Sources Tests Toolchain |
        tar -c -f - --null --files-from - | tar -x -f - -C "$checkout"
    ln -s "$root/build/downloads" "$checkout/build/downloads"
done

# build CHECKOUT BOARD JOBS ZONE MASK
build() (
    cd "$1"
    umask "$5"
    if ! JOBS=$3 TZ=$4 HOME=$1.home TMPDIR=$1.tmp \
        Toolchain/build-static "$2" -j "$3" >"$1.log" 2>&1; then
        cat "$1.log" >&2
        echo "FAIL  $2: does not build" >&2
        exit 1
    fi
)

# list FOLDER: each path in it with its kind, permissions, and the sum or the aim of a link.
list() (
    cd "$1"
    {
        find . -mindepth 1 -printf '%P\t%y %m %l\n'
        find . -type f -exec sha256sum {} + | sed 's,^\([0-9a-f]*\)  \./\(.*\),\2\t\1,'
    } | sort
)

# tell BOARD FILE NAME: where two files part.
tell() {
    offset=$(cmp -l "$first/$2" "$second/$2" 2>/dev/null | awk 'NR == 1 { print $1 }')
    mkdir -p "$kept/$1"
    cp "$first/$2" "$kept/$1/$3.first"
    cp "$second/$2" "$kept/$1/$3.second"
    if [ -z "$offset" ]; then
        echo "      one goes on where the other ends: $(wc -c <"$first/$2"), $(wc -c <"$second/$2") bytes"
        return
    fi
    echo "      from byte $offset on, $(cmp -l "$first/$2" "$second/$2" 2>/dev/null | wc -l) bytes in all:"
    for checkout in "$first" "$second"; do
        tail -c "+$offset" "$checkout/$2" | head -c 48 | od -A n -c | sed 's/^/        /'
        echo
    done
    echo "      both are in $kept/$1"
}

failed=0
fail() {
    echo "FAIL  $1"
    failed=1 same=no
}
for board; do
    begin=$(date +%s) same=yes
    build "$first" "$board" 1 UTC 022
    build "$second" "$board" "$(nproc)" Asia/Kathmandu 077
    sdk=build/sdk/culvert.artifactbundle/$board
    list "$first/$sdk" >"$scratch/first.list"
    list "$second/$sdk" >"$scratch/second.list"
    files=$(find "$first/$sdk" -type f | wc -l)
    if ! cmp -s "$scratch/first.list" "$scratch/second.list"; then
        name=$(diff "$scratch/first.list" "$scratch/second.list" |
            sed -n 's/^[<>] \(.*\)\t.*/\1/p' | head -n 1)
        fail "$board: the SDKs differ, first in $name:"
        grep -hF "$name$(printf '\t')" "$scratch/first.list" "$scratch/second.list" | sed 's/^/      /'
        [ ! -f "$first/$sdk/$name" ] || [ ! -f "$second/$sdk/$name" ] ||
            cmp -s "$first/$sdk/$name" "$second/$sdk/$name" || tell "$board" "$sdk/$name" "${name##*/}"
    fi
    binary=build/$board/culvert
    if ! cmp -s "$first/$binary" "$second/$binary"; then
        fail "$board: the binaries differ"
        tell "$board" "$binary" culvert
    fi
    sum=$(sha256sum <"$first/$binary" | cut -c1-16)
    [ "$same" = no ] ||
        echo "ok    $board: SDK ($files files) and binary ($sum...) twice the same, $(($(date +%s) - begin)) s"
done
exit "$failed"
