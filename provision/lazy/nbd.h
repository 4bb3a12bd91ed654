/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's NBD client (drivers/block/nbd.c): making a device by generic
 * netlink (linux/nbd-netlink.h), and the wire protocol on the other end of
 * its socket (github.com/NetworkBlockDevice/nbd, doc/proto.md, "transmission").
 *
 * The device ends by itself when its last user closes it, and gives I/O
 * errors when our end of the socket is gone: there is nothing that a crash of
 * anybody could leave behind.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct favo_nbd_request {
	uint16_t type;
	uint64_t cookie;
	uint64_t offset;
	uint32_t length;
};

#define FAVO_NBD_REQUEST_SIZE 28

/*
 * Make a read-only device of size bytes whose requests come from the socket
 * pair's end *fd, which the caller owns then. timeout_s: the kernel gives up
 * on us when a request takes longer. Returns the number N of /dev/nbdN.
 */
int favo_nbd_connect(uint64_t size, unsigned int timeout_s, int *fd,
		     struct favo_err *err);
/* Give it back; pending requests fail. */
void favo_nbd_disconnect(unsigned int device);

/* -EBADMSG when the bytes are no request. */
int favo_nbd_parse(struct favo_nbd_request *out,
		   const unsigned char bytes[FAVO_NBD_REQUEST_SIZE],
		   struct favo_err *err);
/* Answer; error is an errno value, data goes with 0 only. */
int favo_nbd_reply(int fd, uint64_t cookie, int error, const void *data, size_t len,
		   struct favo_err *err);
