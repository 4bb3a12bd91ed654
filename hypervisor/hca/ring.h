/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Index algebra of PVRDMA rings. An index counts modulo twice the number of
 * slots, so that full and empty differ. n is a power of two here.
 *
 * The two device rings have 1536 and 3072 entries in Linux, which is none: its
 * masks n-1 and 2n-1 then reach only the slots below the lowest bit set in n
 * and count modulo twice that (512 and 1024). So such a ring is one of
 * favo_hca_ring_slots(n) slots, of which one must stay free, as the guest
 * cannot tell full from empty.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "hypervisor/hca/abi.h"

static inline uint32_t favo_hca_ring_slots(uint32_t n)
{
	return n & -n;
}

static inline bool favo_hca_ring_valid(uint32_t idx, uint32_t n)
{
	return (idx & ~(2 * n - 1)) == 0;
}

static inline uint32_t favo_hca_ring_next(uint32_t idx, uint32_t n)
{
	return (idx + 1) & (2 * n - 1);
}

/* Entries between head and tail, both valid; more than n: the guest lies. */
static inline uint32_t favo_hca_ring_used(uint32_t tail, uint32_t head, uint32_t n)
{
	return (tail - head) & (2 * n - 1);
}
