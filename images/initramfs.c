// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Modules for the guest's initramfs; see initramfs.h. modules.dep lists all
 * transitive needs of a module, the ones to load first last (modprobe.d(5),
 * depmod(8)). Soft dependencies are not followed: the few that matter are
 * rows of the table below.
 */
#include "images/initramfs_internal.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "images/unpack.h"

#define LIST_MAX (16u << 20)
#define MODULE_MAX (64u << 20)

/* In load order: what the agent reports on first, then the root. */
static const struct {
	const char *name;
	bool required;
	const char *pci; /* "vendor:device": load it only when the guest has got it */
	const char *with; /* leave it out when the kernel has not this one */
} wanted[] = {
	{.name = "virtio_pci", .required = true},
	{.name = "vmw_vsock_virtio_transport", .required = true},
	{.name = "virtio_blk", .required = true},
	/* libcrc32c asks the crypto core for "crc32c" while it loads. */
	{.name = "crc32c_intel"},
	{.name = "crc32c_generic"},
	{.name = "erofs", .required = true},
	{.name = "overlay", .required = true},
	{.name = "virtio_net"},
	{.name = "af_packet"},
	{.name = "virtio_console"},
	{.name = "virtio_rng"},
	{.name = "virtiofs"},
	{.name = "pvpanic_pci"},
	{.name = "pvpanic_mmio"},
	/* vmw_pvrdma gives up when vmxnet3 has not bound its card yet. */
	{.name = "vmxnet3", .pci = "15ad:07b0"},
	{.name = "vmw_pvrdma", .pci = "15ad:0820"},
	{.name = "rdma_ucm", .pci = "15ad:0820", .with = "vmw_pvrdma"},
};

/* Does path ("kernel/fs/a-b.ko.xz") hold the module name ("a_b")? */
static bool is_module(const char *path, size_t len, const char *name)
{
	const char *slash = memrchr(path, '/', len);
	const char *base = slash ? slash + 1 : path;
	size_t n = strlen(name);

	if ((size_t)(path + len - base) < n + 3 || memcmp(base + n, ".ko", 3) != 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((base[i] == '-' ? '_' : base[i]) != name[i])
			return false;
	return true;
}

char *favo_modules_find(char *text, const char *name)
{
	char *end;

	for (char *line = text; *line; line = *end ? end + 1 : end) {
		end = line + strcspn(line, "\n");
		if (is_module(line, strcspn(line, ":\n"), name))
			return line;
	}
	return NULL;
}

int favo_modules_target(char *target, size_t size, const char *path, size_t len,
			struct favo_err *err)
{
	const char *slash = memrchr(path, '/', len);
	const char *base = slash ? slash + 1 : path;
	const char *ko = memmem(base, (size_t)(path + len - base), ".ko", 3);

	if (!ko || path + len - base > NAME_MAX)
		return favo_fail(err, EBADMSG, "modules.dep: bad path '%.*s'", (int)len,
				 path);
	snprintf(target, size, "favo/ko/%.*s.ko", (int)(ko - base), base);
	return 0;
}

/* Is target in the archive? Where the list has it, or an earlier driver brought it. */
static int note_target(struct favo_module_builder *b, const char *target, const char *pci,
		       struct favo_err *err)
{
	char line[NAME_MAX + 64], *grown;
	size_t len = (size_t)snprintf(line, sizeof(line), "/%s%s%s\n", target,
				      pci ? " " : "", pci ? pci : "");

	if (b->list && memmem(b->list, b->list_len, target, strlen(target)))
		return 0;
	grown = realloc(b->list, b->list_len + len);
	if (!grown)
		return favo_fail(err, ENOMEM, "initramfs: out of memory");
	b->list = grown;
	memcpy(b->list + b->list_len, line, len);
	b->list_len += len;
	return 1;
}

int favo_modules_add(struct favo_module_builder *b, const char *path, size_t len,
		     void *user, struct favo_err *err)
{
	favo_autofree char *full = NULL, *packed = NULL;
	favo_autofree void *data = NULL;
	char target[NAME_MAX + 32];
	const struct favo_inode *inode;
	size_t packed_len = 0, data_len = 0;
	int ret = favo_modules_target(target, sizeof(target), path, len, err);

	if (ret == 0)
		ret = note_target(b, target, user, err);
	if (ret <= 0)
		return ret;
	full = favo_asprintf("%s/%.*s", b->folder, (int)len, path);
	if (!full)
		return favo_fail(err, ENOMEM, "initramfs: out of memory");
	inode = favo_tree_find(b->tree, full);
	if (!inode)
		return favo_fail(err, ENOENT, "%s: in modules.dep, but not there", full);
	if ((ret = favo_tree_read_all(b->tree, inode, MODULE_MAX, &packed, &packed_len,
				      err)) < 0 ||
	    (ret = favo_unpack(packed, packed_len, MODULE_MAX, &data, &data_len, err)) <
		    0 ||
	    (ret = favo_cpio_file(b->cpio, target, 0644, data, data_len, err)) < 0)
		return favo_wrap(err, ret, "%s", full);
	return 0;
}

/* A line is "module: need need", the deepest need last. */
int favo_modules_each(struct favo_module_builder *b, const char *line, favo_module_fn *fn,
		      void *user, struct favo_err *err)
{
	size_t len = strcspn(line, "\n"), name_len = strcspn(line, ":\n");
	const char *end = line + len, *start;
	int ret;

	while (end > line + name_len) {
		while (end > line + name_len && (end[-1] == ' ' || end[-1] == ':'))
			end--;
		start = end;
		while (start > line + name_len && start[-1] != ' ' && start[-1] != ':')
			start--;
		if (start == end)
			break;
		ret = fn(b, start, (size_t)(end - start), user, err);
		if (ret < 0)
			return ret;
		end = start;
	}
	return fn(b, line, name_len, user, err);
}

int favo_modules_text(struct favo_module_builder *b, const char *name, char **text,
		      struct favo_err *err)
{
	favo_autofree char *path = favo_asprintf("%s/%s", b->folder, name);
	const struct favo_inode *inode = path ? favo_tree_find(b->tree, path) : NULL;
	size_t len;
	int ret;

	if (!inode)
		return favo_fail(err, ENOENT, "%s/%s is missing; run depmod in the image",
				 b->folder, name);
	ret = favo_tree_read_all(b->tree, inode, LIST_MAX, text, &len, err);
	return ret < 0 ? favo_wrap(err, ret, "%s", path) : 0;
}

int favo_modules_begin(struct favo_module_builder *b, const struct favo_tree *tree,
		       const char *folder, struct favo_err *err)
{
	int ret;

	*b = (struct favo_module_builder){.tree = tree, .folder = folder};
	if ((ret = favo_cpio_new(&b->cpio, err)) < 0 ||
	    (ret = favo_modules_text(b, "modules.dep", &b->dep, err)) < 0)
		return ret;
	return favo_modules_text(b, "modules.builtin", &b->builtin, err);
}

void favo_modules_end(struct favo_module_builder *b)
{
	favo_cpio_free(b->cpio);
	free(b->dep);
	free(b->builtin);
	free(b->list);
}

static int fill(struct favo_module_builder *b, struct favo_err *err)
{
	char *line;
	int ret;

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(wanted); i++) {
		if (favo_modules_find(b->builtin, wanted[i].name) ||
		    (wanted[i].with && !favo_modules_find(b->dep, wanted[i].with)))
			continue;
		line = favo_modules_find(b->dep, wanted[i].name);
		ret = line ? favo_modules_each(b, line, favo_modules_add,
					       (void *)(uintptr_t)wanted[i].pci, err)
			   : 0;
		if (ret < 0)
			return ret;
		if (!line && wanted[i].required)
			return favo_fail(err, ENOENT, "%s: the kernel has no module %s",
					 b->folder, wanted[i].name);
	}
	return favo_cpio_file(b->cpio, "favo/modules", 0644, b->list, b->list_len, err);
}

int favo_initramfs_build(struct favo_cpio **out, const struct favo_tree *tree,
			 const char *modules, struct favo_err *err)
{
	struct favo_module_builder b;
	int ret = favo_modules_begin(&b, tree, modules, err);

	if (ret == 0)
		ret = fill(&b, err);
	if (ret == 0)
		*out = favo_steal_ptr(&b.cpio);
	favo_modules_end(&b);
	return ret < 0 ? favo_wrap(err, ret, "initramfs") : 0;
}
