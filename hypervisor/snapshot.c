// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Save and restore of a whole VM; see snapshot.h. Order when saving: vCPUs
 * stand still, then devices, so that what these still signalled is in the
 * LAPICs that are read last. Restoring goes the other way round.
 *
 * The guest's clocks stand still between save and restore (the TSC and kvmclock
 * go on from their values); its wall clock is set by the agent.
 */
#include "hypervisor/snapshot.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "common/util.h"
#include "hypervisor/crc32c.h"
#include "hypervisor/pci.h"
#include "hypervisor/platform.h"
#include "hypervisor/snapshot_file.h"
#include "hypervisor/vcpu.h"
#include "hypervisor/virtio/spec.h"
#include "hypervisor/vm.h"

#define CHIPS 3 /* two PICs and the IOAPIC */
#define RUN_MAX (1U << 20) /* bytes in one write of memory */
#define PAGE ((size_t)FAVO_PAGE_SIZE)

struct favo_snapshot {
	uint8_t *data;
	size_t len;
	int memory_fd;
	struct favo_snap_in in;
};

/* ---- memory -------------------------------------------------------------- */

static bool is_zero(const uint8_t *page)
{
	return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

static int write_at(int fd, const uint8_t *p, size_t len, uint64_t off,
		    struct favo_err *err)
{
	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return favo_fail(err, n ? errno : EIO, "write: %m");
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* Checksum over the number and the bytes of each page that is not zero. */
static uint32_t add_page(uint32_t crc, uint64_t number, const uint8_t *page)
{
	uint64_t le = htole64(number);

	return favo_crc32c(favo_crc32c(crc, &le, sizeof(le)), page, PAGE);
}

/* RAM is one mapping, so its offset is the file's. */
static int save_memory(const struct favo_vm *vm, struct favo_snapshot_target *t,
		       struct favo_state_out *out, struct favo_err *err)
{
	const uint8_t *ram = vm->mem->regions[0].hva;
	uint64_t size = vm->mem->size, at = 0;
	uint32_t crc = 0;

	if (ftruncate(t->memory_fd, 0) < 0 || ftruncate(t->memory_fd, (off_t)size) < 0)
		return favo_fail(err, errno, "set the size: %m");
	while (at < size) {
		uint64_t start = at;
		int ret;

		for (; at < size && at - start < RUN_MAX && !is_zero(ram + at);
		     at += PAGE)
			crc = add_page(crc, at / PAGE, ram + at);
		ret = write_at(t->memory_fd, ram + start, at - start, start, err);
		if (ret < 0)
			return ret;
		t->memory_bytes += at - start;
		at += at == start ? PAGE : 0;
	}
	favo_state_put_u64(out, t->memory_bytes / PAGE);
	favo_state_put_u32(out, crc);
	return 0;
}

/* The memory file against the checksum; holes are zero pages. */
static int verify_memory(const struct favo_snapshot *snap, uint64_t pages, uint32_t crc,
			 struct favo_err *err)
{
	favo_autofree uint8_t *buf = malloc(RUN_MAX);
	uint64_t size = snap->in.mem_size, at = 0, found = 0;
	uint32_t sum = 0;

	if (!buf)
		return favo_fail(err, ENOMEM, "out of memory");
	while (at < size) {
		off_t data = lseek(snap->memory_fd, (off_t)at, SEEK_DATA);
		ssize_t n;

		if (data < 0)
			break; /* ENXIO: only a hole is left */
		at = (uint64_t)data & ~(PAGE - 1);
		n = pread(snap->memory_fd, buf, FAVO_MIN(RUN_MAX, size - at), (off_t)at);
		if (n < (ssize_t)PAGE)
			return favo_fail(err, n < 0 ? errno : EIO, "read: %m");
		for (size_t i = 0; i + PAGE <= (size_t)n; i += PAGE, at += PAGE) {
			if (is_zero(buf + i))
				continue;
			sum = add_page(sum, at / PAGE, buf + i);
			found++;
		}
	}
	if (found != pages || sum != crc)
		return favo_fail(err, EINVAL, "checksum is wrong");
	return 0;
}

static int check_memory(const struct favo_snapshot *snap, bool verify,
			struct favo_err *err)
{
	struct favo_state_in in;
	struct stat st;
	uint64_t pages;
	uint32_t crc;
	int ret = favo_snap_find(&snap->in, FAVO_SNAP_MEMORY, 0, &in, err);

	if (ret < 0)
		return ret;
	pages = favo_state_get_u64(&in);
	crc = favo_state_get_u32(&in);
	ret = favo_state_get_end(&in, err);
	if (ret == 0 && fstat(snap->memory_fd, &st) < 0)
		ret = favo_fail(err, errno, "%m");
	/* A shorter one would be a SIGBUS later. */
	if (ret == 0 &&
	    (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != snap->in.mem_size))
		ret = favo_fail(err, EINVAL, "its file has %lld bytes, not %llu",
				(long long)st.st_size,
				(unsigned long long)snap->in.mem_size);
	if (ret == 0 && verify)
		ret = verify_memory(snap, pages, crc, err);
	return ret < 0 ? favo_wrap(err, ret, "snapshot: memory") : 0;
}

/* ---- the machine --------------------------------------------------------- */

static int save_machine(const struct favo_vm *vm, struct favo_state_out *out,
			struct favo_err *err)
{
	struct kvm_clock_data clock = {0};

	if (favo_platform_has_serial(vm->platform))
		return favo_fail(err, ENOTSUP,
				 "a serial port cannot be saved: start the VM without "
				 "--serial");
	if (ioctl(vm->vm_fd, KVM_GET_CLOCK, &clock) < 0)
		return favo_fail(err, errno, "KVM_GET_CLOCK: %m");
	favo_state_put_u64(out, clock.clock);
	for (uint32_t i = 0; i < CHIPS; i++) {
		struct kvm_irqchip chip = {.chip_id = i};

		if (ioctl(vm->vm_fd, KVM_GET_IRQCHIP, &chip) < 0)
			return favo_fail(err, errno, "KVM_GET_IRQCHIP: %m");
		favo_state_put_blob(out, &chip.chip, sizeof(chip.chip));
	}
	return 0;
}

static int load_machine(struct favo_vm *vm, const struct favo_snap_in *snap,
			struct kvm_clock_data *clock, struct favo_err *err)
{
	struct favo_state_in in;
	int ret = favo_snap_find(snap, FAVO_SNAP_MACHINE, 0, &in, err);

	if (ret < 0)
		return ret;
	*clock = (struct kvm_clock_data){.clock = favo_state_get_u64(&in)};
	for (uint32_t i = 0; i < CHIPS; i++) {
		struct kvm_irqchip chip = {.chip_id = i};

		if (favo_state_get_copy(&in, &chip.chip, sizeof(chip.chip)) &&
		    ioctl(vm->vm_fd, KVM_SET_IRQCHIP, &chip) < 0)
			return favo_fail(err, EINVAL,
					 "snapshot: machine: KVM refuses "
					 "interrupt controller %u",
					 i);
	}
	ret = favo_state_get_end(&in, err);
	return ret < 0 ? favo_wrap(err, ret, "snapshot: machine") : 0;
}

/* ---- save ---------------------------------------------------------------- */

static int collect(struct favo_vm *vm, struct favo_snapshot_target *t,
		   struct favo_snap_out *snap, struct favo_err *err)
{
	struct favo_state_out *out;
	int ret;

	snap->ncpus = vm->ncpus;
	snap->mem_size = vm->mem->size;
	/* First in the file, last to be done: devices write to memory when they stop. */
	out = favo_snap_add(snap, FAVO_SNAP_MEMORY, 0);
	ret = save_machine(vm, favo_snap_add(snap, FAVO_SNAP_MACHINE, 0), err);
	if (ret < 0)
		return favo_wrap(err, ret, "snapshot: machine");
	for (unsigned i = 0; i < vm->ncpus; i++) {
		ret = favo_vcpu_save(vm->vcpus[i], favo_snap_add(snap, FAVO_SNAP_CPU, i),
				     err);
		if (ret < 0)
			return favo_wrap(err, ret, "snapshot: vCPU %u", i);
	}
	ret = favo_pci_bus_save(vm->pci, snap, err);
	if (ret < 0)
		return ret;
	ret = save_memory(vm, t, out, err);
	return ret < 0 ? favo_wrap(err, ret, "snapshot: memory file") : 0;
}

static int write_state(const struct favo_snap_out *snap, struct favo_snapshot_target *t,
		       struct favo_err *err)
{
	favo_autofree uint8_t *data = NULL;
	size_t len;
	int ret = favo_snap_format(snap, &data, &len, err);

	if (ret == 0 && ftruncate(t->state_fd, 0) < 0)
		ret = favo_fail(err, errno, "truncate: %m");
	if (ret == 0)
		ret = write_at(t->state_fd, data, len, 0, err);
	if (ret < 0)
		return favo_wrap(err, ret, "snapshot: state file");
	t->state_bytes = len;
	return 0;
}

int favo_snapshot_save(struct favo_vm *vm, struct favo_snapshot_target *target,
		       struct favo_err *err)
{
	favo_autofree struct favo_snap_out *snap = calloc(1, sizeof(*snap));
	int64_t start_ms = favo_now_ms();
	int ret;

	target->state_bytes = target->memory_bytes = 0;
	if (!snap)
		return favo_fail(err, ENOMEM, "snapshot: out of memory");
	if (!favo_vm_pause(vm)) {
		favo_vm_resume(vm);
		return favo_fail(err, ESHUTDOWN, "snapshot: the VM ends");
	}
	favo_pci_bus_pause(vm->pci, true);
	ret = collect(vm, target, snap, err);
	if (ret == 0)
		ret = write_state(snap, target, err);
	favo_snap_out_fini(snap);
	if (ret < 0 || !target->stop) {
		favo_pci_bus_pause(vm->pci, false);
		favo_vm_resume(vm);
	}
	target->paused_ms = favo_now_ms() - start_ms;
	return ret;
}

/* ---- restore ------------------------------------------------------------- */

static int open_file(int *fd, const char *what, const char *path, const char *number,
		     struct favo_err *err)
{
	if (!path == !number)
		return favo_fail(err, EINVAL, "one of %s=PATH and %s-fd=N is needed",
				 what, what);
	if (number)
		return favo_spec_fd(fd, number, err);
	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	return *fd < 0 ? favo_fail(err, errno, "open %s: %m", path) : 0;
}

static int read_state(struct favo_snapshot *snap, int fd, struct favo_err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return favo_fail(err, errno, "snapshot: state file: %m");
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > FAVO_SNAP_BYTES_MAX)
		return favo_fail(err, EINVAL, "snapshot: state file of %lld bytes",
				 (long long)st.st_size);
	snap->len = (size_t)st.st_size;
	snap->data = malloc(snap->len);
	if (!snap->data)
		return favo_fail(err, ENOMEM, "snapshot: out of memory");
	/* A private copy: nobody changes it between check and use. */
	if (pread(fd, snap->data, snap->len, 0) != (ssize_t)snap->len)
		return favo_fail(err, EIO, "snapshot: state file: short read");
	return favo_snap_parse(&snap->in, snap->data, snap->len, err);
}

static int open_snapshot(struct favo_snapshot *snap, const char *text,
			 struct favo_err *err)
{
	favo_autofree char *copy = strdup(text);
	favo_autoclose int state_fd = -1;
	const char *state = NULL, *state_number = NULL, *memory = NULL, *number = NULL;
	bool verify = false;
	const struct favo_spec_key keys[] = {
		{.name = "state", .value = &state},
		{.name = "state-fd", .value = &state_number},
		{.name = "memory", .value = &memory},
		{.name = "memory-fd", .value = &number},
		{.name = "verify", .flag = &verify},
	};
	int ret;

	if (!copy)
		return favo_fail(err, ENOMEM, "allocate option");
	ret = favo_spec_parse(copy, keys, FAVO_ARRAY_SIZE(keys), err);
	ret = ret ? ret : open_file(&state_fd, "state", state, state_number, err);
	ret = ret ? ret : open_file(&snap->memory_fd, "memory", memory, number, err);
	ret = ret ? ret : read_state(snap, state_fd, err);
	return ret ? ret : check_memory(snap, verify, err);
}

int favo_snapshot_open(struct favo_snapshot **out, const char *spec, struct favo_err *err)
{
	struct favo_snapshot *snap = calloc(1, sizeof(*snap));
	int ret;

	if (!snap)
		return favo_fail(err, ENOMEM, "snapshot: out of memory");
	snap->memory_fd = -1;
	ret = open_snapshot(snap, spec, err);
	if (ret < 0) {
		favo_snapshot_free(snap);
		return ret;
	}
	*out = snap;
	return 0;
}

void favo_snapshot_free(struct favo_snapshot *snap)
{
	if (!snap)
		return;
	favo_close(&snap->memory_fd);
	free(snap->data);
	free(snap);
}

unsigned favo_snapshot_cpus(const struct favo_snapshot *snap)
{
	return snap->in.ncpus;
}

uint64_t favo_snapshot_memory(const struct favo_snapshot *snap)
{
	return snap->in.mem_size;
}

const int *favo_snapshot_memory_file(const struct favo_snapshot *snap)
{
	return &snap->memory_fd;
}

static int load_cpus(struct favo_vm *vm, const struct favo_snap_in *snap,
		     struct favo_err *err)
{
	if (snap->ncpus != vm->ncpus)
		return favo_fail(err, EINVAL, "snapshot: has %u vCPUs, the VM %u",
				 snap->ncpus, vm->ncpus);
	for (unsigned i = 0; i < vm->ncpus; i++) {
		struct favo_state_in in;
		int ret = favo_snap_find(snap, FAVO_SNAP_CPU, i, &in, err);

		if (ret < 0)
			return ret;
		ret = favo_vcpu_load(vm->vcpus[i], &in, err);
		if (ret < 0)
			return favo_wrap(err, ret, "snapshot: vCPU %u", i);
	}
	return 0;
}

int favo_snapshot_restore(struct favo_vm *vm, const struct favo_snapshot *snap,
			  struct favo_err *err)
{
	struct kvm_clock_data clock;
	int ret = load_machine(vm, &snap->in, &clock, err);

	ret = ret ? ret : favo_pci_bus_load(vm->pci, &snap->in, err);
	ret = ret ? ret : load_cpus(vm, &snap->in, err);
	if (ret < 0)
		return ret;
	/* After the MSRs, which make KVM take the clock anew. */
	if (ioctl(vm->vm_fd, KVM_SET_CLOCK, &clock) < 0)
		return favo_fail(err, errno, "snapshot: machine: KVM_SET_CLOCK: %m");
	favo_pci_bus_pause(vm->pci, false);
	return 0;
}
