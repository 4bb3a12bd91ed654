#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Make configure and the Makefile.in files; needs autoconf, automake, libtool.
set -e
cd "$(dirname "$0")"
for tool in autoreconf automake libtoolize; do
	command -v $tool >/dev/null || {
		echo "autogen.sh: $tool not found; apt-get install autoconf automake libtool pkg-config" >&2
		exit 1
	}
done
exec autoreconf --install --force "$@"
