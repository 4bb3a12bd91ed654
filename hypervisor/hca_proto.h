/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between favo-vmm (the thin PVRDMA function) and favo-hca (all RDMA
 * semantics): one seqpacket connection per VM, one shared area, eventfds.
 *
 * Requests go from favo-vmm to favo-hca, one at a time: a fixed-size struct,
 * answered by one struct favo_hca_reply with the same seq. favo-vmm waits
 * FAVO_HCA_TIMEOUT_MS at most, then (or at end of file) it closes the
 * connection and declares the device failed: ERR != 0 for good. favo-hca ends a
 * connection that sends anything malformed. When a connection ends, favo-hca
 * frees all that belongs to the VM and touches its memory never again; peers
 * of its queue pairs get error completions.
 *
 * Integers are little-endian (x86-64 only). Both sides distrust each other's
 * bytes: favo-hca, because a guest may have taken over its favo-vmm.
 *
 * Doorbells. Each UAR page of BAR2 is in one of two modes:
 * - FAVO_HCA_UAR_TRAP (the initial one, always that of page 0): no memory slot,
 *   each guest write exits; favo-vmm appends {offset, value} to the ring of the
 *   shared area and kicks favo-hca if that sleeps (favo_hca_bell_push()).
 *   Nothing is lost: this mode is used by contexts that arm notifications.
 * - FAVO_HCA_UAR_RAM: a KVM memory slot maps the page of the shared area, writes
 *   cost no exit, and favo-hca, which does not sleep meanwhile, looks at rings.
 * favo-hca asks for a change by a struct favo_hca_uar_mode on the event socket;
 * favo-vmm sets or deletes the memory slot and answers with the same struct
 * only when KVM has done it, i.e. when no vCPU can reach the page in the old
 * mode any more. A change that fails is answered with the old mode. Guest reads
 * of a trapped page return 0. On RESET favo-vmm puts all pages into TRAP before it
 * sends the message, and both forget changes under way: favo-vmm increments
 * generation in the shared area first, and answers to an older one are ignored.
 *
 * Interrupts. favo-hca signals vector 1 (async events) and 2 (completions) by
 * their eventfds (irqfds of favo-vmm, which keeps pending bits while MSI-X masks
 * the vector), unless the bit of the vector is set in shared->imr. favo-vmm
 * raises vector 0 itself when the reply to COMMAND has FAVO_HCA_RAISE.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FAVO_HCA_VERSION 1
#define FAVO_HCA_TIMEOUT_MS 5000

#define FAVO_HCA_SLOTS_MAX 8 /* regions of guest RAM */
#define FAVO_HCA_UARS 256 /* pages of BAR2: 1 MiB */
#define FAVO_HCA_UAR_SIZE 4096
#define FAVO_HCA_VECTORS 3
#define FAVO_HCA_BELLS 2048 /* entries of the doorbell ring, a power of two */

enum favo_hca_type {
	FAVO_HCA_HELLO = 1, /* struct favo_hca_hello, once, first */
	FAVO_HCA_DSR, /* arg: GPA of the shared region; caps are filled in the reply */
	FAVO_HCA_ACTIVATE, /* CTL = 0 */
	FAVO_HCA_UNQUIESCE, /* CTL = 1 */
	FAVO_HCA_RESET, /* CTL = 2, function or system reset: all objects go */
	FAVO_HCA_COMMAND, /* REQUEST = 0; arg unused */
	FAVO_HCA_BUS_MASTER, /* arg: 1 on, 0 off: no access to guest RAM until on */
	FAVO_HCA_UAR_BASE, /* arg: GPA of BAR2; initially 0 = not mapped */
	FAVO_HCA_PAUSE, /* stop work of this VM, e.g. for a snapshot */
	FAVO_HCA_RESUME,
	FAVO_HCA_UAR_MODE, /* event socket only, favo-hca asks */
};

/* All requests but HELLO. */
struct favo_hca_request {
	uint32_t type; /* enum favo_hca_type */
	uint32_t seq; /* chosen by favo-vmm, echoed */
	uint64_t arg;
};

struct favo_hca_slot {
	uint64_t gpa;
	uint64_t size;
	uint64_t fd_offset;
	uint32_t fd; /* which of the RAM descriptors: 0 is the first of them */
	uint32_t reserved;
};

/*
 * Descriptors of HELLO, in this order: FAVO_HCA_FD_*, then 1 to
 * FAVO_HCA_SLOTS_MAX memfds of guest RAM. The shared area and RAM must be
 * memfds with F_SEAL_SHRINK set (or that let favo-hca set it): else truncating one
 * would kill favo-hca. Size of the shared area: sizeof(struct favo_hca_shared).
 */
enum favo_hca_fd {
	FAVO_HCA_FD_SHARED, /* memfd */
	FAVO_HCA_FD_VECTORS, /* eventfds of MSI-X vectors 0, 1, 2 */
	FAVO_HCA_FD_KICK = FAVO_HCA_FD_VECTORS + FAVO_HCA_VECTORS, /* eventfd */
	FAVO_HCA_FD_EVENTS, /* favo-hca's end of a seqpacket pair */
	FAVO_HCA_FD_RAM,
};

struct favo_hca_hello {
	uint32_t version; /* FAVO_HCA_VERSION; others are refused */
	uint32_t type;
	uint32_t seq;
	uint32_t nslots;
	uint8_t mac[6]; /* of function 0 */
	uint8_t reserved[10];
	struct favo_hca_slot slots[FAVO_HCA_SLOTS_MAX]; /* sorted by gpa */
};

#define FAVO_HCA_RAISE 1u /* reply to COMMAND: raise vector 0 */

struct favo_hca_reply {
	uint32_t type; /* of the request */
	uint32_t seq;
	uint32_t status; /* 0: ERR reads 0; else an errno value: ERR reads it */
	uint32_t flags;
};

enum favo_hca_uar {
	FAVO_HCA_UAR_TRAP,
	FAVO_HCA_UAR_RAM,
};

/* On the event socket, both ways. */
struct favo_hca_uar_mode {
	uint32_t type; /* FAVO_HCA_UAR_MODE */
	uint32_t generation; /* of the shared area when favo-hca asked */
	uint32_t uar; /* 1 .. FAVO_HCA_UARS - 1 */
	uint32_t mode; /* enum favo_hca_uar */
};

struct favo_hca_bell {
	uint32_t offset; /* in BAR2: uar * 4096 + register (0 QP, 4 CQ, 8 SRQ) */
	uint32_t value;
};

/*
 * The shared area. head is favo-vmm's, tail favo-hca's; they run freely and are
 * taken modulo FAVO_HCA_BELLS. Writers of head serialize by favo-vmm's own lock.
 */
struct favo_hca_shared {
	_Atomic uint32_t head;
	_Atomic uint32_t overflow; /* set by favo-vmm: bells were dropped */
	_Atomic uint32_t generation; /* of resets, favo-vmm's */
	_Atomic uint32_t imr; /* register IMR: bit of a vector set = masked */
	uint32_t pad0[12];
	_Atomic uint32_t tail;
	_Atomic uint32_t sleeping; /* favo-hca waits for a kick */
	uint32_t pad1[14];
	uint8_t pad2[4096 - 128];
	struct favo_hca_bell bells[FAVO_HCA_BELLS];
	_Alignas(4096) uint8_t uars[FAVO_HCA_UARS][FAVO_HCA_UAR_SIZE];
};

_Static_assert(sizeof(struct favo_hca_hello) == 288, "layout of HELLO");
_Static_assert(sizeof(struct favo_hca_shared) % 4096 == 0, "whole pages");

/*
 * favo-vmm: note a trapped doorbell. Returns whether favo-hca must be kicked,
 * i.e. 1 written to the kick eventfd. Under the caller's lock. "Poll" only tells
 * that the guest polls: it wakes nobody and does not fill the ring.
 */
static inline bool favo_hca_bell_push(struct favo_hca_shared *s, uint32_t offset,
				      uint32_t value)
{
	uint32_t head = atomic_load_explicit(&s->head, memory_order_relaxed);
	uint32_t tail = atomic_load_explicit(&s->tail, memory_order_acquire);

	/* CQ register with POLL and neither ARM nor ARM_SOL. */
	bool poll = offset % FAVO_HCA_UAR_SIZE == 4 && value >> 29 == 4;

	if (poll && head - tail >= FAVO_HCA_BELLS / 2)
		return false;
	if (head - tail >= FAVO_HCA_BELLS) {
		atomic_store(&s->overflow, 1);
	} else {
		s->bells[head % FAVO_HCA_BELLS] = (struct favo_hca_bell){offset, value};
		/* Sequentially consistent: pairs with the check after sleeping = 1. */
		atomic_store(&s->head, head + 1);
	}
	return !poll && atomic_load(&s->sleeping) && atomic_exchange(&s->sleeping, 0);
}
