// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Address decoder: a sorted array under a mutex, searched by halves. A copy of
 * the range is taken before its handler runs, so that handlers may add and
 * remove ranges (a PCI function that moves its BAR).
 */
#include "hypervisor/iobus.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "common/util.h"

struct favo_iobus {
	pthread_mutex_t lock;
	struct favo_io_range *ranges;
	unsigned n, cap;
	struct favo_iobus_stats stats;
};

int favo_iobus_new(struct favo_iobus **out, struct favo_err *err)
{
	struct favo_iobus *bus = calloc(1, sizeof(*bus));

	if (!bus)
		return favo_fail(err, ENOMEM, "I/O bus: out of memory");
	pthread_mutex_init(&bus->lock, NULL);
	*out = bus;
	return 0;
}

void favo_iobus_free(struct favo_iobus *bus)
{
	if (!bus)
		return;
	pthread_mutex_destroy(&bus->lock);
	free(bus->ranges);
	free(bus);
}

/* Index of the first range that ends above addr. */
static unsigned lower(const struct favo_iobus *bus, uint64_t addr)
{
	unsigned lo = 0, hi = bus->n;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (bus->ranges[mid].base + (bus->ranges[mid].size - 1) < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int add_locked(struct favo_iobus *bus, const struct favo_io_range *range)
{
	unsigned at = lower(bus, range->base);

	if (at < bus->n && bus->ranges[at].base <= range->base + (range->size - 1))
		return -EEXIST;
	if (bus->n == bus->cap) {
		unsigned cap = bus->cap ? 2 * bus->cap : 16;
		void *p = realloc(bus->ranges, cap * sizeof(*bus->ranges));

		if (!p)
			return -ENOMEM;
		bus->ranges = p;
		bus->cap = cap;
	}
	memmove(&bus->ranges[at + 1], &bus->ranges[at],
		(bus->n - at) * sizeof(*bus->ranges));
	bus->ranges[at] = *range;
	bus->n++;
	return 0;
}

int favo_iobus_add(struct favo_iobus *bus, const struct favo_io_range *range)
{
	int ret;

	if (!range->size || range->base + (range->size - 1) < range->base)
		return -EINVAL;
	pthread_mutex_lock(&bus->lock);
	ret = add_locked(bus, range);
	pthread_mutex_unlock(&bus->lock);
	return ret;
}

void favo_iobus_del(struct favo_iobus *bus, uint64_t base)
{
	unsigned at;

	pthread_mutex_lock(&bus->lock);
	at = lower(bus, base);
	if (at < bus->n && bus->ranges[at].base == base) {
		bus->n--;
		memmove(&bus->ranges[at], &bus->ranges[at + 1],
			(bus->n - at) * sizeof(*bus->ranges));
	}
	pthread_mutex_unlock(&bus->lock);
}

/* Copy the range that may answer, or count why there is none. */
static bool find(struct favo_iobus *bus, uint64_t addr, unsigned len, bool write,
		 struct favo_io_range *out)
{
	bool found = false;
	unsigned at;

	pthread_mutex_lock(&bus->lock);
	at = lower(bus, addr);
	if (at == bus->n || bus->ranges[at].base > addr) {
		bus->stats.unknown_reads += !write;
		bus->stats.unknown_writes += write;
		bus->stats.last_unknown = addr;
	} else {
		uint64_t offset = addr - bus->ranges[at].base;

		found = len && len <= 8 && !(len & (len - 1)) && !(offset & (len - 1)) &&
			len <= bus->ranges[at].size - offset;
		bus->stats.forbidden += !found;
		*out = bus->ranges[at];
	}
	pthread_mutex_unlock(&bus->lock);
	return found;
}

static uint64_t ones(unsigned len)
{
	return len >= 8 ? ~0ULL : (1ULL << 8 * len) - 1;
}

uint64_t favo_iobus_read(struct favo_iobus *bus, uint64_t addr, unsigned len)
{
	struct favo_io_range r;

	if (!find(bus, addr, len, false, &r))
		return ones(len);
	return r.ops->read(r.opaque, addr - r.base, len) & ones(len);
}

void favo_iobus_write(struct favo_iobus *bus, uint64_t addr, uint64_t value, unsigned len)
{
	struct favo_io_range r;

	if (find(bus, addr, len, true, &r))
		r.ops->write(r.opaque, addr - r.base, value & ones(len), len);
}

void favo_iobus_get_stats(struct favo_iobus *bus, struct favo_iobus_stats *out)
{
	pthread_mutex_lock(&bus->lock);
	*out = bus->stats;
	pthread_mutex_unlock(&bus->lock);
}
