#!/bin/sh
# The core's tests under the address and the thread sanitizer, each in a build folder of its own, and
# the program with four workers under the latter.
#
# Left out under the thread sanitizer: the trie's tests, which have one thread and take minutes there.
set -eu
cd "$(dirname "$0")/.."

# run SANITIZER TEST-OPTION...
run() {
  sanitizer=$1
  shift
  echo "building the tests with the $sanitizer sanitizer"
  # The linker warns of every helper that the sanitizer brings: quiet unless it fails.
  Toolchain/quietly swift build --build-tests --scratch-path ".build-$sanitizer" \
    --sanitize="$sanitizer"
  swift test --skip-build --quiet --scratch-path ".build-$sanitizer" --sanitize="$sanitizer" \
    --filter '^CulvertTests\.' "$@"
}

# Each operation costs ten to thirty times what it does without.
export CULVERT_SIMULATION_SEEDS=6 REASSEMBLY_STREAMS=800
run_address() { DOOR_COUNT=10000 run address; }
run_thread() { DOOR_COUNT=5000 run thread --skip AllowedIPsTests; }

# A report makes the program end with status 66, which its test takes for a failure.
#
# Swift tells the sanitizer that a mutating call on a value behind a pointer writes all of that value,
# at its address; here each part of a value has its own lock. Those calls lead to nothing (AnnotateNoOp
# is the sanitizer's own), and the loads and stores themselves are watched.
run_workers() {
  echo "building the program with the thread sanitizer"
  Toolchain/quietly swift build -c release --product culvert --scratch-path .build-tsan \
    --sanitize=thread -Xlinker --wrap=__tsan_external_write \
    -Xlinker --defsym=__wrap___tsan_external_write=AnnotateNoOp
  TSAN_OPTIONS="exitcode=66 halt_on_error=0" \
    Tests/Interop/run --program .build-tsan/release/culvert -j 1 -k 'workers.*'
}

# LeakSanitizer cannot tell what Swift's runtime keeps on purpose.
export ASAN_OPTIONS=detect_leaks=0
case ${1-} in
  '')
    run_address
    run_thread
    run_workers
    ;;
  address) run_address ;;
  thread) run_thread ;;
  workers) run_workers ;;
  *)
    echo "usage: sanitize [address|thread|workers]" >&2
    exit 2
    ;;
esac
