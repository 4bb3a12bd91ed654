/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The value of --net, shared by all models of network cards. Main thread,
 * before the VM starts.
 */
#pragma once

#include <stdint.h>

#include "common/err.h"
#include "hypervisor/virtio/tap.h"

struct favo_net_spec {
	struct favo_tap tap; /* owned; a card that takes it over leaves fd -1 */
	char vhost[32]; /* "", "auto", "off" or a descriptor's number */
	bool vmxnet3; /* not virtio */
	uint8_t mac[6];
	uint16_t mtu; /* 0: unknown */
};

/* Check text and open what it names; EINVAL with a sentence. */
int favo_net_spec_open(struct favo_net_spec *spec, const char *text,
		       struct favo_err *err);
/* No-op on what was taken over. */
void favo_net_spec_close(struct favo_net_spec *spec);

/* xx:xx:xx:xx:xx:xx, of one station. */
int favo_mac_parse(uint8_t mac[6], const char *text, struct favo_err *err);
