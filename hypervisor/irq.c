// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * MSI sources over KVM's in-kernel irqchip. A source that only this process
 * fires never appears in KVM's routing table: setting that table waits for an
 * SRCU grace period, which is dear at boot. One whose eventfd was handed out
 * owns a GSI above the IOAPIC's pins.
 */
#include "hypervisor/irq.h"

#include <errno.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/util.h"
#include "hypervisor/kvm.h"

#define PIC_PINS 16
#define FIRST_MSI_GSI FAVO_IOAPIC_PINS
#define MAX_MSI_GSI 1024
#define FIXED_ROUTES (FAVO_IOAPIC_PINS + PIC_PINS)

struct favo_irq {
	struct favo_irqs *irqs;
	int fd; /* -1 until asked for */
	uint32_t gsi; /* valid with fd >= 0 */
	bool masked, pending;
	bool bound; /* irqfd is in KVM */
	bool routed; /* KVM's table has msi */
	struct favo_msi msi;
};

struct favo_irqs {
	int vm_fd;
	pthread_mutex_t lock; /* guards all sources, too */
	struct favo_irq *by_gsi[MAX_MSI_GSI];
	struct kvm_irq_routing *table; /* room for all routes */
};

int favo_irqs_new(struct favo_irqs **out, int vm_fd, struct favo_err *err)
{
	struct favo_irqs *irqs = calloc(1, sizeof(*irqs));
	struct kvm_irq_routing_entry *e;
	unsigned i;

	if (irqs)
		irqs->table =
			calloc(1, sizeof(*irqs->table) +
					  (FIXED_ROUTES + MAX_MSI_GSI) * sizeof(*e));
	if (!irqs || !irqs->table) {
		free(irqs);
		return favo_fail(err, ENOMEM, "interrupts: out of memory");
	}
	irqs->vm_fd = vm_fd;
	pthread_mutex_init(&irqs->lock, NULL);
	/* KVM's default routes, which setting the table would replace. */
	e = irqs->table->entries;
	for (i = 0; i < FAVO_IOAPIC_PINS; i++, e++) {
		e->gsi = i;
		e->type = KVM_IRQ_ROUTING_IRQCHIP;
		e->u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
		e->u.irqchip.pin = i;
	}
	for (i = 0; i < PIC_PINS; i++, e++) {
		e->gsi = i;
		e->type = KVM_IRQ_ROUTING_IRQCHIP;
		e->u.irqchip.irqchip =
			i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
		e->u.irqchip.pin = i % 8;
	}
	*out = irqs;
	return 0;
}

void favo_irqs_free(struct favo_irqs *irqs)
{
	if (!irqs)
		return;
	pthread_mutex_destroy(&irqs->lock);
	free(irqs->table);
	free(irqs);
}

int favo_irq_new(struct favo_irq **out, struct favo_irqs *irqs, struct favo_err *err)
{
	struct favo_irq *irq = calloc(1, sizeof(*irq));

	if (!irq)
		return favo_fail(err, ENOMEM, "interrupts: out of memory");
	irq->irqs = irqs;
	irq->fd = -1;
	irq->masked = true;
	*out = irq;
	return 0;
}

static void unbind(struct favo_irq *irq)
{
	if (irq->bound)
		favo_kvm_irqfd(irq->irqs->vm_fd, irq->fd, irq->gsi, false);
	irq->bound = false;
}

void favo_irq_free(struct favo_irq *irq)
{
	if (!irq)
		return;
	pthread_mutex_lock(&irq->irqs->lock);
	unbind(irq);
	if (irq->fd >= 0)
		irq->irqs->by_gsi[irq->gsi - FIRST_MSI_GSI] = NULL;
	pthread_mutex_unlock(&irq->irqs->lock);
	favo_close(&irq->fd);
	free(irq);
}

static int set_table(struct favo_irqs *irqs)
{
	struct kvm_irq_routing_entry *e = irqs->table->entries + FIXED_ROUTES;
	unsigned i;

	for (i = 0; i < MAX_MSI_GSI; i++) {
		const struct favo_irq *irq = irqs->by_gsi[i];

		if (!irq || !irq->routed)
			continue;
		memset(e, 0, sizeof(*e));
		e->gsi = irq->gsi;
		e->type = KVM_IRQ_ROUTING_MSI;
		e->u.msi.address_lo = (uint32_t)irq->msi.address;
		e->u.msi.address_hi = (uint32_t)(irq->msi.address >> 32);
		e->u.msi.data = irq->msi.data;
		e++;
	}
	irqs->table->nr = (uint32_t)(e - irqs->table->entries);
	return favo_kvm_set_routes(irqs->vm_fd, irqs->table);
}

/* Bring KVM in line with an unmasked source that has an eventfd. */
static int bind_fd(struct favo_irq *irq)
{
	int ret;

	if (!irq->routed) {
		irq->routed = true;
		ret = set_table(irq->irqs);
		if (ret < 0) {
			irq->routed = false;
			return ret;
		}
	}
	if (irq->bound)
		return 0;
	/* KVM fires at once when the eventfd was signalled before. */
	ret = favo_kvm_irqfd(irq->irqs->vm_fd, irq->fd, irq->gsi, true);
	irq->bound = ret == 0;
	return ret;
}

static void signal_fd(struct favo_irq *irq)
{
	uint64_t one = 1;
	ssize_t n = write(irq->fd, &one, sizeof(one));

	(void)n; /* full: it is signalled anyway */
}

int favo_irq_set(struct favo_irq *irq, const struct favo_msi *msi)
{
	bool fire = false;
	int ret = 0;

	pthread_mutex_lock(&irq->irqs->lock);
	if (!msi) {
		unbind(irq);
		irq->masked = true;
	} else {
		if (msi->address != irq->msi.address || msi->data != irq->msi.data) {
			irq->msi = *msi;
			irq->routed = false;
		}
		if (irq->fd >= 0)
			ret = bind_fd(irq);
		irq->masked = ret < 0;
		fire = ret == 0 && irq->pending;
		irq->pending = irq->pending && !fire;
	}
	pthread_mutex_unlock(&irq->irqs->lock);
	if (fire)
		favo_irq_trigger(irq);
	return ret;
}

void favo_irq_trigger(struct favo_irq *irq)
{
	struct favo_msi msi;
	bool now = false;

	pthread_mutex_lock(&irq->irqs->lock);
	msi = irq->msi;
	if (irq->fd >= 0)
		signal_fd(irq);
	else if (irq->masked)
		irq->pending = true;
	else
		now = true;
	pthread_mutex_unlock(&irq->irqs->lock);
	if (now)
		favo_kvm_signal_msi(irq->irqs->vm_fd, &msi);
}

bool favo_irq_pending(struct favo_irq *irq)
{
	struct pollfd p = {.fd = irq->fd, .events = POLLIN};
	bool ret;

	pthread_mutex_lock(&irq->irqs->lock);
	ret = irq->pending;
	if (irq->fd >= 0 && irq->masked && poll(&p, 1, 0) == 1)
		ret = true;
	pthread_mutex_unlock(&irq->irqs->lock);
	return ret;
}

void favo_irq_clear(struct favo_irq *irq)
{
	uint64_t count;

	pthread_mutex_lock(&irq->irqs->lock);
	irq->pending = false;
	if (irq->fd >= 0) {
		ssize_t n = read(irq->fd, &count, sizeof(count));

		(void)n;
	}
	pthread_mutex_unlock(&irq->irqs->lock);
}

static int fd_locked(struct favo_irq *irq)
{
	favo_autoclose int fd = -1;
	unsigned i;

	if (irq->fd >= 0)
		return irq->fd;
	for (i = 0; i < MAX_MSI_GSI && irq->irqs->by_gsi[i]; i++)
		;
	if (i == MAX_MSI_GSI)
		return -ENOSPC;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	irq->gsi = FIRST_MSI_GSI + i;
	irq->fd = favo_steal_fd(&fd);
	irq->irqs->by_gsi[i] = irq;
	irq->routed = false;
	if (irq->pending)
		signal_fd(irq);
	irq->pending = false;
	if (!irq->masked && bind_fd(irq) < 0)
		irq->masked = true;
	return irq->fd;
}

int favo_irq_fd(struct favo_irq *irq, struct favo_err *err)
{
	int ret;

	pthread_mutex_lock(&irq->irqs->lock);
	ret = fd_locked(irq);
	pthread_mutex_unlock(&irq->irqs->lock);
	return ret < 0 ? favo_fail(err, -ret, "interrupts: eventfd of a vector: %m")
		       : ret;
}

void favo_irq_line(struct favo_irqs *irqs, unsigned pin, bool level)
{
	favo_kvm_irq_line(irqs->vm_fd, pin, level);
}
