/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shared directory: virtio 1.2 section 5.11, served by a vhost-user process
 * (virtiofsd) that runs as the user whose files these are. No DAX window, no
 * notification queue.
 */
#include <errno.h>
#include <string.h>

#include "common/fd.h"
#include "common/str.h"
#include "common/util.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/virtio/spec.h"
#include "hypervisor/virtio/vhost_user.h"
#include "hypervisor/virtio/virtio.h"
#include "hypervisor/vm.h"

#define TAG_BYTES 36
#define REQUEST_QUEUES_MAX 16
#define CONNECT_MS 2000

struct fs {
	struct favo_virtio dev;
	struct favo_vhost_user vu;
};

static struct fs *from_dev(struct favo_virtio *dev)
{
	return favo_container_of(dev, struct fs, dev);
}

static int fs_start(struct favo_virtio *dev, struct favo_err *err)
{
	return favo_vhost_user_start(&from_dev(dev)->vu, dev->features, err);
}

static bool fs_stop(struct favo_virtio *dev, bool wait)
{
	(void)wait;
	favo_vhost_user_stop(&from_dev(dev)->vu);
	return true;
}

/* All queues are the back end's. */
static void fs_kick(struct favo_virtio *dev, unsigned q)
{
	(void)dev;
	(void)q;
}

static void fs_stats(struct favo_virtio *dev, json_t *object)
{
	json_object_set_new(object, "tag", json_string((const char *)dev->config));
	json_object_set_new(object, "connected", json_boolean(!from_dev(dev)->vu.gone));
}

/* The server has the guest's open files, and maps memory that a restore replaces. */
static int fs_save(struct favo_virtio *dev, struct favo_state_out *out,
		   struct favo_err *err)
{
	(void)out;
	return favo_fail(err, ENOTSUP,
			 "shared directory \"%.36s\" is served by another process, whose "
			 "state cannot be saved: start the VM without --fs",
			 (const char *)dev->config);
}

static void fs_free(struct favo_virtio *dev)
{
	struct fs *fs = from_dev(dev);

	favo_vhost_user_stop(&fs->vu);
	favo_vhost_user_fini(&fs->vu);
	favo_virtio_fini(dev);
	free(fs);
}

static const struct favo_virtio_ops fs_ops = {
	.name = "fs",
	.id = VIRTIO_ID_FS,
	.class_code = 0x018000,
	.start = fs_start,
	.stop = fs_stop,
	.kick = fs_kick,
	.stats = fs_stats,
	.save = fs_save,
	.free = fs_free,
};

struct fs_spec {
	const char *socket, *fd, *tag, *queues;
};

/* The configuration: tag, padded with zeros, then the number of request queues. */
static void set_config(struct fs *fs, const char *tag, uint32_t queues)
{
	uint32_t le = htole32(queues);

	memcpy(fs->dev.config, tag, strlen(tag));
	memcpy(fs->dev.config + TAG_BYTES, &le, sizeof(le));
	fs->dev.config_len = TAG_BYTES + sizeof(le);
	fs->dev.nqueues = 1 + queues; /* the first one is for urgent requests */
	fs->dev.queue_size = 1024;
	fs->dev.external = FAVO_VIRTIO_BIT(fs->dev.nqueues) - 1;
}

static int set_up(struct fs *fs, const char *text, struct favo_loop *loop,
		  struct favo_err *err)
{
	favo_autofree char *copy = strdup(text);
	struct fs_spec spec = {0};
	const struct favo_spec_key keys[] = {
		{.name = "socket", .value = &spec.socket},
		{.name = "fd", .value = &spec.fd},
		{.name = "tag", .value = &spec.tag},
		{.name = "queues", .value = &spec.queues},
	};
	uint64_t queues = 1;
	int fd, ret;

	if (!copy)
		return favo_fail(err, ENOMEM, "allocate option");
	ret = favo_spec_parse(copy, keys, FAVO_ARRAY_SIZE(keys), err);
	if (ret == 0 && !spec.socket == !spec.fd)
		ret = favo_fail(err, EINVAL, "one of socket=PATH and fd=N is needed");
	if (ret == 0 && (!spec.tag || strlen(spec.tag) >= TAG_BYTES))
		ret = favo_fail(err, EINVAL, "tag=NAME of less than %d bytes is needed",
				TAG_BYTES);
	if (ret == 0 && spec.queues)
		ret = favo_parse_u64(&queues, spec.queues, 1, REQUEST_QUEUES_MAX, err);
	if (ret < 0)
		return ret;
	set_config(fs, spec.tag, (uint32_t)queues);
	ret = spec.fd ? favo_spec_fd(&fd, spec.fd, err)
		      : favo_unix_connect(&fd, spec.socket, CONNECT_MS, err);
	if (ret < 0)
		return ret;
	ret = favo_vhost_user_init(&fs->vu, &fs->dev, fd, fs->dev.nqueues, loop, err);
	fs->dev.ring_features = fs->vu.features;
	return ret;
}

int favo_fs_add(struct favo_vm *vm, const char *spec, struct favo_err *err)
{
	struct fs *fs = calloc(1, sizeof(*fs));
	int ret;

	if (!fs)
		return favo_fail(err, ENOMEM, "allocate device");
	fs->vu.fd = -1;
	ret = vm->mem->fd < 0
		      ? favo_fail(err, EINVAL, "guest memory is private (see --shared)")
		      : set_up(fs, spec, vm->loop, err);
	if (ret == 0)
		ret = favo_virtio_add(&fs->dev, vm, &fs_ops, err);
	if (ret < 0)
		fs_free(&fs->dev);
	return ret;
}
