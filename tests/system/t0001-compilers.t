#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 1500
# The tree builds with gcc and clang without a warning, and unit tests pass
# under the address, leak and undefined-behaviour sanitizers.
set -eu
. "$(dirname "$0")/../lib/build.sh"

plan 3

build_in gcc --enable-werror CC=gcc
ok "gcc builds the tree with -Werror"
build_in clang --enable-werror CC=clang
ok "clang builds the tree with -Werror"

build_in sanitize --enable-werror --enable-sanitize CC=gcc
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0
export UBSAN_OPTIONS=print_stacktrace=1
check_in sanitize
ok "unit tests and fuzz corpora pass under ASan, UBSan and LSan"
