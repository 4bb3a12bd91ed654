#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 600
# favo image save: what a job changed is in the new image, and nothing else;
# the next revision stores what differs; the user's home is not touched.
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 20

home=$lab_dir/home/alice
blobs() { find "$lab_dir/favod/store/blobs" -type f | wc -l; }
precious() { (cd "$home/precious" && find . -printf '%p %s %m %T@\n' | sort | sha256sum); }
in_job() { login 60 "srun -Q --jobid=$job --overlap -N1 -n1 --mem=0 sh -c '$1'"; }

# start IMAGE: a job in a VM of n1 that waits; its id is in $job.
start() {
	job=$(login 60 "sbatch --parsable -N1 -w n1 -o /dev/null --vm-image=$1 --wrap='sleep 500'")
	if retry 200 in_job true; then ok "a job with $1 runs"; else not_ok "a job with $1 runs" \
		"$(login 20 "squeue; favo vc show $job")"; fi
}
end() {
	login 30 "scancel $job"
	retry 60 no_jobs || :
}

# A small image with a folder that its users may change.
release=$(ls "$lab_dir/guest-kernel/lib/modules")
tree=$home/save-tree
rm -rf "$tree"
mkdir -p "$tree/bin" "$tree/etc" "$tree/proc" "$tree/sys" "$tree/dev" "$tree/tmp" "$tree/run" "$tree/app"
cp "$(command -v busybox)" "$tree/bin/busybox"
for tool in sh bash ls cat rm ln mkdir chmod stat sleep head sha256sum cmp test env true; do
	ln -s busybox "$tree/bin/$tool"
done
printf 'ID=test\nPRETTY_NAME="save test"\n' >"$tree/etc/os-release"
echo one >"$tree/app/keep"
echo two >"$tree/app/change"
echo three >"$tree/app/remove"
chown -R 1000:1000 "$tree/app"
[ -d "$home/modules-$release" ] || cp -r "$lab_dir/guest-kernel/lib/modules/$release" "$home/modules-$release"
cp "$lab_dir/guest-kernel/vmlinux" "$home/kernel-linux"
mkdir -p "$home/precious"
echo 'my thesis' >"$home/precious/thesis"
chown -R 1000:1000 "$home/precious"
before=$(precious)
expect "an image to start from" 0 login 100 "favo image import --name save-base --kernel /home/alice/kernel-linux \
	--modules /home/alice/modules-$release /home/alice/save-tree" root

start save-base
expect "the job changes, removes and adds" 0 in_job 'cd /app && echo changed >change && rm remove &&
	ln keep hard && ln -s keep link && chmod 711 keep && head -c 3000000 /dev/urandom >large && sha256sum <large >sum'
expect "nobody else can save it" 1 login 60 "favo image save $job bob/stolen" bob
expect "a VM that is not there" 1 login 30 "favo image save $job/vm7 alice/one"
expect_line "is named" 'has no vm7'
save="FAVO_CONF_SITE_KERNEL=/home/alice/kernel-linux FAVO_CONF_SITE_MODULES=/home/alice/modules-$release favo image save"
expect "saved" 0 login 200 "$save $job alice/one"
expect "the job goes on" 0 in_job 'cat /app/keep'
end

start alice/one
expect "the new image has what the job wrote" 0 in_job 'cd /app && sha256sum <large | cmp - sum && ls && cat change link && cmp keep hard && stat -c "%a" keep'
expect_line "a changed file" '^changed$'
expect_line "a changed mode" '^711$'
expect_no_line "a removed file is not there" '^remove$'
expect "the job adds a little" 0 in_job 'echo new >/app/added'
count=$(blobs)
expect "saved again" 0 login 200 "$save $job alice/one:second"
added=$(($(blobs) - count))
# Index, digests, metadata, verity tree, a small file: the large file and the
# tools, some fifty chunks, are there.
if [ $added -gt 0 ] && [ $added -le 25 ]; then
	ok "only what changed is stored ($added blobs)"
else
	not_ok "only what changed is stored" "$added blobs"
fi
expect "the second image names the first" 0 login 30 "favo image show --json alice/one:second"
expect_line "as its parent" '"parent": "sha256:'
end

if [ "$(precious)" = "$before" ]; then ok "the home on the host is as it was"; else not_ok "the home on the host is as it was" "$(ls -lR "$home/precious")"; fi
expect_clean "nothing is left"
rm -rf "$home/precious" "$tree" "$home/modules-$release" "$home/kernel-linux"
