// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Snapshots without KVM: fields, the state file and every way to damage it,
 * devices that go on in another VM, and states that do not fit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "common/util.h"
#include "hypervisor/crc32c.h"
#include "hypervisor/pci.h"
#include "hypervisor/snapshot.h"
#include "hypervisor/snapshot_file.h"
#include "hypervisor/virtio/devices.h"
#include "virtio_testdrv.h"

#define DATA 0x40000

static void test_crc(void **state)
{
	uint8_t data[100];

	(void)state;
	/* RFC 3720, B.4 */
	memset(data, 0, 32);
	assert_int_equal(favo_crc32c(0, data, 32), 0x8a9136aa);
	memset(data, 0xff, 32);
	assert_int_equal(favo_crc32c(0, data, 32), 0x62a8ab43);
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)i;
	assert_int_equal(favo_crc32c(favo_crc32c(0, data, 13), data + 13, 87),
			 favo_crc32c(0, data, 100));
}

static void test_fields(void **state)
{
	struct favo_state_out out = {0};
	struct favo_state_in in;
	struct favo_err err = {0};
	char text[3];
	size_t len;

	(void)state;
	favo_state_put_u8(&out, 1);
	favo_state_put_u16(&out, 0x203);
	favo_state_put_u32(&out, 0x4050607);
	favo_state_put_u64(&out, 0x8090a0b0c0d0e0f);
	favo_state_put_blob(&out, "abc", 3);
	favo_state_put_blob(&out, NULL, 0);
	assert_false(out.failed);
	assert_int_equal(out.len, 1 + 2 + 4 + 8 + 4 + 3 + 4);
	assert_int_equal(out.data[1], 3); /* little-endian */
	in = (struct favo_state_in){.p = out.data, .left = out.len};
	assert_int_equal(favo_state_get_u8(&in), 1);
	assert_int_equal(favo_state_get_u16(&in), 0x203);
	assert_int_equal(favo_state_get_u32(&in), 0x4050607);
	assert_int_equal(favo_state_get_u64(&in), 0x8090a0b0c0d0e0f);
	assert_true(favo_state_get_copy(&in, text, 3));
	assert_memory_equal(text, "abc", 3);
	assert_int_equal(favo_state_get_end(&in, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "4 bytes too many"));
	assert_non_null(favo_state_get_blob(&in, &len));
	assert_int_equal(len, 0);
	assert_int_equal(favo_state_get_end(&in, NULL), 0);
	/* Once it failed it stays failed, and gives zeros. */
	assert_int_equal(favo_state_get_u64(&in), 0);
	assert_int_equal(favo_state_get_end(&in, &err), -EINVAL);
	in = (struct favo_state_in){.p = out.data, .left = 1};
	assert_int_equal(favo_state_get_u32(&in), 0);
	assert_null(favo_state_get(&in, 1));
	favo_state_out_fini(&out);
}

/* A small file of four sections. */
static void make_file(uint8_t **data, size_t *len)
{
	favo_autofree struct favo_snap_out *out = calloc(1, sizeof(*out));
	struct favo_state_out *s;

	out->ncpus = 1;
	out->mem_size = 1 << 20;
	s = favo_snap_add(out, FAVO_SNAP_MEMORY, 0);
	favo_state_put_u64(s, 7);
	favo_state_put_u32(s, 8);
	favo_state_put(favo_snap_add(out, FAVO_SNAP_MACHINE, 0), "machine", 7);
	favo_state_put(favo_snap_add(out, FAVO_SNAP_CPU, 0), "cpu", 3);
	favo_state_put(favo_snap_add(out, FAVO_SNAP_DEVICE, 8), "device", 6);
	favo_snap_add(out, FAVO_SNAP_DEVICE, 16);
	assert_int_equal(favo_snap_format(out, data, len, NULL), 0);
	favo_snap_out_fini(out);
}

static void test_file(void **state)
{
	favo_autofree struct favo_snap_in *in = malloc(sizeof(*in));
	favo_autofree uint8_t *data = NULL;
	struct favo_state_in s;
	struct favo_err err = {0};
	size_t len;

	(void)state;
	make_file(&data, &len);
	assert_int_equal(len, 64 + 5 * 32 + 12 + 7 + 3 + 6);
	assert_int_equal(favo_snap_parse(in, data, len, &err), 0);
	assert_int_equal(in->ncpus, 1);
	assert_int_equal(in->mem_size, 1 << 20);
	assert_int_equal(in->n, 5);
	assert_int_equal(favo_snap_find(in, FAVO_SNAP_DEVICE, 8, &s, &err), 0);
	assert_int_equal(s.left, 6);
	assert_memory_equal(s.p, "device", 6);
	assert_int_equal(favo_snap_find(in, FAVO_SNAP_DEVICE, 17, &s, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "device 00:02.1 is missing"));
}

/* Every bit of the file, and every length that is not its own. */
static void test_damage(void **state)
{
	favo_autofree struct favo_snap_in *in = malloc(sizeof(*in));
	favo_autofree uint8_t *data = NULL;
	size_t len;

	(void)state;
	make_file(&data, &len);
	for (size_t bit = 0; bit < 8 * len; bit++) {
		struct favo_err err = {0};

		data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(favo_snap_parse(in, data, len, &err), -EINVAL);
		assert_int_equal(strncmp(err.msg, "snapshot: ", 10), 0);
		data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (size_t n = 0; n < len; n++)
		assert_int_equal(favo_snap_parse(in, data, n, NULL), -EINVAL);
	data = realloc(data, len + 1);
	data[len] = 0;
	assert_int_equal(favo_snap_parse(in, data, len + 1, NULL), -EINVAL);
	data[64 + 5 * 32 + 12 + 2] ^= 1;
	struct favo_err err = {0};
	assert_int_equal(favo_snap_parse(in, data, len, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "machine: checksum is wrong"));
}

static void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

/* What has right checksums and is wrong all the same: made by hand, not damaged. */
static void test_lies(void **state)
{
	static const struct {
		unsigned at; /* 32-bit field */
		uint32_t value;
		const char *says;
	} rows[] = {
		{8, 2, "format version 2"},
		{12, 65, "bad sizes"},
		{16, 4, "not where it should be"},
		{16, 641, "bad sizes"},
		{24, 1, "should have 1"},
		{32, 1, "unknown features"},
		{40, 0, "shape of the VM"},
		{40, 255, "shape of the VM"},
		{44, 1, "bad sizes"},
		{48, 4095, "shape of the VM"},
		{64, 9, "unknown type 9"},
		{64 + 32, 1, "out of order"},
		{64 + 32 + 4, 1, "there can be no machine"},
		{64 + 32 + 8, 0, "not where it should be"},
		{64 + 32 + 16, 1 << 30, "not where it should be"},
		{64 + 32 + 28, 1, "not where it should be"},
		{64 + 64 + 4, 1, "there can be no vCPU 1"},
		{64 + 96 + 4, 256, "there can be no device"},
		{64 + 128 + 4, 8, "out of order"},
	};
	favo_autofree struct favo_snap_in *in = malloc(sizeof(*in));

	(void)state;
	for (unsigned i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		favo_autofree uint8_t *data = NULL;
		struct favo_err err = {0};
		uint32_t n;
		size_t len;

		make_file(&data, &len);
		put32(data + rows[i].at, rows[i].value);
		memcpy(&n, data + 16, sizeof(n));
		put32(data + 56,
		      favo_crc32c(0, data + 64, FAVO_MIN(n * 32ULL, len - 64)));
		put32(data + 60, favo_crc32c(0, data, 60));
		assert_int_equal(favo_snap_parse(in, data, len, &err), -EINVAL);
		if (!strstr(err.msg, rows[i].says))
			fail_msg("row %u: \"%s\" lacks \"%s\"", i, err.msg, rows[i].says);
	}
}

/* ---- devices ------------------------------------------------------------- */

/* Console at 00:00.0, entropy at 00:01.0; the console's file is private. */
static void add_devices(struct favo_vm *vm)
{
	assert_int_equal(favo_console_add(vm, "file=/dev/null", NULL), 0);
	assert_int_equal(favo_rng_add(vm, NULL), 0);
}

static void save_devices(struct favo_vm *vm, struct favo_snap_in *in, uint8_t **data)
{
	favo_autofree struct favo_snap_out *out = calloc(1, sizeof(*out));
	size_t len;

	out->ncpus = 1;
	out->mem_size = vm->mem->size;
	favo_pci_bus_pause(vm->pci, true);
	assert_int_equal(favo_pci_bus_save(vm->pci, out, NULL), 0);
	assert_int_equal(favo_snap_format(out, data, &len, NULL), 0);
	favo_snap_out_fini(out);
	assert_int_equal(favo_snap_parse(in, *data, len, NULL), 0);
}

static void test_devices_go_on(void **state)
{
	const struct drv_seg seg = {DATA, 64, true};
	favo_autofree struct favo_snap_in *in = malloc(sizeof(*in));
	favo_autofree uint8_t *data = NULL, *ram = malloc(1 << 20);
	static const uint8_t zeros[64];
	struct favo_vm *vm;
	struct drv d;

	(void)state;
	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	add_devices(vm);
	drv_start(&d, vm);
	assert_true(drv_find(&d, VIRTIO_ID_RNG));
	assert_true(drv_init(&d, 0));
	for (unsigned i = 0; i < 20; i++) /* more than the queue's size */
		assert_int_equal(drv_do(&d, 0, &seg, 1), 64);
	save_devices(vm, in, &data);
	/* Paused: nothing is taken, and the request is in the saved memory. */
	drv_add(&d.q[0], &seg, 1);
	drv_kick(&d, 0);
	usleep(20000);
	assert_false(drv_used(&d.q[0], NULL, NULL));
	memset(favo_guest_ptr(vm->mem, DATA, 64), 0, 64);
	memcpy(ram, vm->mem->regions[0].hva, 1 << 20);
	/* The saved VM itself goes on. */
	favo_pci_bus_pause(vm->pci, false);
	assert_true(drv_wait(&d, 0, NULL, NULL));
	drv_stop(&d);

	struct drv_queue q = d.q[0];

	q.last_used = 20;
	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	add_devices(vm);
	memcpy(vm->mem->regions[0].hva, ram, 1 << 20);
	assert_int_equal(favo_pci_bus_load(vm->pci, in, NULL), 0);
	fake_kvm.msis = 0;
	favo_pci_bus_pause(vm->pci, false);
	assert_true(fake_kvm.msis > 0); /* nothing is waited for in vain */
	q.used = favo_guest_ptr(vm->mem, q.used_gpa, 6 + 8ULL * q.size);
	q.avail = favo_guest_ptr(vm->mem, q.avail_gpa, 6 + 2ULL * q.size);
	q.desc = favo_guest_ptr(vm->mem, q.desc_gpa, 16ULL * q.size);
	drv_start(&d, vm);
	assert_true(drv_find(&d, VIRTIO_ID_RNG)); /* starts the loop */
	d.q[0] = q;
	assert_true(drv_status(&d) & VIRTIO_CONFIG_S_DRIVER_OK);
	assert_true(drv_wait(&d, 0, NULL, NULL));
	assert_memory_not_equal(favo_guest_ptr(vm->mem, DATA, 64), zeros, 64);
	assert_int_equal(drv_do(&d, 0, &seg, 1), 64);
	drv_stop(&d);
}

/* Each byte of a device's state in turn set to other values: refused or harmless. */
static void test_device_bytes(void **state)
{
	favo_autofree struct favo_snap_in *in = malloc(sizeof(*in));
	favo_autofree uint8_t *data = NULL;
	static const uint8_t values[] = {0x00, 0x7f, 0xff};
	unsigned refused = 0;
	struct favo_vm *vm;
	uint8_t *p;

	(void)state;
	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	add_devices(vm);
	save_devices(vm, in, &data);
	fake_vm_free(vm);
	assert_int_equal(in->n, 2);
	p = data + (in->sections[1].state.p - data);
	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	add_devices(vm);
	for (size_t i = 0; i < in->sections[1].state.left; i++) {
		for (unsigned v = 0; v < FAVO_ARRAY_SIZE(values); v++) {
			struct favo_err err = {0};
			uint8_t old = p[i];

			p[i] = values[v];
			if (favo_pci_bus_load(vm->pci, in, &err) < 0) {
				refused++;
				assert_non_null(strstr(err.msg, "device 01.0 (rng)"));
			}
			favo_pci_bus_pause(vm->pci, false);
			favo_pci_bus_pause(vm->pci, true);
			p[i] = old;
		}
	}
	assert_true(refused > 300);
	assert_int_equal(favo_pci_bus_load(vm->pci, in, NULL), 0);
	for (size_t n = in->sections[1].state.left; n-- > 0;) {
		in->sections[1].state.left = n;
		assert_int_equal(favo_pci_bus_load(vm->pci, in, NULL), -EINVAL);
	}
	fake_vm_free(vm);
}

static void test_other_devices(void **state)
{
	favo_autofree struct favo_snap_in *in = malloc(sizeof(*in));
	favo_autofree uint8_t *data = NULL;
	struct favo_err err = {0};
	struct favo_vm *vm;

	(void)state;
	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	add_devices(vm);
	save_devices(vm, in, &data);
	fake_vm_free(vm);

	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	assert_int_equal(favo_console_add(vm, "file=/dev/null", NULL), 0);
	assert_int_equal(favo_pci_bus_load(vm->pci, in, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "more devices than"));
	assert_int_equal(favo_rng_add(vm, NULL), 0);
	assert_int_equal(favo_rng_add(vm, NULL), 0);
	assert_int_equal(favo_pci_bus_load(vm->pci, in, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "device 02.0 (rng) is new"));
	fake_vm_free(vm);

	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	assert_int_equal(favo_rng_add(vm, NULL), 0);
	assert_int_equal(favo_console_add(vm, "file=/dev/null", NULL), 0);
	assert_int_equal(favo_pci_bus_load(vm->pci, in, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "another kind: \"console\""));
	fake_vm_free(vm);
}

/* ---- the two files -------------------------------------------------------- */

static void test_open(void **state)
{
	char dir[] = "/tmp/favo-snapshot.XXXXXX";
	favo_autofree uint8_t *data = NULL;
	favo_autofree char *state_path = NULL, *memory = NULL, *spec = NULL,
			   *check = NULL;
	struct favo_snapshot *snap = NULL;
	struct favo_err err = {0};
	size_t len;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	state_path = favo_asprintf("%s/state", dir);
	memory = favo_asprintf("%s/memory", dir);
	spec = favo_asprintf("state=%s,memory=%s", state_path, memory);
	check = favo_asprintf("%s,verify", spec);
	assert_int_equal(favo_snapshot_open(&snap, "memory=/dev/null", &err), -EINVAL);
	assert_non_null(strstr(err.msg, "one of state=PATH"));
	assert_true(favo_snapshot_open(&snap, spec, &err) < 0);
	make_file(&data, &len);
	fd = open(state_path, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
	fd = open(memory, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(favo_snapshot_open(&snap, spec, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "its file has 0 bytes"));
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	assert_int_equal(favo_snapshot_open(&snap, spec, &err), 0);
	assert_int_equal(favo_snapshot_cpus(snap), 1);
	assert_int_equal(favo_snapshot_memory(snap), 1 << 20);
	favo_snapshot_free(snap);
	/* The file says seven pages of checksum 8. */
	assert_int_equal(favo_snapshot_open(&snap, check, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "memory: checksum is wrong"));
	close(fd);
	unlink(state_path);
	unlink(memory);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc),	     cmocka_unit_test(test_fields),
		cmocka_unit_test(test_file),	     cmocka_unit_test(test_damage),
		cmocka_unit_test(test_lies),	     cmocka_unit_test(test_devices_go_on),
		cmocka_unit_test(test_device_bytes), cmocka_unit_test(test_other_devices),
		cmocka_unit_test(test_open),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
