#!/bin/sh
# Takes the symbols out of programs, and checks that no program is too large.
# Usage: sh split-symbols.sh FROM PROGRAMS SYMBOLS NAME…
#
# Makes PROGRAMS/NAME, which is FROM/NAME without symbols, and SYMBOLS/NAME.debug with them. The
# program has the name and a checksum of that file, and both have one build id, so that backtraces
# and debuggers find the file if it is next to the program.
set -eu

# 16 MB. The smaller of its two meanings.
max_bytes=16000000

from=$1 programs=$2 symbols=$3
shift 3
mkdir -p "$programs" "$symbols"
too_large=
for name in "$@"; do
    debug=$symbols/$name.debug
    objcopy --only-keep-debug "$from/$name" "$debug"
    # It would be executable otherwise, as the program is.
    chmod 644 "$debug"
    objcopy --strip-all --add-gnu-debuglink="$debug" "$from/$name" "$programs/$name"
    bytes=$(wc -c < "$programs/$name")
    echo "$name: $bytes bytes"
    if [ "$bytes" -gt "$max_bytes" ]; then too_large="$too_large $name"; fi
done
if [ -n "$too_large" ]; then
    echo "larger than $max_bytes bytes:$too_large" >&2
    exit 1
fi
