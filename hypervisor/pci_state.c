// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * PCI functions in a snapshot: configuration space, MSI-X, and what each device
 * adds. A state fits only a bus with the same devices at the same places: all
 * bits of configuration space that the guest cannot write must be equal.
 */
#include <string.h>

#include "common/util.h"
#include "hypervisor/pci_internal.h"
#include "hypervisor/snapshot_file.h"

#define CONFIG_BYTES 256 /* no extended capabilities are there */
#define NAME_MAX_BYTES 32

void favo_pci_bus_pause(struct favo_pci_bus *bus, bool pause)
{
	for (unsigned i = 0; i < PCI_DEVFNS; i++) {
		struct favo_pci_device *dev = bus->devs[i];

		if (!dev || !dev->ops->pause)
			continue;
		pthread_mutex_lock(&dev->lock);
		dev->ops->pause(dev, pause);
		pthread_mutex_unlock(&dev->lock);
	}
}

static int save_device(struct favo_pci_device *dev, struct favo_state_out *out,
		       struct favo_err *err)
{
	if (!dev->ops->save || !dev->ops->load)
		return favo_fail(err, ENOTSUP, "it has no state that could be saved");
	favo_state_put_blob(out, dev->name, (uint32_t)strlen(dev->name));
	favo_state_put(out, dev->config, CONFIG_BYTES);
	favo_msix_save(dev, out);
	return dev->ops->save(dev, out, err);
}

int favo_pci_bus_save(struct favo_pci_bus *bus, struct favo_snap_out *snap,
		      struct favo_err *err)
{
	for (unsigned i = 0; i < PCI_DEVFNS; i++) {
		struct favo_pci_device *dev = bus->devs[i];
		struct favo_state_out *out;
		int ret;

		if (!dev)
			continue;
		out = favo_snap_add(snap, FAVO_SNAP_DEVICE, i);
		if (!out)
			return favo_fail(err, E2BIG, "snapshot: too many devices");
		pthread_mutex_lock(&dev->lock);
		ret = save_device(dev, out, err);
		pthread_mutex_unlock(&dev->lock);
		if (ret < 0)
			return favo_wrap(err, ret, "snapshot: device %02x.%u (%s)",
					 i >> 3, i & 7, dev->name);
	}
	return 0;
}

static int load_config(struct favo_pci_device *dev, const uint8_t *saved,
		       struct favo_err *err)
{
	for (unsigned i = 0; i < CONFIG_BYTES; i++)
		if ((saved[i] ^ dev->config[i]) & ~dev->wmask[i])
			return favo_fail(err, EINVAL,
					 "configuration byte %#x differs: the VM was "
					 "saved with another device here",
					 i);
	for (unsigned i = 0; i < CONFIG_BYTES; i++)
		dev->config[i] = (uint8_t)((dev->config[i] & ~dev->wmask[i]) |
					   (saved[i] & dev->wmask[i]));
	favo_pci_update_bars(dev);
	return 0;
}

static int load_device(struct favo_pci_device *dev, struct favo_state_in *in,
		       struct favo_err *err)
{
	size_t len;
	const char *name = favo_state_get_blob(in, &len);
	const uint8_t *config = favo_state_get(in, CONFIG_BYTES);
	int ret;

	if (!dev->ops->load)
		return favo_fail(err, ENOTSUP, "it cannot be restored");
	if (!config || len > NAME_MAX_BYTES || len != strlen(dev->name) ||
	    memcmp(name, dev->name, len) != 0)
		return favo_fail(err, EINVAL, "was a device of another kind: \"%.*s\"",
				 (int)FAVO_MIN(len, (size_t)NAME_MAX_BYTES),
				 config ? name : "");
	ret = load_config(dev, config, err);
	ret = ret ? ret : favo_msix_load(dev, in, err);
	ret = ret ? ret : dev->ops->load(dev, in, err);
	return ret ? ret : favo_state_get_end(in, err);
}

int favo_pci_bus_load(struct favo_pci_bus *bus, const struct favo_snap_in *snap,
		      struct favo_err *err)
{
	unsigned n = 0;

	for (unsigned i = 0; i < PCI_DEVFNS; i++) {
		struct favo_pci_device *dev = bus->devs[i];
		struct favo_state_in in;
		int ret;

		if (!dev)
			continue;
		n++;
		ret = favo_snap_find(snap, FAVO_SNAP_DEVICE, i, &in, err);
		if (ret < 0)
			return favo_wrap(err, ret, "device %02x.%u (%s) is new", i >> 3,
					 i & 7, dev->name);
		pthread_mutex_lock(&dev->lock);
		ret = load_device(dev, &in, err);
		pthread_mutex_unlock(&dev->lock);
		if (ret < 0)
			return favo_wrap(err, ret, "snapshot: device %02x.%u (%s)",
					 i >> 3, i & 7, dev->name);
	}
	for (unsigned i = 0; i < snap->n; i++)
		if (snap->sections[i].type == FAVO_SNAP_DEVICE && n-- == 0)
			return favo_fail(err, EINVAL,
					 "snapshot: holds more devices than the command "
					 "line makes");
	return 0;
}
