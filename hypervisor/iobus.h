/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who answers at which port or physical address: one bus for port I/O, one for
 * MMIO. Called by vCPU threads at each exit.
 *
 * Handlers see accesses of 1, 2, 4 or 8 bytes, naturally aligned and inside the
 * range; all else is counted as forbidden, reads as all ones and writes nothing.
 * An access that nobody answers is counted and treated the same. Values are
 * little-endian in the low bytes. Handlers run without any bus lock, in any vCPU
 * thread, several at once: they lock their own device.
 */
#pragma once

#include <stdint.h>

#include "common/err.h"

struct favo_iobus;

struct favo_io_ops {
	uint64_t (*read)(void *opaque, uint64_t offset, unsigned len);
	void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned len);
};

struct favo_io_range {
	uint64_t base;
	uint64_t size;
	const struct favo_io_ops *ops;
	void *opaque;
};

struct favo_iobus_stats {
	uint64_t unknown_reads, unknown_writes; /* nobody there */
	uint64_t forbidden; /* size, alignment, end of range */
	uint64_t last_unknown; /* address */
};

int favo_iobus_new(struct favo_iobus **out, struct favo_err *err);
void favo_iobus_free(struct favo_iobus *bus);

/*
 * The range is copied. -EEXIST: overlaps another one (the guest may ask for
 * that with BARs: the later one is not mapped). -ENOMEM.
 */
int favo_iobus_add(struct favo_iobus *bus, const struct favo_io_range *range);
/*
 * Forget the range at base. A handler that another thread already entered may
 * still run when this returns, so opaque lives on.
 */
void favo_iobus_del(struct favo_iobus *bus, uint64_t base);

/* len is anything from 1 to 8. */
uint64_t favo_iobus_read(struct favo_iobus *bus, uint64_t addr, unsigned len);
void favo_iobus_write(struct favo_iobus *bus, uint64_t addr, uint64_t value,
		      unsigned len);
void favo_iobus_get_stats(struct favo_iobus *bus, struct favo_iobus_stats *out);
