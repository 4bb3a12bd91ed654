// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest that was booted ahead of any job ("warm"): it asks the host who it
 * is, is saved while it waits for the answer, and gets one in each VM that
 * starts from the snapshot. docs/format-agent.md, "Warm guests".
 *
 * A restored guest notices by its connection, which the reset of the transport
 * ended; then it asks again. Nothing of a job is in it before.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "images/guest/init.h"

#define ASK_MS 2000 /* for the question to leave */
#define RETRY_US 10000
#define IDENTITY_MAX (16 << 20)

/* What random numbers came before is known to every guest of this snapshot. */
static int mix_seed(const struct favo_guest_config *config, struct favo_err *err)
{
	/* struct rand_pool_info, with its bytes */
	struct {
		int entropy_count, buf_size;
		uint8_t bytes[FAVO_GUEST_SEED_SIZE];
	} pool = {.entropy_count = 8 * FAVO_GUEST_SEED_SIZE,
		  .buf_size = FAVO_GUEST_SEED_SIZE};
	favo_autoclose int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return favo_fail(err, errno, "open /dev/urandom: %m");
	memcpy(pool.bytes, config->seed, sizeof(config->seed));
	if (ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
		ret = favo_fail(err, errno, "new randomness: %m");
	explicit_bzero(&pool, sizeof(pool));
	return ret;
}

/* The guest's clocks stood still since it was saved. */
static int set_clock(const struct favo_guest_config *config, struct favo_err *err)
{
	const struct timespec now = {.tv_sec = config->time_ns / 1000000000LL,
				     .tv_nsec = config->time_ns % 1000000000LL};

	if (clock_settime(CLOCK_REALTIME, &now) < 0)
		return favo_fail(err, errno, "set the clock: %m");
	return 0;
}

/*
 * One connection to the host: 0 with the answer, which the caller frees;
 * -errno when there is none, because the host went away or we were restored.
 */
static int ask(const struct favo_guest_config *config, char **out, size_t *len)
{
	favo_autofree char *line = favo_report_line(config, "warm", "");
	favo_autoclose int fd = favo_report_connect();
	uint8_t size[4];
	uint32_t n;
	int ret;

	if (!line)
		return -ENOMEM;
	if (fd < 0)
		return fd;
	ret = favo_write_all(fd, line, strlen(line), ASK_MS, NULL);
	ret = ret ? ret : favo_read_all(fd, size, sizeof(size), -1, NULL);
	if (ret < 0)
		return ret;
	n = favo_get_le32(size);
	if (!n || n > IDENTITY_MAX)
		return -EPROTO;
	*out = malloc(n + 1UL);
	if (!*out)
		return -ENOMEM;
	ret = favo_read_all(fd, *out, n, ASK_MS, NULL);
	if (ret < 0) {
		free(favo_steal_ptr(out));
		return ret;
	}
	*len = n;
	return 0;
}

int favo_warm_wait(struct favo_guest_config *config, struct favo_err *err)
{
	struct favo_guest_config identity = {0};
	char *text = NULL;
	size_t len;
	int ret;

	favo_log(FAVO_INFO, "warm: wait for an identity");
	while (ask(config, &text, &len) < 0)
		usleep(RETRY_US);
	ret = favo_guest_config_parse(&identity, text, len, err);
	explicit_bzero(text, len);
	free(text);
	if (ret == 0 && (!identity.has_seed || identity.warm))
		ret = favo_fail(err, EINVAL, "no seed");
	if (ret == 0)
		ret = mix_seed(&identity, err);
	explicit_bzero(identity.seed, sizeof(identity.seed));
	ret = ret ? ret : set_clock(&identity, err);
	if (ret < 0) {
		favo_guest_config_fini(&identity);
		return favo_wrap(err, ret, "identity");
	}
	identity.restored = true;
	favo_guest_config_fini(config);
	*config = identity;
	return 0;
}
