// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * 16550A registers as far as Linux' 8250 driver looks at them: the transmitter
 * is always empty, the receiver too. Data sheet: TI PC16550D.
 */
#include "hypervisor/serial.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "common/util.h"
#include "hypervisor/platform.h"
#include "hypervisor/vm.h"

enum { DATA, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCRATCH };

#define IER_TX_EMPTY 0x02
#define IIR_NONE 0x01
#define IIR_TX_EMPTY 0x02
#define IIR_FIFO 0xc0
#define LCR_DLAB 0x80
#define LSR_TX_EMPTY 0x60
#define MSR_READY 0xb0 /* carrier, data set ready, clear to send */
#define MCR_LOOP 0x10

struct favo_serial {
	struct favo_vm *vm;
	pthread_mutex_t lock;
	int fd;
	uint8_t ier, lcr, mcr, scratch, divisor[2], fcr;
	bool tx_event; /* "transmitter empty" not yet seen by the guest */
	bool line;
	char buf[256];
	unsigned len;
};

static void flush(struct favo_serial *s)
{
	ssize_t n = write(s->fd, s->buf, s->len);

	(void)n;
	s->len = 0;
}

static void put_char(struct favo_serial *s, uint8_t c)
{
	s->buf[s->len++] = (char)c;
	if (c == '\n' || s->len == sizeof(s->buf))
		flush(s);
}

static void update_line(struct favo_serial *s)
{
	bool level = s->ier & IER_TX_EMPTY && s->tx_event;

	if (level != s->line)
		favo_irq_line(s->vm->irqs, FAVO_GSI_SERIAL, level);
	s->line = level;
}

static uint8_t read_reg(struct favo_serial *s, unsigned reg)
{
	bool dlab = s->lcr & LCR_DLAB;
	uint8_t v;

	switch (reg) {
	case DATA:
		return dlab ? s->divisor[0] : 0;
	case IER:
		return dlab ? s->divisor[1] : s->ier;
	case IIR_FCR:
		v = s->ier & IER_TX_EMPTY && s->tx_event ? IIR_TX_EMPTY : IIR_NONE;
		s->tx_event = false;
		return v | (s->fcr & 1 ? IIR_FIFO : 0);
	case LCR:
		return s->lcr;
	case MCR:
		return s->mcr;
	case LSR:
		return LSR_TX_EMPTY;
	case MSR:
		/* Loopback wires the modem lines: the driver's presence test. */
		if (s->mcr & MCR_LOOP)
			return (uint8_t)((s->mcr & 0x0c) << 4 | (s->mcr & 0x02) << 3 |
					 (s->mcr & 0x01) << 5);
		return MSR_READY;
	default:
		return s->scratch;
	}
}

static void write_reg(struct favo_serial *s, unsigned reg, uint8_t v)
{
	bool dlab = s->lcr & LCR_DLAB;

	switch (reg) {
	case DATA:
		if (dlab) {
			s->divisor[0] = v;
		} else if (!(s->mcr & MCR_LOOP)) {
			put_char(s, v);
			s->tx_event = true;
		}
		break;
	case IER:
		if (dlab) {
			s->divisor[1] = v;
		} else {
			if (v & ~s->ier & IER_TX_EMPTY)
				s->tx_event = true;
			s->ier = v & 0x0f;
		}
		break;
	case IIR_FCR:
		s->fcr = v;
		break;
	case LCR:
		s->lcr = v;
		break;
	case MCR:
		s->mcr = v & 0x1f;
		break;
	case SCRATCH:
		s->scratch = v;
		break;
	}
}

static uint64_t serial_read(void *opaque, uint64_t offset, unsigned len)
{
	struct favo_serial *s = opaque;
	uint8_t v;

	if (len != 1)
		return ~0ULL;
	pthread_mutex_lock(&s->lock);
	v = read_reg(s, (unsigned)offset);
	update_line(s);
	pthread_mutex_unlock(&s->lock);
	return v;
}

static void serial_write(void *opaque, uint64_t offset, uint64_t value, unsigned len)
{
	struct favo_serial *s = opaque;

	if (len != 1)
		return;
	pthread_mutex_lock(&s->lock);
	write_reg(s, (unsigned)offset, (uint8_t)value);
	update_line(s);
	pthread_mutex_unlock(&s->lock);
}

int favo_serial_new(struct favo_serial **out, struct favo_vm *vm, int fd,
		    struct favo_err *err)
{
	static const struct favo_io_ops ops = {serial_read, serial_write};
	struct favo_serial *s = calloc(1, sizeof(*s));
	const struct favo_io_range range = {
		.base = FAVO_PORT_SERIAL, .size = 8, .ops = &ops, .opaque = s};
	int ret;

	if (!s)
		return favo_fail(err, ENOMEM, "serial port: out of memory");
	s->vm = vm;
	s->fd = fd;
	pthread_mutex_init(&s->lock, NULL);
	ret = favo_iobus_add(vm->pio, &range);
	if (ret < 0) {
		favo_serial_free(s);
		return favo_fail(err, -ret, "serial port: %m");
	}
	*out = s;
	return 0;
}

void favo_serial_free(struct favo_serial *s)
{
	if (!s)
		return;
	flush(s);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
