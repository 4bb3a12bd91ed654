// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The part of favo-netinit that fetches an image, as a program of its own for
 * tests and benches with nodes in network namespaces:
 *   netboot-tool CONFIG CACHE   CONFIG is /favo/netboot.json of a boot
 * The image is then in CACHE; "done MS" tells how long it took.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "netboot/initramfs/netinit.h"

#define CONFIG_MAX (1 << 20)

static int fetch(const char *config, const char *dir, struct favo_err *err)
{
	struct favo_net_config c;
	struct favo_cache *cache = NULL;
	favo_autofree char *text = NULL;
	size_t len;
	int ret = favo_file_read(config, CONFIG_MAX, &text, &len, err);

	if (ret == 0)
		ret = favo_net_config_parse(&c, text, len, err);
	if (ret == 0)
		ret = favo_cache_open(&cache, dir, err);
	if (ret == 0) {
		favo_net_report(&c, "link", "");
		ret = favo_net_fetch(&c, cache, err);
		favo_cache_close(cache);
	}
	return ret;
}

int main(int argc, char **argv)
{
	int64_t start_ms = favo_now_ms();
	struct favo_err err = {0};

	if (argc != 3) {
		fputs("usage: netboot-tool CONFIG CACHE\n", stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	favo_log_init("netboot-tool", FAVO_INFO, false, NULL);
	if (fetch(argv[1], argv[2], &err) < 0) {
		fprintf(stderr, "netboot-tool: %s\n", err.msg);
		return 1;
	}
	printf("done %" PRId64 "\n", favo_now_ms() - start_ms);
	return 0;
}
