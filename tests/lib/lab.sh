# SPDX-License-Identifier: GPL-2.0-or-later
# Shell helpers for tests that need the lab, which the runner has started.
# Sourced by tests/system/t[1-9]*.t; TAP output, a time limit on everything.

top=$(cd "$(dirname "$0")/../.." && pwd)
lab_dir=${FAVO_LAB_DIR:-$top/.lab}
tests_done=0
test_failed=0
out=$lab_dir/test-output
mkdir -p "$out"

# A failed point does not end a test: what follows may still tell something.
# The exit code says whether all was well.
trap 'exit_code=$?; [ $exit_code != 0 ] || exit $test_failed' EXIT

plan() { echo "1..$1"; }

ok() {
	tests_done=$((tests_done + 1))
	echo "ok $tests_done - $1"
}

not_ok() {
	tests_done=$((tests_done + 1))
	test_failed=1
	echo "not ok $tests_done - $1"
	shift
	for line; do printf '%s\n' "$line" | sed 's/^/# /'; done
}

skip_all() {
	echo "1..0 # SKIP $1"
	exit 0
}

# in_time SECONDS COMMAND...
in_time() { timeout -k 5 "$@" </dev/null; }

# login SECONDS COMMAND-LINE [USER]: on the login host
login() { in_time "$1" "$top/tests/lab/lab" run -u "${3:-alice}" "$2"; }

# node NODE COMMAND-LINE: in a node, as root
node() { in_time 60 "$top/tests/lab/lab" ssh "$1" "$2"; }
lab() { in_time 150 "$top/tests/lab/lab" "$@"; }
nodes() { seq -f 'n%g' 1 "$(cat "$lab_dir/run/nodes")"; }

# retry SECONDS COMMAND...: until it succeeds.
retry() {
	retry_end=$(($(date +%s) + $1))
	shift
	while ! "$@" >/dev/null 2>&1; do
		[ "$(date +%s)" -lt $retry_end ] || return 1
		sleep 0.2
	done
}

# expect NAME WANTED-CODE COMMAND...: runs it, compares its exit code; the
# output stays in $out/last for expect_line.
expect() {
	expect_name=$1
	expect_want=$2
	shift 2
	expect_code=0
	"$@" >"$out/last" 2>&1 || expect_code=$?
	if [ "$expect_code" = "$expect_want" ]; then
		ok "$expect_name"
	else
		not_ok "$expect_name" "exit code $expect_code instead of $expect_want" \
			"$(tail -n 20 "$out/last")"
	fi
}

# expect_line NAME PATTERN: a line of the last output matches.
expect_line() {
	if grep -qE "$2" "$out/last"; then
		ok "$1"
	else
		not_ok "$1" "no line matches: $2" "$(tail -n 20 "$out/last")"
	fi
}

# expect_no_line NAME PATTERN
expect_no_line() {
	if grep -qE "$2" "$out/last"; then
		not_ok "$1" "$(grep -E "$2" "$out/last" | head -n 5)"
	else
		ok "$1"
	fi
}

# What a job must not leave on a node; one line each. Only the image cache stays.
leftovers_script='
for p in /proc/[0-9]*; do
	c=$(cat $p/comm 2>/dev/null) || continue
	case $c in favo-vmm|favo-task|favo-lazy|favo-share|virtiofsd|vhost-*) [ -z "$(cat $p/cmdline | tr -d "\0")" ] && [ "$c" != "${c#favo}" ] ||
		echo "process $c ${p#/proc/}" ;; esac
done
for l in /sys/class/net/f[btx][0-9a-z]*; do [ -e $l ] && echo "link ${l##*/}"; done
for d in /sys/block/nbd*/pid; do [ -e $d ] && echo "device $d"; done
find /sys/fs/cgroup -type d \( -path "*favo*" -o -path "*/slurm*/uid_*/job_*" \) | sed "s/^/cgroup /"
for f in /run/favo/vm/* /run/favo/job/* /var/lib/favo/vm/*; do [ -e $f ] && echo "file $f"; done
for d in /sys/block/dm-*; do [ -e $d ] && echo "device $(cat $d/dm/name)"; done
for d in /sys/block/loop*/loop; do [ -e $d ] && echo "device $d $(cat $d/backing_file)"; done
awk "\$2 ~ /favo/ && \$2 !~ /^\/(opt|var\/lib)\/favo\$/ {print \"mount \" \$2}" /proc/mounts
true'

# leftovers: what is left on any node, after Slurm has finished all jobs.
leftovers() {
	retry 60 no_jobs || echo "jobs still in the queue: $(login 20 'squeue -h -o "%i %T %R"')"
	for leftovers_node in $(nodes); do
		node "$leftovers_node" "$leftovers_script" | sed "s/^/$leftovers_node: /"
	done
}
no_jobs() { [ -z "$(login 20 'squeue -h')" ] && [ -z "$(login 20 'sinfo -h -t comp,drain,down -o %D' | tr -d '0\n')" ]; }
nothing_left() { [ -z "$(leftovers)" ]; }

# expect_clean [NAME]: nothing is left, with some time for what ends by itself.
expect_clean() {
	if retry 30 nothing_left; then
		ok "${1:-nothing is left on the nodes}"
	else
		not_ok "${1:-nothing is left on the nodes}" "$(leftovers)"
	fi
}

# expect_nodes_usable: no node was drained or lost.
expect_nodes_usable() {
	expect_bad=$(login 20 "sinfo -h -N -t drain,drained,draining,down,fail -o '%N %T %E'")
	if [ -z "$expect_bad" ]; then
		ok "no node is drained or down"
	else
		not_ok "no node is drained or down" "$expect_bad"
		for leftovers_node in $(nodes); do
			login 20 "scontrol update nodename=$leftovers_node state=resume" root || :
		done
	fi
}

# need_favo: tests of virtual machines need the parts and an image.
need_favo() {
	[ -x "$lab_dir/install/opt/favo/sbin/favo-noded" ] || skip_all "favo-noded is not built"
	[ -f "$lab_dir/assets/image-debian12.inputs" ] || skip_all "image debian12 is not built"
}
