# SPDX-License-Identifier: GPL-2.0-or-later
# Shell helpers for tests of the source tree: out-of-tree builds with logs, and
# TAP output. Sourced by tests/system/t00*.t.

top=$(cd "$(dirname "$0")/../.." && pwd)
build_root=${FAVO_LAB_DIR:-$top/.lab}/build
log_dir=${FAVO_LAB_DIR:-$top/.lab}/log
mkdir -p "$build_root" "$log_dir"
tests_done=0

plan() {
	echo "1..$1"
}

ok() {
	tests_done=$((tests_done + 1))
	echo "ok $tests_done - $1"
}

fail() {
	tests_done=$((tests_done + 1))
	echo "not ok $tests_done - $1"
	exit 1
}

# run_logged NAME COMMAND...: quiet when it works, the log's end when not.
run_logged() {
	run_log=$log_dir/$1.log
	run_name=$1
	shift
	if ! "$@" >"$run_log" 2>&1 </dev/null; then
		grep -nE '(error|warning|FAIL|ERROR)[: ]' "$run_log" | head -n 20 | sed 's/^/# /'
		tail -n 20 "$run_log" | sed 's/^/# /'
		fail "$run_name, see $run_log"
	fi
}

# build_in NAME CONFIGURE-ARGUMENT...: (re)build the tree in its own folder.
build_in() {
	build_name=$1
	shift
	mkdir -p "$build_root/$build_name"
	[ -x "$top/configure" ] && [ "$top/configure" -nt "$top/configure.ac" ] ||
		run_logged autogen "$top/autogen.sh"
	if [ "$(cat "$build_root/$build_name/.args" 2>/dev/null)" != "$*" ] ||
	   [ ! -f "$build_root/$build_name/config.status" ]; then
		(cd "$build_root/$build_name" && run_logged "configure-$build_name" "$top/configure" "$@") ||
			fail "configure for $build_name"
		echo "$*" >"$build_root/$build_name/.args"
	fi
	run_logged "make-$build_name" make -C "$build_root/$build_name" -j2
}

# check_in NAME: make check in a folder that build_in made.
check_in() {
	run_logged "check-$1" make -C "$build_root/$1" -j2 check
}
