// SPDX-License-Identifier: GPL-2.0-or-later
/* fstab(5) of a system in a disk image; see disk_internal.h. */
#include "images/disk_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/util.h"

#define BLANKS " \t"

static bool take_field(const char **at, char *field, size_t size)
{
	size_t len;

	*at += strspn(*at, BLANKS);
	len = strcspn(*at, BLANKS "\n");
	snprintf(field, size, "%.*s", (int)FAVO_MIN(len, size - 1), *at);
	*at += len;
	return len > 0 && len < size;
}

bool favo_fstab_next(const char **text, struct favo_fstab_line *line)
{
	while (*text && **text) {
		const char *at = *text, *end = at + strcspn(at, "\n");
		bool good;

		*text = *end ? end + 1 : end;
		good = take_field(&at, line->device, sizeof(line->device)) &&
		       take_field(&at, line->folder, sizeof(line->folder));
		if (good && line->device[0] != '#')
			return true;
	}
	return false;
}

static bool is_quoted(const char *text, const char *wanted)
{
	size_t len = strlen(wanted);

	if (len == 0)
		return false;
	if (*text == '"')
		return strncasecmp(text + 1, wanted, len) == 0 && text[len + 1] == '"';
	return strcasecmp(text, wanted) == 0;
}

struct favo_disk_part *favo_fstab_device(struct favo_disk *disk, const char *device)
{
	static const struct {
		const char *prefix;
		size_t offset;
	} rows[] = {
		{"UUID=", offsetof(struct favo_partition, fs_uuid)},
		{"/dev/disk/by-uuid/", offsetof(struct favo_partition, fs_uuid)},
		{"PARTUUID=", offsetof(struct favo_partition, uuid)},
		{"/dev/disk/by-partuuid/", offsetof(struct favo_partition, uuid)},
		{"LABEL=", offsetof(struct favo_partition, label)},
		{"/dev/disk/by-label/", offsetof(struct favo_partition, label)},
	};
	size_t len = strlen(device), digits = 0;

	for (size_t i = 0; i < disk->n; i++)
		for (size_t j = 0; j < FAVO_ARRAY_SIZE(rows); j++)
			if (strncmp(device, rows[j].prefix, strlen(rows[j].prefix)) ==
				    0 &&
			    is_quoted(device + strlen(rows[j].prefix),
				      (const char *)disk->parts[i].p + rows[j].offset))
				return &disk->parts[i];
	/* /dev/sda2, /dev/vda2, /dev/nvme0n1p2: the first disk's second one. */
	while (digits < len && isdigit((unsigned char)device[len - 1 - digits]))
		digits++;
	if (strncmp(device, "/dev/", 5) != 0 || strchr(device + 5, '/') || digits == 0 ||
	    digits > 3)
		return NULL;
	for (size_t i = 0; i < disk->n; i++)
		if (disk->parts[i].p->number == strtoul(device + len - digits, NULL, 10))
			return &disk->parts[i];
	return NULL;
}

static bool needs_disk(const char *device)
{
	static const char *const prefixes[] = {
		"UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "/dev/", "/swap"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(prefixes); i++)
		if (strncmp(device, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	return false;
}

char *favo_fstab_without_disks(const char *text, unsigned int *n)
{
	char *out = malloc(2 * strlen(text) + 1), *to = out;

	for (*n = 0; out && *text;) {
		size_t len = strcspn(text, "\n"), blanks = strspn(text, BLANKS);

		len += text[len] == '\n';
		if (needs_disk(text + blanks)) {
			*to++ = '#';
			(*n)++;
		}
		memcpy(to, text, len);
		to += len;
		text += len;
	}
	if (out)
		*to = '\0';
	return out;
}
