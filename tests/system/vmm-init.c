// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * pid 1 of the guests of t02*-vmm-*.t: says what it sees of the machine, then
 * does what the kernel command line asks for by do=WORD. Static, no libraries
 * beyond libc.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/syscall.h>
#include <unistd.h>

static char *slurp(const char *path)
{
	static char buf[65536];
	int fd = open(path, O_RDONLY);
	ssize_t n, len = 0;

	while (fd >= 0 && (n = read(fd, buf + len, sizeof(buf) - 1 - (size_t)len)) > 0)
		len += n;
	buf[len] = '\0';
	buf[strcspn(buf, len > 200 ? "" : "\n")] = '\0';
	if (fd >= 0)
		close(fd);
	return buf;
}

/* Load what /modules lists, in its order; then speak through the console. */
static void load_modules(void)
{
	FILE *f = fopen("/modules", "re");
	char path[300];
	int fd;

	while (f && fgets(path, sizeof(path), f)) {
		path[strcspn(path, "\n")] = '\0';
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
			printf("init: module %s: %m\n", path);
		if (fd >= 0)
			close(fd);
	}
	if (f)
		fclose(f);
	fd = open("/dev/hvc0", O_RDWR | O_CLOEXEC);
	if (fd >= 0) {
		dup2(fd, STDIN_FILENO);
		dup2(fd, STDOUT_FILENO);
		close(fd);
	}
}

/* Block and net devices, and what the disk starts with. */
static void report_devices(void)
{
	char buf[17] = "";
	struct dirent *e;
	DIR *d = opendir("/sys/class/net");
	int fd;

	while (d && (e = readdir(d)))
		if (strncmp(e->d_name, "eth", 3) == 0)
			printf("init: net %s\n", e->d_name);
	if (d)
		closedir(d);
	fd = open("/dev/vda", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, buf, sizeof(buf) - 1) > 0)
		printf("init: vda starts \"%.16s\"\n", buf);
	if (fd >= 0)
		close(fd);
	if (access("/dev/hwrng", F_OK) == 0)
		printf("init: hwrng %s\n",
		       slurp("/sys/class/misc/hw_random/rng_current"));
}

static void report(void)
{
	struct sysinfo si;
	struct dirent *e;
	DIR *d;

	sysinfo(&si);
	printf("init: cpus=%ld mem_mb=%lu initrd=%s\n", sysconf(_SC_NPROCESSORS_ONLN),
	       si.totalram * si.mem_unit >> 20, access("/second", F_OK) ? "one" : "two");
	printf("init: clocksource=%s\n",
	       slurp("/sys/devices/system/clocksource/clocksource0/current_clocksource"));
	d = opendir("/sys/bus/pci/devices");
	while (d && (e = readdir(d))) {
		char path[300];

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/device", e->d_name);
		printf("init: pci %s %s\n", e->d_name, slurp(path));
	}
	if (d)
		closedir(d);
}

/* Ports and addresses where nobody is, at widths that nobody takes. */
static void poke(void)
{
	static const unsigned long addrs[] = {0xe8000000, 0xe80ff000, 0xe8100000,
					      0xd0000000, 0xfed00000, 0xfffff000};
	int fd = open("/dev/mem", O_RDWR | O_SYNC);
	unsigned port, i;

	if (iopl(3))
		printf("init: iopl: %m\n");
	for (port = 0x500; port < 0x700; port++) {
		if (port == 0x505 || port == 0x600)
			continue;
		(void)inb((unsigned short)port);
		outl(0xffffffff, (unsigned short)port);
		(void)inw((unsigned short)port);
	}
	outl(0x80000000, 0xcf8);
	(void)inl(0xcfc);
	for (i = 0; fd >= 0 && i < sizeof(addrs) / sizeof(addrs[0]); i++) {
		volatile uint8_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED,
					   fd, (off_t)addrs[i]);

		if (p == MAP_FAILED)
			continue;
		(void)p[0];
		(void)*(volatile uint64_t *)(p + 3);
		p[1] = 0xff;
		*(volatile uint32_t *)(p + 4093 - 3) = ~0u;
		*(volatile uint64_t *)(p + 8) = ~0ull;
	}
	printf("init: poked\n");
}

static void wait_for_button(void)
{
	for (;;) {
		const char *line = strstr(slurp("/proc/interrupts"), "ACPI:Ged");

		if (line) {
			while (line[-1] != '\n')
				line--;
			/* " 9:   0   1  IO-APIC ..." */
			line = strchr(line, ':') + 1;
			if (strtoul(line, (char **)&line, 10) + strtoul(line, NULL, 10)) {
				printf("init: button\n");
				return;
			}
		}
		usleep(50000);
	}
}

/* The kernel's log, which a quiet kernel keeps to itself. */
static void dump_log(void)
{
	static char buf[4 << 20];
	int n = klogctl(3, buf, sizeof(buf));

	if (n > 0)
		fwrite(buf, 1, (size_t)n, stdout);
	fflush(stdout);
}

static void do_word(const char *word)
{
	if (!strcmp(word, "poweroff")) {
		reboot(RB_POWER_OFF);
	} else if (!strcmp(word, "reset")) {
		reboot(RB_AUTOBOOT);
	} else if (!strcmp(word, "panic")) {
		_exit(1); /* the kernel panics when init ends */
	} else if (!strcmp(word, "poke")) {
		poke();
	} else if (!strcmp(word, "button")) {
		printf("init: waiting\n");
		wait_for_button();
	} else if (!strcmp(word, "dmesg")) {
		dump_log();
	} else if (!strcmp(word, "hang")) {
		printf("init: waiting\n");
		for (;;)
			pause();
	}
}

int main(void)
{
	char line[4096], *p, *save;

	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, "");
	mount("sysfs", "/sys", "sysfs", 0, "");
	mount("devtmpfs", "/dev", "devtmpfs", 0, "");
	load_modules();
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("init: up %s\n", slurp("/proc/uptime"));
	report();
	report_devices();
	snprintf(line, sizeof(line), "%s", slurp("/proc/cmdline"));
	for (p = strtok_r(line, " \n", &save); p; p = strtok_r(NULL, " \n", &save))
		if (!strncmp(p, "do=", 3))
			do_word(p + 3);
	sync();
	reboot(RB_POWER_OFF);
	return 1;
}
