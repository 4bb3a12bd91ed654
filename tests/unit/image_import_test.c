// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * From tree to image: kernels in all wrappings, modules in load order,
 * secrets, identity, choice of the kernel, and recipes.
 */
#include "images/import.h"

#include <archive.h>
#include <archive_entry.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "common/json.h"
#include "images/initramfs.h"
#include "images/kernel.h"
#include "images/osrelease.h"
#include "images/recipe.h"
#include "images/unpack.h"
#include "tests/unit/images_util.h"

#define ELF_LEN 20000

/* ---- kernels ---- */

/* An ELF of one note segment; the rest is noise. */
static unsigned char *make_elf(bool pvh)
{
	unsigned char *elf = malloc(ELF_LEN);
	Elf64_Ehdr header = {0};
	Elf64_Phdr segment = {0};
	uint32_t note[8] = {6, 4, 1, 0x78756e69, 0x4c00, 7, 0, 0}; /* "inuxL" */
	uint32_t xen[5] = {4, 4, pvh ? 18 : 17, 0x006e6558, 0x1000000};

	fill_random(elf, ELF_LEN, 4);
	memcpy(header.e_ident, ELFMAG, SELFMAG);
	header.e_ident[EI_CLASS] = ELFCLASS64;
	header.e_machine = EM_X86_64;
	header.e_phentsize = sizeof(segment);
	header.e_phoff = sizeof(header);
	header.e_phnum = 1;
	segment.p_type = PT_NOTE;
	segment.p_offset = 1024;
	segment.p_filesz = 24 + sizeof(xen);
	memcpy(elf, &header, sizeof(header));
	memcpy(elf + sizeof(header), &segment, sizeof(segment));
	memcpy(elf + 1024, note, 24);
	memcpy(elf + 1024 + 24, xen, sizeof(xen));
	return elf;
}

static size_t compress_with(const char *filter, const void *data, size_t len, void *out,
			    size_t size)
{
	struct archive *archive = archive_write_new();
	struct archive_entry *entry = archive_entry_new();
	size_t used = 0;

	archive_write_set_format_raw(archive);
	assert_int_equal(archive_write_add_filter_by_name(archive, filter), ARCHIVE_OK);
	archive_write_set_bytes_in_last_block(archive, 1);
	/* Else two systems made in different seconds differ. */
	if (strcmp(filter, "gzip") == 0)
		assert_int_equal(archive_write_set_filter_option(archive, "gzip",
								 "timestamp", NULL),
				 ARCHIVE_OK);
	assert_int_equal(archive_write_open_memory(archive, out, size, &used),
			 ARCHIVE_OK);
	archive_entry_set_filetype(entry, AE_IFREG);
	assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
	assert_int_equal(archive_write_data(archive, data, len), len);
	assert_int_equal(archive_write_close(archive), ARCHIVE_OK);
	archive_entry_free(entry);
	archive_write_free(archive);
	return used;
}

static size_t make_bzimage(const char *filter, const void *elf, unsigned char *out,
			   size_t size)
{
	uint32_t offset = 64, length, elf_len = ELF_LEN;
	size_t start = 3 * 512 + offset;

	memset(out, 0, size);
	out[0x1f1] = 2;
	memcpy(out + 0x202, "HdrS", 4);
	out[0x206] = 0x0f;
	out[0x207] = 0x02;
	length = (uint32_t)compress_with(filter, elf, ELF_LEN, out + start, size - start);
	if (strcmp(filter, "gzip") != 0) {
		memcpy(out + start + length, &elf_len, 4);
		length += 4;
	}
	memcpy(out + 0x248, &offset, 4);
	memcpy(out + 0x24c, &length, 4);
	return start + length + 100;
}

static void test_kernel_forms(void **state)
{
	static const char *const filters[] = {"gzip", "xz", "zstd", "lzma", "bzip2"};
	favo_autofree unsigned char *elf = make_elf(true), *no_pvh = make_elf(false);
	favo_autofree unsigned char *image = malloc(200000);
	struct favo_err err = {0};
	size_t len, out_len;

	(void)state;
	assert_true(favo_elf_has_pvh(elf, ELF_LEN));
	assert_false(favo_elf_has_pvh(no_pvh, ELF_LEN));
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(filters); i++) {
		favo_autofree void *out = NULL, *none = NULL;

		len = make_bzimage(filters[i], elf, image, 200000);
		assert_int_equal(favo_kernel_unwrap(image, len, &out, &out_len, &err), 1);
		assert_int_equal(out_len, ELF_LEN);
		assert_memory_equal(out, elf, ELF_LEN);
		/* Without the entry the bzImage is kept. */
		len = make_bzimage(filters[i], no_pvh, image, 200000);
		assert_int_equal(favo_kernel_unwrap(image, len, &none, &out_len, &err),
				 0);
		/* A cut or damaged one is refused or kept, and never read beyond. */
		for (size_t cut = 0; cut < len; cut += 97) {
			favo_autofree unsigned char *part = malloc(cut + 1);
			favo_autofree void *any = NULL;

			memcpy(part, image, cut);
			favo_kernel_unwrap(part, cut, &any, &out_len, &err);
		}
	}
	{
		favo_autofree void *any = NULL;

		assert_int_equal(favo_kernel_unwrap(elf, ELF_LEN, &any, &out_len, &err),
				 0);
		assert_int_equal(favo_kernel_unwrap("MZ", 2, &any, &out_len, &err),
				 -EBADMSG);
		assert_int_equal(favo_kernel_unwrap(no_pvh, ELF_LEN, &any, &out_len,
						    &err),
				 -EBADMSG);
	}
	for (size_t i = 0; i < ELF_LEN; i += 3) {
		favo_autofree unsigned char *part = malloc(i + 1);

		memcpy(part, elf, i);
		favo_elf_has_pvh(part, i);
	}
}

/* ---- trees with a system in them ---- */

static void put(struct favo_tree *tree, const char *path, const char *text)
{
	struct favo_err err = {0};

	assert_ok(favo_tree_put_file(tree, path, 0644, text, strlen(text), 1700000000,
				     &err),
		  &err);
}

static const char modules_dep[] =
	"kernel/virtio/virtio_pci.ko: kernel/virtio/virtio_ring.ko "
	"kernel/virtio/virtio.ko\n"
	"kernel/virtio/virtio_ring.ko: kernel/virtio/virtio.ko\n"
	"kernel/virtio/virtio.ko:\n"
	"kernel/net/vmw_vsock_virtio_transport.ko.gz: "
	"kernel/virtio/virtio_ring.ko kernel/virtio/virtio.ko\n"
	"kernel/fs/erofs.ko:\n"
	"kernel/fs/overlay.ko:\n"
	"kernel/char/virtio-rng.ko: kernel/virtio/virtio.ko\n"
	"kernel/net/vmxnet3.ko:\n"
	"extra/rdma_ucm.ko: extra/ib_core.ko\n"; /* no vmw_pvrdma: left out */

/* A root with os-release, secrets and, if asked for, a kernel. */
static struct favo_tree *make_system(bool with_kernel)
{
	static const char *const modules[] = {
		"virtio/virtio_pci.ko", "virtio/virtio_ring.ko", "virtio/virtio.ko",
		"fs/erofs.ko",		"fs/overlay.ko",	 "char/virtio-rng.ko",
		"net/vmxnet3.ko"};
	favo_autofree unsigned char *elf = make_elf(true);
	favo_autofree unsigned char *image = malloc(200000);
	struct favo_tree *tree = NULL;
	struct favo_inode *inode;
	struct favo_err err = {0};
	char path[128], packed[1000];
	size_t len;

	assert_ok(favo_tree_new(&tree, &err), &err);
	put(tree, "usr/lib/os-release",
	    "PRETTY_NAME=\"Test OS 1\"\nID=test\nIMAGE_ID=old\nNAME='a b'\nbad "
	    "line\nX=\"cut\n");
	assert_ok(favo_tree_put(tree, "etc/os-release", S_IFLNK | 0777, &inode, &err),
		  &err);
	assert_ok(favo_tree_set_target(inode, "../usr/lib/os-release", &err), &err);
	assert_ok(favo_tree_put(tree, "lib", S_IFLNK | 0777, &inode, &err), &err);
	assert_ok(favo_tree_set_target(inode, "usr/lib", &err), &err);
	put(tree, "etc/munge/munge.key", "secret");
	put(tree, "etc/ssh/ssh_host_ed25519_key", "secret");
	put(tree, "etc/machine-id", "0123");
	put(tree, "tmp/leftover", "x");
	put(tree, "bin/sh", "#!");
	if (!with_kernel)
		return tree;
	/* An older kernel beside it, and a newer one without modules. */
	put(tree, "boot/vmlinuz-6.1.0-9-test", "old");
	put(tree, "usr/lib/modules/6.1.0-9-test/modules.dep", "");
	put(tree, "boot/vmlinuz-7.0-test", "no modules");
	len = make_bzimage("gzip", elf, image, 200000);
	assert_ok(favo_tree_put_file(tree, "boot/vmlinuz-6.1.0-10-test", 0644, image, len,
				     1, &err),
		  &err);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(modules); i++) {
		snprintf(path, sizeof(path), "usr/lib/modules/6.1.0-10-test/kernel/%s",
			 modules[i]);
		put(tree, path, modules[i]);
	}
	len = compress_with("gzip", "vsock", 5, packed, sizeof(packed));
	assert_ok(favo_tree_put_file(tree,
				     "usr/lib/modules/6.1.0-10-test/kernel/net/"
				     "vmw_vsock_virtio_transport.ko.gz",
				     0644, packed, len, 1, &err),
		  &err);
	put(tree, "usr/lib/modules/6.1.0-10-test/modules.dep", modules_dep);
	put(tree, "usr/lib/modules/6.1.0-10-test/modules.builtin",
	    "kernel/drivers/block/virtio_blk.ko\n");
	return tree;
}

static void test_initramfs(void **state)
{
	static const char list[] = "/favo/ko/virtio.ko\n/favo/ko/virtio_ring.ko\n"
				   "/favo/ko/virtio_pci.ko\n"
				   "/favo/ko/vmw_vsock_virtio_transport.ko\n"
				   "/favo/ko/erofs.ko\n/favo/ko/overlay.ko\n"
				   "/favo/ko/virtio-rng.ko\n"
				   "/favo/ko/vmxnet3.ko 15ad:07b0\n";
	favo_autotree struct favo_tree *tree = make_system(true);
	favo_autocpio struct favo_cpio *cpio = NULL, *none = NULL;
	struct favo_err err = {0};
	const void *data;
	size_t len;

	(void)state;
	assert_ok(favo_initramfs_build(&cpio, tree, "lib/modules/6.1.0-10-test", &err),
		  &err);
	assert_ok(favo_cpio_finish(cpio, &data, &len, &err), &err);
	assert_non_null(memmem(data, len, list, strlen(list)));
	assert_non_null(memmem(data, len, "favo/ko/virtio-rng.ko\0", 22));
	assert_non_null(memmem(data, len, "vsock", 5));
	assert_null(memmem(data, len, "rdma_ucm", 8));
	assert_ok(favo_tree_remove(
			  tree, "usr/lib/modules/6.1.0-10-test/kernel/fs/erofs.ko", &err),
		  &err);
	assert_int_equal(favo_initramfs_build(&none, tree, "lib/modules/6.1.0-10-test",
					      &err),
			 -ENOENT);
	put(tree, "usr/lib/modules/6.1.0-10-test/modules.dep", "kernel/fs/overlay.ko:\n");
	assert_int_equal(favo_initramfs_build(&none, tree, "lib/modules/6.1.0-10-test",
					      &err),
			 -ENOENT);
	assert_non_null(strstr(err.msg, "virtio_pci"));
	assert_ok(favo_tree_remove(tree, "usr/lib/modules/6.1.0-10-test/modules.dep",
				   &err),
		  &err);
	assert_int_equal(favo_initramfs_build(&none, tree, "lib/modules/6.1.0-10-test",
					      &err),
			 -ENOENT);
	assert_non_null(strstr(err.msg, "depmod"));
}

static void collect(const char *text, void *user)
{
	char *notes = user;

	snprintf(notes + strlen(notes), 2000 - strlen(notes), "%s\n", text);
}

static void test_import(void **state)
{
	char *dir = scratch_dir(), notes[2000] = "";
	favo_autostore struct favo_store *store = NULL;
	favo_automanifest struct favo_manifest *m = NULL;
	struct favo_import import = {
		.name = "site/test:v1", .note = collect, .user = notes};
	struct favo_import_result first = {0}, second = {0};
	favo_autofree void *kernel = NULL;
	favo_autofree char *text = NULL;
	favo_autofree unsigned char *elf = make_elf(true);
	struct favo_digest id;
	struct favo_err err = {0};
	const json_t *os;
	size_t len;

	(void)state;
	assert_ok(favo_store_open(&store, dir, FAVO_STORE_CREATE, &err), &err);
	for (int i = 0; i < 2; i++) {
		favo_autotree struct favo_tree *tree = make_system(true);

		notes[0] = '\0';
		assert_ok(favo_import_tree(store, tree, &import, i ? &second : &first,
					   &err),
			  &err);
		assert_null(favo_tree_find(tree, "etc/munge/munge.key"));
		assert_null(favo_tree_find(tree, "tmp/leftover"));
		assert_non_null(favo_tree_find(tree, "proc"));
		assert_int_equal(favo_tree_find(tree, "etc/machine-id")->size, 0);
		assert_int_equal(favo_tree_find(tree, "tmp")->mode, S_IFDIR | 0755);
		text = NULL;
		assert_ok(favo_tree_read_all(tree, favo_tree_find(tree, "etc/os-release"),
					     10000, &text, &len, &err),
			  &err);
		assert_non_null(
			strstr(text, "\nIMAGE_ID=\"site-test\"\nIMAGE_VERSION=\"v1\"\n"));
		assert_null(strstr(text, "=old"));
		if (i == 0)
			free(favo_steal_ptr(&text));
	}
	/* Same input, same image, nothing new. */
	assert_true(favo_digest_equal(&first.id, &second.id));
	assert_int_equal(second.pack.new_chunks, 0);
	assert_non_null(strstr(notes, "dropped secret /etc/munge/munge.key\n"));
	assert_non_null(strstr(notes, "dropped secret /etc/ssh/ssh_host_ed25519_key\n"));
	assert_non_null(strstr(notes, "/boot/vmlinuz-6.1.0-10-test"));
	assert_ok(favo_store_resolve(store, "site/test:v1", &id, &err), &err);
	assert_ok(favo_store_manifest(store, &id, &m, &err), &err);
	assert_string_equal(m->kernel.release, "6.1.0-10-test");
	assert_string_equal(m->kernel.source, "image");
	assert_int_equal(m->created, 1700000000);
	os = json_object_get(m->json, "os");
	assert_string_equal(m->os_pretty, "Test OS 1");
	assert_string_equal(json_string_value(json_object_get(os, "NAME")), "a b");
	assert_null(json_object_get(os, "X"));
	assert_ok(favo_store_read_blob(store, &m->kernel.digest, m->kernel.size, &kernel,
				       &len, &err),
		  &err);
	assert_int_equal(len, ELF_LEN);
	assert_memory_equal(kernel, elf, len);
	scratch_free(dir);
}

/* Without a kernel in the image: the site's, the given one, or a sentence. */
static void test_site_kernel(void **state)
{
	char *dir = scratch_dir();
	favo_autofree char *store_dir = favo_asprintf("%s/store", dir);
	favo_autofree char *kernel = favo_asprintf("%s/vmlinux", dir);
	favo_autofree char *modules = favo_asprintf("%s/6.5-site", dir);
	favo_autofree char *file = favo_asprintf("%s/modules.dep", modules);
	favo_autofree char *builtin = favo_asprintf("%s/modules.builtin", modules);
	favo_autofree unsigned char *elf = make_elf(true);
	favo_autostore struct favo_store *store = NULL;
	favo_autotree struct favo_tree *tree = make_system(false);
	struct favo_import import = {.name = "test"};
	struct favo_import_result result = {0};
	struct favo_store_ref *refs = NULL;
	struct favo_err err = {0};
	const char all[] =
		"k/virtio_pci.ko\nk/vmw_vsock_virtio_transport.ko\nk/virtio_blk.ko\n"
		"k/erofs.ko\nk/overlay.ko\n";
	size_t n = 0;

	(void)state;
	assert_ok(favo_store_open(&store, store_dir, FAVO_STORE_CREATE, &err), &err);
	assert_int_equal(favo_import_tree(store, tree, &import, &result, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "has no kernel"));
	assert_non_null(strstr(err.msg, "--kernel"));
	assert_ok(favo_store_list(store, &refs, &n, &err), &err);
	assert_int_equal(n, 0);
	assert_ok(favo_file_replace(kernel, elf, ELF_LEN, 0644, &err), &err);
	assert_int_equal(mkdir(modules, 0755), 0);
	assert_ok(favo_file_replace(file, "", 0, 0644, &err), &err);
	assert_ok(favo_file_replace(builtin, all, strlen(all), 0644, &err), &err);
	import.site_kernel = kernel;
	assert_int_equal(favo_import_tree(store, tree, &import, &result, &err), -EINVAL);
	import.site_modules = modules;
	assert_ok(favo_import_tree(store, tree, &import, &result, &err), &err);
	assert_string_equal(result.kernel_source, "site");
	assert_string_equal(result.kernel_release, "6.5-site");
	assert_true(result.kernel_is_vmlinux);
	scratch_free(dir);
}

/* ---- recipes ---- */

static void test_recipes(void **state)
{
	static const char good[] = "# comment\n\nname  a/b:c \nsuite bookworm\r\n"
				   "packages one two\npackages three\n"
				   "run echo 'a  b' # not a comment\nepoch 5\n"
				   "file /etc/x files/x 0755\nfile /etc/y /abs/y\n"
				   "drop a* b\nkernel linux-image-amd64\n";
	static const char *const bad[] = {
		"suite bookworm\n",
		"name a\n",
		"name a\nname b\nsuite x\n",
		"name a\nsuite x\nunknown y\n",
		"name a\nsuite\n",
		"name a b\nsuite x\n",
		"name a\nsuite --evil\n",
		"name a\nsuite x y\n",
		"name a\nsuite x\npackages --evil\n",
		"name a\nsuite x\nfile relative x\n",
		"name a\nsuite x\nfile /x y 9\n",
		"name a\nsuite x\nfile /x y 0644 z\n",
		"name a\nsuite x\nepoch -1\n",
	};
	favo_autorecipe struct favo_recipe *recipe = NULL;
	struct favo_err err = {0};

	(void)state;
	assert_ok(favo_recipe_parse(&recipe, good, "label", "/dir", &err), &err);
	assert_string_equal(recipe->name, "a/b:c");
	assert_string_equal(recipe->suite, "bookworm");
	assert_string_equal(recipe->packages[2], "three");
	assert_null(recipe->packages[3]);
	assert_string_equal(recipe->runs[0], "echo 'a  b' # not a comment");
	assert_int_equal(recipe->epoch, 5);
	assert_int_equal(recipe->n_files, 2);
	assert_string_equal(recipe->files[0].source, "/dir/files/x");
	assert_int_equal(recipe->files[0].mode, 0755);
	assert_string_equal(recipe->files[1].source, "/abs/y");
	assert_string_equal(recipe->drops[1], "b");
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(bad); i++) {
		struct favo_recipe *none = NULL;

		assert_int_equal(favo_recipe_parse(&none, bad[i], "label", "/dir", &err),
				 -EINVAL);
		assert_memory_equal(err.msg, "label", 5);
	}
	assert_int_equal(favo_recipe_load(&recipe, "/nonexistent", &err), -ENOENT);
}

/* Every recipe that ships must be read. */
static void test_shipped_recipes(void **state)
{
	static const char *const names[] = {"debian12", "debian12-mpi"};
	const char *srcdir = getenv("srcdir");

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(names); i++) {
		favo_autofree char *path =
			favo_asprintf("%s/../../images/recipes/%s.recipe",
				      srcdir ? srcdir : "tests/unit", names[i]);
		favo_autorecipe struct favo_recipe *recipe = NULL;
		struct favo_err err = {0};

		assert_ok(favo_recipe_load(&recipe, path, &err), &err);
		assert_string_equal(recipe->name, names[i]);
		for (size_t j = 0; j < recipe->n_files; j++)
			assert_int_equal(access(recipe->files[j].source, R_OK), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kernel_forms),
		cmocka_unit_test(test_initramfs),
		cmocka_unit_test(test_import),
		cmocka_unit_test(test_site_kernel),
		cmocka_unit_test(test_recipes),
		cmocka_unit_test(test_shipped_recipes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
