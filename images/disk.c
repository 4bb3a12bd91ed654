// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Disk images; see disk.h. What a file is, its content says, never its name.
 * Every format becomes one raw file, in which partition.c finds partitions
 * and favo-readfs reads the file systems. An image may not refer to other
 * files: it could name any of this machine.
 */
#include "images/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "common/str.h"
#include "common/util.h"
#include "images/confine.h"
#include "images/disk_internal.h"
#include "images/osrelease.h"

#define INFO_MAX (1u << 20)
#define FAVO_DISK_MAX (16ull << 40)

static bool has(const void *head, size_t len, size_t offset, const void *magic, size_t n)
{
	return offset + n <= len && memcmp((const char *)head + offset, magic, n) == 0;
}

enum favo_disk_kind favo_disk_detect(const void *head, size_t len)
{
	static const struct {
		size_t offset;
		const char *magic;
		size_t len;
		enum favo_disk_kind kind;
	} rows[] = {
		{0, "hsqs", 4, FAVO_DISK_SQUASHFS},
		{0, "QFI\xfb", 4, FAVO_DISK_QCOW2},
		{0, "KDMV", 4, FAVO_DISK_VMDK},
		{0, "COWD", 4, FAVO_DISK_OTHER},
		{0, "# Disk DescriptorFile", 21, FAVO_DISK_VMDK_TEXT},
		{0, "vhdxfile", 8, FAVO_DISK_OTHER},
		{0, "conectix", 8, FAVO_DISK_OTHER},
		{64, "\x7f\x10\xda\xbe", 4, FAVO_DISK_VDI},
		/* Before what may stand by chance in compressed data. */
		{257, "ustar", 5, FAVO_DISK_NONE},
		{0, "\x1f\x8b", 2, FAVO_DISK_NONE},
		{0, "BZh", 3, FAVO_DISK_NONE},
		{0,
		 "\xfd"
		 "7zXZ",
		 5, FAVO_DISK_NONE},
		{0, "\x28\xb5\x2f\xfd", 4, FAVO_DISK_NONE},
		{0, "\x04\x22\x4d\x18", 4, FAVO_DISK_NONE},
		{512, "EFI PART", 8, FAVO_DISK_RAW},
		{4096, "EFI PART", 8, FAVO_DISK_RAW},
		{510, "\x55\xaa", 2, FAVO_DISK_RAW},
		{1024 + 56, "\x53\xef", 2, FAVO_DISK_RAW}, /* ext2 and later */
		{0, "XFSB", 4, FAVO_DISK_RAW},
		{65536 + 64, "_BHRfS_M", 8, FAVO_DISK_RAW},
		{512, "LABELONE", 8, FAVO_DISK_RAW}, /* LVM */
	};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++)
		if (has(head, len, rows[i].offset, rows[i].magic, rows[i].len))
			return rows[i].kind;
	return FAVO_DISK_NONE;
}

/* ---- to a raw file ---- */

/* No value that names another file may stand anywhere in qemu-img's answer. */
static int refuse_references(const json_t *info, struct favo_err *err)
{
	static const char *const keys[] = {"backing-filename", "full-backing-filename",
					   "data-file", "backing-image"};
	const char *key;
	json_t *value;
	size_t i;
	int ret = 0;

	if (json_is_array(info)) {
		json_array_foreach(info, i, value) if (ret == 0) ret =
			refuse_references(value, err);
		return ret;
	}
	json_object_foreach((json_t *)info, key, value)
	{
		const char *name = json_string_value(value);

		for (i = 0; i < FAVO_ARRAY_SIZE(keys); i++)
			if (strcmp(key, keys[i]) == 0)
				return favo_fail(
					err, EPERM,
					"refused: it is not whole, but refers to another "
					"file, '%.100s'; make one file of it where that "
					"file is: qemu-img convert -O qcow2 FILE "
					"NEW.qcow2",
					name ? name : "?");
		/* Extents of a VMDK: the image itself is all there may be. */
		if (strcmp(key, "filename") == 0 && name &&
		    strcmp(name, FAVO_CONFINE_IN) != 0)
			return favo_fail(err, EPERM,
					 "refused: it refers to another file, '%.100s'",
					 name);
		if (strcmp(key, "encrypted") == 0 && json_is_true(value))
			return favo_fail(err, EPERM, "is encrypted");
		ret = refuse_references(value, err);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* Length of the disk; refuses what refers to other files. */
static int examine(const char *path, const char *format, uint64_t *size,
		   struct favo_err *err)
{
	char *const argv[] = {(char *)"qemu-img",
			      (char *)"info",
			      (char *)"-f",
			      (char *)format,
			      (char *)"--output=json",
			      (char *)FAVO_CONFINE_IN,
			      NULL};
	struct favo_confine spec = {.argv = argv, .in_path = path};
	favo_autojson json_t *info = NULL;
	favo_autofree char *text = NULL;
	size_t len;
	int ret = favo_confine_output(&spec, INFO_MAX, &text, &len, err);

	if (ret == -ENOENT)
		return favo_fail(err, ENOENT,
				 "qemu-img is not installed; install the package "
				 "qemu-utils");
	if (ret < 0 || (ret = favo_json_parse(&info, text, len, err)) < 0 ||
	    (ret = refuse_references(info, err)) < 0)
		return ret;
	return favo_json_u64(size, info, "virtual-size", 1, FAVO_DISK_MAX, err);
}

/* Tell what qemu-img -p prints: "    (12.34/100%)", each after a return. */
static void follow(struct favo_source *source, int fd, uint64_t size)
{
	char text[256], *open;
	double percent;
	ssize_t n;

	while ((n = read(fd, text, sizeof(text) - 1)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return;
		text[n] = '\0';
		open = strrchr(text, '(');
		percent = open ? strtod(open + 1, NULL) : -1;
		if (percent >= 0 && percent < 100 && source->progress)
			source->progress("convert",
					 (uint64_t)(percent / 100 * (double)size), size,
					 source->user);
	}
	if (source->progress)
		source->progress("convert", size, size, source->user);
}

/* The disk in one raw sparse file, *raw, which the caller removes. */
static int convert(struct favo_source *source, const char *path, const char *format,
		   char **raw, struct favo_err *err)
{
	char *const argv[] = {(char *)"qemu-img",
			      (char *)"convert",
			      (char *)"-p",
			      (char *)"-n",
			      (char *)"--target-is-zero",
			      (char *)"-f",
			      (char *)format,
			      (char *)"-O",
			      (char *)"raw",
			      (char *)FAVO_CONFINE_IN,
			      (char *)FAVO_CONFINE_OUT,
			      NULL};
	struct favo_confine spec = {.argv = argv, .in_path = path};
	struct favo_confined run = FAVO_CONFINED_INIT;
	favo_autoclose int fd = -1;
	uint64_t size = 0;
	int ret = examine(path, format, &size, err);

	if (ret < 0)
		return ret;
	fd = favo_confine_make_out(raw, source->tmp_dir, err);
	if (fd < 0)
		return fd;
	if (ftruncate(fd, (off_t)size) < 0)
		return favo_fail(err, errno, "%s: %m", *raw);
	spec.out_path = *raw;
	spec.out_max = size;
	ret = favo_confine_start(&run, &spec, err);
	if (ret < 0)
		return ret;
	follow(source, run.stdout_fd, size);
	return favo_confine_finish(&run, err);
}

/* ---- choose ---- */

static int read_disk(void *user, void *buf, size_t len, uint64_t offset)
{
	const struct favo_disk *disk = user;
	ssize_t n = pread(disk->fd, buf, len, (off_t)offset);

	return n < 0 ? -errno : (size_t)n < len ? -ENODATA : 0;
}

static void note(struct favo_disk *disk, const char *fmt, ...) favo_printf(2, 3);

static void note(struct favo_disk *disk, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	favo_source_note(disk->source, text);
}

static int run_readfs(struct favo_disk *disk, char *const argv[], struct favo_tree **tree,
		      struct favo_err *err)
{
	struct favo_confine spec = {.argv = argv, .in_path = disk->path};
	int ret = favo_source_confined_tar(disk->source, &spec, tree, err);

	return ret == -ENOENT ? favo_fail(err, ENOENT,
					  "favo-readfs is missing; Favo is not wholly "
					  "installed")
			      : ret;
}

static int probe(struct favo_disk *disk, struct favo_disk_part *part,
		 struct favo_err *err)
{
	favo_autotree struct favo_tree *tree = NULL;
	favo_autojson json_t *os = NULL;
	favo_autofree char *text = NULL;
	char offset[32];
	char *const argv[] = {(char *)"favo-readfs", (char *)"probe",
			      (char *)FAVO_CONFINE_IN, offset, NULL};
	const struct favo_inode *inode;
	const char *pretty;
	size_t len;
	int ret;

	snprintf(offset, sizeof(offset), "%llu", (unsigned long long)part->p->start);
	ret = run_readfs(disk, argv, &tree, err);
	if (ret < 0)
		return favo_wrap(err, ret, "partition %u", part->p->number);
	inode = favo_tree_find(tree, "etc/os-release");
	if (!inode)
		inode = favo_tree_find(tree, "usr/lib/os-release");
	part->is_root = inode && favo_tree_find(tree, "etc");
	if (!part->is_root)
		return 0;
	if (favo_tree_read_all(tree, inode, 65536, &text, &len, NULL) == 0) {
		os = favo_osrelease_parse(text, len);
		pretty = json_string_value(json_object_get(os, "PRETTY_NAME"));
		snprintf(part->os, sizeof(part->os), "%s", pretty ? pretty : "no name");
	}
	inode = favo_tree_find(tree, "etc/fstab");
	if (inode && S_ISREG(inode->mode))
		return favo_tree_read_all(tree, inode, 65536, &part->fstab, &len, err);
	return 0;
}

/* Why none of the partitions will do, with what to do instead. */
static int fail_no_root(const struct favo_disk *disk, struct favo_err *err)
{
	const struct favo_partition *other = NULL;

	for (size_t i = 0; i < disk->n; i++) {
		enum favo_fs fs = disk->parts[i].p->fs;

		if (fs == FAVO_FS_XFS || fs == FAVO_FS_BTRFS || fs == FAVO_FS_LVM ||
		    fs == FAVO_FS_F2FS || fs == FAVO_FS_RAID || fs == FAVO_FS_LUKS)
			other = disk->parts[i].p;
	}
	if (other)
		return favo_fail(
			err, ENOTSUP,
			"partition %u is %s, which Favo does not read; let "
			"libguestfs do it: virt-tar-out -a FILE / - | favo image "
			"import --name NAME -",
			other->number, favo_fs_name(other->fs));
	return favo_fail(err, ENOENT,
			 "no root file system found: none of %zu partitions has an "
			 "os-release file in etc or usr/lib",
			 disk->n);
}

/* Does the system on this partition call it its own root? */
static bool names_itself(struct favo_disk *disk, const struct favo_disk_part *part)
{
	struct favo_fstab_line line;
	const char *at = part->fstab;

	while (favo_fstab_next(&at, &line))
		if (strcmp(line.folder, "/") == 0)
			return favo_fstab_device(disk, line.device) == part;
	return false;
}

static struct favo_disk_part *choose_root(struct favo_disk *disk, const char **why,
					  struct favo_err *err)
{
	struct favo_disk_part *found = NULL;
	favo_autofree char *list = NULL;
	unsigned int roots = 0, own = 0, typed = 0;

	for (size_t i = 0; i < disk->n; i++) {
		struct favo_disk_part *part = &disk->parts[i];

		if (disk->source->partition) {
			if (part->p->number != disk->source->partition)
				continue;
			*why = "asked for";
			if (part->is_root)
				return part;
			favo_fail(err, ENOENT,
				  "partition %u (%s) has no root file system",
				  part->p->number, favo_fs_name(part->p->fs));
			return NULL;
		}
		if (!part->is_root)
			continue;
		roots++;
		own += part->own = names_itself(disk, part);
		typed += part->p->root_type;
	}
	*why = roots == 1 ? "the only one with an os-release file"
	       : own == 1 ? "its fstab names it as /"
			  : "its type in the partition table";
	for (size_t i = 0; i < disk->n; i++) {
		struct favo_disk_part *part = &disk->parts[i];
		char *longer;

		if (!part->is_root)
			continue;
		if (roots == 1 || (own == 1 && part->own) ||
		    (own != 1 && typed == 1 && part->p->root_type))
			found = part;
		longer = favo_asprintf("%s%s%u (%s)", list ? list : "", list ? ", " : "",
				       part->p->number, part->os);
		free(list);
		list = longer;
	}
	if (!found && disk->source->partition)
		favo_fail(err, ENOENT, "there is no partition %u",
			  disk->source->partition);
	else if (!found && roots)
		favo_fail(err, EINVAL,
			  "several partitions hold a system: %s; choose one with "
			  "--partition",
			  list ? list : "?");
	else if (!found)
		fail_no_root(disk, err);
	return found;
}

/* ---- load ---- */

/* The root, and below it what its fstab mounts from the same disk. */
static int load_tree(struct favo_disk *disk, struct favo_disk_part *root,
		     struct favo_err *err)
{
	char *argv[FAVO_PARTITIONS_MAX + 5] = {(char *)"favo-readfs", (char *)"tar",
					       (char *)FAVO_CONFINE_IN};
	const char *at = root->fstab;
	struct favo_fstab_line line;
	size_t n = 4;
	int ret;

	argv[3] = favo_asprintf("%llu", (unsigned long long)root->p->start);
	root->used = true;
	while (favo_fstab_next(&at, &line)) {
		struct favo_disk_part *part = favo_fstab_device(disk, line.device);

		if (!part || part->used || line.folder[0] != '/' || !line.folder[1] ||
		    strstr(line.folder, ".."))
			continue;
		if (part->p->fs != FAVO_FS_EXT) {
			note(disk, "left out %s: partition %u is %s", line.folder,
			     part->p->number, favo_fs_name(part->p->fs));
			continue;
		}
		note(disk, "%s: partition %u, by the fstab of the root", line.folder,
		     part->p->number);
		part->used = true;
		argv[n++] = favo_asprintf("%llu:%s", (unsigned long long)part->p->start,
					  line.folder + 1);
	}
	ret = 0;
	for (size_t i = 3; i < n; i++)
		if (!argv[i])
			ret = favo_fail(err, ENOMEM, "out of memory");
	if (ret == 0)
		ret = run_readfs(disk, argv, &disk->source->tree, err);
	for (size_t i = 3; i < n; i++)
		free(argv[i]);
	return ret;
}

/* Without this, systemd in the guest would wait for disks that never come. */
static int mend_fstab(struct favo_disk *disk, struct favo_err *err)
{
	struct favo_tree *tree = disk->source->tree;
	const struct favo_inode *inode = favo_tree_find(tree, "etc/fstab");
	favo_autofree char *text = NULL, *mended = NULL;
	int64_t mtime = inode ? inode->mtime : 0;
	unsigned int n = 0;
	size_t len;
	int ret;

	if (!inode || !S_ISREG(inode->mode))
		return 0;
	ret = favo_tree_read_all(tree, inode, 65536, &text, &len, err);
	if (ret < 0)
		return favo_wrap(err, ret, "/etc/fstab");
	mended = favo_fstab_without_disks(text, &n);
	if (!mended)
		return favo_fail(err, ENOMEM, "out of memory");
	if (n == 0)
		return 0;
	note(disk, "/etc/fstab: %u line%s commented out, whose disks guests lack", n,
	     n == 1 ? "" : "s");
	return favo_tree_put_file(tree, "etc/fstab", 0644, mended, strlen(mended), mtime,
				  err);
}

static int load_raw(struct favo_disk *disk, struct favo_err *err)
{
	favo_autofree struct favo_partition *parts = NULL;
	struct favo_disk_part *root;
	const char *why = "";
	struct stat st;
	int ret;

	disk->fd = open(disk->path, O_RDONLY | O_CLOEXEC);
	if (disk->fd < 0 || fstat(disk->fd, &st) < 0)
		return favo_fail(err, errno, "%m");
	ret = favo_partitions_read(&parts, &disk->n, (uint64_t)st.st_size, read_disk,
				   disk, err);
	if (ret < 0)
		return ret;
	for (size_t i = 0; i < disk->n; i++) {
		char size[32];

		disk->parts[i].p = &parts[i];
		if (parts[i].fs == FAVO_FS_EXT) {
			ret = probe(disk, &disk->parts[i], err);
			if (ret < 0)
				return ret;
		}
		note(disk, "partition %u: %s, %s%s%s%s%s", parts[i].number,
		     favo_format_size(size, sizeof(size), parts[i].length),
		     favo_fs_name(parts[i].fs), parts[i].label[0] ? ", label " : "",
		     parts[i].label, disk->parts[i].is_root ? ", " : "",
		     disk->parts[i].os);
	}
	root = choose_root(disk, &why, err);
	if (!root)
		return err && err->code ? -err->code : -ENOENT;
	note(disk, "root: partition %u, %s", root->p->number, why);
	ret = load_tree(disk, root, err);
	return ret < 0 ? ret : mend_fstab(disk, err);
}

int favo_disk_load(struct favo_source *source, const char *path, enum favo_disk_kind kind,
		   struct favo_err *err)
{
	favo_autofree char *copy = NULL, *raw = NULL;
	favo_autofree struct favo_disk *disk = calloc(1, sizeof(*disk));
	struct favo_err local = {0};
	int ret;

	if (!disk)
		return favo_fail(err, ENOMEM, "out of memory");
	disk->source = source;
	disk->fd = -1;
	disk->path = path;
	ret = favo_confine_admit(&copy, path, source->tmp_dir, &local);
	if (copy)
		disk->path = copy;
	if (ret == 0 && kind != FAVO_DISK_RAW) {
		ret = convert(source, disk->path,
			      kind == FAVO_DISK_QCOW2  ? "qcow2"
			      : kind == FAVO_DISK_VMDK ? "vmdk"
						       : "vdi",
			      &raw, &local);
		if (raw)
			disk->path = raw;
	}
	if (ret == 0)
		ret = load_raw(disk, &local);
	favo_close(&disk->fd);
	for (size_t i = 0; i < disk->n; i++)
		free(disk->parts[i].fstab);
	if (raw)
		unlink(raw);
	if (copy)
		unlink(copy);
	return ret < 0 ? favo_fail(err, -ret, "%s", local.msg) : 0;
}
