// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Drivers for what this machine has: each device of a bus tells an alias, and
 * images/initramfs_metal.c has brought the patterns that drivers answer to.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "netboot/initramfs/netinit.h"

#define LIST_MAX (4 << 20)
#define ROUNDS 5 /* a bus driver shows new devices: PCI, virtio, SCSI */

struct lists {
	char *drivers, *aliases;
};

static void load_file(const char *path)
{
	favo_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);

	/* Absent: it was loaded before, and its file removed. */
	if (fd < 0)
		return;
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
		favo_log(FAVO_WARN, "module %s: %m", path);
	unlink(path);
}

int favo_net_modules(struct favo_err *err)
{
	favo_autofree char *text = NULL;
	char *save = NULL;
	int ret = favo_file_read("/favo/modules", LIST_MAX, &text, NULL, err);

	for (char *line = ret == 0 ? strtok_r(text, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save))
		load_file(line);
	return ret;
}

/* All files of a driver's line; true when the driver was not loaded before. */
static bool load_driver(const struct lists *l, const char *name)
{
	size_t len = strlen(name);
	bool loaded = false;

	for (const char *line = l->drivers; line && *line;) {
		const char *end = strchrnul(line, '\n');

		if (strncmp(line, name, len) == 0 && line[len] == ' ') {
			favo_autofree char *files =
				strndup(line + len, (size_t)(end - line) - len);
			char *save = NULL;

			for (char *file = files ? strtok_r(files, " ", &save) : NULL;
			     file; file = strtok_r(NULL, " ", &save)) {
				loaded |= access(file, F_OK) == 0;
				load_file(file);
			}
		}
		line = *end ? end + 1 : end;
	}
	return loaded;
}

/* "PATTERN NAME" lines; loads each driver whose pattern fits. */
static bool match_alias(const struct lists *l, const char *alias)
{
	bool loaded = false;

	for (const char *line = l->aliases; line && *line;) {
		const char *end = strchrnul(line, '\n');
		char pattern[256], name[64];

		if (end - line < 300 && sscanf(line, "%255s %63s", pattern, name) == 2 &&
		    fnmatch(pattern, alias, 0) == 0)
			loaded |= load_driver(l, name);
		line = *end ? end + 1 : end;
	}
	return loaded;
}

static bool load_for_bus(const struct lists *l, const char *bus)
{
	favo_autofree char *dir = favo_asprintf("/sys/bus/%s/devices", bus);
	DIR *devices = dir ? opendir(dir) : NULL;
	struct dirent *d;
	bool loaded = false;

	while (devices && (d = readdir(devices))) {
		favo_autofree char *path =
			favo_asprintf("%s/%s/modalias", dir, d->d_name);
		favo_autofree char *alias = NULL;

		if (d->d_name[0] == '.' || !path ||
		    favo_file_read(path, 4096, &alias, NULL, NULL) < 0)
			continue;
		alias[strcspn(alias, "\n")] = '\0';
		loaded |= match_alias(l, alias);
	}
	if (devices)
		closedir(devices);
	return loaded;
}

int favo_net_drivers(struct favo_err *err)
{
	static const char *const buses[] = {"pci", "virtio", "scsi"};
	struct lists l = {0};
	bool more = true;
	int ret = favo_file_read("/favo/drivers", LIST_MAX, &l.drivers, NULL, err);

	if (ret == 0)
		ret = favo_file_read("/favo/aliases", LIST_MAX, &l.aliases, NULL, err);
	for (int round = 0; ret == 0 && more && round < ROUNDS; round++) {
		more = false;
		for (size_t i = 0; i < FAVO_ARRAY_SIZE(buses); i++)
			more |= load_for_bus(&l, buses[i]);
	}
	free(l.drivers);
	free(l.aliases);
	return ret;
}
