// SPDX-License-Identifier: GPL-2.0-or-later
/* Fields of a VM's state; see state.h. Knows nothing of what they mean. */
#include "hypervisor/state.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_ROOM 1024

void favo_state_put(struct favo_state_out *out, const void *data, size_t len)
{
	if (out->room - out->len < len) {
		size_t room = out->room ? out->room : FIRST_ROOM;
		uint8_t *more;

		while (room - out->len < len)
			room *= 2;
		more = out->failed ? NULL : realloc(out->data, room);
		if (!more) {
			out->failed = true;
			return;
		}
		out->data = more;
		out->room = room;
	}
	if (len)
		memcpy(out->data + out->len, data, len);
	out->len += len;
}

void favo_state_put_u8(struct favo_state_out *out, uint8_t value)
{
	favo_state_put(out, &value, sizeof(value));
}

void favo_state_put_u16(struct favo_state_out *out, uint16_t value)
{
	value = htole16(value);
	favo_state_put(out, &value, sizeof(value));
}

void favo_state_put_u32(struct favo_state_out *out, uint32_t value)
{
	value = htole32(value);
	favo_state_put(out, &value, sizeof(value));
}

void favo_state_put_u64(struct favo_state_out *out, uint64_t value)
{
	value = htole64(value);
	favo_state_put(out, &value, sizeof(value));
}

void favo_state_put_blob(struct favo_state_out *out, const void *data, uint32_t len)
{
	favo_state_put_u32(out, len);
	favo_state_put(out, data, len);
}

void favo_state_out_fini(struct favo_state_out *out)
{
	free(out->data);
	*out = (struct favo_state_out){0};
}

const void *favo_state_get(struct favo_state_in *in, size_t len)
{
	const uint8_t *p = in->p;

	if (in->failed || len > in->left) {
		in->failed = true;
		return NULL;
	}
	in->p += len;
	in->left -= len;
	return p;
}

static void get_number(struct favo_state_in *in, void *to, size_t len)
{
	const void *p = favo_state_get(in, len);

	memset(to, 0, len);
	if (p)
		memcpy(to, p, len);
}

uint8_t favo_state_get_u8(struct favo_state_in *in)
{
	uint8_t value;

	get_number(in, &value, sizeof(value));
	return value;
}

uint16_t favo_state_get_u16(struct favo_state_in *in)
{
	uint16_t value;

	get_number(in, &value, sizeof(value));
	return le16toh(value);
}

uint32_t favo_state_get_u32(struct favo_state_in *in)
{
	uint32_t value;

	get_number(in, &value, sizeof(value));
	return le32toh(value);
}

uint64_t favo_state_get_u64(struct favo_state_in *in)
{
	uint64_t value;

	get_number(in, &value, sizeof(value));
	return le64toh(value);
}

const void *favo_state_get_blob(struct favo_state_in *in, size_t *len)
{
	const void *p;

	*len = favo_state_get_u32(in);
	p = favo_state_get(in, *len);
	if (!p)
		*len = 0;
	return p;
}

bool favo_state_get_copy(struct favo_state_in *in, void *to, size_t len)
{
	size_t have;
	const void *p = favo_state_get_blob(in, &have);

	memset(to, 0, len);
	if (!p || have != len) {
		in->failed = true;
		return false;
	}
	memcpy(to, p, len);
	return true;
}

int favo_state_get_end(const struct favo_state_in *in, struct favo_err *err)
{
	if (in->failed)
		return favo_fail(err, EINVAL,
				 "ends too soon or has a field of "
				 "another size");
	if (in->left)
		return favo_fail(err, EINVAL, "%zu bytes too many", in->left);
	return 0;
}
