/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * State of a VM as bytes: what save ops append to and load ops take from.
 * Numbers are little-endian, a blob is its length in 32 bits and its bytes.
 *
 * Both sides remember a failure, so that a caller writes or reads all fields in
 * a row and asks once. What is read is foreign: after a failure numbers are 0
 * and pointers NULL, and no number was checked for its meaning.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct favo_state_out {
	uint8_t *data; /* len of room bytes are used */
	size_t len, room;
	bool failed; /* out of memory */
};

void favo_state_put(struct favo_state_out *out, const void *data, size_t len);
void favo_state_put_u8(struct favo_state_out *out, uint8_t value);
void favo_state_put_u16(struct favo_state_out *out, uint16_t value);
void favo_state_put_u32(struct favo_state_out *out, uint32_t value);
void favo_state_put_u64(struct favo_state_out *out, uint64_t value);
void favo_state_put_blob(struct favo_state_out *out, const void *data, uint32_t len);
void favo_state_out_fini(struct favo_state_out *out);

struct favo_state_in {
	const uint8_t *p; /* borrowed */
	size_t left;
	bool failed; /* read past the end */
};

/* len bytes, borrowed from the input; NULL when there are fewer. */
const void *favo_state_get(struct favo_state_in *in, size_t len);
uint8_t favo_state_get_u8(struct favo_state_in *in);
uint16_t favo_state_get_u16(struct favo_state_in *in);
uint32_t favo_state_get_u32(struct favo_state_in *in);
uint64_t favo_state_get_u64(struct favo_state_in *in);
const void *favo_state_get_blob(struct favo_state_in *in, size_t *len);
/* A blob of exactly that length, copied; false (and zeros) for anything else. */
bool favo_state_get_copy(struct favo_state_in *in, void *to, size_t len);
/* -EINVAL with a sentence when the input was too short or is too long. */
int favo_state_get_end(const struct favo_state_in *in, struct favo_err *err);
