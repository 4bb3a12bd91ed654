#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The VMM's device model under the thread sanitizer: the tests drive it from one
# thread, as a vCPU would, while the device thread runs.
set -eu
. "$(dirname "$0")/../lib/build.sh"
tests="vmm_core_test pci_test virtqueue_test virtio_test blk_test net_test fs_test"

plan 7
mkdir -p "$build_root/threads"
[ -x "$top/configure" ] && [ "$top/configure" -nt "$top/configure.ac" ] ||
	run_logged autogen "$top/autogen.sh"
cd "$build_root/threads"
[ -f config.status ] ||
	run_logged configure-threads "$top/configure" --enable-werror --enable-sanitize=thread CC=gcc
run_logged make-threads make -j2 -C common
run_logged make-threads make -j2 -C hypervisor
# shellcheck disable=SC2086 # one word per test is meant
run_logged make-threads make -j2 -C tests/unit $tests
for t in $tests; do
	TSAN_OPTIONS=halt_on_error=0 run_logged "threads-$t" "tests/unit/$t"
	ok "$t"
done
