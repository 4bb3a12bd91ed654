// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Container of a snapshot's state; see snapshot_file.h. Every byte of a file
 * belongs to the header, the table or exactly one section, and each of these
 * has its checksum, so that no flipped bit goes unseen.
 */
#include "hypervisor/snapshot_file.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/crc32c.h"

#define MAGIC "FAVOSNAP"
#define CPUS_MAX 254
#define MEM_MAX (1ULL << 46)

struct header {
	char magic[8];
	uint32_t version;
	uint32_t header_size;
	uint32_t nsections;
	uint32_t entry_size;
	uint64_t file_size;
	uint64_t features; /* bits that a reader must know; none so far */
	uint32_t ncpus;
	uint32_t reserved;
	uint64_t mem_size;
	uint32_t table_crc;
	uint32_t crc; /* of all above */
};

struct entry {
	uint32_t type, instance;
	uint64_t offset, length;
	uint32_t crc;
	uint32_t reserved;
};

_Static_assert(sizeof(struct header) == 64 && sizeof(struct entry) == 32,
	       "docs/format-snapshot.md");

const char *favo_snap_name(char *buf, size_t size, enum favo_snap_type type,
			   uint32_t instance)
{
	switch (type) {
	case FAVO_SNAP_MEMORY:
		snprintf(buf, size, "memory");
		break;
	case FAVO_SNAP_MACHINE:
		snprintf(buf, size, "machine");
		break;
	case FAVO_SNAP_CPU:
		snprintf(buf, size, "vCPU %u", instance);
		break;
	case FAVO_SNAP_DEVICE:
		snprintf(buf, size, "device 00:%02x.%u", instance >> 3, instance & 7);
		break;
	}
	return buf;
}

struct favo_state_out *favo_snap_add(struct favo_snap_out *out, enum favo_snap_type type,
				     uint32_t instance)
{
	struct favo_snap_section *s;

	if (out->n == FAVO_SNAP_SECTIONS_MAX)
		return NULL;
	s = &out->sections[out->n++];
	s->type = type;
	s->instance = instance;
	return &s->state;
}

void favo_snap_out_fini(struct favo_snap_out *out)
{
	for (unsigned i = 0; i < out->n; i++)
		favo_state_out_fini(&out->sections[i].state);
	out->n = 0;
}

static void fill(const struct favo_snap_out *out, uint8_t *data, size_t size)
{
	struct header h = {
		.magic = MAGIC,
		.version = htole32(FAVO_SNAP_VERSION),
		.header_size = htole32(sizeof(h)),
		.nsections = htole32(out->n),
		.entry_size = htole32(sizeof(struct entry)),
		.file_size = htole64(size),
		.ncpus = htole32(out->ncpus),
		.mem_size = htole64(out->mem_size),
	};
	size_t table = out->n * sizeof(struct entry), at = sizeof(h) + table;

	for (unsigned i = 0; i < out->n; i++) {
		const struct favo_snap_section *s = &out->sections[i];
		const struct entry e = {
			.type = htole32(s->type),
			.instance = htole32(s->instance),
			.offset = htole64(at),
			.length = htole64(s->state.len),
			.crc = htole32(favo_crc32c(0, s->state.data, s->state.len)),
		};

		memcpy(data + sizeof(h) + i * sizeof(e), &e, sizeof(e));
		if (s->state.len)
			memcpy(data + at, s->state.data, s->state.len);
		at += s->state.len;
	}
	h.table_crc = htole32(favo_crc32c(0, data + sizeof(h), table));
	h.crc = htole32(favo_crc32c(0, &h, offsetof(struct header, crc)));
	memcpy(data, &h, sizeof(h));
}

int favo_snap_format(const struct favo_snap_out *out, uint8_t **data, size_t *len,
		     struct favo_err *err)
{
	size_t size = sizeof(struct header) + out->n * sizeof(struct entry);

	for (unsigned i = 0; i < out->n; i++) {
		if (out->sections[i].state.failed)
			return favo_fail(err, ENOMEM, "snapshot: out of memory");
		size += out->sections[i].state.len;
	}
	if (size > FAVO_SNAP_BYTES_MAX)
		return favo_fail(err, E2BIG, "snapshot: state of %zu bytes", size);
	*data = malloc(size);
	if (!*data)
		return favo_fail(err, ENOMEM, "snapshot: out of memory");
	fill(out, *data, size);
	*len = size;
	return 0;
}

static int check_header(const struct header *h, size_t len, struct favo_err *err)
{
	if (memcmp(h->magic, MAGIC, sizeof(h->magic)) != 0)
		return favo_fail(err, EINVAL, "snapshot: no state file of a snapshot");
	if (le32toh(h->version) != FAVO_SNAP_VERSION)
		return favo_fail(err, EINVAL,
				 "snapshot: format version %u, this favo-vmm has %d",
				 le32toh(h->version), FAVO_SNAP_VERSION);
	if (favo_crc32c(0, h, offsetof(struct header, crc)) != le32toh(h->crc))
		return favo_fail(err, EINVAL, "snapshot: header: checksum is wrong");
	if (le64toh(h->features))
		return favo_fail(err, EINVAL, "snapshot: unknown features %#llx",
				 (unsigned long long)le64toh(h->features));
	if (le32toh(h->header_size) != sizeof(*h) ||
	    le32toh(h->entry_size) != sizeof(struct entry) || h->reserved ||
	    le32toh(h->nsections) > FAVO_SNAP_SECTIONS_MAX)
		return favo_fail(err, EINVAL, "snapshot: header: bad sizes");
	if (le64toh(h->file_size) != len)
		return favo_fail(err, EINVAL,
				 "snapshot: state file of %zu bytes should have %llu",
				 len, (unsigned long long)le64toh(h->file_size));
	if (!h->ncpus || le32toh(h->ncpus) > CPUS_MAX || !h->mem_size ||
	    le64toh(h->mem_size) % 4096 || le64toh(h->mem_size) > MEM_MAX)
		return favo_fail(err, EINVAL, "snapshot: header: bad shape of the VM");
	return 0;
}

/* Sections stand one behind the other, by type and instance, none twice. */
static int take_section(struct favo_snap_in *in, const struct entry *e, size_t at,
			size_t len, struct favo_err *err)
{
	uint32_t type = le32toh(e->type), instance = le32toh(e->instance);
	uint64_t length = le64toh(e->length);
	unsigned i = in->n;
	char name[32];

	if (type < FAVO_SNAP_MEMORY || type > FAVO_SNAP_DEVICE)
		return favo_fail(err, EINVAL, "snapshot: section of unknown type %u",
				 type);
	favo_snap_name(name, sizeof(name), (enum favo_snap_type)type, instance);
	if (instance >= (type == FAVO_SNAP_DEVICE ? 256
			 : type == FAVO_SNAP_CPU  ? in->ncpus
						  : 1))
		return favo_fail(err, EINVAL, "snapshot: there can be no %s", name);
	if (i && (type < in->sections[i - 1].type ||
		  (type == in->sections[i - 1].type &&
		   instance <= in->sections[i - 1].instance)))
		return favo_fail(err, EINVAL, "snapshot: %s: out of order", name);
	if (le64toh(e->offset) != at || length > len - at || e->reserved)
		return favo_fail(err, EINVAL, "snapshot: %s: not where it should be",
				 name);
	if (favo_crc32c(0, in->data + at, length) != le32toh(e->crc))
		return favo_fail(err, EINVAL, "snapshot: %s: checksum is wrong", name);
	in->sections[i].type = (enum favo_snap_type)type;
	in->sections[i].instance = instance;
	in->sections[i].state =
		(struct favo_state_in){.p = in->data + at, .left = (size_t)length};
	in->n++;
	return 0;
}

int favo_snap_parse(struct favo_snap_in *in, const void *data, size_t len,
		    struct favo_err *err)
{
	struct header h;
	size_t table, at;

	memset(in, 0, sizeof(*in));
	if (len < sizeof(h) || len > FAVO_SNAP_BYTES_MAX)
		return favo_fail(err, EINVAL, "snapshot: state file of %zu bytes", len);
	memcpy(&h, data, sizeof(h));
	if (check_header(&h, len, err) < 0)
		return -EINVAL;
	in->data = data;
	in->ncpus = le32toh(h.ncpus);
	in->mem_size = le64toh(h.mem_size);
	table = le32toh(h.nsections) * sizeof(struct entry);
	at = sizeof(h) + table;
	if (at > len ||
	    favo_crc32c(0, in->data + sizeof(h), table) != le32toh(h.table_crc))
		return favo_fail(err, EINVAL, "snapshot: table: checksum is wrong");
	for (unsigned i = 0; i < le32toh(h.nsections); i++) {
		struct entry e;

		memcpy(&e, in->data + sizeof(h) + i * sizeof(e), sizeof(e));
		if (take_section(in, &e, at, len, err) < 0)
			return -EINVAL;
		at += (size_t)le64toh(e.length);
	}
	if (at != len)
		return favo_fail(err, EINVAL, "snapshot: %zu bytes belong to no section",
				 len - at);
	return 0;
}

int favo_snap_find(const struct favo_snap_in *in, enum favo_snap_type type,
		   uint32_t instance, struct favo_state_in *state, struct favo_err *err)
{
	char name[32];

	for (unsigned i = 0; i < in->n; i++) {
		if (in->sections[i].type != type || in->sections[i].instance != instance)
			continue;
		*state = in->sections[i].state;
		return 0;
	}
	return favo_fail(err, EINVAL, "snapshot: %s is missing",
			 favo_snap_name(name, sizeof(name), type, instance));
}
