// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * First process of a guest for memory tests: mounts the image that the kernel
 * command line names (dev=/dev/vda [opts=dax=always]), with wait=SECONDS waits,
 * reads /data/file of it, with eat=MIB takes that much memory and frees it again,
 * and then reports "ready" as favo-init does.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define REPORT_PORT 64000

static int report_fd = -1;

static void report(const char *phase, const char *detail, unsigned long value)
{
	struct sockaddr_vm addr = {.svm_family = AF_VSOCK,
				   .svm_cid = VMADDR_CID_HOST,
				   .svm_port = REPORT_PORT};

	if (report_fd < 0) {
		report_fd = socket(AF_VSOCK, SOCK_STREAM, 0);
		connect(report_fd, (struct sockaddr *)&addr, sizeof(addr));
	}
	dprintf(report_fd, "{\"phase\":\"%s\",\"detail\":\"%s %lu\"}\n", phase, detail,
		value);
}

static void fail(const char *what)
{
	report("failed", what, 0);
	sleep(1);
	reboot(RB_POWER_OFF);
}

/* A sum, so that nobody leaves the reading away. */
static unsigned long read_file(const char *path)
{
	static char buf[1 << 20];
	int fd = open(path, O_RDONLY);
	unsigned long sum = 0;
	ssize_t n;

	if (fd < 0)
		fail("open file");
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i += 512)
			sum = sum * 31 + (unsigned char)buf[i];
	if (n < 0)
		fail("read file");
	close(fd);
	return sum;
}

static void eat(size_t mib)
{
	char *p = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		fail("memory");
	memset(p, 1, mib << 20);
	munmap(p, mib << 20);
}

int main(void)
{
	const char *dev = getenv("dev"), *opts = getenv("opts"), *mib = getenv("eat");
	const char *wait = getenv("wait");
	struct stat st;
	unsigned long sum;

	mkdir("/dev", 0755);
	mkdir("/image", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	for (int i = 0; dev && stat(dev, &st) < 0; i++) {
		if (i == 5000)
			fail("no device");
		usleep(1000);
	}
	if (!dev || mount(dev, "/image", "erofs", MS_RDONLY, opts) < 0)
		fail("mount");
	if (wait)
		sleep((unsigned int)strtoul(wait, NULL, 10));
	sum = read_file("/image/data/file");
	if (mib)
		eat(strtoul(mib, NULL, 10));
	report("ready", "sum", sum);
	for (;;)
		pause();
}
