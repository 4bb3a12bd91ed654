#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 1200
# What is shipped is complete: the tarball of "make dist" builds, passes its
# unit tests, installs below DESTDIR and uninstalls without a trace.
set -eu
. "$(dirname "$0")/../lib/build.sh"

plan 1
build_in gcc --enable-werror CC=gcc
run_logged distcheck make -C "$build_root/gcc" -j2 distcheck
ok "make distcheck"
