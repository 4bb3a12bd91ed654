#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The boot service with a real favod and a real dnsmasq, natively: nodes in
# network namespaces ask as firmware, iPXE and favo-netinit do. Who may have
# what; machines that are no nodes; nodes that fetch together; favod killed.
# limit: 240
set -eu
. "$(dirname "$0")/../lib/build.sh"
skip() { echo "1..0 # SKIP $1"; exit 0; }
[ "$(id -u)" = 0 ] || skip "not root"
PATH=$PATH:/usr/sbin:/sbin
for program in dnsmasq curl jq busybox cpio munged ip; do
	command -v $program >/dev/null || skip "no $program"
done
build=${FAVO_BUILD:-$build_root/gcc}
. "$top/tests/lib/swarmnet.sh"
if [ -z "${FAVO_TEST_NET:-}" ]; then
	[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
	make -s -C "$build/tests/unit" netboot-tool >/dev/null
	. "$top/tests/lib/bootnet.sh"
	ip netns add "$net_id-try" 2>/dev/null && ip netns del "$net_id-try" ||
		skip "no network namespaces here"
	trap net_remove EXIT
	trap 'exit 130' INT TERM
	boot_net 4 120mbit
	FAVO_TEST_NET=$net_id ip netns exec "$net_id-0" "$0"
	exit
fi
net_id=$FAVO_TEST_NET
. "$top/tests/lib/favod.sh"
. "$top/tests/lib/bootnet.sh"
plan 19

d=$favod_dir
favo=$build/provision/cli/favo
tool=$build/tests/unit/netboot-tool
munged_start
boot_favod
printf 'node {{name}} slot {{tag.slot}}\n' >"$d/netboot/files/all/etc/node.tmpl"
echo all >"$d/netboot/files/all/etc/motd"
mkdir -p "$d/netboot/files/node.n2/etc"
echo two >"$d/netboot/files/node.n2/etc/motd"
echo squeamish >"$d/netboot/secrets/all/etc/key"
boot_image 24 node:v1 || fail "import: $(cat "$d/import.out")"
favod_start
run() { "$@" >"$d/out" 2>&1 || fail "$*: $(cat "$d/out" "$d/favod.log" | tail -n 20)"; }
status() { # EXPECTED WHAT N PATH [CURL-ARGUMENT]...
	status_want=$1 status_what=$2
	shift 2
	status_got=$(boot_ask "$@")
	[ "$status_got" = "$status_want" ] ||
		fail "$status_what: $status_got in place of $status_want: $(head -c 300 "$d/reply" "$d/curl.err")"
}
low="--local-port 700-1000"

# ---- machines that are no nodes ------------------------------------------------
[ -z "$(boot_token 4)" ] || fail "a machine that nobody knows boots: $(cat "$d/reply")"
grep -q "favo node adopt" "$d/reply" || fail "its screen: $(cat "$d/reply")"
ok "an unknown machine gets nothing, and its screen says how to adopt it"
run "$favo" node ls --unknown
grep -q "$(boot_mac 4)" "$d/out" || fail "unknown: $(cat "$d/out")"
[ "$("$favo" node export | jq '.nodes | length')" = 0 ] || fail "it became a node by itself"
ok "favo node ls --unknown shows it; it is no node"
run "$favo" node adopt "$(boot_mac 4)" n4 addresses=10.77.0.14/24 image=node:v1 tag.slot=4
[ -n "$(boot_token 4)" ] || fail "n4 does not boot: $(cat "$d/reply")"
ok "adopted it boots"
for n in 1 2 3; do
	run "$favo" node add n$n "mac=$(boot_mac $n)" addresses=10.77.0.1$n/24 image=node:v1 tag.slot=$n
done

# ---- DHCP and TFTP of the real dnsmasq -----------------------------------------
cat >"$d/lease" <<'END'
#!/bin/sh
[ "$1" != bound ] || echo "$ip $boot_file" >"$LEASE"
END
chmod 755 "$d/lease"
export LEASE="$d/lease.out"
# lease N [UDHCPC-ARGUMENT]...
lease() {
	lease_n=$1
	shift
	rm -f "$LEASE"
	(net_run "$lease_n" busybox udhcpc -i "e$lease_n" -f -q -n -t 20 -T 1 -s "$d/lease" "$@" \
		>"$d/dhcp.out" 2>&1) || fail "no lease: $(cat "$d/dhcp.out"; tail -n 5 "$d/favod.log")"
}
for try in 1 2 3 4 5 6 7 8 9 10; do # dnsmasq reads the new hosts within moments
	lease 1 -x 0x5d:0000
	[ "$(cut -d' ' -f1 "$LEASE")" != 10.77.0.11 ] || break
	sleep 0.5
done
[ "$(cat "$LEASE")" = "10.77.0.11 undionly.kpxe" ] || fail "BIOS: $(cat "$LEASE")"
lease 1 -x 0x5d:0007
[ "$(cat "$LEASE")" = "10.77.0.11 ipxe.efi" ] || fail "UEFI: $(cat "$LEASE")"
lease 1 -x 0x5d:0010
[ "$(cat "$LEASE")" = "10.77.0.11 $boot_url/boot/loader/ipxe.efi" ] || fail "HTTP boot: $(cat "$LEASE")"
lease 1 -x 0xaf:01
[ "$(cat "$LEASE")" = "10.77.0.11 $boot_url/boot/start.ipxe" ] || fail "iPXE: $(cat "$LEASE")"
ok "DHCP: the node's address, and the loader for BIOS, UEFI, HTTP boot, iPXE"
for file in undionly.kpxe ipxe.efi; do
	(net_run 1 curl -sS --max-time 30 -o "$d/loader" "tftp://10.77.0.1/$file") || fail "TFTP of $file"
	cmp -s "$d/loader" "/usr/lib/ipxe/$file" || fail "TFTP: another $file"
done
status 200 "loader by HTTP" 1 /boot/loader/ipxe.efi
cmp -s "$d/reply" /usr/lib/ipxe/ipxe.efi || fail "HTTP: another ipxe.efi"
(net_run 1 curl -sS --max-time 5 -o "$d/loader" tftp://10.77.0.1/../../favo.conf) 2>/dev/null &&
	fail "TFTP gives what is no loader"
ok "iPXE comes by TFTP and HTTP, and nothing else does"
status 200 "start script" 1 /boot/start.ipxe
grep -q '^#!ipxe' "$d/reply" && grep -q "$boot_url/boot/script?mac=\${netX/mac:hexhyp}" "$d/reply" ||
	fail "start script: $(cat "$d/reply")"
ok "iPXE's script asks by MAC"

# ---- tokens --------------------------------------------------------------------
t1=$(boot_token 1) t2=$(boot_token 2)
[ ${#t1} = 32 ] && [ ${#t2} = 32 ] && [ "$t1" != "$t2" ] || fail "tokens $t1 $t2"
status 200 "manifest" 1 "/boot/manifest/$t1"
status 403 "a token of another node" 2 "/boot/manifest/$t1"
status 403 "no token" 1 "/boot/manifest/"
status 403 "a token that nobody made" 1 "/boot/manifest/00000000000000000000000000000000"
ok "a token is good from its own node's address only"
# shellcheck disable=SC2086
{
	status 403 "secrets of another node" 2 "/boot/secrets/$t1" -X POST $low
	status 403 "secrets for a user" 1 "/boot/secrets/$t1" -X POST
	! grep -q squeamish "$d/reply" || fail "a secret in a refusal"
	status 403 "a report by a user" 1 "/boot/report/$t1" -d '{"phase":"started","detail":""}'
	ok "a user of the node gets no secrets and reports nothing"
	status 200 "secrets" 1 "/boot/secrets/$t1" -X POST $low
	[ "$(jq -r '.files[0] | .path + " " + .data' "$d/reply")" = \
		"/etc/key $(printf 'squeamish\n' | base64 | tr -d '=' | tr '/+' '_-')" ] || fail "secrets: $(cat "$d/reply")"
	status 403 "secrets twice" 1 "/boot/secrets/$t1" -X POST $low
	grep -q "given already" "$d/reply" || fail "twice: $(cat "$d/reply")"
	grep -q "node n1 .* second time" "$d/favod.log" || fail "the log says nothing"
	ok "secrets are given once; a second request is refused and logged"
}
(net_run 2 curl -sS --max-time 5 "$boot_url/boot/script?mac=$(boot_mac 1 | tr : -)") >"$d/reply" ||
	fail "script for another's MAC"
! grep -q /boot/kernel/ "$d/reply" || fail "n2 boots as n1: $(cat "$d/reply")"
grep -q "n1 has address 10.77.0.11" "$d/reply" || fail "n2 as n1: $(cat "$d/reply")"
ok "a node's MAC from another address gets no token"
status 400 "a MAC that is none" 1 "/boot/script?mac=52-54-00-77-02-zz"
status 404 "an unknown path" 1 "/boot/etc/$t1"
status 404 "an image for guests only" 1 "/boot/kernel/$t1"
grep -q "netboot yes" "$d/reply" || fail "the remedy: $(cat "$d/reply")"
status 403 "a long token" 1 "/boot/manifest/$(head -c 3000 /dev/zero | tr '\0' a)"
ok "requests that make no sense are answered, with the remedy"

# ---- files ---------------------------------------------------------------------
file_of() { jq -r --arg p "$1" '.files[] | select(.path == $p).data' "$d/reply" | tr '_-' '/+' | base64 -d 2>/dev/null || :; }
status 200 "files" 1 "/boot/files/$t1"
[ "$(file_of /etc/node)|$(file_of /etc/motd)" = "node n1 slot 1|all" ] || fail "files of n1: $(cat "$d/reply")"
! grep -q /etc/key "$d/reply" || fail "a secret is among the files"
status 200 "files" 2 "/boot/files/$t2"
[ "$(file_of /etc/motd)" = two ] || fail "files of n2: $(cat "$d/reply")"
ok "files: templates filled in, the node's own wins, no secrets"
run "$favo" node set n1 tag.slot=
status 500 "a template without its value" 1 "/boot/files/$t1"
grep -q "{{tag.slot}}: node n1 has no such value" "$d/reply" || fail "template: $(cat "$d/reply")"
run "$favo" node set n1 tag.slot=1
ok "a template that cannot be filled in is an error that names it"

# ---- the image -----------------------------------------------------------------
fetch() { # N: starts it; pid in pid_N
	boot_config "$1" "$d/netboot.$1" || fail "configuration of n$1: $(head -c 300 "$d/reply")"
	(net_run "$1" "$tool" "$d/netboot.$1" "$d/cache.$1" >"$d/fetch.$1" 2>&1) &
	eval "pid_$1=$!"
}
has_image() { ls "$d/cache.$1"/images/*[0-9a-f]/root.img >/dev/null 2>&1; } # N
same_image() { cmp -s "$d/cache.$1"/images/*[0-9a-f]/root.img "$d/cache.$2"/images/*[0-9a-f]/root.img; }
fetched() { # N
	eval "wait \$pid_$1" || fail "n$1: $(tail -n 3 "$d/fetch.$1"; tail -n 5 "$d/favod.log")"
	has_image "$1" || fail "n$1 has no image: $(find "$d/cache.$1" | head)"
}
size=$((24 << 20))
before=$(net_sent 0)
fetch 1
fetched 1
one=$(($(net_sent 0) - before))
[ $one -gt $size ] || fail "one node got $one bytes"
ok "one node fetches its image"
phase() { "$favo" node show --json "$1" | jq -r '.[0].phase'; }
case $(phase n1) in link | fetch) ;; *) fail "n1: phase $(phase n1)" ;; esac
ok "and reports how far it is"
rm -rf "$d/cache.1"
before=$(net_sent 0)
for n in 1 2 3 4; do fetch $n; done
for n in 1 2 3 4; do fetched $n; done
four=$(($(net_sent 0) - before))
for n in 2 3 4; do
	same_image 1 $n || fail "n$n has another image"
done
echo "# favod sent $one bytes to one node, $four to four"
[ $((four * 2)) -lt $((one * 5)) ] || fail "four nodes took $four bytes from favod, one $one"
ok "four nodes give the image to each other"

# ---- favod killed --------------------------------------------------------------
rm -rf "$d/cache.2"
fetch 2
begun() { has_image 2 || find "$d/cache.2" -name have -size +0 | grep -q .; }
wait_until "the fetch of n2" begun
t3=$(boot_token 3)
kill -9 "$favod_pid"
wait "$favod_pid" 2>/dev/null || true
favod_start
status 403 "a token from before favod's restart" 3 "/boot/manifest/$t3"
wait "$pid_2" 2>/dev/null || true
# What favo-netinit does then: it starts over, with what its disk has already.
if ! has_image 2; then
	fetch 2
	fetched 2
fi
same_image 1 2 || fail "n2 has another image"
ok "favod killed in the middle: the node starts over and gets its image"
lease 1 -x 0xaf:01
[ "$(cat "$LEASE")" = "10.77.0.11 $boot_url/boot/start.ipxe" ] || fail "iPXE: $(cat "$LEASE")"
[ "$(pgrep -P "$favod_pid" -x dnsmasq | wc -l)" = 1 ] || fail "dnsmasq: $(pgrep -P "$favod_pid" -a)"
ok "DHCP is back with favod"
favod_stop
ok "favod ends cleanly"
