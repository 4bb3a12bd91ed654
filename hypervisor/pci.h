/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PCI: bus 0 behind a host bridge, endpoints with BARs, capabilities, MSI-X,
 * ioeventfds and RAM-backed BAR pages. No INTx, no bridges, no hot-plug.
 *
 * A device embeds struct favo_pci_device, fills it with the favo_pci_* set-up
 * calls, and hands it to favo_pci_add(); from then on the bus owns it and calls
 * ops->free at the end. Set-up calls are for the main thread before the VM runs.
 *
 * Configuration space is a page that the guest reads without an exit (a
 * read-only memory slot); writes arrive here. So reads of configuration space
 * must have no side effect, and dev->config is what the guest sees at any time.
 *
 * Locking: every op except free is called with dev->lock held, in a vCPU thread
 * (accesses, reset) or the control thread. A device takes the lock itself in its
 * loop callbacks. favo_pci_notify() needs no lock. Locks of two devices are
 * never held at once; functions of one slot that must agree share a lock of
 * their own, taken after dev->lock.
 */
#pragma once

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "hypervisor/irq.h"

struct favo_pci_bus;
struct favo_pci_device;
struct favo_pci_msix;
struct favo_snap_in;
struct favo_snap_out;
struct favo_state_out;
struct favo_state_in;
struct favo_vm;

#define FAVO_PCI_CONFIG_SIZE 4096
#define FAVO_PCI_BARS 6

/* How a device finds or fixes its place on the bus. */
#define FAVO_PCI_AUTO 0xff /* next free slot, function 0 */
#define FAVO_PCI_DEVFN(slot, fn) ((uint8_t)((slot) << 3 | (fn)))

struct favo_pci_id {
	uint16_t vendor, device;
	uint16_t subsys_vendor, subsys_device;
	uint32_t class_code; /* 24 bits: class, subclass, programming interface */
	uint8_t revision;
};

struct favo_pci_ops {
	/*
	 * Access to a BAR: len is 1, 2, 4 or 8, offset is aligned to it and
	 * inside the BAR. Not called for the MSI-X table, for RAM pages and for
	 * writes that an ioeventfd takes. Every offset must have an answer.
	 */
	uint64_t (*bar_read)(struct favo_pci_device *dev, unsigned bar, uint64_t offset,
			     unsigned len);
	void (*bar_write)(struct favo_pci_device *dev, unsigned bar, uint64_t offset,
			  uint64_t value, unsigned len);
	/* After the guest changed config bytes [offset, offset + len). Optional. */
	void (*config_written)(struct favo_pci_device *dev, unsigned offset,
			       unsigned len);
	/* Bus mastering was switched off or on (no DMA, no MSI while off). Optional. */
	void (*bus_master)(struct favo_pci_device *dev, bool on);
	/* Back to power-on state: stop DMA before it returns. */
	void (*reset)(struct favo_pci_device *dev);
	/* Figures for the control socket's stats, into an object. Optional. */
	void (*stats)(struct favo_pci_device *dev, json_t *object);
	/*
	 * Hold the device still, or let it go on: no DMA and no interrupt from
	 * the return until pause(false). Only while vCPUs are stopped. Optional.
	 */
	void (*pause)(struct favo_pci_device *dev, bool pause);
	/*
	 * Device state beyond configuration space, MSI-X and BARs, which the bus
	 * keeps; vCPUs stopped and device paused. load leaves it paused and
	 * trusts no byte of its input. Optional: without them the VM cannot be
	 * saved.
	 */
	int (*save)(struct favo_pci_device *dev, struct favo_state_out *out,
		    struct favo_err *err);
	int (*load)(struct favo_pci_device *dev, struct favo_state_in *in,
		    struct favo_err *err);
	/* Release everything, the struct too. After all threads ended. */
	void (*free)(struct favo_pci_device *dev);
};

enum favo_pci_bar_type {
	FAVO_BAR_NONE,
	FAVO_BAR_MEM32,
	FAVO_BAR_MEM64, /* takes this BAR and the next */
};

/* Part of a BAR that is plain memory: the guest reaches it without an exit. */
struct favo_pci_ram {
	uint64_t offset, size; /* whole pages */
	void *hva;
	bool readonly; /* writes go to bar_write */
	int slot; /* KVM memory slot, -1 while not mapped */
};

struct favo_pci_ioevent {
	uint64_t offset;
	unsigned len; /* 0: any length */
	bool match; /* only when this value is written */
	uint64_t value;
	int fd;
	bool on; /* in KVM now */
};

struct favo_pci_bar {
	enum favo_pci_bar_type type;
	uint64_t size; /* power of two, at least 4 KiB */
	bool prefetch;
	uint64_t mapped_at; /* 0 while decoding is off */
	struct favo_pci_device *dev;
	unsigned index;
	struct favo_pci_ram *ram;
	unsigned nram;
	struct favo_pci_ioevent *ioevents;
	unsigned nioevents;
};

struct favo_pci_device {
	const struct favo_pci_ops *ops;
	const char *name; /* for logs and stats; borrowed for good */
	pthread_mutex_t lock;
	struct favo_pci_bus *bus; /* NULL before favo_pci_add() */
	struct favo_vm *vm;
	uint8_t devfn;
	uint8_t cap_end; /* next free byte for a capability */
	uint8_t cap_last;
	uint8_t *config; /* FAVO_PCI_CONFIG_SIZE bytes */
	uint8_t *wmask; /* bits of config that the guest may write */
	struct favo_pci_bar bars[FAVO_PCI_BARS];
	struct favo_pci_msix *msix;
};

/* ---- set-up of a device ---------------------------------------------- */

/*
 * Prepare an embedded device for vm at devfn (FAVO_PCI_DEVFN or FAVO_PCI_AUTO).
 * ENOSPC: no slot free, EEXIST: taken. Every init needs favo_pci_fini() in
 * ops->free, or favo_pci_fini() alone when set-up fails before favo_pci_add().
 */
int favo_pci_init(struct favo_pci_device *dev, struct favo_vm *vm, const char *name,
		  const struct favo_pci_id *id, uint8_t devfn,
		  const struct favo_pci_ops *ops, struct favo_err *err);
void favo_pci_fini(struct favo_pci_device *dev);

int favo_pci_set_bar(struct favo_pci_device *dev, unsigned bar,
		     enum favo_pci_bar_type type, uint64_t size, bool prefetch,
		     struct favo_err *err);

/*
 * Append a capability: id and next pointer are filled in, body (len bytes, what
 * follows the first two) is copied, wmask (len bytes or NULL) says what the
 * guest may write. Returns its offset in configuration space or -ENOSPC.
 */
int favo_pci_add_cap(struct favo_pci_device *dev, uint8_t id, const void *body,
		     const uint8_t *wmask, unsigned len, struct favo_err *err);

/*
 * MSI-X capability with its table at table_offset and the pending bits at
 * pba_offset of a BAR that is already set. nvectors 1..2048.
 */
int favo_pci_add_msix(struct favo_pci_device *dev, unsigned bar, unsigned nvectors,
		      uint64_t table_offset, uint64_t pba_offset, struct favo_err *err);

/*
 * RAM-backed pages of a BAR (doorbell pages, shared state): hva is page-aligned
 * memory that outlives the device, best a mapping of a memfd that can be shared
 * with another process. It is no DMA target.
 */
int favo_pci_add_ram(struct favo_pci_device *dev, unsigned bar, uint64_t offset,
		     uint64_t size, void *hva, bool readonly, struct favo_err *err);

/*
 * Guest writes to offset of a BAR signal fd (borrowed) without leaving KVM for
 * long, and never reach bar_write while it is set. len 0 matches any length.
 * ioevent_del also takes it out while the VM runs; both may be called under
 * dev->lock at any time.
 */
int favo_pci_ioevent_add(struct favo_pci_device *dev, unsigned bar, uint64_t offset,
			 unsigned len, const uint64_t *match, int fd,
			 struct favo_err *err);
void favo_pci_ioevent_del(struct favo_pci_device *dev, unsigned bar, int fd);

/* Give the finished device to the bus; its BARs get addresses. */
int favo_pci_add(struct favo_pci_device *dev, struct favo_err *err);

/* The device at devfn, or NULL. */
struct favo_pci_device *favo_pci_device_at(const struct favo_pci_bus *bus, uint8_t devfn);

/* ---- while it runs ---------------------------------------------------- */

/* Fire an MSI-X vector; dropped when MSI-X is off or the number is bad. */
void favo_pci_notify(struct favo_pci_device *dev, unsigned vector);

/* Eventfd that fires the vector (vhost, other processes); borrowed. -errno. */
int favo_pci_notify_fd(struct favo_pci_device *dev, unsigned vector,
		       struct favo_err *err);

bool favo_pci_msix_enabled(const struct favo_pci_device *dev);

/* May the device reach guest memory now (Bus Master Enable)? */
bool favo_pci_may_dma(const struct favo_pci_device *dev);

/* Little-endian access to dev->config. */
uint32_t favo_pci_config_get(const struct favo_pci_device *dev, unsigned offset,
			     unsigned len);
void favo_pci_config_set(struct favo_pci_device *dev, unsigned offset, unsigned len,
			 uint32_t value);

/* ---- the bus (for the VM) --------------------------------------------- */

struct favo_pci_windows {
	uint64_t mem32_base, mem32_size;
	uint64_t mem64_base, mem64_size;
};

int favo_pci_bus_new(struct favo_pci_bus **out, struct favo_vm *vm,
		     const struct favo_pci_windows *windows, struct favo_err *err);
/* Frees all devices, then the bus. */
void favo_pci_bus_free(struct favo_pci_bus *bus);
/* Back to power-on state: no device touches guest memory afterwards. */
void favo_pci_bus_reset(struct favo_pci_bus *bus);
/* Hold all devices still, or let them go on; vCPUs stopped. */
void favo_pci_bus_pause(struct favo_pci_bus *bus, bool pause);
/* Sections of all devices; paused. load wants the same devices at the same places. */
int favo_pci_bus_save(struct favo_pci_bus *bus, struct favo_snap_out *snap,
		      struct favo_err *err);
int favo_pci_bus_load(struct favo_pci_bus *bus, const struct favo_snap_in *snap,
		      struct favo_err *err);
/* Array of objects: name, slot, stats of each device. */
json_t *favo_pci_bus_stats(struct favo_pci_bus *bus);
