#!/bin/bash
# run: the example of docs/EMBEDDING.md, exactly as it stands there.
#
# Takes the program's files out of the document (each code block whose first line is a comment with
# a file's name), builds them in build/embedding as a package of their own that depends on this one,
# runs it, and compares what it prints with what the document says it prints.
set -eu
cd "$(dirname "$0")/../.."
document=docs/EMBEDDING.md
output=build/embedding

die() {
  echo "embedding: $*" >&2
  exit 1
}

mkdir -p "$output/program"
# Old files would be built along.
find "$output/program" -name '*.swift' -not -path '*/.build/*' -delete

# block NAME: the code block of the document that begins with `// NAME`.
block() {
  awk -v name="// $1" '
    /^```/ { inside = !inside; first = inside; next }
    inside && first { taken = $0 == name; first = 0; next }
    inside && taken { print }
  ' "$document"
}

for file in Package.swift Sources/echo/main.swift; do
  mkdir -p "$output/program/$(dirname "$file")"
  block "$file" >"$output/program/$file"
  [ -s "$output/program/$file" ] || die "$document has no block for $file"
done
# The document cannot know where its reader has put this package.
grep -q 'path: "../culvert"' "$output/program/Package.swift" || die "where is the dependency?"
sed -i "s|path: \"../culvert\"|path: \"$PWD\"|" "$output/program/Package.swift"

Toolchain/quietly swift build --package-path "$output/program" || die "the program does not build"
# What follows `$ swift run echo` in the block that shows it.
awk '/^```/ { inside = 0 } inside { print } /^\$ swift run echo$/ { inside = 1 }' "$document" \
  >"$output/expected"
[ -s "$output/expected" ] || die "$document does not say what the program prints"
SWIFT_BACKTRACE=enable=no timeout 60 "$output/program/.build/debug/echo" >"$output/printed" ||
  die "the program failed; it has printed: $(cat "$output/printed")"
diff -u "$output/expected" "$output/printed" || die "the program prints something else"
echo "embedding: the program of $document builds and prints what it says"
