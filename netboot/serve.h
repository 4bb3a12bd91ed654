/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parts of the boot service's HTTP side; private to netboot/. */
#pragma once

#include "netboot/boot.h"

struct favo_boot {
	struct favo_favod *d;
	struct favo_boot_net net;
	char url[64];
	struct favo_boot_tokens *tokens;
	struct favo_boot_parts *parts;
	struct favo_boot_dhcp *dhcp; /* NULL: boot_dhcp = off */
	struct MHD_Daemon *daemon;
};

/* Who asks, seen from the connection. */
struct favo_boot_peer {
	char address[FAVO_BOOT_ADDRESS];
	unsigned int port;
};

/* begin.c: GET /boot/script, the first word of a machine. */
void favo_boot_begin(struct favo_boot *b, struct favo_call *call,
		     const struct favo_boot_peer *peer);

/* An answer of text; takes it (NULL: out of memory). */
void favo_boot_text(struct favo_call *call, unsigned int status, char *text);
