/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ACPI Machine Language, ACPI 6.4 chapter 20, as far as the DSDT needs it. A
 * buffer grows by whole terms; scopes are opened and closed in order, and the
 * package length of a scope is filled in when it closes. Overflow is remembered
 * and told once, by favo_aml_ok(). One thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct favo_aml {
	uint8_t *buf;
	size_t size, len;
	bool overflow;
};

/* Position of an open scope. */
typedef size_t favo_aml_mark;

void favo_aml_init(struct favo_aml *a, void *buf, size_t size);
bool favo_aml_ok(const struct favo_aml *a);

void favo_aml_byte(struct favo_aml *a, uint8_t byte);
void favo_aml_bytes(struct favo_aml *a, const void *bytes, size_t n);

/* Terms. Names are up to "\\ABCD.EFGH" in source form, segments of four. */
void favo_aml_name(struct favo_aml *a, const char *name); /* a NameString */
void favo_aml_integer(struct favo_aml *a, uint64_t value);
void favo_aml_string(struct favo_aml *a, const char *text);
void favo_aml_eisa_id(struct favo_aml *a, const char *id); /* "PNP0A08" */
/* Name (NAME, value): the value is the term that follows. */
void favo_aml_def_name(struct favo_aml *a, const char *name);

favo_aml_mark favo_aml_scope(struct favo_aml *a, const char *name);
favo_aml_mark favo_aml_device(struct favo_aml *a, const char *name);
favo_aml_mark favo_aml_method(struct favo_aml *a, const char *name, unsigned nargs,
			      bool serialized);
favo_aml_mark favo_aml_package(struct favo_aml *a, uint8_t count);
/* If (predicate): the predicate is the term that follows. */
favo_aml_mark favo_aml_if(struct favo_aml *a);
/* Field of byte-wide, lock-free, preserving access. */
favo_aml_mark favo_aml_field(struct favo_aml *a, const char *region);
void favo_aml_field_unit(struct favo_aml *a, const char *name, uint8_t bits);
void favo_aml_io_region(struct favo_aml *a, const char *name, uint16_t port, uint8_t len);
void favo_aml_close(struct favo_aml *a, favo_aml_mark mark);

/* Name (_CRS, ResourceTemplate () { ... }) between begin and end. */
favo_aml_mark favo_aml_crs_begin(struct favo_aml *a);
void favo_aml_crs_end(struct favo_aml *a, favo_aml_mark mark);
void favo_aml_crs_io(struct favo_aml *a, uint16_t port, uint8_t len);
void favo_aml_crs_memory32(struct favo_aml *a, uint32_t base, uint32_t len);
void favo_aml_crs_bus(struct favo_aml *a, uint16_t first, uint16_t last);
/* Window of a host bridge, 32 or 64 bits wide. */
void favo_aml_crs_window32(struct favo_aml *a, uint32_t base, uint32_t len);
void favo_aml_crs_window64(struct favo_aml *a, uint64_t base, uint64_t len);
/* Edge-triggered, active high, exclusive. */
void favo_aml_crs_interrupt(struct favo_aml *a, uint32_t gsi);
