#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Run each fuzz target ($targets) over its corpus.
set -eu
for target in $targets; do
	corpus=$srcdir/corpus/${target#fuzz_}
	if grep -q LLVMFuzzerRunDriver "$target" 2>/dev/null; then
		"./$target" -runs=0 "$corpus"
	else
		printf '%s: ' "$target"
		"./$target" "$corpus"
	fi
done
