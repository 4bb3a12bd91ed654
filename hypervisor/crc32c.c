// SPDX-License-Identifier: GPL-2.0-or-later
/* CRC-32C: by the CPU's instruction where it has SSE 4.2, else by nibbles. */
#include "hypervisor/crc32c.h"

#include <nmmintrin.h>
#include <string.h>

static uint32_t by_table(uint32_t crc, const uint8_t *p, size_t len)
{
	static const uint32_t table[16] = {
		0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
		0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
		0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};

	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return crc;
}

__attribute__((target("sse4.2"))) static uint32_t
by_instruction(uint32_t crc, const uint8_t *p, size_t len)
{
	uint64_t sum = crc, word;

	for (; len >= sizeof(word); p += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		sum = _mm_crc32_u64(sum, word);
	}
	for (crc = (uint32_t)sum; len; p++, len--)
		crc = _mm_crc32_u8(crc, *p);
	return crc;
}

uint32_t favo_crc32c(uint32_t crc, const void *data, size_t len)
{
	return ~(__builtin_cpu_supports("sse4.2") ? by_instruction(~crc, data, len)
						  : by_table(~crc, data, len));
}
