// SPDX-License-Identifier: GPL-2.0-or-later
/* Decompression by libarchive's filters with its "raw" format; see unpack.h. */
#include "images/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>

#include "common/util.h"

static int read_stream(struct archive *archive, size_t max, void **out, size_t *out_len,
		       struct favo_err *err)
{
	size_t size = 1024 * 1024, done = 0;
	favo_autofree char *buf = malloc(size);
	char *grown;
	la_ssize_t n;

	while (buf) {
		n = archive_read_data(archive, buf + done, size - done);
		if (n < 0)
			return favo_fail(err, EBADMSG, "decompress: %s",
					 archive_error_string(archive));
		if (n == 0) {
			*out = favo_steal_ptr(&buf);
			*out_len = done;
			return 0;
		}
		done += (size_t)n;
		if (done > max)
			return favo_fail(err, EFBIG, "decompress: more than %zu bytes",
					 max);
		if (done < size)
			continue;
		size *= 2;
		grown = realloc(buf, size);
		if (!grown)
			break;
		buf = grown;
	}
	return favo_fail(err, ENOMEM, "decompress: out of memory");
}

int favo_unpack(const void *data, size_t len, size_t max, void **out, size_t *out_len,
		struct favo_err *err)
{
	struct archive *archive = archive_read_new();
	struct archive_entry *entry;
	int ret;

	if (!archive)
		return favo_fail(err, ENOMEM, "decompress: out of memory");
	archive_read_support_filter_all(archive);
	archive_read_support_format_raw(archive);
	if (archive_read_open_memory(archive, data, len) != ARCHIVE_OK ||
	    archive_read_next_header(archive, &entry) != ARCHIVE_OK)
		ret = favo_fail(err, EBADMSG, "decompress: %s",
				archive_error_string(archive));
	else
		ret = read_stream(archive, max, out, out_len, err);
	archive_read_free(archive);
	return ret;
}
