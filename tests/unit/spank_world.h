/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The world around the SPANK plugin in tests: the loaded plugin, a scratch
 * folder, a favo-submit that is a script, a favo-noded that answers once. What
 * fails, fails the cmocka test that called. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/unit/spank_host.h"

typedef int hook_fn(spank_t sp, int ac, char **av);

struct world {
	char dir[64];
	char libexec_arg[96], run_arg[96];
	char *av[2];
	void *so;
	pid_t noded;
	char *request; /* shared: what the fake noded was asked; "" for nothing */
};

extern struct world favo_world;

/* cmocka's fixture of each test. */
int favo_world_setup(void **state);
int favo_world_teardown(void **state);

/* A hook of the plugin by its name; call() runs it with the test's arguments. */
hook_fn *favo_world_hook(const char *name);
int favo_world_call(const char *name);
void favo_world_clear_env(void);
int favo_world_start(void);

/* Files in the scratch folder. */
void favo_world_write_file(const char *name, mode_t mode, const char *text);
bool favo_world_has_file(const char *name);
void favo_world_read_file(const char *name, char *buf, size_t size);

/* favo-submit is a script here: it notes its words, then does body. */
void favo_world_fake_submit(const char *body);

/*
 * A favo-noded that takes one request into request and says answer; NULL: it
 * takes it and stays silent.
 */
void favo_world_fake_noded(const char *answer);
void favo_world_end_noded(void);

/* Run scene() in a child; returns its exit code, or 1000 + signal. */
int favo_world_in_child(int (*scene)(void));
int64_t favo_world_elapsed_us(int (*scene)(void), int *ret);
