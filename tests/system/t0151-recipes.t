#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 900
# favo image build: two builds of one recipe are one image, although its
# packages make keys, logs and caches; the keys are dropped and named. Needs
# root and a Debian mirror, no lab.
set -eu
. "$(dirname "$0")/../lib/build.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
favo=$build/provision/cli/favo
plan 3
if [ "$(id -u)" != 0 ] || ! command -v mmdebstrap >/dev/null; then
	ok "builds # SKIP needs root and mmdebstrap"
	ok "secrets # SKIP needs root and mmdebstrap"
	ok "same id # SKIP needs root and mmdebstrap"
	exit 0
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/favo-recipe-XXXXXX")
trap 'rm -rf "$dir"' EXIT
FAVO_CONF_STORE_DIR=$dir/store
export FAVO_CONF_STORE_DIR

# A kernel that is none, so that no package of one is fetched: an ELF file with
# the note XEN_ELFNOTE_PHYS32_ENTRY.
{
	printf '\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\76\0\1\0\0\0\0\0\0\1\0\0\0\0'
	printf '\100\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\100\0\70\0\1\0\0\0\0\0\0\0'
	printf '\4\0\0\0\4\0\0\0\170\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
	printf '\24\0\0\0\0\0\0\0\24\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0'
	printf '\4\0\0\0\4\0\0\0\22\0\0\0Xen\0\0\0\0\1'
} >"$dir/kernel"
mkdir -p "$dir/6.1.0-test"
: >"$dir/6.1.0-test/modules.dep"
printf 'k/%s.ko\n' virtio_pci virtio_blk erofs overlay vmw_vsock_virtio_transport \
	>"$dir/6.1.0-test/modules.builtin"

# dpkg, apt and ldconfig leave what may differ.
cat >"$dir/same.recipe" <<'E'
name same
suite bookworm
variant essential
file /opt/program program.sh 755
run mkdir -p /etc/munge /etc/ssh /var/lib/systemd
run head -c 64 /dev/urandom >/etc/munge/munge.key
run head -c 64 /dev/urandom >/etc/ssh/ssh_host_ed25519_key
run head -c 64 /dev/urandom >/var/lib/systemd/random-seed
run date +%N >/var/log/built; date +%N >/var/cache/apt/stamp; ldconfig
run date +%N >/etc/machine-id; date +%N >/etc/passwd-
drop usr/share/doc usr/share/man usr/share/locale usr/share/zoneinfo
E
echo '#!/bin/sh' >"$dir/program.sh"

# build_once NAME
build_once() {
	timeout 400 "$favo" image build --log "$dir/log" --kernel "$dir/kernel" \
		--modules "$dir/6.1.0-test" "$dir/same.recipe" >"$dir/$1.out" 2>"$dir/$1.err" ||
		fail "build: $(tail -n 5 "$dir/$1.err"; tail -n 20 "$dir/log")"
	sed -n 's/^  id *//p' "$dir/$1.out" >"$dir/$1.id"
}

build_once one
[ -s "$dir/one.id" ] || fail "no id: $(cat "$dir/one.out")"
ok "a recipe is built"
"$favo" image show --json same >"$dir/json"
for secret in etc/munge/munge.key etc/ssh/ssh_host_ed25519_key var/lib/systemd/random-seed; do
	grep -q "dropped secret /$secret" "$dir/one.err" || fail "$secret is not named"
	grep -q "\"$secret\"" "$dir/json" || fail "$secret is not in the manifest"
done
ok "secrets are dropped, named, and listed in the manifest"
build_once two
cmp -s "$dir/one.id" "$dir/two.id" || {
	grep new "$dir/two.out" >&2 || :
	fail "two builds give $(cat "$dir/one.id") and $(cat "$dir/two.id")"
}
ok "a second build gives the same id"
