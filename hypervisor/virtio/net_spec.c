/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The value of --net; see net_spec.h. */
#include "hypervisor/virtio/net_spec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/str.h"
#include "common/util.h"
#include "hypervisor/virtio/spec.h"

struct words {
	const char *tap, *fd, *vhost, *mac, *mtu, *model;
};

int favo_mac_parse(uint8_t mac[6], const char *text, struct favo_err *err)
{
	bool good = strlen(text) == 17;

	for (unsigned i = 0; good && i < 6; i++) {
		const char pair[3] = {text[3 * i], text[3 * i + 1], '\0'};

		good = favo_hex_decode(&mac[i], 1, pair, NULL) == 0 &&
		       text[3 * i + 2] == (i < 5 ? ':' : '\0');
	}
	if (!good)
		return favo_fail(err, EINVAL, "\"%s\" is no MAC address", text);
	if (mac[0] & 1)
		return favo_fail(err, EINVAL, "%s is a multicast address", text);
	return 0;
}

static int check_model(struct favo_net_spec *spec, const struct words *words,
		       struct favo_err *err)
{
	const char *vhost = words->vhost ? words->vhost : "";

	if (words->model && !strcmp(words->model, "vmxnet3"))
		spec->vmxnet3 = true;
	else if (words->model && strcmp(words->model, "virtio"))
		return favo_fail(err, EINVAL, "model \"%s\" is none of virtio, vmxnet3",
				 words->model);
	if (strlen(vhost) >= sizeof(spec->vhost))
		return favo_fail(err, EINVAL, "vhost: \"%s\" is no descriptor", vhost);
	if (spec->vmxnet3 && *vhost && strcmp(vhost, "auto") && strcmp(vhost, "off"))
		return favo_fail(err, EINVAL, "vhost is for model=virtio only");
	memcpy(spec->vhost, vhost, strlen(vhost));
	return 0;
}

static int open_tap(struct favo_net_spec *spec, const struct words *words,
		    struct favo_err *err)
{
	int fd, ret;

	if (words->tap)
		return favo_tap_open(&spec->tap, words->tap, err);
	ret = favo_spec_fd(&fd, words->fd, err);
	return ret < 0 ? ret : favo_tap_init(&spec->tap, fd, err);
}

int favo_net_spec_open(struct favo_net_spec *spec, const char *text, struct favo_err *err)
{
	favo_autofree char *copy = strdup(text);
	struct words words = {0};
	const struct favo_spec_key keys[] = {
		{.name = "tap", .value = &words.tap},
		{.name = "fd", .value = &words.fd},
		{.name = "vhost", .value = &words.vhost},
		{.name = "mac", .value = &words.mac},
		{.name = "mtu", .value = &words.mtu},
		{.name = "model", .value = &words.model},
	};
	uint64_t mtu = 0;
	int ret;

	*spec = (struct favo_net_spec){.tap = {.fd = -1},
				       .mac = {0x02, 0xfa, 0, 0, 0, 1}};
	if (!copy)
		return favo_fail(err, ENOMEM, "allocate option");
	ret = favo_spec_parse(copy, keys, FAVO_ARRAY_SIZE(keys), err);
	if (ret == 0 && !words.tap == !words.fd)
		ret = favo_fail(err, EINVAL, "one of tap=NAME and fd=N is needed");
	if (ret == 0)
		ret = check_model(spec, &words, err);
	if (ret == 0 && words.mac)
		ret = favo_mac_parse(spec->mac, words.mac, err);
	if (ret == 0 && words.mtu)
		ret = favo_parse_u64(&mtu, words.mtu, 68, UINT16_MAX, err);
	if (ret == 0)
		ret = open_tap(spec, &words, err);
	if (ret == 0)
		spec->mtu = mtu ? (uint16_t)mtu : spec->tap.mtu;
	return ret;
}

void favo_net_spec_close(struct favo_net_spec *spec)
{
	favo_tap_fini(&spec->tap);
	spec->tap.fd = -1;
}
