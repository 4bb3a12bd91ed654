/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupts: GSI routing of the in-kernel irqchip, MSI and irqfd.
 *
 * An MSI source has two ways to fire. From this process favo_irq_trigger() is
 * one KVM_SIGNAL_MSI and needs no route. For vhost, VFIO or another process
 * favo_irq_fd() gives an eventfd that stays the same for the life of the
 * source; it is bound to KVM as an irqfd while the source is unmasked. While
 * it is masked a signal stays in the eventfd (that is the pending bit) and KVM
 * delivers it at unmask.
 * Thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct favo_irqs; /* routing table of one VM */
struct favo_irq; /* one MSI source */

#define FAVO_IOAPIC_PINS 24

struct favo_msi {
	uint64_t address;
	uint32_t data;
};

/* vm_fd is borrowed; it has an in-kernel irqchip. */
int favo_irqs_new(struct favo_irqs **out, int vm_fd, struct favo_err *err);
void favo_irqs_free(struct favo_irqs *irqs);

/* A source starts masked. Freed before its favo_irqs. ENOSPC, EMFILE, ENOMEM. */
int favo_irq_new(struct favo_irq **out, struct favo_irqs *irqs, struct favo_err *err);
void favo_irq_free(struct favo_irq *irq);

/*
 * Set the message and unmask, or mask (msi NULL). A message that did not change
 * costs nothing. -errno when the routing table could not be set: the source
 * then stays masked.
 */
int favo_irq_set(struct favo_irq *irq, const struct favo_msi *msi);

/* Fire; while masked it becomes pending. Never blocks. */
void favo_irq_trigger(struct favo_irq *irq);
bool favo_irq_pending(struct favo_irq *irq);
void favo_irq_clear(struct favo_irq *irq); /* drop what is pending (reset) */

/*
 * Eventfd that fires the source; borrowed, valid until favo_irq_free(). From
 * the first call on the source is routed through KVM's table. -errno.
 */
int favo_irq_fd(struct favo_irq *irq, struct favo_err *err);

/* Level of an IOAPIC pin (serial port, ACPI events). */
void favo_irq_line(struct favo_irqs *irqs, unsigned pin, bool level);
