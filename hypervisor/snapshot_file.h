/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * State file of a snapshot: a header, a table of sections, the sections, each
 * under a checksum. docs/format-snapshot.md has the bytes. Pure: no KVM, no
 * files.
 *
 * The checksums find damage, not malice: whoever reads a section checks every
 * field of it as if a stranger had written it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "hypervisor/state.h"

#define FAVO_SNAP_VERSION 1
#define FAVO_SNAP_SECTIONS_MAX 640
#define FAVO_SNAP_BYTES_MAX (16U << 20)

/* In the order in which they stand in the file. */
enum favo_snap_type {
	FAVO_SNAP_MEMORY = 1, /* what the memory file holds */
	FAVO_SNAP_MACHINE = 2, /* irqchip, clock, fixed devices */
	FAVO_SNAP_CPU = 3, /* one for each vCPU, by index */
	FAVO_SNAP_DEVICE = 4, /* one for each PCI function, by devfn */
};

struct favo_snap_section {
	enum favo_snap_type type;
	uint32_t instance;
	struct favo_state_out state;
};

/* To be written. Zero it, set ncpus and mem_size, add sections in order. */
struct favo_snap_out {
	uint32_t ncpus;
	uint64_t mem_size;
	unsigned n;
	struct favo_snap_section sections[FAVO_SNAP_SECTIONS_MAX];
};

/* The new section, to be filled; NULL when there are too many. */
struct favo_state_out *favo_snap_add(struct favo_snap_out *out, enum favo_snap_type type,
				     uint32_t instance);
/* The bytes of the file; the caller frees *data. */
int favo_snap_format(const struct favo_snap_out *out, uint8_t **data, size_t *len,
		     struct favo_err *err);
void favo_snap_out_fini(struct favo_snap_out *out);

struct favo_snap_in {
	const uint8_t *data; /* borrowed */
	uint32_t ncpus;
	uint64_t mem_size;
	unsigned n;
	struct {
		enum favo_snap_type type;
		uint32_t instance;
		struct favo_state_in state;
	} sections[FAVO_SNAP_SECTIONS_MAX];
};

/* Check header, table and checksums. -EINVAL with a sentence that names the part. */
int favo_snap_parse(struct favo_snap_in *in, const void *data, size_t len,
		    struct favo_err *err);
/* A copy of the section's place; -EINVAL when the file has no such section. */
int favo_snap_find(const struct favo_snap_in *in, enum favo_snap_type type,
		   uint32_t instance, struct favo_state_in *state, struct favo_err *err);
/* "vCPU 3", "device 00:02.0", ... for messages; cut to size. */
const char *favo_snap_name(char *buf, size_t size, enum favo_snap_type type,
			   uint32_t instance);
