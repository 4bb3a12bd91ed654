/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ACPI tables of the machine: RSDP, XSDT, FADT (hardware-reduced), MADT, MCFG,
 * DSDT. Built once by the main thread at a fixed place below 1 MiB.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "hypervisor/memory.h"
#include "hypervisor/pci.h"

struct favo_acpi {
	const uint32_t *apic_ids; /* one for each vCPU */
	unsigned ncpus;
	struct favo_pci_windows windows;
	bool serial;
};

/* Write the tables; *rsdp is the address of the RSDP. ENOSPC: too many vCPUs. */
int favo_acpi_build(struct favo_memory *mem, const struct favo_acpi *acpi, uint64_t *rsdp,
		    struct favo_err *err);
