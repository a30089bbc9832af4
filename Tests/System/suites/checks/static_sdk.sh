#!/bin/sh
# run: what `make static-sdk` does with no official SDK, with the wrong one, with two, and with one.
#
# The official SDK is no part of this: a stand-in has its name and its triple, but behind it our own
# sysroot without libsodium, and Embedded Swift. So it shows that the script finds the SDK, that libsodium's
# headers reach the importer and its library the linker, and that the result is looked at and run; not that
# the official SDK's modules and libc build this package.

set -eu
LC_ALL=C
export LC_ALL
cd "$(dirname "$0")/../.."
root=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch" "$root/.build-static-sdk-aarch64"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9.]*\).*/\1/p' | head -n 1)
triple=aarch64-swift-linux-musl
failed=0

# expect WHAT STATUS PATTERN COMMAND...: its exit status, and a line of what it says.
expect() {
    what=$1 wanted=$2 pattern=$3
    shift 3
    status=0
    "$@" >"$scratch/said" 2>&1 || status=$?
    if [ "$status" -eq "$wanted" ] && grep -qE -e "$pattern" "$scratch/said"; then
        echo "ok    $what"
    else
        echo "FAIL  $what: status $status for $wanted, or no line like '$pattern' in:"
        sed 's/^/      /' "$scratch/said"
        failed=1
    fi
}

# stand_in VERSION: an SDK with the official one's name for that version of Swift.
stand_in() {
    name=swift-$1-RELEASE_static-linux-0.1.0
    bundle=$SDKS_PATH/$name.artifactbundle
    mkdir -p "$bundle/$triple"
    cat >"$bundle/info.json" <<EOT
{ "schemaVersion": "1.0", "artifacts": { "$name": {
  "type": "swiftSDK", "version": "0.1.0", "variants": [{ "path": "$triple" }] } } }
EOT
    cat >"$bundle/$triple/swift-sdk.json" <<EOT
{ "schemaVersion": "4.0", "targetTriples": {
  "$triple": { "sdkRootPath": "sysroot", "toolsetPaths": ["toolset.json"] } } }
EOT
    echo '{ "schemaVersion": "1.0" }' >"$bundle/$triple/toolset.json"
}

SDKS_PATH=$scratch/sdks
export SDKS_PATH
mkdir "$SDKS_PATH"
expect "a triple that there is not" 2 "not 'armv6-swift-linux-musl'" \
    Toolchain/static-sdk armv6-swift-linux-musl
expect "none installed: how to get it" 77 \
    "^  swift sdk install https://download\.swift\.org/.*_static-linux-.*\.gz --checksum " \
    Toolchain/static-sdk "$triple"
stand_in 1.2.3
expect "one of another release" 2 "^static-sdk: swift-1\.2\.3-RELEASE.* but the compiler is Swift $version" \
    Toolchain/static-sdk "$triple"
stand_in "$version"
expect "two" 2 "^static-sdk: several" Toolchain/static-sdk "$triple"
rm -rf "$SDKS_PATH/swift-1.2.3-"*

# Ours, retargeted: the last -target counts.
Toolchain/make-sdk aarch64
ours=build/sdk/culvert.artifactbundle/aarch64
there=$bundle/$triple
cp -R "$ours/sysroot" "$there/sysroot"
rm -r "$there/sysroot/usr/lib/libsodium.a" "$there/sysroot/usr/include/sodium.h" \
    "$there/sysroot/usr/include/sodium"
embedded=$(sed -n 's/.*"\([^"]*\)": { "sdkRootPath".*/\1/p' "$ours/swift-sdk.json")
sed "s/\"swiftCompiler\": { \"extraCLIOptions\": \[/&\"-target\", \"$embedded\", /" \
    "$ours/toolset.json" >"$there/toolset.json"
grep -q -- "\"-target\", \"$embedded\"" "$there/toolset.json"
expect "one: builds, is static, answers selftest" 0 \
    "^build/$triple/culvert: [0-9]* bytes, static; selftest: digest [0-9a-f]{16}" \
    Toolchain/static-sdk "$triple"
rm -rf "build/$triple"
exit "$failed"
