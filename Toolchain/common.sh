# Sourced by the scripts in this folder, never run. Sets toolchain and root.
# shellcheck shell=sh source-path=SCRIPTDIR

LC_ALL=C
export LC_ALL
toolchain=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# shellcheck disable=SC2034
root=$(dirname -- "$toolchain")

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# need TOOL [PACKAGE]: stop if TOOL is missing.
need() {
    command -v "$1" >/dev/null 2>&1 || die "missing: ${2:-$1}; run make deps"
}

# The Swift toolchain's own clang compiles everything: it is present wherever swiftc is, and unlike
# Debian's compilers it is the same on every machine that has this Swift release.
# shellcheck disable=SC2034
find_compilers() {
    command -v swiftc >/dev/null 2>&1 ||
        die "missing: swiftc on PATH; install Swift 6.3 (swift.org)"
    # swiftc may be a link: the other tools are beside its target. If it is a version manager's
    # proxy, the compiler itself reports where its library is, and from that follows its bin folder.
    bin=$(dirname -- "$(readlink -f -- "$(command -v swiftc)")")
    if [ ! -x "$bin/clang" ]; then
        bin=$(swiftc -print-target-info |
            sed -n 's,.*"runtimeResourcePath" *: *"\(.*\)/lib/swift".*,\1/bin,p')
    fi
    clang=$bin/clang
    llvm_ar=$bin/llvm-ar
    llvm_nm=$bin/llvm-nm
    llvm_objdump=$bin/llvm-objdump
    llvm_objcopy=$bin/llvm-objcopy
    for tool in "$clang" "$llvm_ar" "$llvm_nm" "$llvm_objdump" "$llvm_objcopy" "$bin/ld.lld"; do
        [ -x "$tool" ] ||
            die "missing: ${tool##*/} beside swiftc; install the whole Swift toolchain"
    done
}

# load_board NAME: sets the variables of boards/NAME.conf.
# shellcheck disable=SC2034  # they are used by the script that sources this
load_board() {
    case $1 in
        '' | *[!a-z0-9_]*) die "not a board name: '$1'" ;;
    esac
    board=$1
    if [ ! -f "$toolchain/boards/$board.conf" ]; then
        known=$(cd "$toolchain/boards" && echo *.conf | sed 's/\.conf//g')
        die "unknown board '$board'; there is: $known"
    fi
    # shellcheck source=boards/x86_64.conf
    . "$toolchain/boards/$board.conf"
}
