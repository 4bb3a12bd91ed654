// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target: snapshots. The first byte chooses: 0, a state file as it is; 1,
 * a state file whose checksums are mended first, so that what lies behind them
 * is reached; 2 and 3, the state of the console or the entropy device, which
 * is then started and has a turn.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "hypervisor/crc32c.h"
#include "hypervisor/pci.h"
#include "hypervisor/snapshot_file.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/virtio/virtio.h"
#include "tests/unit/fake_kvm.h"

#define HEADER 64
#define ENTRY 32

static uint64_t get(const uint8_t *p, size_t len)
{
	uint64_t v = 0;

	memcpy(&v, p, len);
	return v;
}

static void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

static void mend(uint8_t *data, size_t len)
{
	size_t n, table;

	if (len < HEADER)
		return;
	n = FAVO_MIN(get(data + 16, 4), (len - HEADER) / ENTRY);
	table = n * ENTRY;
	for (size_t i = 0; i < n; i++) {
		uint8_t *e = data + HEADER + i * ENTRY;
		uint64_t at = get(e + 8, 8), length = get(e + 16, 8);

		if (at <= len && length <= len - at)
			put32(e + 24, favo_crc32c(0, data + at, length));
	}
	put32(data + 56, favo_crc32c(0, data + HEADER, table));
	put32(data + 60, favo_crc32c(0, data, 60));
}

static void parse(struct favo_snap_in *in, const uint8_t *data, size_t len, bool mended)
{
	favo_autofree uint8_t *copy = malloc(len + 1);
	struct favo_state_in s;
	struct favo_err err = {0};

	if (!copy)
		return;
	memcpy(copy, data, len);
	if (mended)
		mend(copy, len);
	if (favo_snap_parse(in, copy, len, &err) < 0)
		return;
	for (unsigned i = 0; i < in->n; i++)
		if (favo_snap_find(in, in->sections[i].type, in->sections[i].instance, &s,
				   &err) < 0)
			abort();
}

static void load(struct favo_snap_in *in, const uint8_t *data, size_t len, bool rng)
{
	struct favo_vm *vm;
	struct favo_err err = {0};

	if (fake_vm_new(&vm, 1 << 16, NULL) < 0)
		return;
	in->n = 1;
	in->sections[0].type = FAVO_SNAP_DEVICE;
	in->sections[0].instance = 0;
	in->sections[0].state = (struct favo_state_in){.p = data, .left = len};
	if ((rng ? favo_rng_add(vm, NULL)
		 : favo_console_add(vm, "file=/dev/null", NULL)) == 0 &&
	    favo_pci_bus_load(vm->pci, in, &err) == 0) {
		favo_pci_bus_pause(vm->pci, false);
		/* One turn of the loop: stop() is seen after what is ready. */
		favo_loop_post(vm->loop, (void (*)(void *))favo_loop_stop, vm->loop);
		(void)!favo_loop_run(vm->loop, &err);
		favo_pci_bus_pause(vm->pci, true);
	}
	fake_vm_free(vm);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	favo_autofree struct favo_snap_in *in = calloc(1, sizeof(*in));

	if (!size || !in)
		return 0;
	if (data[0] < 2)
		parse(in, data + 1, size - 1, data[0]);
	else
		load(in, data + 1, size - 1, data[0] == 3);
	return 0;
}
