/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's root as a tar stream, for `favo image save`: image and what was
 * written over it, as one tree, and nothing else. What is mounted anywhere on
 * it (home, /proc, /dev, tmpfs) cannot be part of it: it is read through a
 * bind mount of the root alone, which shows what is below mount points.
 */
#pragma once

#include "common/err.h"

/* argv[0] of a run request that asks for the stream on its stdout. */
#define FAVO_SAVE_COMMAND "favo:save"

/*
 * Keep what the guest's own identity is about to replace in root's /etc, so
 * that a saved image has its own files again; favo_identity_written() after it.
 */
void favo_identity_keep(const char *root);
void favo_identity_written(const char *root);

/* Write the stream to fd; processes of the guest stand still meanwhile. */
int favo_save_stream(int fd, struct favo_err *err);

/* Let processes go on, should a save have been killed. */
void favo_save_thaw(void);

/* main() of `favo-init --save`: stdout is the stream. */
int favo_save_main(void);

/*
 * For tests: the same of any folder, with originals in keep (may not exist),
 * no mount, nobody stopped.
 */
int favo_save_tree(int fd, const char *root, const char *keep, struct favo_err *err);

/*
 * The text of a file of /etc without what the guest's identity changed in it:
 * lines that were added since it was written are added to the original, lines
 * that were removed are removed. The caller frees.
 */
char *favo_save_merge(const char *original, const char *written, const char *now);
