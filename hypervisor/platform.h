/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The few fixed devices: power management ports, reset, pvpanic, an optional
 * serial port. Their addresses are told to the guest by ACPI (acpi.c).
 */
#pragma once

#include <stdbool.h>

#include "common/err.h"

struct favo_vm;
struct favo_platform;

#define FAVO_PORT_RESET 0xcf9 /* FADT reset register, value 6 */
#define FAVO_PORT_I8042 0x64 /* 0xfe resets; nothing else is there */
#define FAVO_PORT_PANIC 0x505 /* pvpanic, QEMU docs/specs/pvpanic */
#define FAVO_PORT_SLEEP 0x600 /* FADT sleep control, then sleep status */
#define FAVO_PORT_EVENTS 0x602 /* which ACPI events wait; cleared by a read */
#define FAVO_PORT_SERIAL 0x3f8
#define FAVO_GSI_EVENTS 9
#define FAVO_GSI_SERIAL 4
#define FAVO_SLEEP_S5 5 /* SLP_TYP for soft off */
#define FAVO_EVENT_POWER_BUTTON 0x1

/*
 * BIOS data area: the kernel stores 0x1234 here when it restarts "warm". With
 * reboot=panic_warm on its command line Linux does so after a panic only, which
 * tells a panic from a reboot without a driver.
 */
#define FAVO_RESET_FLAG_GPA 0x472
#define FAVO_RESET_FLAG_WARM 0x1234

/* serial_fd < 0: no serial port; else output goes there (borrowed). */
int favo_platform_new(struct favo_platform **out, struct favo_vm *vm, int serial_fd,
		      struct favo_err *err);
void favo_platform_free(struct favo_platform *p);

bool favo_platform_has_serial(const struct favo_platform *p);

/* Press the power button. Any thread. */
void favo_platform_power_button(struct favo_platform *p);
