// SPDX-License-Identifier: GPL-2.0-or-later
/* AML terms (ACPI 6.4 section 20.2) and resource descriptors (section 6.4). */
#include "hypervisor/aml.h"

#include <string.h>

#define OP_ZERO 0x00
#define OP_ONE 0x01
#define OP_NAME 0x08
#define OP_BYTE 0x0a
#define OP_WORD 0x0b
#define OP_DWORD 0x0c
#define OP_STRING 0x0d
#define OP_QWORD 0x0e
#define OP_SCOPE 0x10
#define OP_BUFFER 0x11
#define OP_PACKAGE 0x12
#define OP_METHOD 0x14
#define OP_DUAL_NAME 0x2e
#define OP_EXT 0x5b
#define OP_IF 0xa0
#define EXT_REGION 0x80
#define EXT_FIELD 0x81
#define EXT_DEVICE 0x82

/* Every scope gets a package length of this many bytes: up to 1 MiB. */
#define PKG_LENGTH_BYTES 3

void favo_aml_init(struct favo_aml *a, void *buf, size_t size)
{
	*a = (struct favo_aml){.buf = buf, .size = size};
}

bool favo_aml_ok(const struct favo_aml *a)
{
	return !a->overflow;
}

void favo_aml_bytes(struct favo_aml *a, const void *bytes, size_t n)
{
	if (a->overflow || n > a->size - a->len) {
		a->overflow = true;
		return;
	}
	memcpy(a->buf + a->len, bytes, n);
	a->len += n;
}

void favo_aml_byte(struct favo_aml *a, uint8_t byte)
{
	favo_aml_bytes(a, &byte, 1);
}

static void ext(struct favo_aml *a, uint8_t op)
{
	favo_aml_byte(a, OP_EXT);
	favo_aml_byte(a, op);
}

void favo_aml_name(struct favo_aml *a, const char *name)
{
	const char *dot = strchr(name, '.');

	if (*name == '\\')
		favo_aml_byte(a, (uint8_t)*name++);
	if (dot)
		favo_aml_byte(a, OP_DUAL_NAME);
	favo_aml_bytes(a, name, 4);
	if (dot)
		favo_aml_bytes(a, dot + 1, 4);
}

void favo_aml_integer(struct favo_aml *a, uint64_t value)
{
	static const uint8_t ops[] = {OP_BYTE, OP_WORD, OP_DWORD, OP_QWORD};
	unsigned log = value < 1ULL << 8    ? 0
		       : value < 1ULL << 16 ? 1
		       : value < 1ULL << 32 ? 2
					    : 3;

	if (value <= 1) {
		favo_aml_byte(a, value ? OP_ONE : OP_ZERO);
		return;
	}
	favo_aml_byte(a, ops[log]);
	favo_aml_bytes(a, &value, (size_t)1 << log);
}

void favo_aml_string(struct favo_aml *a, const char *text)
{
	favo_aml_byte(a, OP_STRING);
	favo_aml_bytes(a, text, strlen(text) + 1);
}

static unsigned hex(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

void favo_aml_eisa_id(struct favo_aml *a, const char *id)
{
	/* Three letters of five bits, four hexadecimal digits, big-endian. */
	uint32_t v = (uint32_t)(id[0] - '@') << 26 | (uint32_t)(id[1] - '@') << 21 |
		     (uint32_t)(id[2] - '@') << 16 | hex(id[3]) << 12 | hex(id[4]) << 8 |
		     hex(id[5]) << 4 | hex(id[6]);

	v = __builtin_bswap32(v);
	favo_aml_byte(a, OP_DWORD);
	favo_aml_bytes(a, &v, sizeof(v));
}

void favo_aml_def_name(struct favo_aml *a, const char *name)
{
	favo_aml_byte(a, OP_NAME);
	favo_aml_name(a, name);
}

static favo_aml_mark open_pkg(struct favo_aml *a)
{
	static const uint8_t room[PKG_LENGTH_BYTES];
	size_t mark = a->len;

	favo_aml_bytes(a, room, sizeof(room));
	return mark;
}

void favo_aml_close(struct favo_aml *a, favo_aml_mark mark)
{
	size_t len = a->len - mark;

	if (a->overflow || len >= 1 << 20) {
		a->overflow = true;
		return;
	}
	/* Bits 7:6 count the bytes that follow, 3:0 are the low nibble. */
	a->buf[mark] = (uint8_t)((PKG_LENGTH_BYTES - 1) << 6 | (len & 0xf));
	a->buf[mark + 1] = (uint8_t)(len >> 4);
	a->buf[mark + 2] = (uint8_t)(len >> 12);
}

favo_aml_mark favo_aml_scope(struct favo_aml *a, const char *name)
{
	favo_aml_mark m;

	favo_aml_byte(a, OP_SCOPE);
	m = open_pkg(a);
	favo_aml_name(a, name);
	return m;
}

favo_aml_mark favo_aml_device(struct favo_aml *a, const char *name)
{
	favo_aml_mark m;

	ext(a, EXT_DEVICE);
	m = open_pkg(a);
	favo_aml_name(a, name);
	return m;
}

favo_aml_mark favo_aml_method(struct favo_aml *a, const char *name, unsigned nargs,
			      bool serialized)
{
	favo_aml_mark m;

	favo_aml_byte(a, OP_METHOD);
	m = open_pkg(a);
	favo_aml_name(a, name);
	favo_aml_byte(a, (uint8_t)(nargs | (serialized ? 0x8 : 0)));
	return m;
}

favo_aml_mark favo_aml_package(struct favo_aml *a, uint8_t count)
{
	favo_aml_mark m;

	favo_aml_byte(a, OP_PACKAGE);
	m = open_pkg(a);
	favo_aml_byte(a, count);
	return m;
}

favo_aml_mark favo_aml_if(struct favo_aml *a)
{
	favo_aml_byte(a, OP_IF);
	return open_pkg(a);
}

favo_aml_mark favo_aml_field(struct favo_aml *a, const char *region)
{
	favo_aml_mark m;

	ext(a, EXT_FIELD);
	m = open_pkg(a);
	favo_aml_name(a, region);
	favo_aml_byte(a, 0x01);
	return m;
}

void favo_aml_field_unit(struct favo_aml *a, const char *name, uint8_t bits)
{
	favo_aml_bytes(a, name, 4);
	favo_aml_byte(a, bits); /* a package length below 64 */
}

void favo_aml_io_region(struct favo_aml *a, const char *name, uint16_t port, uint8_t len)
{
	ext(a, EXT_REGION);
	favo_aml_name(a, name);
	favo_aml_byte(a, 0x01); /* SystemIO */
	favo_aml_integer(a, port);
	favo_aml_integer(a, len);
}

favo_aml_mark favo_aml_crs_begin(struct favo_aml *a)
{
	favo_aml_mark m;
	static const uint8_t size[3] = {OP_WORD};

	favo_aml_def_name(a, "_CRS");
	favo_aml_byte(a, OP_BUFFER);
	m = open_pkg(a);
	favo_aml_bytes(a, size, sizeof(size)); /* filled in by crs_end */
	return m;
}

void favo_aml_crs_end(struct favo_aml *a, favo_aml_mark mark)
{
	static const uint8_t end_tag[] = {0x79, 0x00};
	size_t start = mark + PKG_LENGTH_BYTES + 3;
	uint16_t len;

	favo_aml_bytes(a, end_tag, sizeof(end_tag));
	if (a->overflow)
		return;
	len = (uint16_t)(a->len - start);
	memcpy(a->buf + start - 2, &len, sizeof(len));
	favo_aml_close(a, mark);
}

static void words(struct favo_aml *a, const uint64_t *v, size_t n, size_t width)
{
	size_t i;

	for (i = 0; i < n; i++)
		favo_aml_bytes(a, &v[i], width);
}

void favo_aml_crs_io(struct favo_aml *a, uint16_t port, uint8_t len)
{
	const uint64_t range[] = {port, port};

	favo_aml_byte(a, 0x47);
	favo_aml_byte(a, 1); /* 16-bit decode */
	words(a, range, 2, 2);
	favo_aml_byte(a, 1);
	favo_aml_byte(a, len);
}

void favo_aml_crs_memory32(struct favo_aml *a, uint32_t base, uint32_t len)
{
	static const uint8_t head[] = {0x86, 9, 0, 1 /* read-write */};
	const uint64_t range[] = {base, len};

	favo_aml_bytes(a, head, sizeof(head));
	words(a, range, 2, 4);
}

/* Address space descriptor: granularity, min, max, translation, length. */
static void address_space(struct favo_aml *a, uint8_t tag, uint8_t type, uint64_t min,
			  uint64_t max, size_t width)
{
	const uint64_t fields[] = {0, min, max, 0, max - min + 1};
	const uint16_t len = (uint16_t)(3 + 5 * width);
	/* Producer, positive decode, min and max fixed; memory: read-write. */
	const uint8_t head[] = {type, 0x0c, type == 0 ? 0x01 : 0x00};

	favo_aml_byte(a, tag);
	favo_aml_bytes(a, &len, sizeof(len));
	favo_aml_bytes(a, head, sizeof(head));
	words(a, fields, 5, width);
}

void favo_aml_crs_bus(struct favo_aml *a, uint16_t first, uint16_t last)
{
	address_space(a, 0x88, 2, first, last, 2);
}

void favo_aml_crs_window32(struct favo_aml *a, uint32_t base, uint32_t len)
{
	address_space(a, 0x87, 0, base, (uint64_t)base + len - 1, 4);
}

void favo_aml_crs_window64(struct favo_aml *a, uint64_t base, uint64_t len)
{
	address_space(a, 0x8a, 0, base, base + len - 1, 8);
}

void favo_aml_crs_interrupt(struct favo_aml *a, uint32_t gsi)
{
	static const uint8_t head[] = {0x89, 6, 0, 0x03 /* consumer, edge, high */, 1};

	favo_aml_bytes(a, head, sizeof(head));
	favo_aml_bytes(a, &gsi, sizeof(gsi));
}
