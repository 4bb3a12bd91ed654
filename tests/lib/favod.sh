# SPDX-License-Identifier: GPL-2.0-or-later
# Shell helpers for tests of favod without a lab: a munged and a favod of our
# own in a scratch folder, on a free port of the loopback. Sourced after
# build.sh; $build is the build folder.

favod_dir=$(mktemp -d "${TMPDIR:-/tmp}/favo-favod-XXXXXX")
favod_pid=
munged_pid=

favod_cleanup() {
	for favod_end in $favod_pid $munged_pid; do
		kill "$favod_end" 2>/dev/null || true
		wait "$favod_end" 2>/dev/null || true
	done
	rm -rf "$favod_dir"
}
trap favod_cleanup EXIT
trap 'exit 130' INT TERM

# A free port: the kernel's choice would be better, but the client has to know it.
favod_port=$((20000 + $$ % 20000))

munged_start() {
	PATH=$PATH:/usr/sbin:/sbin
	command -v munged >/dev/null || { echo "1..0 # SKIP munged is not installed"; exit 0; }
	chmod 755 "$favod_dir"
	mkdir "$favod_dir/m"
	chmod 755 "$favod_dir/m"
	dd if=/dev/urandom of="$favod_dir/m/key" bs=128 count=1 2>/dev/null
	chmod 600 "$favod_dir/m/key"
	munged --foreground --key-file="$favod_dir/m/key" --socket="$favod_dir/m/sock" \
		--pid-file="$favod_dir/m/pid" --log-file="$favod_dir/m/log" \
		--seed-file="$favod_dir/m/seed" >"$favod_dir/m/out" 2>&1 &
	munged_pid=$!
	wait_until "munged" test -S "$favod_dir/m/sock"
}

# wait_until WHAT COMMAND...: up to ten seconds.
wait_until() {
	wait_what=$1
	shift
	wait_n=0
	until "$@" >/dev/null 2>&1; do
		wait_n=$((wait_n + 1))
		[ "$wait_n" -lt 100 ] || fail "$wait_what did not come up"
		sleep 0.1
	done
}

favod_conf() {
	cat >"$favod_dir/favo.conf" <<-END
		favod_url = http://127.0.0.1:$favod_port
		favod_listen = 127.0.0.1:$favod_port
		munge_socket = $favod_dir/m/sock
		state_dir = $favod_dir/state
		run_dir = $favod_dir/run
		noded_socket = $favod_dir/run/noded.sock
		store_dir = $favod_dir/state/store
		grant_key = $favod_dir/grant.key
		grant_pub = $favod_dir/grant.pub
		image_key = $favod_dir/image.key
		image_pub = $favod_dir/image.pub
		log_level = debug
	END
	export FAVO_CONF="$favod_dir/favo.conf"
}

favod_start() {
	"$build/provision/favod/favod" --config "$favod_dir/favo.conf" \
		>>"$favod_dir/favod.log" 2>&1 &
	favod_pid=$!
	wait_until favod "$build/provision/cli/favo" node ls
}

favod_stop() {
	kill "$favod_pid"
	wait "$favod_pid" || fail "favod ended with status $? after SIGTERM"
	favod_pid=
}

# sign METHOD PATH BODY-FILE: print a credential for the request.
sign() {
	printf '%s\n%s\n%s' "$1" "$2" "$(sha256sum <"$3" | cut -d' ' -f1)" |
		munge --socket="$favod_dir/m/sock" | tr -d '\n'
}

# send METHOD PATH [BODY [CREDENTIAL]]: print the status; the reply is in $favod_dir/reply.
send() {
	printf '%s' "${3:-}" >"$favod_dir/body"
	send_raw "$1" "$2" "$favod_dir/body" "${4:-$(sign "$1" "$2" "$favod_dir/body")}"
}

# send_raw METHOD PATH BODY-FILE CREDENTIAL [CURL-ARGUMENT]...
send_raw() {
	send_method=$1 send_path=$2 send_body=$3 send_cred=$4
	shift 4
	curl -sS --path-as-is --max-time 10 -o "$favod_dir/reply" -w '%{http_code}' -X "$send_method" \
		-H "X-Favo-Munge: $send_cred" -H 'Expect:' --data-binary "@$send_body" "$@" \
		"http://127.0.0.1:$favod_port$send_path" 2>"$favod_dir/curl.err" || true
}

# expect STATUS GOT WHAT [WORDS-IN-REPLY]
expect() {
	[ "$2" = "$1" ] || fail "$3: status $2 in place of $1: $(head -c 300 "$favod_dir/reply")"
	[ -z "${4:-}" ] || grep -qF -- "$4" "$favod_dir/reply" ||
		fail "$3: reply without '$4': $(head -c 300 "$favod_dir/reply")"
	ok "$3"
}
