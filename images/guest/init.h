/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parts of favo-init; private to images/guest. One thread. */
#pragma once

#include <stdbool.h>

#include "common/err.h"
#include "images/guest/guest_config.h"
#include "images/guest/loop.h"

/* mounts.c: file systems of the initramfs, and the root of the guest. */
int favo_mount_early(struct favo_err *err) favo_must_check;
int favo_load_modules(const char *list, struct favo_err *err) favo_must_check;
int favo_mount_root(const struct favo_guest_config *config,
		    struct favo_err *err) favo_must_check;
/*
 * The directories of the node, in the entered root. One that cannot be had
 * fails the start when it is required; else note (at least 200 bytes, "" at
 * first) gets a sentence about it.
 */
int favo_mount_shares(const struct favo_guest_config *config, char *note, size_t size,
		      struct favo_err *err) favo_must_check;
int favo_enter_root(struct favo_err *err) favo_must_check;
/* Directory for cgroups of processes, NULL when the kernel has no cgroup2. */
const char *favo_mount_cgroup(void);

/* net.c: loopback and the cluster's interface. */
int favo_net_setup(const struct favo_guest_config *config,
		   struct favo_err *err) favo_must_check;

/* identity.c: host name, hosts, user and groups, machine id, clock. */
int favo_identity_setup(const char *root, const struct favo_guest_config *config,
			struct favo_err *err) favo_must_check;
void favo_clock_setup(const struct favo_guest_config *config);
/* Is a clock wrong that shows now, when it is at least as late as least? */
bool favo_clock_is_wrong(int64_t now_ns, int64_t least_ns);

/* report.c: phases to the host, sent again when the connection breaks. */
struct favo_report;
/* config is borrowed. */
int favo_report_new(struct favo_report **out, const struct favo_guest_config *config,
		    struct favo_err *err) favo_must_check;
/* Before favo_report_attach(). */
void favo_report_free(struct favo_report *r);
void favo_report_phase(struct favo_report *r, const char *phase, const char *detail);
/* One line of a report, with its newline, or NULL; the caller frees. */
char *favo_report_line(const struct favo_guest_config *config, const char *phase,
		       const char *detail);
/* A connection to the host's port for reports, or -errno. */
int favo_report_connect(void);
/* From now on the loop keeps the connection. */
int favo_report_attach(struct favo_report *r, struct favo_loop *loop,
		       struct favo_err *err) favo_must_check;

/*
 * warm.c: wait for the host to say who this guest is; takes the place of the
 * warm configuration. Blocks for as long as it takes, through a save and any
 * number of restores. New randomness and the clock are set when it returns.
 */
int favo_warm_wait(struct favo_guest_config *config,
		   struct favo_err *err) favo_must_check;

/* power.c: sync, then power off or reset; the ACPI power button. */
_Noreturn void favo_power_down(bool reset);
int favo_power_button_fd(void);
/* Is there a press of the power button among the queued events? */
bool favo_power_button_pressed(int fd);

/* boot.c: everything from the kernel's hand-over to the agent; never returns. */
_Noreturn void favo_boot(void);

/* test_agent.c: the agent as an ordinary process, for tests. */
int favo_test_agent(int argc, char **argv);
