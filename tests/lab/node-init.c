// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Process 1 of a lab node. It runs twice over in one process: first in the
 * initramfs, where it loads the few modules that the root needs and mounts the
 * read-only root with a memory overlay; then in that root, where it mounts the
 * cgroup v1 hierarchies and the disks, brings up the network, and either keeps
 * the node's services running or runs one script and powers the machine off.
 *
 * What to do comes from the /node directory of the initramfs (made per node by
 * the lab): "config" (lines of WORD VALUE), "modules" (files to load, in
 * order), "files/" (copied over the root).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
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

#define MAX_SERVICES 8
#define MAX_WORDS 16

struct service {
	char *name;
	char *argv[MAX_WORDS + 1];
	pid_t pid;
	time_t started;
	time_t not_before;
};

struct node {
	char *config;
	char *hostname;
	char *address;
	char *script_limit; /* set: run /node/files/lab/script and power off */
	struct service services[MAX_SERVICES];
	int num_services;
};

/* Set by the handlers of process 1: leave the main loop with this action. */
static volatile sig_atomic_t wanted_action;

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	struct timespec ts;
	char text[512];
	va_list ap;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	dprintf(2, "node-init: %ld.%03ld: %s\n", (long)ts.tv_sec, ts.tv_nsec / 1000000,
		text);
}

static void __attribute__((noreturn)) power(int action)
{
	sync();
	reboot(action);
	for (;;)
		pause();
}

static void __attribute__((noreturn)) die(const char *what)
{
	say("%s: %s", what, strerror(errno));
	power(RB_POWER_OFF);
}

static void try_mount(const char *source, const char *target, const char *type,
		      unsigned long flags, const char *data)
{
	mkdir(target, 0755);
	if (mount(source, target, type, flags, data) < 0)
		say("mount %s on %s: %s", source, target, strerror(errno));
}

/* Reads a whole small file; NULL when there is none. */
static char *load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t size = 0, room = 65536;
	char *text;
	ssize_t n;

	if (fd < 0)
		return NULL;
	text = malloc(room);
	while (text && size + 1 < room &&
	       (n = read(fd, text + size, room - size - 1)) > 0)
		size += n;
	close(fd);
	if (text)
		text[size] = '\0';
	return text;
}

static void load_modules(void)
{
	char *list = load("/node/modules"), *save = NULL, *path;

	for (path = strtok_r(list, "\n", &save); path;
	     path = strtok_r(NULL, "\n", &save)) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0 ||
		    (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
			say("module %s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
	}
	free(list);
}

/* Copies a tree with modes and owners; only files, links and directories. */
static void copy_tree(const char *from, const char *to)
{
	char source[4096], target[4096], buf[65536];
	struct dirent *e;
	DIR *dir = opendir(from);
	struct stat st;

	while (dir && (e = readdir(dir))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(source, sizeof(source), "%s/%s", from, e->d_name);
		snprintf(target, sizeof(target), "%s/%s", to, e->d_name);
		if (lstat(source, &st) < 0)
			continue;
		if (S_ISDIR(st.st_mode)) {
			mkdir(target, st.st_mode & 07777);
			if (lchown(target, st.st_uid, st.st_gid) < 0 ||
			    chmod(target, st.st_mode & 07777) < 0)
				say("owner of %s: %s", target, strerror(errno));
			copy_tree(source, target);
		} else if (S_ISLNK(st.st_mode)) {
			ssize_t n = readlink(source, buf, sizeof(buf) - 1);

			buf[n > 0 ? n : 0] = '\0';
			unlink(target);
			if (symlink(buf, target) < 0)
				say("link %s: %s", target, strerror(errno));
		} else {
			int in = open(source, O_RDONLY | O_CLOEXEC);
			int out = open(target, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
				       st.st_mode & 07777);
			ssize_t n;

			while ((n = read(in, buf, sizeof(buf))) > 0)
				if (write(out, buf, n) != n)
					say("write %s: %s", target, strerror(errno));
			if (fchmod(out, st.st_mode & 07777) < 0 ||
			    fchown(out, st.st_uid, st.st_gid) < 0)
				say("owner of %s: %s", target, strerror(errno));
			close(in);
			close(out);
		}
	}
	if (dir)
		closedir(dir);
}

/* The block device whose virtio serial is the given one, or NULL. */
static const char *find_disk(const char *serial, char *path, size_t size)
{
	char sys[300], *text;
	struct dirent *e;
	DIR *dir = opendir("/sys/block");
	bool found = false;

	while (dir && !found && (e = readdir(dir))) {
		snprintf(sys, sizeof(sys), "/sys/block/%s/serial", e->d_name);
		text = load(sys);
		found = text && !strcmp(text, serial);
		if (found)
			snprintf(path, size, "/dev/%s", e->d_name);
		free(text);
	}
	if (dir)
		closedir(dir);
	return found ? path : NULL;
}

static const char *find_port(const char *name, char *path, size_t size)
{
	char sys[300], *text;
	struct dirent *e;
	DIR *dir = opendir("/sys/class/virtio-ports");
	bool found = false;

	while (dir && !found && (e = readdir(dir))) {
		snprintf(sys, sizeof(sys), "/sys/class/virtio-ports/%s/name", e->d_name);
		text = load(sys);
		if (text)
			text[strcspn(text, "\n")] = '\0';
		found = text && !strcmp(text, name);
		if (found)
			snprintf(path, size, "/dev/%s", e->d_name);
		free(text);
	}
	if (dir)
		closedir(dir);
	return found ? path : NULL;
}

static void enter_root(void)
{
	char disk[300];

	try_mount("proc", "/proc", "proc", 0, NULL);
	try_mount("sys", "/sys", "sysfs", 0, NULL);
	try_mount("dev", "/dev", "devtmpfs", 0, NULL);
	load_modules();
	if (!find_disk("root", disk, sizeof(disk)))
		die("root disk");
	try_mount(disk, "/ro", "erofs", MS_RDONLY, NULL);
	try_mount("rw", "/rw", "tmpfs", 0, "mode=755");
	mkdir("/rw/upper", 0755);
	mkdir("/rw/work", 0755);
	mkdir("/root", 0755);
	if (mount("root", "/root", "overlay", 0,
		  "lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work") < 0)
		die("overlay root");
	copy_tree("/node/files", "/root");
	mount("/proc", "/root/proc", NULL, MS_MOVE, NULL);
	mount("/sys", "/root/sys", NULL, MS_MOVE, NULL);
	mount("/dev", "/root/dev", NULL, MS_MOVE, NULL);
	if (chdir("/root") < 0 || mount("/root", "/", NULL, MS_MOVE, NULL) < 0 ||
	    chroot(".") < 0 || chdir("/") < 0)
		die("enter root");
}

static int split(char *line, char **words, int max)
{
	char *save = NULL, *word;
	int n = 0;

	for (word = strtok_r(line, " ", &save); word && n < max;
	     word = strtok_r(NULL, " ", &save))
		words[n++] = word;
	words[n] = NULL;
	return n;
}

static pid_t spawn(char **argv, int out)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	if (out >= 0) {
		dup2(out, 1);
		dup2(out, 2);
	}
	execv(argv[0], argv);
	say("run %s: %s", argv[0], strerror(errno));
	_exit(127);
}

static void link_up(const char *name)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = {0};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	ifr.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		say("link %s up: %s", name, strerror(errno));
	close(fd);
}

static void set_address(const char *name, const char *address)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in sin = {.sin_family = AF_INET};
	struct ifreq ifr = {0};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	inet_pton(AF_INET, address, &sin.sin_addr);
	memcpy(&ifr.ifr_addr, &sin, sizeof(sin));
	if (ioctl(fd, SIOCSIFADDR, &ifr) < 0)
		say("address %s: %s", address, strerror(errno));
	inet_pton(AF_INET, "255.255.255.0", &sin.sin_addr);
	memcpy(&ifr.ifr_netmask, &sin, sizeof(sin));
	if (ioctl(fd, SIOCSIFNETMASK, &ifr) < 0)
		say("netmask: %s", strerror(errno));
	close(fd);
	link_up(name);
}

static void mount_cgroups(void)
{
	static const char *const controllers[] = {
		"cpu",	   "cpuacct", "cpuset", "memory",
		"devices", "freezer", "pids",	"blkio",
	};
	char path[64];

	try_mount("cgroup", "/sys/fs/cgroup", "tmpfs", 0, "mode=755");
	for (size_t i = 0; i < sizeof(controllers) / sizeof(controllers[0]); i++) {
		snprintf(path, sizeof(path), "/sys/fs/cgroup/%s", controllers[i]);
		try_mount("cgroup", path, "cgroup", 0, controllers[i]);
	}
}

/* Applies one line of the configuration. */
static void configure(struct node *node, char *line)
{
	char *words[MAX_WORDS + 1], disk[300];
	int n = split(line, words, MAX_WORDS);

	if (n < 2)
		return;
	if (!strcmp(words[0], "hostname")) {
		node->hostname = words[1];
		if (sethostname(words[1], strlen(words[1])) < 0)
			say("hostname: %s", strerror(errno));
	} else if (!strcmp(words[0], "address")) {
		set_address("eth0", words[1]);
	} else if (!strcmp(words[0], "modprobe")) {
		char *argv[MAX_WORDS + 3] = {"/sbin/modprobe", "-a"};

		memcpy(argv + 2, words + 1, n * sizeof(*words));
		waitpid(spawn(argv, -1), NULL, 0);
	} else if (!strcmp(words[0], "disk") && n == 4) {
		/* disk SERIAL DIR TYPE */
		if (find_disk(words[1], disk, sizeof(disk)))
			try_mount(disk, words[2], words[3],
				  strcmp(words[3], "erofs") ? 0 : MS_RDONLY, NULL);
	} else if (!strcmp(words[0], "share") && n == 3) {
		/* share TAG DIR */
		try_mount(words[1], words[2], "9p", 0,
			  "trans=virtio,version=9p2000.L,msize=131072,cache=none,access="
			  "client");
	} else if (!strcmp(words[0], "run")) {
		waitpid(spawn(words + 1, -1), NULL, 0);
	} else if (!strcmp(words[0], "script")) {
		node->script_limit = words[1];
	} else if (!strcmp(words[0], "service") && node->num_services < MAX_SERVICES) {
		struct service *s = &node->services[node->num_services];

		if (access(words[2], X_OK) < 0)
			return;
		s->name = words[1];
		memcpy(s->argv, words + 2, (n - 1) * sizeof(*words));
		node->num_services++;
	} else {
		say("config: what is %s?", words[0]);
	}
}

static void set_up(struct node *node)
{
	char *save = NULL, *line;

	try_mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
	try_mount("tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	try_mount("devpts", "/dev/pts", "devpts", 0, "gid=5,mode=620,ptmxmode=666");
	try_mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	if (symlink("/proc/self/fd", "/dev/fd") < 0 && errno != EEXIST)
		say("/dev/fd: %s", strerror(errno));
	mount_cgroups();
	link_up("lo");
	for (line = strtok_r(node->config, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		configure(node, line);
}

static void start_service(struct service *s)
{
	char path[128];
	int log;

	snprintf(path, sizeof(path), "/var/log/%s.out", s->name);
	log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	s->started = time(NULL);
	s->pid = spawn(s->argv, log);
	if (log >= 0)
		close(log);
}

static void on_signal(int signal_number)
{
	wanted_action = signal_number == SIGUSR2 ? RB_POWER_OFF : RB_AUTOBOOT;
}

/* Reaps orphans for ever; a service that ended starts again, after a second
 * when it had just been started. A service can be held with /run/hold/NAME. */
static void __attribute__((noreturn)) supervise(struct node *node)
{
	char hold[128];

	mkdir("/run/hold", 0755);
	for (;;) {
		struct timespec tick = {.tv_sec = 0, .tv_nsec = 200000000};
		sigset_t set;
		pid_t pid;
		int status;

		for (int i = 0; i < node->num_services; i++) {
			struct service *s = &node->services[i];

			snprintf(hold, sizeof(hold), "/run/hold/%s", s->name);
			if (s->pid <= 0 && time(NULL) >= s->not_before &&
			    access(hold, F_OK) < 0)
				start_service(s);
		}
		sigemptyset(&set);
		sigaddset(&set, SIGCHLD);
		sigtimedwait(&set, NULL, &tick);
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
			for (int i = 0; i < node->num_services; i++) {
				struct service *s = &node->services[i];

				if (s->pid != pid)
					continue;
				say("service %s ended with status 0x%x", s->name, status);
				s->pid = 0;
				s->not_before =
					time(NULL) - s->started < 2 ? time(NULL) + 1 : 0;
			}
		}
		if (wanted_action)
			power(wanted_action);
	}
}

/* Runs the one script of a script node; its exit code goes to a port of its
 * own so that its output needs no marks. */
static void __attribute__((noreturn)) run_script(const struct node *node)
{
	char path[300],
		*argv[] = {"/usr/bin/timeout", "-k",	      "5", node->script_limit,
			   "/bin/bash",	       "/lab/script", NULL};
	int out = -1, code = -1, status = 0;
	char *cwd = load("/lab/cwd");
	pid_t pid;

	if (find_port("out", path, sizeof(path)))
		out = open(path, O_WRONLY | O_CLOEXEC);
	if (find_port("code", path, sizeof(path)))
		code = open(path, O_WRONLY | O_CLOEXEC);
	if (out < 0 || code < 0)
		die("ports of the script");
	if (cwd && chdir(cwd) < 0)
		say("chdir %s: %s", cwd, strerror(errno));
	pid = spawn(argv, out);
	while (waitpid(-1, &status, 0) != pid)
		;
	dprintf(code, "%d\n",
		WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	fsync(code);
	close(out);
	close(code);
	power(RB_POWER_OFF);
}

int main(void)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct node node = {0};
	sigset_t set;

	node.config = load("/node/config");
	if (!node.config)
		die("/node/config");
	setenv("PATH",
	       "/opt/favo/sbin:/opt/favo/bin:/usr/local/sbin:/usr/local/bin:"
	       "/usr/sbin:/usr/bin:/sbin:/bin",
	       1);
	setenv("HOME", "/root", 1);
	enter_root();
	sigaction(SIGUSR2, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	set_up(&node);
	say("%s is up", node.hostname ? node.hostname : "node");
	if (node.script_limit)
		run_script(&node);
	supervise(&node);
}
