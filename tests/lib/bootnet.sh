# SPDX-License-Identifier: GPL-2.0-or-later
# Shell helpers for the boot service without machines: favod in the namespace
# that calls, which swarmnet.sh has made as number 0, and nodes n1, n2 ... in the
# others, which ask as firmware and favo-netinit do. Sourced after favod.sh and
# swarmnet.sh by tests/bench/netboot and tests/system/t0195-netboot.t.

boot_url=http://10.77.0.1:7414
boot_mac() { printf '52:54:00:77:02:%02x' "$1"; }

# boot_net NODES RATE: namespaces whose interfaces have the nodes' MACs.
boot_net() {
	net_make "$1" "$2"
	for boot_i in $(seq "$1"); do
		ip -n "$net_id-$boot_i" link set "e$boot_i" address "$(boot_mac "$boot_i")"
	done
}

# boot_favod: favod as a site has it that boots nodes.
boot_favod() {
	favod_conf
	cat >>"$FAVO_CONF" <<-END
		netboot = yes
		boot_interface = e0
		boot_range = 10.77.0.200-10.77.0.210
		boot_files = $favod_dir/netboot
		netinit_path = $build/netboot/favo-netinit
		image_trust = any
	END
	chmod 644 "$FAVO_CONF"
	mkdir -p "$favod_dir/netboot/files/all/etc" "$favod_dir/netboot/secrets/all/etc"
}

# boot_image MIB NAME: an image of random bytes, from the folder $favod_dir/tree.
boot_image() {
	mkdir -p "$favod_dir/modules/6.1.0-test" "$favod_dir/tree"
	gcc -DHANG -nostdlib -static -no-pie -Wl,-Ttext-segment=0x100000,-z,max-page-size=4096 \
		-Wl,--build-id=none -o "$favod_dir/kernel" "$top/tests/system/payload.S" 2>/dev/null
	for boot_i in virtio_pci vmw_vsock_virtio_transport virtio_blk erofs overlay; do
		echo "kernel/$boot_i.ko"
	done >"$favod_dir/modules/6.1.0-test/modules.builtin"
	: >"$favod_dir/modules/6.1.0-test/modules.dep"
	head -c $(($1 << 20)) /dev/urandom >"$favod_dir/tree/data"
	"$build/provision/cli/favo" image import "$favod_dir/tree" --quiet --name "$2" \
		--kernel "$favod_dir/kernel" --modules "$favod_dir/modules/6.1.0-test" \
		>"$favod_dir/import.out" 2>&1
}

# boot_ask N PATH [CURL-ARGUMENT]...: a request of node N; prints the status, the
# answer is in $favod_dir/reply.
boot_ask() {
	boot_n=$1 boot_path=$2
	shift 2
	(net_run "$boot_n" curl -sS --max-time 20 -o "$favod_dir/reply" -w '%{http_code}' "$@" \
		"$boot_url$boot_path" 2>"$favod_dir/curl.err") || true
}

# boot_token N: what the firmware of node N does first; prints the boot's token.
boot_token() {
	boot_ask "$1" "/boot/script?mac=$(boot_mac "$1" | tr : -)&arch=x86_64-pcbios&uuid=" >/dev/null
	sed -n 's|^kernel .*/boot/kernel/\([0-9a-f]*\) .*|\1|p' "$favod_dir/reply"
}

# boot_config N FILE: the configuration that the initramfs of a new boot has.
boot_config() {
	boot_t=$(boot_token "$1")
	[ "$(boot_ask "$1" "/boot/node/$boot_t")" = 200 ] || return 1
	cpio -i --quiet --to-stdout favo/netboot.json <"$favod_dir/reply" >"$2" 2>/dev/null
}
