/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bytes that nodes say to each other while they fetch an image together;
 * docs/fan-out.md has the table. Pure parsing and formatting.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "images/digest.h"

#define FAVO_WIRE_VERSION 1
#define FAVO_WIRE_HEAD 8 /* type, three zero bytes, length of what follows */
#define FAVO_WIRE_ASK_LEN 8
#define FAVO_WIRE_NAME_MAX 63
#define FAVO_WIRE_HELLO_MAX (88 + FAVO_WIRE_NAME_MAX)
#define FAVO_WIRE_TOKEN 32
#define FAVO_WIRE_INDEX 0xfffffffeu /* in place of a unit: the chunk index */

enum favo_wire_type {
	FAVO_WIRE_HELLO = 1,
	FAVO_WIRE_HAVE_MAP, /* bit i % 8 of byte i / 8: unit i */
	FAVO_WIRE_HAVE, /* unit */
	FAVO_WIRE_ASK, /* unit, 1: urgent */
	FAVO_WIRE_CANCEL, /* unit */
	FAVO_WIRE_UNIT, /* unit, then length and stored bytes of each blob */
	FAVO_WIRE_NONE, /* unit: it will not come */
	FAVO_WIRE_TYPES,
};

struct favo_wire_head {
	enum favo_wire_type type;
	uint32_t len;
};

/* -EBADMSG: not a frame, or longer than max for a type that is not UNIT. */
int favo_wire_parse_head(struct favo_wire_head *out, const void *data, uint32_t map_max,
			 uint64_t unit_max, struct favo_err *err);
void favo_wire_format_head(unsigned char out[FAVO_WIRE_HEAD], enum favo_wire_type type,
			   uint32_t len);

struct favo_wire_hello {
	bool source;
	uint32_t units; /* 0: the sender has no index yet */
	struct favo_digest image;
	unsigned char token[FAVO_WIRE_TOKEN];
	char name[FAVO_WIRE_NAME_MAX + 1]; /* of the node, for people */
};

/* Payload of a HELLO. -EBADMSG; -EPROTONOSUPPORT: another version. */
int favo_wire_parse_hello(struct favo_wire_hello *out, const void *data, size_t len,
			  struct favo_err *err);
/* Returns the length of the payload. */
size_t favo_wire_format_hello(unsigned char out[FAVO_WIRE_HELLO_MAX],
			      const struct favo_wire_hello *hello);

uint32_t favo_wire_u32(const void *data);
void favo_wire_put_u32(void *data, uint32_t value);

/*
 * Blobs of a UNIT's payload, behind the unit's number: call with *at = 0
 * until it returns 0 (end), 1 for each blob; -EBADMSG.
 */
int favo_wire_next_blob(const unsigned char *data, size_t len, size_t *at,
			const unsigned char **blob, size_t *blob_len,
			struct favo_err *err);

/* What a node shows for an image, made of what favod gave it. */
int favo_wire_token(unsigned char out[FAVO_WIRE_TOKEN], const void *secret,
		    size_t secret_len, const struct favo_digest *image,
		    struct favo_err *err);
