# Read by make-deb, make-tarball and flash, after ../common.sh; never run.
# shellcheck shell=sh disable=SC2154  # toolchain and root are of ../common.sh

package=$toolchain/package

# choose_board NAME: the board's binary, its version and the commit's date; or stop.
# shellcheck disable=SC2034  # they are used by the script that sources this
choose_board() {
    case $1 in
        aarch64 | armv7 | armv6 | riscv64 | x86_64) board=$1 ;;
        *) die "no board '$1'; there is: aarch64 armv7 armv6 riscv64 x86_64" ;;
    esac
    program=$root/build/$board/culvert
    # VERSION is for trying an upgrade; what is published has the program's own.
    version=${VERSION:-$(sed -n 's/.*var version: StaticString { "\([^"]*\)" }.*/\1/p' \
        "$root/Sources/culvert/Help.swift")}
    [ -n "$version" ] || die "no version in Sources/culvert/Help.swift"
    # Same commit, same bytes: no file is newer than the commit.
    if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
        SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct 2>/dev/null) ||
            die "no commit to take the date from; set SOURCE_DATE_EPOCH"
    fi
    export SOURCE_DATE_EPOCH
}

need_program() {
    [ -f "$program" ] || die "build/$board/culvert is missing; run make $board"
}

# files_for SYSTEM: the lines of the list that are for it, as MODE FILE TARGET.
files_for() {
    awk -v system_name="$1" '!/^#/ && NF == 4 {
        count = split($4, systems, ",")
        for (i = 1; i <= count; i++) if (systems[i] == system_name) print $1, $2, $3
    }' "$package/files"
}

# content FILE: a file of the list as it is installed.
content() {
    case $1 in
        culvert) cat "$program" ;;
        copyright) cat "$package/debian/copyright" ;;
        culvert.8)
            sed -e "s/^\.Dd DATE/.Dd $(date -u -d "@$SOURCE_DATE_EPOCH" '+%B %-d, %Y')/" \
                -e "s/^\.Os .*/.Os \"Culvert $version\"/" -e '/^\.\\" DATE/d' "$package/$1"
            ;;
        *) cat "$package/$1" ;;
    esac
}
