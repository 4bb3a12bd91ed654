#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Jobs that bring their image along: from a registry (Debian's
# docker-registry, on the login host) and from a folder; with the site's kernel.
# limit: 600
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
for need in docker-registry skopeo zstd python3; do
	command -v "$need" >/dev/null || skip_all "$need is not installed"
done
plan 8

home=$lab_dir/home/alice
port=5055
image=docker://127.0.0.1:$port/team/small:v1
rm -rf "$home/layout" "$home/registry"
python3 "$top/tests/lib/ociimage.py" busybox "$home/layout"
printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: /home/alice/registry}}\nhttp: {addr: "127.0.0.1:%s"}\n' \
	$port >"$home/registry.yml"
chown -R 1000:1000 "$home/layout" "$home/registry.yml"

serve() {
	login 60 "setsid docker-registry serve registry.yml >registry.log 2>&1 </dev/null &
		for i in \$(seq 300); do curl -s -o /dev/null http://127.0.0.1:$port/v2/ && exit 0; sleep 0.1; done
		exit 1"
}
retry 1 login 10 "curl -s -o /dev/null http://127.0.0.1:$port/v2/" || serve || skip_all "docker-registry does not start"
expect "the image is pushed to docker-registry" 0 login 120 \
	"skopeo copy --dest-tls-verify=false oci:layout:latest $image"

job="FAVO_CONF_REGISTRY_HTTP=127.0.0.1 srun -N1 --mpi=none --vm-image=$image sh -c"
expect "a job runs an image of the registry" 0 login 400 \
	"$job 'cat /etc/os-release /etc/of-layer-2; ls /etc; uname -r'"
expect_line "it is the container's system" 'Small container'
expect_line "with its second layer" 'from the second layer'
expect_no_line "and without what that hides" 'of-layer-1'
expect_line "on the kernel of the site" "$(cat "$lab_dir/guest-kernel/release")"
expect "its image is the user's, in the store" 0 login 60 "favo image ls | grep -q '^alice/run/small '"
expect "a job runs an image of a folder" 0 login 400 \
	"srun -N1 --mpi=none --vm-image=./layout cat /etc/of-layer-2"
