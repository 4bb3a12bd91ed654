/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CRC-32C (RFC 3720 appendix B.4) of what this process reads back from files. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Of data behind what crc is the sum of; start with 0. Thread-safe. */
uint32_t favo_crc32c(uint32_t crc, const void *data, size_t len);
