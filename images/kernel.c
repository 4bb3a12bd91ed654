// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Kernels of images. A bzImage decompresses itself in the guest at each boot,
 * slow under emulation and wasted anywhere; so the ELF kernel inside is taken
 * out once, when it can be started by its PVH entry
 * (Documentation/arch/x86/boot.rst, xenpvh note XEN_ELFNOTE_PHYS32_ENTRY).
 */
#include "images/kernel.h"

#include <elf.h>
#include <endian.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/util.h"
#include "images/manifest.h"
#include "images/unpack.h"

/* Offsets in the boot sector, boot protocol 2.08. */
#define SETUP_SECTS 0x1f1
#define HEADER_MAGIC 0x202
#define PROTOCOL 0x206
#define PAYLOAD_OFFSET 0x248
#define PAYLOAD_LENGTH 0x24c
#define SETUP_LEN 0x250

#define NOTE_PHYS32_ENTRY 18

static uint32_t le32_at(const unsigned char *p, size_t offset)
{
	uint32_t value;

	memcpy(&value, p + offset, sizeof(value));
	return le32toh(value);
}

/* Notes of one PT_NOTE segment; alignment is 4. */
static bool notes_have_pvh(const unsigned char *p, size_t len)
{
	uint32_t name_len, desc_len, type;
	uint64_t whole;

	while (len >= 12) {
		name_len = le32_at(p, 0);
		desc_len = le32_at(p, 4);
		type = le32_at(p, 8);
		whole = 12 + (((uint64_t)name_len + 3) & ~3ull) +
			(((uint64_t)desc_len + 3) & ~3ull);
		if (whole > len)
			return false;
		if (type == NOTE_PHYS32_ENTRY && name_len == 4 &&
		    memcmp(p + 12, "Xen", 4) == 0)
			return true;
		p += whole;
		len -= whole;
	}
	return false;
}

bool favo_elf_has_pvh(const void *data, size_t len)
{
	const unsigned char *p = data;
	Elf64_Ehdr header;
	Elf64_Phdr segment;

	if (len < sizeof(header))
		return false;
	memcpy(&header, p, sizeof(header));
	if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
	    header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64 ||
	    header.e_phentsize != sizeof(segment) || header.e_phoff > len ||
	    header.e_phnum > (len - header.e_phoff) / sizeof(segment))
		return false;
	for (size_t i = 0; i < header.e_phnum; i++) {
		memcpy(&segment, p + header.e_phoff + i * sizeof(segment),
		       sizeof(segment));
		if (segment.p_type == PT_NOTE && segment.p_offset <= len &&
		    segment.p_filesz <= len - segment.p_offset &&
		    notes_have_pvh(p + segment.p_offset, segment.p_filesz))
			return true;
	}
	return false;
}

int favo_kernel_unwrap(const void *data, size_t len, void **out, size_t *out_len,
		       struct favo_err *err)
{
	const unsigned char *p = data;
	favo_autofree void *elf = NULL;
	size_t elf_len = 0, start, payload;
	unsigned int sects;
	int ret;

	if (favo_elf_has_pvh(data, len))
		return 0;
	if (len < SETUP_LEN || memcmp(p + HEADER_MAGIC, "HdrS", 4) != 0)
		return favo_fail(err, EBADMSG,
				 "neither a bzImage nor an ELF kernel with PVH entry");
	if (p[PROTOCOL] + 256 * p[PROTOCOL + 1] < 0x208)
		return 0;
	sects = p[SETUP_SECTS] ? p[SETUP_SECTS] : 4;
	start = (sects + 1) * 512 + (size_t)le32_at(p, PAYLOAD_OFFSET);
	payload = le32_at(p, PAYLOAD_LENGTH);
	if (start > len || payload > len - start || payload < 8)
		return favo_fail(err, EBADMSG,
				 "bzImage: payload lies outside of the file");
	/*
	 * The build appends the uncompressed size, 4 bytes, which is garbage to
	 * a decompressor; for gzip they are part of the stream.
	 */
	if (p[start] != 0x1f || p[start + 1] != 0x8b)
		payload -= 4;
	ret = favo_unpack(p + start, payload, FAVO_KERNEL_MAX, &elf, &elf_len, err);
	if (ret < 0)
		return favo_wrap(err, ret, "bzImage");
	if (!favo_elf_has_pvh(elf, elf_len))
		return 0;
	*out = favo_steal_ptr(&elf);
	*out_len = elf_len;
	return 1;
}

/* Takes data. */
static int finish(struct favo_kernel *out, void *data, size_t len, const char *path,
		  const char *release, struct favo_err *err)
{
	favo_autofree void *packed = data;
	struct favo_kernel kernel = {0};
	int ret;

	if (strlen(release) >= sizeof(kernel.release))
		return favo_fail(err, EINVAL, "kernel %s: release is too long", path);
	ret = favo_kernel_unwrap(packed, len, &kernel.data, &kernel.len, err);
	if (ret < 0)
		return favo_wrap(err, ret, "kernel %s", path);
	if (ret == 0) {
		kernel.data = favo_steal_ptr(&packed);
		kernel.len = len;
	}
	kernel.is_vmlinux = favo_elf_has_pvh(kernel.data, kernel.len);
	snprintf(kernel.release, sizeof(kernel.release), "%s", release);
	snprintf(kernel.path, sizeof(kernel.path), "%s", path);
	*out = kernel;
	return 0;
}

int favo_kernel_from_tree(struct favo_kernel *out, const struct favo_tree *tree,
			  struct favo_err *err)
{
	return favo_kernel_older(out, tree, NULL, err);
}

int favo_kernel_older(struct favo_kernel *out, const struct favo_tree *tree,
		      const char *below, struct favo_err *err)
{
	const struct favo_inode *modules = favo_tree_find(tree, "usr/lib/modules");
	const struct favo_inode *kernel = NULL, *file;
	const char *release = NULL;
	char path[256], best[256] = "";
	favo_autofree char *data = NULL;
	size_t len = 0;
	int ret;

	if (!modules || !S_ISDIR(modules->mode))
		modules = favo_tree_find(tree, "lib/modules");
	for (size_t i = 0; modules && i < modules->n_entries; i++) {
		const char *name = modules->entries[i].name;

		if (!S_ISDIR(modules->entries[i].inode->mode) ||
		    strlen(name) >= FAVO_RELEASE_SIZE ||
		    (release && strverscmp(name, release) < 0) ||
		    (below && strverscmp(name, below) >= 0))
			continue;
		snprintf(path, sizeof(path), "boot/vmlinuz-%s", name);
		file = favo_tree_find(tree, path);
		if (!file) {
			snprintf(path, sizeof(path), "usr/lib/modules/%s/vmlinuz", name);
			file = favo_tree_find(tree, path);
		}
		if (!file || !S_ISREG(file->mode))
			continue;
		kernel = file;
		release = name;
		memcpy(best, path, sizeof(best));
	}
	if (!kernel)
		return favo_fail(err, ENOENT, "no kernel with modules in the image");
	*out = (struct favo_kernel){0};
	snprintf(out->release, sizeof(out->release), "%s", release);
	ret = favo_tree_read_all(tree, kernel, FAVO_KERNEL_MAX, &data, &len, err);
	if (ret < 0)
		return favo_wrap(err, ret, "kernel %s", best);
	return finish(out, favo_steal_ptr(&data), len, best, release, err);
}

int favo_kernel_from_file(struct favo_kernel *out, const char *path, const char *release,
			  struct favo_err *err)
{
	char *data = NULL;
	size_t len = 0;
	int ret = favo_file_read(path, FAVO_KERNEL_MAX, &data, &len, err);

	return ret < 0 ? favo_wrap(err, ret, "kernel %s", path)
		       : finish(out, data, len, path, release, err);
}

void favo_kernel_fini(struct favo_kernel *kernel)
{
	free(kernel->data);
	kernel->data = NULL;
}
