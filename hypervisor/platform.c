// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Ports for power off, reset, ACPI events and panic. All registers are one byte
 * wide; what is not defined reads as zero and ignores writes.
 */
#include "hypervisor/platform.h"

#include <stdatomic.h>
#include <string.h>

#include "common/util.h"
#include "hypervisor/serial.h"
#include "hypervisor/vm.h"

#define RESET_CPU 0x04 /* in port 0xcf9 */
#define I8042_PULSE_RESET 0xfe
#define SLEEP_ENABLE 0x20 /* sleep control, ACPI 6.4 section 4.8.3.7 */
#define SLEEP_TYPE(v) ((v) >> 2 & 7)
#define PANIC_PANICKED 0x1
#define PANIC_CRASH_LOADED 0x2 /* a crash kernel takes over: not the end */

struct favo_platform {
	struct favo_vm *vm;
	atomic_uint events;
	struct favo_serial *serial;
};

static uint64_t zero_read(void *opaque, uint64_t offset, unsigned len)
{
	(void)opaque;
	(void)offset;
	(void)len;
	return 0;
}

static void ignore_write(void *opaque, uint64_t offset, uint64_t value, unsigned len)
{
	(void)opaque;
	(void)offset;
	(void)value;
	(void)len;
}

static void guest_reset(struct favo_platform *p, const char *how)
{
	uint16_t flag = 0;

	favo_guest_read(p->vm->mem, FAVO_RESET_FLAG_GPA, &flag, sizeof(flag));
	if (flag == FAVO_RESET_FLAG_WARM)
		favo_vm_end(p->vm, FAVO_END_PANIC, "the guest kernel panicked");
	else
		favo_vm_end(p->vm, FAVO_END_RESET, "the guest asked for a reset (%s)",
			    how);
}

static void reset_write(void *opaque, uint64_t offset, uint64_t value, unsigned len)
{
	(void)offset;
	(void)len;
	if (value & RESET_CPU)
		guest_reset(opaque, "port 0xcf9");
}

static void i8042_write(void *opaque, uint64_t offset, uint64_t value, unsigned len)
{
	(void)offset;
	(void)len;
	if ((value & 0xff) == I8042_PULSE_RESET)
		guest_reset(opaque, "keyboard controller");
}

static void sleep_write(void *opaque, uint64_t offset, uint64_t value, unsigned len)
{
	struct favo_platform *p = opaque;

	(void)len;
	if (offset == 0 && value & SLEEP_ENABLE && SLEEP_TYPE(value) == FAVO_SLEEP_S5)
		favo_vm_end(p->vm, FAVO_END_SHUTDOWN, "the guest powered off");
}

static uint64_t events_read(void *opaque, uint64_t offset, unsigned len)
{
	struct favo_platform *p = opaque;

	(void)offset;
	(void)len;
	return atomic_exchange(&p->events, 0);
}

static uint64_t panic_read(void *opaque, uint64_t offset, unsigned len)
{
	(void)opaque;
	(void)offset;
	(void)len;
	return PANIC_PANICKED | PANIC_CRASH_LOADED;
}

static void panic_write(void *opaque, uint64_t offset, uint64_t value, unsigned len)
{
	struct favo_platform *p = opaque;

	(void)offset;
	(void)len;
	if (value & PANIC_PANICKED)
		favo_vm_end(p->vm, FAVO_END_PANIC, "the guest kernel panicked");
}

void favo_platform_power_button(struct favo_platform *p)
{
	atomic_fetch_or(&p->events, FAVO_EVENT_POWER_BUTTON);
	favo_irq_line(p->vm->irqs, FAVO_GSI_EVENTS, true);
	favo_irq_line(p->vm->irqs, FAVO_GSI_EVENTS, false);
}

bool favo_platform_has_serial(const struct favo_platform *p)
{
	return p->serial;
}

int favo_platform_new(struct favo_platform **out, struct favo_vm *vm, int serial_fd,
		      struct favo_err *err)
{
	static const struct favo_io_ops ops[] = {
		{zero_read, reset_write},  {zero_read, i8042_write},
		{zero_read, sleep_write},  {events_read, ignore_write},
		{panic_read, panic_write},
	};
	static const struct favo_io_range ranges[] = {
		{FAVO_PORT_RESET, 1, &ops[0], NULL}, {FAVO_PORT_I8042, 1, &ops[1], NULL},
		{FAVO_PORT_SLEEP, 2, &ops[2], NULL}, {FAVO_PORT_EVENTS, 1, &ops[3], NULL},
		{FAVO_PORT_PANIC, 1, &ops[4], NULL},
	};
	struct favo_platform *p = calloc(1, sizeof(*p));
	unsigned i;
	int ret = 0;

	if (!p)
		return favo_fail(err, ENOMEM, "platform: out of memory");
	p->vm = vm;
	for (i = 0; ret == 0 && i < FAVO_ARRAY_SIZE(ranges); i++) {
		struct favo_io_range r = ranges[i];

		r.opaque = p;
		ret = favo_iobus_add(vm->pio, &r);
		if (ret < 0)
			favo_fail(err, -ret, "platform: port %#x: %m", (unsigned)r.base);
	}
	if (ret == 0 && serial_fd >= 0)
		ret = favo_serial_new(&p->serial, vm, serial_fd, err);
	if (ret < 0) {
		favo_platform_free(p);
		return ret;
	}
	*out = p;
	return 0;
}

void favo_platform_free(struct favo_platform *p)
{
	if (!p)
		return;
	favo_serial_free(p->serial);
	free(p);
}
