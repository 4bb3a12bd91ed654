#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Rules of the source that a machine can check.
set -eu
. "$(dirname "$0")/../lib/build.sh"

plan 6
cd "$top"
sources=$(git ls-files '*.c' '*.h')

bad=
for f in $sources; do
	head -n 1 "$f" | grep -q 'SPDX-License-Identifier: GPL-2.0-or-later' || bad="$bad $f"
done
[ -z "$bad" ] || fail "no SPDX line:$bad"
ok "every source file starts with its licence"

# shellcheck disable=SC2086 # one word per file is meant
clang-format --dry-run --Werror $sources 2>"$log_dir/format.log" ||
	fail "layout differs, see $log_dir/format.log; mend it with: clang-format -i FILE"
ok "layout is that of .clang-format"

bad=
for f in $(git ls-files '*.h'); do
	echo "#include \"$f\"" |
		gcc -std=gnu11 -D_GNU_SOURCE -I"$top" -Wall -Werror -fsyntax-only -x c \
			$(pkg-config --cflags jansson) - 2>>"$log_dir/headers.log" || bad="$bad $f"
done
[ -z "$bad" ] || fail "does not compile alone:$bad; see $log_dir/headers.log"
ok "every header compiles alone"

bad=$(git grep -nE '\b(strcpy|strcat|sprintf|gets|atoi|atol|strtok|alloca|system|popen)\(' \
	-- 'common/*.c' 'hypervisor/**.c' 'images/**.c' 'provision/**.c' 'slurm-plugin/**.c' || true)
[ -z "$bad" ] || fail "calls that this tree does without: $bad"
ok "no unbounded string call, no shell"

bad=$(git grep -nE '(TODO|FIXME|XXX[^X]|HACK)' -- '*.c' '*.h' '*.sh' '*.am' '*.ac' | grep -v XXXXXX || true)
[ -z "$bad" ] || fail "marks that promise something: $bad"
ok "no promise left in the source"

bad=
for f in $sources; do
	[ "$(wc -l <"$f")" -le 800 ] || bad="$bad $f"
done
[ -z "$bad" ] || fail "longer than 800 lines:$bad"
ok "no file is longer than 800 lines"
