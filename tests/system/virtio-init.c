/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pid 1 of the guest in t0300-virtio.t: loads the virtio modules, tries every
 * device from the driver's side, prints "ok WHAT" or "FAIL WHAT: WHY" on hvc0.
 * Words of the kernel command line choose: disk ro cow=1|2 rng fs net vsock.
 *
 * Started as "virtio-init client CID" on the host it is the other end of the
 * vsock test. Static, no libraries beyond libc.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1 << 20)
#define VSOCK_PORT 5000
#define CHUNKS 2 /* of a MiB, each way */

static void result(bool good, const char *what)
{
	if (good)
		printf("ok %s\n", what);
	else
		printf("FAIL %s: %m\n", what);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void load_modules(void)
{
	FILE *f = fopen("/modules", "re");
	char path[300];

	while (f && fgets(path, sizeof(path), f)) {
		int fd;

		path[strcspn(path, "\n")] = '\0';
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0)
			printf("FAIL module %s: %m\n", path);
		close(fd);
	}
	if (f)
		fclose(f);
}

static void pattern(uint64_t *p, size_t bytes, uint64_t seed)
{
	for (size_t i = 0; i < bytes / 8; i++)
		p[i] = (seed << 32 | i) * 0x9e3779b97f4a7c15;
}

static bool same(const uint64_t *p, size_t bytes, uint64_t seed)
{
	for (size_t i = 0; i < bytes / 8; i++)
		if (p[i] != (seed << 32 | i) * 0x9e3779b97f4a7c15)
			return false;
	return true;
}

static void *aligned(size_t bytes)
{
	void *p = NULL;

	if (posix_memalign(&p, 4096, bytes) != 0)
		_exit(1);
	return p;
}

/* Each of four processes writes and reads its own part, all at once. */
static bool disk_in_parallel(const char *dev)
{
	bool good = true;
	int status;

	for (unsigned i = 0; i < 4; i++) {
		if (fork() == 0) {
			int fd = open(dev, O_RDWR | O_DIRECT);
			uint64_t *buf = aligned(MIB);
			bool ok = fd >= 0;

			for (unsigned k = 0; ok && k < 4; k++) {
				pattern(buf, MIB, i * 4 + k);
				ok = pwrite(fd, buf, MIB, (off_t)(i * 4 + k) * MIB) ==
				     MIB;
			}
			ok = ok && fsync(fd) == 0;
			for (unsigned k = 0; ok && k < 4; k++)
				ok = pread(fd, buf, MIB, (off_t)(i * 4 + k) * MIB) ==
					     MIB &&
				     same(buf, MIB, i * 4 + k);
			_exit(!ok);
		}
	}
	while (wait(&status) > 0)
		good = good && status == 0;
	return good;
}

static void disk_figures(const char *dev)
{
	int fd = open(dev, O_RDONLY | O_DIRECT);
	uint64_t *buf = aligned(MIB);
	double t = now();
	unsigned n;

	for (n = 0; n < 16 && pread(fd, buf, MIB, (off_t)(n % 16) * MIB) == MIB; n++)
		;
	printf("figure disk read 1 MiB: %.1f MB/s\n", n * 1.048576 / (now() - t));
	t = now();
	for (n = 0; n < 100; n++)
		if (pread(fd, buf, 4096, (off_t)(n * 37 % 4000) * 4096) != 4096)
			break;
	printf("figure disk read 4 KiB one by one: %.0f us\n", (now() - t) * 1e6 / n);
	close(fd);
}

static void test_disk(void)
{
	uint64_t range[2] = {2 * MIB, MIB}, *buf = aligned(MIB), size = 0;
	char serial[32] = "";
	int fd = open("/dev/vda", O_RDWR | O_DIRECT), s;
	bool zero = true;

	result(fd >= 0 && ioctl(fd, BLKGETSIZE64, &size) == 0 && size == 64 * MIB,
	       "disk size");
	s = open("/sys/block/vda/serial", O_RDONLY);
	result(read(s, serial, 31) > 0 && strncmp(serial, "favo-disk-0", 11) == 0,
	       "disk serial");
	result(disk_in_parallel("/dev/vda"), "disk write and read in parallel");
	result(ioctl(fd, BLKZEROOUT, range) == 0 && pread(fd, buf, MIB, 2 * MIB) == MIB,
	       "disk write zeroes");
	for (size_t i = 0; i < MIB / 8; i++)
		zero = zero && buf[i] == 0;
	result(zero, "disk zeroes read back");
	result(ioctl(fd, BLKDISCARD, range) == 0, "disk discard");
	result(pread(fd, buf, MIB, MIB) == MIB && same(buf, MIB, 1),
	       "disk neighbour untouched");
	pattern(buf, 512, 99);
	result(pwrite(fd, buf, 512, 512) == 512 && pread(fd, buf, 512, 512) == 512 &&
		       same(buf, 512, 99),
	       "disk one sector");
	disk_figures("/dev/vda");
	close(fd);
}

static void test_ro(void)
{
	int fd = open("/dev/vdb", O_RDONLY), ro = 0;
	char buf[512] = "";

	result(fd >= 0 && ioctl(fd, BLKROGET, &ro) == 0 && ro == 1,
	       "read-only disk says so");
	result(pread(fd, buf, 16, 0) == 16 && strncmp(buf, "favo read-only", 14) == 0,
	       "read-only disk reads");
	close(fd);
	fd = open("/dev/vdb", O_RDWR);
	if (fd >= 0)
		result(pwrite(fd, buf, 512, 0) < 0 || fsync(fd) < 0,
		       "read-only disk refuses");
	close(fd);
}

/* Over a base of zeros: round 1 writes, round 2 is another VM that finds it. */
static void test_cow(unsigned round)
{
	static const off_t at[] = {0, 6 * 4096 + 512, 100 * 4096 - 512, 5 * MIB + 1024};
	uint64_t *buf = aligned(MIB);
	int fd = open("/dev/vdc", O_RDWR | O_DIRECT);
	bool good = fd >= 0;

	for (unsigned i = 0; good && i < 4; i++) {
		pattern(buf, 8192, i);
		if (round == 1)
			good = pwrite(fd, buf, 8192, at[i]) == 8192;
	}
	result(good && fsync(fd) == 0, "overlay write and flush");
	for (unsigned i = 0; good && i < 4; i++)
		good = pread(fd, buf, 8192, at[i]) == 8192 && same(buf, 8192, i);
	result(good, round == 1 ? "overlay reads back" : "overlay kept over a restart");
	good = pread(fd, buf, 512, 4096 * 4) == 512 &&
	       strncmp((char *)buf, "base", 4) == 0;
	result(good, "overlay shows its base");
	close(fd);
}

/* A directory of the host: what it wrote is here, what we write is there. */
static void test_fs(void)
{
	char buf[64] = "";
	int fd;

	mkdir("/mnt", 0755);
	result(mount("shared", "/mnt", "virtiofs", 0, "") == 0, "fs mount");
	fd = open("/mnt/from-host", O_RDONLY);
	result(read(fd, buf, sizeof(buf) - 1) > 0 && strcmp(buf, "hello guest\n") == 0,
	       "fs reads");
	close(fd);
	fd = open("/mnt/from-guest", O_WRONLY | O_CREAT, 0644);
	result(write(fd, "hello host\n", 11) == 11 && fsync(fd) == 0, "fs writes");
	close(fd);
}

static void test_rng(void)
{
	char name[64] = "", buf[256] = "";
	int fd = open("/sys/class/misc/hw_random/rng_current", O_RDONLY), same_bytes = 0;

	result(read(fd, name, 63) > 0 && strncmp(name, "virtio_rng", 10) == 0,
	       "rng is there");
	close(fd);
	fd = open("/dev/hwrng", O_RDONLY);
	result(read(fd, buf, 256) > 0, "rng reads");
	for (int i = 1; i < 64; i++)
		same_bytes += buf[i] == buf[0];
	result(same_bytes < 16, "rng is random");
	close(fd);
}

static void net_up(void)
{
	struct ifreq ifr = {.ifr_name = "eth0"};
	struct sockaddr_in *a = (struct sockaddr_in *)(void *)&ifr.ifr_addr;
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	bool good = ioctl(s, SIOCGIFMTU, &ifr) == 0;

	printf("info mtu %d\n", ifr.ifr_mtu);
	a->sin_family = AF_INET;
	a->sin_addr.s_addr = inet_addr("10.99.0.2");
	good = good && ioctl(s, SIOCSIFADDR, &ifr) == 0;
	a->sin_addr.s_addr = inet_addr("255.255.255.0");
	good = good && ioctl(s, SIOCSIFNETMASK, &ifr) == 0;
	ifr.ifr_flags = IFF_UP | IFF_RUNNING;
	good = good && ioctl(s, SIOCSIFFLAGS, &ifr) == 0;
	result(good, "net up");
	close(s);
}

static bool read_n(int fd, void *buf, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t got = read(fd, (char *)buf + done, n - done);

		if (got <= 0)
			return false;
		done += (size_t)got;
	}
	return true;
}

/* A port that takes data in, checks them, and sends as much out. */
static void serve(int listener, const char *what)
{
	uint64_t *buf = aligned(MIB);
	int fd = accept(listener, NULL, NULL);
	bool good = fd >= 0;
	double t = now();

	for (unsigned i = 0; good && i < CHUNKS; i++)
		good = read_n(fd, buf, MIB) && same(buf, MIB, i);
	printf("figure %s host to guest: %.1f MB/s\n", what,
	       CHUNKS * 1.048576 / (now() - t));
	t = now();
	for (unsigned i = 0; good && i < CHUNKS; i++) {
		pattern(buf, MIB, 100 + i);
		good = write(fd, buf, MIB) == MIB;
	}
	shutdown(fd, SHUT_WR);
	good = good && read(fd, buf, 1) == 0;
	printf("figure %s guest to host: %.1f MB/s\n", what,
	       CHUNKS * 1.048576 / (now() - t));
	result(good, what);
	close(fd);
}

static void test_net(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(5000)};
	int s = socket(AF_INET, SOCK_STREAM, 0);

	net_up();
	if (bind(s, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(s, 1) < 0)
		result(false, "net listen");
	printf("ready net\n");
	serve(s, "net");
}

static void test_vsock(void)
{
	struct sockaddr_vm a = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_ANY,
		.svm_port = VSOCK_PORT,
	};
	int s = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (s < 0 || bind(s, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(s, 1) < 0)
		result(false, "vsock listen");
	printf("ready vsock\n");
	serve(s, "vsock");
}

/*
 * The host's side of serve(). It closes after the guest's end of stream only: a
 * guest's vsock whose peer is gone before its shutdown() reads ENOTCONN, not 0,
 * as vsock_shutdown() takes back the mark of an orderly end (SOCK_DONE).
 */
static int client(int fd)
{
	uint64_t *buf = aligned(MIB);

	for (unsigned i = 0; i < CHUNKS; i++) {
		pattern(buf, MIB, i);
		if (write(fd, buf, MIB) != MIB)
			return 1;
	}
	for (unsigned i = 0; i < CHUNKS; i++)
		if (!read_n(fd, buf, MIB) || !same(buf, MIB, 100 + i))
			return 1;
	return read(fd, buf, 1) != 0;
}

static int client_main(const char *where)
{
	struct sockaddr_vm v = {.svm_family = AF_VSOCK, .svm_port = VSOCK_PORT};
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(5000)};
	bool vsock = !strchr(where, '.');
	int fd = socket(vsock ? AF_VSOCK : AF_INET, SOCK_STREAM, 0);

	v.svm_cid = (unsigned)strtoul(where, NULL, 10);
	a.sin_addr.s_addr = inet_addr(where);
	if (vsock ? connect(fd, (struct sockaddr *)&v, sizeof(v))
		  : connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		perror("connect");
		return 1;
	}
	return client(fd);
}

int main(int argc, char **argv)
{
	char line[4096] = "", *word, *save;
	int fd;

	if (argc == 3 && strcmp(argv[1], "client") == 0)
		return client_main(argv[2]);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, "");
	mount("sysfs", "/sys", "sysfs", 0, "");
	mount("devtmpfs", "/dev", "devtmpfs", 0, "");
	load_modules();
	fd = open("/dev/hvc0", O_RDWR);
	if (fd >= 0) {
		dup2(fd, 0);
		dup2(fd, 1);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("up %.2f s\n", now());
	fd = open("/proc/cmdline", O_RDONLY);
	if (read(fd, line, sizeof(line) - 1) < 0)
		result(false, "command line");
	for (word = strtok_r(line, " \n", &save); word;
	     word = strtok_r(NULL, " \n", &save)) {
		if (strcmp(word, "do-disk") == 0)
			test_disk();
		else if (strcmp(word, "do-ro") == 0)
			test_ro();
		else if (strncmp(word, "do-cow=", 7) == 0)
			test_cow((unsigned)word[7] - '0');
		else if (strcmp(word, "do-rng") == 0)
			test_rng();
		else if (strcmp(word, "do-fs") == 0)
			test_fs();
		else if (strcmp(word, "do-net") == 0)
			test_net();
		else if (strcmp(word, "do-vsock") == 0)
			test_vsock();
	}
	printf("done\n");
	sync();
	reboot(RB_POWER_OFF);
	return 1;
}
