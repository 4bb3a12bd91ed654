# SPDX-License-Identifier: GPL-2.0-or-later
# Build of the tree and of the images that the lab offers.

BUILD=${FAVO_BUILD:-$TOP/build}
LAB_IMAGES="debian12 debian12-mpi"

configure_tree() {
	[ -x "$TOP/configure" ] && [ "$TOP/configure" -nt "$TOP/configure.ac" ] ||
		"$TOP/autogen.sh" || return
	mkdir -p "$BUILD"
	cd "$BUILD" && "$TOP/configure" -C --prefix=/opt/favo --sysconfdir=/etc --localstatedir=/var
}

ensure_build() {
	[ -f "$BUILD/config.status" ] && [ "$BUILD/config.status" -nt "$TOP/configure.ac" ] ||
		step "configuration of the tree" "$LAB/logs/configure.log" configure_tree || return
	step "build" "$LAB/logs/make.log" make -C "$BUILD" -j"$(nproc)"
}

# An image is made again when its recipe or what writes images changed.
image_hash() {
	inputs_hash "$TOP/images/recipes/$1.recipe" "$TOP/images/recipes/ring.c" \
		"$TOP"/images/{erofs_writer,import,initramfs,kernel,manifest,recipe_build}.c
}

build_image() {
	FAVO_CONF_STORE_DIR=$LAB/favod/store "$BUILD/provision/cli/favo" image build \
		--log "$LAB/logs/image-$1-mmdebstrap.log" "$TOP/images/recipes/$1.recipe"
}

ensure_images() {
	local name hash
	mkdir -p "$LAB/favod" "$LAB/assets"
	for name in $LAB_IMAGES; do
		hash=$(image_hash "$name")
		is_built "image-$name" "$hash" && continue
		step "image $name" "$LAB/logs/image-$name.log" build_image "$name" || return
		mark_built "image-$name" "$hash"
	done
}
