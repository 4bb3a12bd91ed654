// SPDX-License-Identifier: GPL-2.0-or-later
/* Frames between nodes; see peer_wire.h. Everything parsed here is foreign. */
#include <errno.h>
#include <string.h>

#include "common/sha256.h"
#include "common/str.h"
#include "common/util.h"
#include "images/peer_wire.h"

static const char magic[8] = {'F', 'A', 'V', 'O', 'P', 'E', 'E', 'R'};

#define HELLO_FIXED 88 /* magic, version, flags, units, image, token, name's length */
#define FLAG_SOURCE 1u

uint32_t favo_wire_u32(const void *data)
{
	const unsigned char *p = data;

	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
	       (uint32_t)p[3] << 24;
}

void favo_wire_put_u32(void *data, uint32_t value)
{
	unsigned char *p = data;

	for (int i = 0; i < 4; i++)
		p[i] = (unsigned char)(value >> 8 * i);
}

int favo_wire_parse_head(struct favo_wire_head *out, const void *data, uint32_t map_max,
			 uint64_t unit_max, struct favo_err *err)
{
	const unsigned char *p = data;
	uint32_t len = favo_wire_u32(p + 4);
	uint64_t least = 4, most = 4;

	if (p[0] < FAVO_WIRE_HELLO || p[0] >= FAVO_WIRE_TYPES || p[1] || p[2] || p[3])
		return favo_fail(err, EBADMSG, "not a frame: %02x %02x %02x %02x", p[0],
				 p[1], p[2], p[3]);
	switch (p[0]) {
	case FAVO_WIRE_HELLO:
		least = HELLO_FIXED;
		most = FAVO_WIRE_HELLO_MAX;
		break;
	case FAVO_WIRE_HAVE_MAP:
		least = 1;
		most = map_max;
		break;
	case FAVO_WIRE_ASK:
		least = most = FAVO_WIRE_ASK_LEN;
		break;
	case FAVO_WIRE_UNIT:
		most = unit_max;
		break;
	default:
		break;
	}
	if (len < least || len > most)
		return favo_fail(err, EBADMSG, "frame of type %u with %u bytes", p[0],
				 len);
	*out = (struct favo_wire_head){(enum favo_wire_type)p[0], len};
	return 0;
}

void favo_wire_format_head(unsigned char out[FAVO_WIRE_HEAD], enum favo_wire_type type,
			   uint32_t len)
{
	memset(out, 0, FAVO_WIRE_HEAD);
	out[0] = (unsigned char)type;
	favo_wire_put_u32(out + 4, len);
}

int favo_wire_parse_hello(struct favo_wire_hello *out, const void *data, size_t len,
			  struct favo_err *err)
{
	struct favo_wire_hello hello = {0};
	const unsigned char *p = data;
	uint32_t name_len;

	if (len < HELLO_FIXED || len > FAVO_WIRE_HELLO_MAX ||
	    memcmp(p, magic, sizeof(magic)) != 0)
		return favo_fail(err, EBADMSG, "not a greeting of a node");
	if (favo_wire_u32(p + 8) != FAVO_WIRE_VERSION)
		return favo_fail(err, EPROTONOSUPPORT,
				 "it speaks version %u of the protocol, this is %u",
				 favo_wire_u32(p + 8), FAVO_WIRE_VERSION);
	hello.source = favo_wire_u32(p + 12) & FLAG_SOURCE;
	hello.units = favo_wire_u32(p + 16);
	memcpy(hello.image.bytes, p + 20, FAVO_DIGEST_LEN);
	memcpy(hello.token, p + 52, FAVO_WIRE_TOKEN);
	name_len = favo_wire_u32(p + 84);
	if (name_len != len - HELLO_FIXED)
		return favo_fail(err, EBADMSG, "not a greeting of a node");
	memcpy(hello.name, p + HELLO_FIXED, name_len);
	if (!favo_is_name(hello.name, "._-", FAVO_WIRE_NAME_MAX) ||
	    strlen(hello.name) != name_len)
		return favo_fail(err, EBADMSG, "the name in the greeting is no name");
	*out = hello;
	return 0;
}

size_t favo_wire_format_hello(unsigned char out[FAVO_WIRE_HELLO_MAX],
			      const struct favo_wire_hello *hello)
{
	size_t name_len = strnlen(hello->name, FAVO_WIRE_NAME_MAX);

	memcpy(out, magic, sizeof(magic));
	favo_wire_put_u32(out + 8, FAVO_WIRE_VERSION);
	favo_wire_put_u32(out + 12, hello->source ? FLAG_SOURCE : 0);
	favo_wire_put_u32(out + 16, hello->units);
	memcpy(out + 20, hello->image.bytes, FAVO_DIGEST_LEN);
	memcpy(out + 52, hello->token, FAVO_WIRE_TOKEN);
	favo_wire_put_u32(out + 84, (uint32_t)name_len);
	memcpy(out + HELLO_FIXED, hello->name, name_len);
	return HELLO_FIXED + name_len;
}

int favo_wire_next_blob(const unsigned char *data, size_t len, size_t *at,
			const unsigned char **blob, size_t *blob_len,
			struct favo_err *err)
{
	uint32_t n;

	if (*at == len)
		return 0;
	if (len - *at < 4)
		return favo_fail(err, EBADMSG, "a unit is cut short");
	n = favo_wire_u32(data + *at);
	if (n > len - *at - 4)
		return favo_fail(err, EBADMSG, "a unit is cut short");
	*blob = data + *at + 4;
	*blob_len = n;
	*at += 4 + (size_t)n;
	return 1;
}

int favo_wire_token(unsigned char out[FAVO_WIRE_TOKEN], const void *secret,
		    size_t secret_len, const struct favo_digest *image,
		    struct favo_err *err)
{
	favo_autosha256 struct favo_sha256_ctx *ctx = NULL;
	uint8_t inner[FAVO_SHA256_SIZE];
	int ret;

	/* Secret, hash, secret: nobody can append to what was hashed. */
	if ((ret = favo_sha256_new(&ctx, err)) < 0 ||
	    (ret = favo_sha256_update(ctx, secret, secret_len, err)) < 0 ||
	    (ret = favo_sha256_update(ctx, image->bytes, FAVO_DIGEST_LEN, err)) < 0 ||
	    (ret = favo_sha256_final(ctx, inner, err)) < 0)
		return ret;
	favo_sha256_free(favo_steal_ptr(&ctx));
	if ((ret = favo_sha256_new(&ctx, err)) < 0 ||
	    (ret = favo_sha256_update(ctx, secret, secret_len, err)) < 0 ||
	    (ret = favo_sha256_update(ctx, inner, sizeof(inner), err)) < 0 ||
	    (ret = favo_sha256_final(ctx, out, err)) < 0)
		return ret;
	return 0;
}
