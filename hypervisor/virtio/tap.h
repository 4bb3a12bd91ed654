/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A tap interface as back end of a network device: frames with the 12-byte
 * virtio header in front. A datagram socket of the same shape is taken too,
 * without offloads (tests, switches in user space).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct favo_tap {
	int fd; /* owned, non-blocking; -1: not open */
	bool is_tap;
	uint16_t mtu; /* 0: unknown */
};

int favo_tap_open(struct favo_tap *tap, const char *name, struct favo_err *err);
/* Take over fd. */
int favo_tap_init(struct favo_tap *tap, int fd, struct favo_err *err);
void favo_tap_fini(struct favo_tap *tap);

/* Virtio features (bits of linux/virtio_net.h) that the kernel can back. */
uint64_t favo_tap_features(const struct favo_tap *tap);
/* Tell the kernel what the guest accepts of that. */
int favo_tap_set_features(struct favo_tap *tap, uint64_t features);
