# SPDX-License-Identifier: GPL-2.0-or-later
# Helpers that quickstart, the lab and the tests share. Sourced by bash scripts
# that run under "set -eu"; sets TOP (the source tree) and LAB (the lab's own
# directory, the only place outside the build folder that is ever written).

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LAB=${FAVO_LAB_DIR:-$TOP/.lab}
mkdir -p "$LAB" "$LAB/logs"
LAB=$(cd "$LAB" && pwd)
export FAVO_LAB_DIR=$LAB
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
# Cleared by programs whose standard error is not for people.
LAB_VERBOSE=${LAB_VERBOSE:-1}

say() { [ "$LAB_VERBOSE" = 0 ] || printf '%s\n' "$*" >&2; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# on_exit FUNCTION: calls it, with what runs in a step ended, however the program
# ends. For signals this works at once: steps are waited for, not run in front.
on_exit() {
	# shellcheck disable=SC2064 # the function's name is wanted now
	trap "on_exit_run $1" EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}
on_exit_run() {
	local code=$?
	trap - EXIT
	trap '' INT TERM HUP
	[ -z "${step_pid:-}" ] || kill -s TERM -- "-$step_pid" 2>/dev/null || :
	[ -z "${step_pid:-}" ] || wait "$step_pid" 2>/dev/null || :
	"$1"
	exit "$code"
}
on_exit_off() { trap - EXIT INT TERM HUP; }

# step NAME LOG COMMAND...: runs a command in a process group of its own with
# its output in LOG. Says what it does once it takes longer than two seconds and
# how long it took in the end; a failure names the step, shows the end of the
# log and says where all of it is.
step() {
	local name=$1 log=$2 start=$SECONDS code=0 shown=0
	shift 2
	mkdir -p "$(dirname "$log")"
	set -m
	"$@" >"$log" 2>&1 </dev/null &
	step_pid=$!
	set +m
	while step_running "$step_pid"; do
		step_wait "$step_pid"
		[ "$LAB_VERBOSE" = 1 ] && [ $((SECONDS - start)) -ge 2 ] || continue
		if [ -t 2 ]; then
			printf '\r  %s … %d s ' "$name" $((SECONDS - start)) >&2
		elif [ $shown = 0 ]; then
			printf '  %s …\n' "$name" >&2
		fi
		shown=1
	done
	wait "$step_pid" || code=$?
	step_pid=
	if [ $code != 0 ]; then
		[ $shown = 1 ] && [ -t 2 ] && echo >&2
		printf '%s: FAILED: %s (exit code %d after %d s)\n' "${0##*/}" "$name" \
			$code $((SECONDS - start)) >&2
		tail -n 15 "$log" | sed 's/^/    | /' >&2
		printf '  the whole log: %s\n' "$log" >&2
		return $code
	fi
	[ $shown = 0 ] || { [ -t 2 ] && printf '\r' >&2; say "  $name: $((SECONDS - start)) s"; }
}

# A process that ended but was not waited for yet does not run any more.
step_running() {
	local state
	state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) || return 1
	[ -n "$state" ] && [ "$state" != Z ]
}

# Returns when the process ended, or after a second for the progress line.
step_wait() { timeout 1 tail --pid="$1" -s 0.1 -f /dev/null 2>/dev/null || :; }

# inputs_hash FILE-OR-WORD...: one hash over the contents of the files and over
# the words that are no files.
inputs_hash() {
	local i
	for i; do
		if [ -f "$i" ]; then cat "$i"; else printf '%s\n' "$i"; fi
	done | sha256sum | cut -c1-32
}

# is_built NAME HASH: whether asset NAME was completed from these inputs;
# mark_built records it as the very last step.
is_built() { [ "$(cat "$LAB/assets/$1.inputs" 2>/dev/null)" = "$2" ]; }
mark_built() {
	printf '%s\n' "$2" >"$LAB/assets/$1.inputs.new"
	mv -f "$LAB/assets/$1.inputs.new" "$LAB/assets/$1.inputs"
}

# proc_start PID: start time in clock ticks, which with the id names a process.
proc_start() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# proc_record FILE PID, proc_is_alive FILE, proc_id FILE
proc_record() { printf '%d %s\n' "$2" "$(proc_start "$2")" >"$1"; }
proc_is_alive() {
	local pid start
	read -r pid start 2>/dev/null <"$1" || return 1
	[ "$(proc_start "$pid")" = "$start" ] && step_running "$pid"
}
proc_id() { cut -d' ' -f1 "$1"; }

# proc_end FILE SIGNAL SECONDS: ends the recorded process, at last by SIGKILL.
proc_end() {
	local pid
	if proc_is_alive "$1"; then
		pid=$(proc_id "$1")
		kill -s "$2" "$pid" 2>/dev/null || :
		timeout "$3" tail --pid="$pid" -s 0.05 -f /dev/null || :
		! proc_is_alive "$1" || kill -s KILL "$pid" 2>/dev/null || :
		timeout 5 tail --pid="$pid" -s 0.05 -f /dev/null || :
	fi
	rm -f "$1"
}

# lab_lock: one lab or one vmlab at a time in one lab directory. Descriptor 8
# keeps it; whoever inherits it, holds it.
lab_lock() {
	exec 8>"$LAB/lock"
	flock -n 8 || fail "another lab or vmlab runs in $LAB: end it first (tests/lab/lab down)" \
		"or give this one its own directory with FAVO_LAB_DIR"
}
